"""Circuits as sets of edges: the model with all other edges patched to the corrupted run, and how much of the metric is left.

Every receiver reads its own mixture: the stream of the run itself, minus what the senders of its cut edges write there, plus
what they write in the corrupted run. In one forward pass each prompt has a row for the run itself and one for each distinct
mixture of a layer; what a receiver makes of its mixture is copied back into the run. So norms, rotary positions and whatever
else lies between stream and receiver are the model's own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from interp.errors import DataError
from interp.interventions.edges import INPUT, READS, Edge, Wiring, site_of, wiring
from interp.interventions.modes import capture
from interp.interventions.pair_runs import ROWS, Pairs, Tokens, Values
from interp.metrics.base import MetricLike
from interp.metrics.values import check_treats_rows_alone, measured_values, row_chunks
from interp.models.calling import device_of
from interp.result import Result
from interp.running import Intervention
from interp.seeds import seed_for
from interp.sites import OUTPUT, HookedModel, Site

Circuit = Sequence[Edge]
Circuits = Mapping[str, Circuit] | Sequence[Circuit]


def top_edges(scores: Result, n: int) -> list[Edge]:
    """The `n` edges of `edge_attribution` or `edge_patching` whose values are largest in size, largest first.

    Equal values keep the order of the result; undefined ones (no edge) are left out. Raises `DataError` for a result with
    other axes, and when there are fewer than `n`.
    """
    if scores.axes != ("sender", "receiver"):
        raise DataError(f"edges of {scores.name!r}", f"its axes are {scores.axes}", "Give a result with axes sender, receiver")
    frame = scores.to_frame().dropna(subset=["value"])
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= len(frame):
        raise DataError(
            f"the top {n!r} edges", f"{scores.name!r} has {len(frame)} of them", f"Give a number from 0 to {len(frame)}"
        )
    frame = frame.reindex(frame["value"].abs().sort_values(ascending=False, kind="stable").index)[:n]
    return [Edge(site_of(sender), site_of(receiver)) for sender, receiver in zip(frame["sender"], frame["receiver"], strict=True)]


def circuit_values(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    circuits: Circuits,
    *,
    values: Values = "metric",
    batch_size: int = ROWS,
    progress: bool = True,
) -> Result:
    """The metric of each circuit alone, axis "circuit": run on the clean tokens, all other edges as in the corrupted run.

    A circuit is a set of `Edge`s of `wiring(model, clean)`; a mapping names them. Exact: all edges give the clean run, none the
    corrupted one, and all but one what `edge_patching` with `direction="noising"` gives, to rounding. `values` "effect"
    subtracts the clean run's metric; "recovery" is 0 as corrupted, 1 as clean, NaN for pairs without a gap. Mean over pairs.
    Raises as `wiring` does, and `SiteError` for an edge that the model lacks. Cost: one forward pass per circuit and pair, of
    1 + (distinct mixtures in a layer) rows, at most 2 + the queries, keys and values of a layer; `batch_size` rows at a time.
    """
    pairs = Pairs(model, clean, corrupted, metric, "noising")
    pairs.check_values(values)
    graph = wiring(model, pairs.both)
    named = dict(circuits) if isinstance(circuits, Mapping) else {str(i): circuit for i, circuit in enumerate(circuits)}
    if not named:
        raise DataError("running circuits", "there are none", "Give at least one set of edges")
    for circuit in named.values():
        graph.check(circuit)
    readings = _metrics(pairs, graph, [_kept(graph, circuit) for circuit in named.values()], batch_size, progress)
    labels = {"circuit": tuple(named)} if isinstance(circuits, Mapping) else {}
    name, told = f"{pairs.metric.name} of circuits", "all other edges corrupted"
    return pairs.result(readings, name, axes=("circuit",), labels=labels, values=values, told=told)


def circuit_curve(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    scores: Result,
    *,
    sizes: Sequence[int],
    draws: int = 4,
    seed: int = 0,
    batch_size: int = ROWS,
    progress: bool = True,
) -> Result:
    """Faithfulness and completeness of the top edges of `scores`, beside random edges; axes (curve, size, quantity).

    "faithfulness": how much of the clean metric the circuit keeps when all other edges are corrupted, "completeness": how much
    the model keeps when the circuit's edges are corrupted and no others (a complete circuit leaves 0). Both as recovery: 0 as
    corrupted, 1 as clean. Curve "top" has the edges of `top_edges`; "random 1" … as many edges, drawn by `seed` from all of the
    model's, larger sets holding the smaller; the baseline is the mean of the random curves. Standard errors are over pairs; pairs
    without a gap are left out and counted. Cost: 2 · (1 + draws) · sizes circuits, see `circuit_values`.
    """
    pairs = Pairs(model, clean, corrupted, metric, "noising")
    pairs.check_values("recovery")
    graph = wiring(model, pairs.both)
    sizes = tuple(sizes)
    if not sizes or len(set(sizes)) < len(sizes):
        raise DataError(
            f"circuits of sizes {sizes}", "a list of different numbers was expected", "Write for example [10, 30, 100]"
        )
    if draws < 1:
        raise DataError(f"circuits with {draws} random draws", "without a control they cannot be judged", "Give draws ≥ 1")
    ranked = top_edges(scores, max(sizes))
    graph.check(ranked)
    generator = torch.Generator().manual_seed(seed_for("random circuits", seed))
    shuffles = [torch.randperm(len(graph.edges), generator=generator).tolist() for _ in range(draws)]
    orders = [ranked, *([graph.edges[i] for i in order] for order in shuffles)]
    kept = [_kept(graph, order[:size]) for order in orders for size in sizes]
    both = [mask for circuit in kept for mask in (circuit, ~circuit)]
    readings = _metrics(pairs, graph, both, batch_size, progress)
    table = rearrange(readings, "pair (curve size quantity) -> pair curve size quantity", curve=len(orders), size=len(sizes))
    labels = {
        "curve": ("top", *(f"random {draw + 1}" for draw in range(draws))),
        "size": tuple(map(str, sizes)),
        "quantity": ("faithfulness", "completeness"),
    }
    axes = ("curve", "size", "quantity")
    name, told = f"{pairs.metric.name} of circuits", f"edges by {scores.name}"
    result = pairs.result(table, name, axes=axes, labels=labels, values="recovery", told=told)
    provenance = dataclasses.replace(result.provenance, seed=seed)
    return dataclasses.replace(result, baseline=result.values[1:].mean(0), provenance=provenance)


Mask = Bool[Tensor, "receiver sender"]


def _kept(graph: Wiring, circuit: Circuit) -> Mask:
    """True at the circuit's edges."""
    mask = torch.zeros(len(graph.receivers), len(graph.senders), dtype=torch.bool)
    for edge in circuit:
        mask[graph.receivers.index(edge.receiver), graph.senders.index(edge.sender)] = True
    return mask


def _metrics(pairs: Pairs, graph: Wiring, kept: Sequence[Mask], batch_size: int, progress: bool) -> Float[Tensor, "pair circuit"]:
    check_treats_rows_alone(pairs.model, pairs.base, pairs.metric)
    exists = _kept(graph, graph.edges)
    cuts = [_Cuts.of(graph, exists & ~mask) for mask in kept]
    readings = torch.full((len(pairs.base), len(cuts)), torch.nan, dtype=torch.float64)
    sites = [Site("z", layer) for layer in graph.layers] + [Site("mlp_out", layer) for layer in graph.mlps]
    order = sorted(range(len(cuts)), key=lambda i: cuts[i].n_rows)  # alike in one batch: it has as many rows as the largest needs
    chunks = row_chunks(len(readings), batch_size)
    with tqdm(total=len(chunks) * len(cuts), desc="running circuits", unit="circuit", disable=not progress) as bar:
        for rows in chunks:
            corrupted = capture(pairs.model, pairs.source[rows], [INPUT, *sites])
            todo = list(order)
            while todo:
                fit = [i for n, i in enumerate(todo) if n == 0 or cuts[i].n_rows * len(rows) * (n + 1) <= batch_size]
                batch = _Mixed(graph, [cuts[i] for i in fit], corrupted)
                tokens = pairs.base[rows].repeat(len(fit) * batch.n_rows, 1).to(device_of(pairs.model))
                metric = pairs.metric.select(rows.repeat(len(fit) * batch.n_rows))
                found = measured_values(pairs.model, tokens, metric, [batch])
                found = rearrange(found, "(circuit row pair) -> row pair circuit", circuit=len(fit), row=batch.n_rows)[0]
                readings[rows[:, None], torch.tensor(fit)] = found.to(readings)
                todo = [i for i in todo if i not in fit]
                bar.update(len(fit))
    return readings


@dataclass(frozen=True, eq=False)
class _Cuts:
    """The cut edges of one circuit, and the row of the batch from which each receiver is read.

    Row 0 is the run itself, from which a receiver without cut edges is read. A layer's other rows hold its distinct mixtures;
    an MLP after the attention has a row to itself, because its mixture is made later.
    """

    cut: Bool[Tensor, "receiver sender"]
    row_of: Mapping[Site, int]
    n_rows: int

    @classmethod
    def of(cls, graph: Wiring, cut: Bool[Tensor, "receiver sender"]) -> "_Cuts":
        row_of: dict[Site, int] = {}
        most = 0
        for layer in graph.layers:
            mixtures: dict[tuple, int] = {}
            for receiver, row in zip(graph.receivers, cut.tolist(), strict=True):
                if receiver == OUTPUT or receiver.layer != layer:
                    continue
                key = (*row, receiver.kind == "mlp_out" and layer not in graph.parallel)
                row_of[receiver] = mixtures.setdefault(key, len(mixtures) + 1) if any(row) else 0
            most = max(most, len(mixtures))
        return cls(cut, row_of, 1 + most)


@dataclass(frozen=True, eq=False)
class _Mixed(Intervention):
    """Some circuits in one batch, whose rows are circuits × rows × pairs; see the module."""

    graph: Wiring
    circuits: Sequence[_Cuts]
    corrupted: Mapping[Site, Tensor]
    changes: dict[Site, Tensor] = field(default_factory=dict)  # corrupted − this run, of each sender: [circuit pair pos d_model]

    @property
    def n_rows(self) -> int:
        return max(cuts.n_rows for cuts in self.circuits)

    def sites(self, model: HookedModel) -> Sequence[Site]:
        per_layer = ("resid_pre", *READS, "z")
        sites = [Site(kind, layer) for layer in self.graph.layers for kind in per_layer]
        sites += [Site(kind, layer) for layer in self.graph.mlps for kind in ("attn_out", "mlp_out")]
        return [*sites, Site("resid_post", self.graph.layers[-1])]

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        x = rearrange(activation, "(circuit row pair) ... -> circuit row pair ...", circuit=len(self.circuits), row=self.n_rows)
        kind, layer = site.kind, cast(int, site.layer)
        if kind == "resid_pre":
            self._begin_layer(x, layer)
        elif kind in READS:
            self._read_heads(x, kind, layer)
        elif kind == "z":
            written = self.graph.written(layer, self.corrupted[site].to(x) - x[:, 0])
            self.changes.update({Site("z", layer, head=head): change for head, change in enumerate(written)})
        elif kind == "attn_out" and layer not in self.graph.parallel:
            self._mix_mlp(x, layer)
        elif kind == "mlp_out":
            for index, cuts in enumerate(self.circuits):
                x[index, 0] = x[index, cuts.row_of[site]]
            self.changes[site] = self.corrupted[site].to(x) - x[:, 0]
        elif kind == "resid_post":
            for index, cuts in enumerate(self.circuits):
                x[index, 0] += self._mixture(index, cuts, OUTPUT)
        return activation

    def _begin_layer(self, x: Tensor, layer: int) -> None:
        if layer == INPUT.layer:
            self.changes.clear()
            self.changes[INPUT] = self.corrupted[INPUT].to(x) - x[:, 0]
        for index, cuts in enumerate(self.circuits):
            x[index, 1:] = x[index, 0]
            readers = {row: receiver for receiver, row in cuts.row_of.items() if receiver.layer == layer and row}
            for row, receiver in readers.items():
                if receiver.kind != "mlp_out" or layer in self.graph.parallel:
                    x[index, row] += self._mixture(index, cuts, receiver)

    def _read_heads(self, x: Float[Tensor, "circuit row pair pos head d_head"], kind: str, layer: int) -> None:
        for index, cuts in enumerate(self.circuits):
            for head in range(x.shape[4]):
                x[index, 0, :, :, head] = x[index, cuts.row_of[Site(kind, layer, head=head)], :, :, head]

    def _mix_mlp(self, x: Tensor, layer: int) -> None:
        """The MLP's row has the run's own stream so far; with this attn_out it reads its mixture."""
        mlp = Site("mlp_out", layer)
        for index, cuts in enumerate(self.circuits):
            if row := cuts.row_of[mlp]:
                x[index, row] = x[index, 0] + self._mixture(index, cuts, mlp)

    def _mixture(self, index: int, cuts: _Cuts, receiver: Site) -> Tensor:
        """Σ over the receiver's cut edges of corrupted − this run; exactly 0 without any."""
        row = cuts.cut[self.graph.receivers.index(receiver)]
        changes = [self.changes[sender][index] for sender, cut in zip(self.graph.senders, row.tolist(), strict=True) if cut]
        return torch.stack(changes).sum(0) if changes else torch.zeros_like(self.changes[INPUT][index])
