"""Path patching: what a sender does to the output through chosen receivers only (Wang et al. 2022), and exact edge patching.

Two runs make one path. In the first the sender writes what it writes in the other run, every other head what it writes in this
one, and the MLPs are recomputed or held as well; what the receivers make of that is noted. In the second the receivers are set
to what was noted and all else runs freely. Nothing is assumed about norms, projections or residual streams: a model without
one has only paths between neighbouring layers, and that is what comes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp.errors import SiteError, nearest
from interp.interventions.edges import INPUT, READS, Edge, name_of, wiring
from interp.interventions.edits import part_index
from interp.interventions.modes import Capture, capture
from interp.interventions.pair_runs import ROWS, Direction, Pairs, Tokens, Values, one_of
from interp.metrics.base import MetricLike
from interp.metrics.values import MetricValues, check_treats_rows_alone, row_chunks
from interp.models.calling import device_of, standing_hooks
from interp.result import Result
from interp.running import Intervention, Probe, measure
from interp.sites import OUTPUT, HookedModel, Site, check_site, layers_with, sites_of

Through = Literal["mlps", "nothing"]
THROUGH = ("mlps", "nothing")
SENDERS = ("heads", "mlps", "input")
RECEIVERS = (*READS, "z", "mlp_out", "logits")
Batch = Sequence["Cell"]


@dataclass(frozen=True)
class Cell:
    """One path: a sender and the receivers through which it is felt."""

    sender: Site
    receivers: tuple[Site, ...]

    @property
    def is_path(self) -> bool:
        """Whether some receiver comes after the sender (within a layer: heads, then the MLP)."""
        return any(map(self._reaches, self.receivers))

    def _reaches(self, receiver: Site) -> bool:
        if self.sender == INPUT or receiver == OUTPUT:
            return True
        start, end = cast(int, self.sender.layer), cast(int, receiver.layer)
        return start < end or (start == end and self.sender.kind == "z" and receiver.kind == "mlp_out")


def path_patching(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    receivers: Site | Sequence[Site],
    *,
    senders: str | Sequence[Site] = "heads",
    through: Through = "mlps",
    direction: Direction = "denoising",
    values: Values = "metric",
    batch_size: int = ROWS,
    progress: bool = True,
) -> Result:
    """The metric when each sender is patched and only `receivers` feel it (Wang et al. 2022); mean over pairs.

    `direction`: "denoising" runs on the corrupted tokens and gives the sender what it writes on the clean ones; "noising" the
    other way. `senders`: "heads" (axes layer, head), "mlps" (axis layer), "input" (no axis: what enters the first block), or
    sites (axis sender): `Site("z", 0, head=1)`, `Site("mlp_out", 0)`, `Site("resid_pre", 0)`, each with a position if wanted.
    `receivers`: q, k, v or z (a head's three inputs at once), of one head or of all of a layer; mlp_out; or alone
    `Site("logits")`, which makes it the direct effect. `through`: "mlps" recomputes all MLPs between sender and receivers,
    "nothing" holds them at the base run. Whatever is neither head nor MLP is recomputed.

    `values`: "metric" under the patch; "effect", minus that of the untouched base run; "recovery", (metric − corrupted) /
    (clean − corrupted), NaN for pairs without a gap, refused when none has one. The `baseline` is that of the base run. A
    sender after all receivers has effect 0. Pairs whose metric is NaN are left out and counted. Exact: equals two `run`s per
    sender with `Replace` at every other head. Raises `SiteError`, `ConfigError` and `DataError` for what does not exist or fit.
    Cost: two forward passes per pair, and two per sender and pair (one to the logits), `batch_size` rows at a time.
    """
    pairs = Pairs(model, clean, corrupted, metric, direction)
    pairs.check_values(values)
    chosen = tuple([receivers] if isinstance(receivers, Site) else receivers)
    _check_receivers(model, chosen)
    found, axes, shape = _senders(model, senders, pairs.both)
    cells = [Cell(sender, chosen) for sender in found]
    labels = {"sender": tuple(name_of(sender) for sender in found)} if axes == ("sender",) else {}
    if "layer" in axes:
        labels["layer"] = tuple(dict.fromkeys(str(sender.layer) for sender in found))
    name = f"{pairs.metric.name}, paths to {', '.join(map(name_of, chosen))}"
    told = f"{direction}; through {through}"
    readings = Paths(model, pairs, through, batch_size).metrics(cells, progress)
    return pairs.result(readings.reshape(len(readings), *shape), name, axes=axes, labels=labels, values=values, told=told)


def edge_patching(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    edges: Sequence[Edge] | None = None,
    *,
    direction: Direction = "denoising",
    values: Values = "effect",
    batch_size: int = ROWS,
    progress: bool = True,
) -> Result:
    """The exact effect of each edge: one receiver alone reads one sender as in the other run; axes (sender, receiver).

    Metric(patched) − metric(base), mean over pairs; other `values` as in `path_patching`. `edges`: some of
    `wiring(model, clean).edges`, None: all. Entries that are no edge, or not asked for, are NaN. All else as in
    `path_patching` with `through="nothing"`, which it equals entry by entry. Raises also as `wiring` does. Cost: two forward
    passes per edge and pair (one per edge to the logits): for small models; `edge_attribution` estimates all at once.
    """
    pairs = Pairs(model, clean, corrupted, metric, direction)
    pairs.check_values(values)
    graph = wiring(model, pairs.both)
    edges = graph.edges if edges is None else list(edges)
    graph.check(edges)
    readings = Paths(model, pairs, "nothing", batch_size).metrics(
        [Cell(edge.sender, (edge.receiver,)) for edge in edges], progress
    )
    table = torch.full((len(readings), len(graph.senders), len(graph.receivers)), torch.nan, dtype=torch.float64)
    places = torch.tensor([[graph.senders.index(edge.sender), graph.receivers.index(edge.receiver)] for edge in edges])
    if len(edges):
        table[:, places[:, 0], places[:, 1]] = readings
    labels = {"sender": tuple(map(name_of, graph.senders)), "receiver": tuple(map(name_of, graph.receivers))}
    name = f"{pairs.metric.name}, edges patched"
    return pairs.result(table, name, axes=("sender", "receiver"), labels=labels, values=values, told=direction)


@dataclass(frozen=True, eq=False)
class Paths:
    """Runs paths, many per forward pass: rows are cells × pairs."""

    model: HookedModel
    pairs: Pairs
    through: Through
    batch_size: int

    def __post_init__(self) -> None:
        one_of("through", self.through, THROUGH)
        row_chunks(1, self.batch_size)
        check_treats_rows_alone(self.model, self.pairs.base, self.pairs.metric)

    def metrics(self, cells: Sequence[Cell], progress: bool) -> Float[Tensor, "pair cell"]:
        """The metric of each pair under each cell's patch."""
        readings = self.pairs.base_values[:, None].repeat(1, len(cells))
        to_run = [i for i, cell in enumerate(cells) if cell.is_path]
        direct = [i for i in to_run if OUTPUT in cells[i].receivers]
        others = [i for i in to_run if OUTPUT not in cells[i].receivers]
        chunks = row_chunks(len(readings), self.batch_size)
        hooked = bool(standing_hooks(self.model))  # they may tell rows apart, and then must see those of one cell alone
        with tqdm(total=len(chunks) * len(to_run), desc="patching paths", unit="path", disable=not progress) as bar:
            for rows in chunks if to_run else ():
                held = self._held([cells[i] for i in to_run], rows)
                step = 1 if hooked else max(1, self.batch_size // len(rows))
                for group, run in ((direct, self._direct), (others, self._indirect)):
                    for start in range(0, len(group), step):
                        places = group[start : start + step]
                        found = run(_Held([cells[i] for i in places], *held), rows)
                        readings[rows[:, None], torch.tensor(places)] = found.to(readings)
                        bar.update(len(places))
        return readings

    def _held(self, cells: Batch, rows: Tensor) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        """What is held at the base run, and what the senders write in the other."""
        heads = sites_of(self.model, "z")
        mlps = [Site("mlp_out", layer) for layer in layers_with(self.model, "mlp_out")] if self.through == "nothing" else []
        senders = list(dict.fromkeys(Site(cell.sender.kind, cell.sender.layer) for cell in cells))
        base = capture(self.model, self.pairs.base[rows], [*heads, *mlps])
        return base, capture(self.model, self.pairs.source[rows], senders)

    def _direct(self, first: "_Held", rows: Tensor) -> Float[Tensor, "pair cell"]:
        return self._measured(first, rows, self._metric(rows, first.cells))

    def _indirect(self, first: "_Held", rows: Tensor) -> Float[Tensor, "pair cell"]:
        self._measured(first, rows, Capture(Site("z", layers_with(self.model, "z")[0], position=0)))  # run for its notes
        return self._measured(_Set(first.cells, first.noted), rows, self._metric(rows, first.cells))

    def _metric(self, rows: Tensor, cells: Batch) -> Probe:
        return MetricValues(self.pairs.metric.select(rows.repeat(len(cells))))

    def _measured(self, patch: "_Held | _Set", rows: Tensor, probe: Probe) -> Tensor:
        n_cells = len(patch.cells)
        tokens = self.pairs.base[rows].repeat(n_cells, 1).to(device_of(self.model))
        values = measure(self.model, tokens, [probe], [patch])[probe.name].values
        return rearrange(values, "(cell pair) ... -> pair cell ...", cell=n_cells)


@dataclass(frozen=True, eq=False)
class _Held(Intervention):
    """The first run: senders write `source`, what is in `base` is held there, and the receivers' activations are noted."""

    cells: Batch
    base: Mapping[Site, Tensor]
    source: Mapping[Site, Tensor]
    noted: dict[Site, Tensor] = field(default_factory=dict)

    def sites(self, model: HookedModel) -> Sequence[Site]:
        noted = [Site(r.kind, r.layer) for cell in self.cells for r in cell.receivers if r != OUTPUT]
        return list(dict.fromkeys([*self.base, *self.source, *noted]))

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        n_cells = len(self.cells)
        if any(_same(site, receiver) for cell in self.cells for receiver in cell.receivers):
            self.noted[site] = activation.clone()
        if site in self.base:
            activation = repeat(self.base[site], "pair ... -> (cell pair) ...", cell=n_cells).clone()
        by_cell = rearrange(activation, "(cell pair) ... -> cell pair ...", cell=n_cells)
        for index, cell in enumerate(self.cells):
            if _same(site, cell.sender):
                part = part_index(cell.sender, by_cell[index])
                by_cell[index][part] = self.source[site][part].to(activation)
        return activation


@dataclass(frozen=True, eq=False)
class _Set(Intervention):
    """The second run: each cell's receivers are set to what was noted, and nothing else is touched."""

    cells: Batch
    noted: Mapping[Site, Tensor]

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return list(self.noted)

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        by_cell, noted = (
            rearrange(x, "(cell pair) ... -> cell pair ...", cell=len(self.cells)) for x in (activation, self.noted[site])
        )
        for index, cell in enumerate(self.cells):
            for receiver in cell.receivers:
                if _same(site, receiver):
                    part = part_index(receiver, by_cell[index])
                    by_cell[index][part] = noted[index][part]
        return activation


def _same(site: Site, part: Site) -> bool:
    return (site.kind, site.layer) == (part.kind, part.layer)


def _senders(
    model: HookedModel, senders: str | Sequence[Site], tokens: Tokens
) -> tuple[list[Site], tuple[str, ...], tuple[int, ...]]:
    """The senders, the result's axes for them, and their sizes."""
    if not isinstance(senders, str):
        found = list(senders)
        for site in found:
            _check_part(model, "sender", site, ("z", "mlp_out", "resid_pre"))
            if site.kind == "resid_pre" and site.layer != 0:
                raise SiteError(f"sender {site}", "only what enters the first block is one", "Write Site('resid_pre', 0)")
        if not found:
            raise SiteError("path patching without senders", "none were given", f"Name {', '.join(SENDERS)}, or give sites")
        return found, ("sender",), (len(found),)
    one_of("senders", senders, SENDERS)
    if senders == "input":
        check_site(model, INPUT)
        return [INPUT], (), ()
    if senders == "mlps":
        found = sites_of(model, "mlp_out")
        return found, ("layer",), (len(found),)
    sites = sites_of(model, "z")
    counts = {z.shape[2] for z in capture(model, tokens, sites).values()}
    if len(counts) > 1:
        raise SiteError("path patching from all heads", f"layers have {sorted(counts)} heads", "Give the senders as sites")
    n_heads = counts.pop()
    found = [Site("z", site.layer, head=head) for site in sites for head in range(n_heads)]
    return found, ("layer", "head"), (len(sites), n_heads)


def _check_receivers(model: HookedModel, receivers: tuple[Site, ...]) -> None:
    if not receivers:
        raise SiteError("path patching without receivers", "none were given", "Give for example Site('k', 1, head=0)")
    for site in receivers:
        _check_part(model, "receiver", site, RECEIVERS)
    if OUTPUT in receivers and len(receivers) > 1:
        told = "setting what the logits read hides every other receiver"
        raise SiteError("the logits among other receivers", told, "Ask for Site('logits') alone")


def _check_part(model: HookedModel, role: str, site: object, kinds: Sequence[str]) -> None:
    if not isinstance(site, Site):
        raise SiteError(f"{role} {site!r}", f"it is a {type(site).__name__}", "Give a Site, e.g. Site('z', 0, head=1)")
    if site.kind not in kinds:
        raise SiteError(
            f"{role} {site}", f"a {role} is one of {', '.join(kinds)}", f"{nearest(site.kind, kinds)}Choose one of those"
        )
    check_site(model, site)
