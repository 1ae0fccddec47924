"""Attribution patching: first-order estimates of what patching would do, for all nodes or all edges at once.

The estimate of a patch is (source − base) · ∂metric/∂activation, with the gradient taken in the base run (Nanda 2023; for
edges Syed et al. 2023). With `steps` it is averaged between the two runs (integrated gradients; for edges Hanna et al. 2024):
the input of the first block moves on a straight line from base to source, and gradients are taken at the middles of `steps`
equal parts, (k + ½) / steps. A first-order estimate can be far off where a softmax or a norm saturates:
`attribution_agreement` says by how much.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp.errors import ConfigError, InterpError
from interp.interventions.edges import INPUT, READS, Wiring, name_of, wiring
from interp.interventions.pair_runs import Direction, Pairs, Tokens, Values
from interp.interventions.patching.cells import Cell, Grid, Positions, chosen_sites, make_grid
from interp.interventions.patching.sources import read_run
from interp.metrics.base import Metric, MetricLike
from interp.metrics.values import check_treats_rows_alone, row_chunks
from interp.models.calling import device_of, eval_mode, logits_of, trial
from interp.result import Result
from interp.running import Intervention, edited
from interp.sites import OUTPUT, HookedModel, Site

PAIRS = 16  # in a pass with gradients, unless told otherwise
Activations = Mapping[Site, Tensor]


def attribution_patching(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    site: str = "z",
    *,
    over: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    positions: Positions | None = None,
    direction: Direction = "denoising",
    steps: int | None = None,
    values: Values = "metric",
    batch_size: int = PAIRS,
    progress: bool = True,
) -> Result:
    """What `activation_patching` would give for every cell, estimated from two forward passes and one backward pass.

    The same cells, axes and values as there, all at once: the metric of the base run plus the estimated effect, Σ (source −
    base) · ∂metric/∂activation over the cell's entries; `values="effect"` leaves out the base run's metric. Exact where
    the metric is linear in the activation. `steps`: integrated gradients (see the module). The cells of `"resid_pre",
    layers=[0]` then sum to metric(source) − metric(base) as steps grow, with an error of order 1 / steps². A site before the
    first block (`conv`) moves from base to source itself.

    Parameters may be frozen and the caller may have switched gradients off; nothing in the model changes, no parameter gets a
    gradient. Raises as `activation_patching` does, and `InterpError` for a metric without gradient (accuracy). Cost per pair:
    two forward passes and one backward pass; with `steps`, two and `steps` forward and backward passes. Memory: the graph of
    `batch_size` pairs. The first time, also the trial that `interp.models.writable.check_writable` describes.
    """
    pairs = Pairs(model, clean, corrupted, metric, direction)
    check_treats_rows_alone(model, pairs.base, pairs.metric, batch_size)
    sites = chosen_sites(model, site, layers)
    slopes = _Slopes(model, pairs, sites, steps)
    estimates, metrics, grid = [], [], None
    for rows in _batches(len(clean), batch_size, progress):
        found = slopes.of(rows)
        grid = grid or make_grid(
            site, {at: found.source[at] for at in sites}, len(clean), over=over, heads=heads, positions=positions
        )
        mean = {at: torch.zeros_like(found.base[at]) for at in sites}
        for graph in found.graphs:
            for at, slope in zip(sites, graph.gradients(sites), strict=True):
                mean[at] += slope / slopes.n_graphs
        products = {at: ((found.source[at] - found.base[at]) * mean[at]).double().sum(-1, keepdim=True) for at in sites}
        estimates.append(_summed(grid, products, rows))
        metrics.append((found.values, found.source_values))
    assert grid is not None
    pairs.base_values, pairs.source_values = map(torch.cat, zip(*metrics, strict=True))
    readings = _with_base(pairs, torch.cat(estimates).reshape(len(clean), *grid.shape))
    name = f"{pairs.metric.name}, attribution of {site}"
    told = "; ".join([*filter(None, [grid.at_once]), _told(pairs, steps)])
    return pairs.result(readings, name, axes=grid.axes, labels=grid.labels, values=values, told=told)


def edge_attribution(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    *,
    direction: Direction = "denoising",
    steps: int | None = None,
    values: Values = "effect",
    batch_size: int = PAIRS,
    progress: bool = True,
) -> Result:
    """What `edge_patching` would give for every edge, estimated: axes (sender, receiver), NaN where there is no edge.

    (source − base of what the sender writes) · ∂metric/∂(the receiver's input), summed over positions; the input is the
    residual stream before the receiver's norm, for the query, key and value of each head apart (EAP; with `steps` EAP-IG).
    Exact where the metric is linear in that input. Sign, units and `values` as in `edge_patching`. Raises as `wiring` does, and
    `InterpError` for a metric without gradient. Cost per pair: as `attribution_patching`, and a backward pass through norm and
    projection for each receiver, all of a layer together about 6 · heads · d_model² per position; memory: the graph of
    `batch_size` pairs and what each sender writes, but nothing of size edges × positions.
    """
    pairs = Pairs(model, clean, corrupted, metric, direction)
    check_treats_rows_alone(model, pairs.base, pairs.metric, batch_size)
    graph = wiring(model, pairs.both)
    slopes = _Slopes(model, pairs, _edge_sites(graph), steps)
    estimates, metrics = [], []
    for rows in _batches(len(clean), batch_size, progress):
        found = slopes.of(rows)
        change = _changes(graph, found.base, found.source)
        table = torch.full((len(rows), len(graph.senders), len(graph.receivers)), torch.nan, dtype=torch.float64)
        edges = [[graph.senders.index(sender) for sender in graph.upstream(receiver)] for receiver in graph.receivers]
        for column, places in enumerate(edges):
            table[:, places, column] = 0.0
        for run in found.graphs:
            for column, slope in enumerate(_input_slopes(graph, run)):
                score = einsum(change[edges[column]], slope, "sender pair pos d_model, pair pos d_model -> pair sender")
                table[:, edges[column], column] += score.cpu().double() / slopes.n_graphs
        estimates.append(table)
        metrics.append((found.values, found.source_values))
    pairs.base_values, pairs.source_values = map(torch.cat, zip(*metrics, strict=True))
    labels = {"sender": tuple(map(name_of, graph.senders)), "receiver": tuple(map(name_of, graph.receivers))}
    readings, name = _with_base(pairs, torch.cat(estimates)), f"{pairs.metric.name}, attribution of edges"
    return pairs.result(readings, name, axes=("sender", "receiver"), labels=labels, values=values, told=_told(pairs, steps))


@dataclass(frozen=True, eq=False)
class _Graph(Intervention):
    """Keeps activations so that gradients can be taken at them, and moves some by a given step."""

    keep: Sequence[Site]
    moves: Activations
    kept: dict[Site, Tensor] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)  # the metric of each pair

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return list(dict.fromkeys([*self.keep, *self.moves]))

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        if site in self.moves:
            activation = activation + self.moves[site].to(activation)
        if not activation.requires_grad:  # frozen parameters: the graph starts here
            activation = activation.detach().requires_grad_()
        self.kept[site] = activation
        return activation

    def gradients(self, sites: Sequence[Site]) -> list[Tensor]:
        """∂metric/∂activation at each site, every pair its own metric; zeros where the metric does not depend on it."""
        return _pulled(self.values[0], [self.kept[site] for site in sites], torch.ones_like(self.values[0]))


def _pulled(output: Tensor, inputs: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """Σ weights · ∂output/∂input for each input."""
    with torch.inference_mode(False):
        found = torch.autograd.grad(output, inputs, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if slope is None else slope for x, slope in zip(inputs, found, strict=True)]


@dataclass(frozen=True, eq=False)
class _Found:
    """For some pairs: activations and metric in both runs, and the forward passes at which slopes are taken."""

    base: Activations
    source: Activations
    values: Float[Tensor, " pair"]
    source_values: Float[Tensor, " pair"]
    graphs: Iterator[_Graph]


@dataclass(frozen=True, eq=False)
class _Slopes:
    """The forward passes with gradients between the two runs of each pair: one at the base run, or `steps` along the way."""

    model: HookedModel
    pairs: Pairs
    keep: Sequence[Site]
    steps: int | None

    def __post_init__(self) -> None:
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise ConfigError(
                f"steps {self.steps!r}", "gradients are averaged over at least one step", "Give a number ≥ 1, or None"
            )

    @property
    def n_graphs(self) -> int:
        return self.steps or 1

    @property
    def moved(self) -> Sequence[Site]:
        """What moves from base to source: the first block's input, or sites before any block themselves."""
        return [site for site in self.keep if site.layer is None] or [INPUT]

    def of(self, rows: Tensor) -> _Found:
        pairs, metric = self.pairs, self.pairs.metric.select(rows)
        sites = list(self.keep) if self.steps is None else list(dict.fromkeys([*self.keep, *self.moved]))
        source = read_run(self.model, pairs.source[rows], sites, metric)
        if self.steps is None:
            graph = self._run(rows, metric, {})
            base = {site: tensor.detach() for site, tensor in graph.kept.items()}
            return _Found(base, source.at, graph.values[0].detach().cpu().double(), source.values.cpu(), iter([graph]))
        run = read_run(self.model, pairs.base[rows], sites, metric)
        way = {site: source.at[site] - run.at[site] for site in self.moved}
        shares = [(k + 0.5) / self.steps for k in range(self.steps)]
        graphs = (self._run(rows, metric, {site: share * step for site, step in way.items()}) for share in shares)
        return _Found(run.at, source.at, run.values.cpu(), source.values.cpu(), graphs)

    def _run(self, rows: Tensor, metric: Metric, moves: Activations) -> _Graph:
        graph = _Graph(self.keep, moves)
        with torch.inference_mode(False), torch.enable_grad(), eval_mode(self.model):
            tokens = self.pairs.base[rows].to(device_of(self.model)).clone()  # what was made in inference mode has no gradients
            with edited(self.model, [graph], tokens=tokens):
                values = metric(logits_of(self.model, tokens), tokens)
        trial(self.model, tokens[:1, :1], {})  # some models keep their last pattern, and with it the graph
        if not values.requires_grad:
            told = "it does not depend smoothly on the activations"
            raise InterpError(f"gradients of the metric {metric.name!r}", told, "Use a loss or a difference of logits")
        graph.values.append(values)
        return graph


def _edge_sites(graph: Wiring) -> list[Site]:
    sites = [Site(kind, layer) for layer in graph.layers for kind in ("resid_pre", *READS, "z")]
    sites += [Site(kind, layer) for layer in graph.mlps for kind in ("attn_out", "mlp_out")]
    return [*sites, Site("resid_post", graph.layers[-1])]


def _changes(graph: Wiring, base: Activations, source: Activations) -> Float[Tensor, "sender pair pos d_model"]:
    """Source minus base of what each sender writes, in the order of the senders."""
    parts = [(source[INPUT] - base[INPUT])[None]]
    for layer in graph.layers:
        parts.append(graph.written(layer, source[Site("z", layer)] - base[Site("z", layer)]))
        if layer in graph.mlps:
            parts.append((source[Site("mlp_out", layer)] - base[Site("mlp_out", layer)])[None])
    return torch.cat(parts)


def _input_slopes(graph: Wiring, run: _Graph) -> Iterator[Float[Tensor, "pair pos d_model"]]:
    """∂metric/∂input of each receiver, in the order of the receivers."""
    kept, final = run.kept, Site("resid_post", graph.layers[-1])
    outputs = list(dict.fromkeys(Site(r.kind, r.layer) for r in graph.receivers if r != OUTPUT))
    slopes = dict(zip([*outputs, final], run.gradients([*outputs, final]), strict=True))
    for receiver in graph.receivers:
        if receiver == OUTPUT:
            yield slopes[final]
            continue
        site, layer = Site(receiver.kind, receiver.layer), receiver.layer
        weights = slopes[site]
        if receiver.head is not None:
            alone = torch.zeros_like(weights)
            alone[:, :, receiver.head] = weights[:, :, receiver.head]
            weights = alone
        # An MLP that follows the attention reads the stream with attn_out added, so a change of attn_out is one of its input.
        after_attention = receiver.kind == "mlp_out" and layer not in graph.parallel
        yield _pulled(kept[site], [kept[Site("attn_out" if after_attention else "resid_pre", layer)]], weights)[0]


def _summed(grid: Grid, products: Activations, rows: Tensor) -> Float[Tensor, "pair cell"]:
    by_layer = {site.layer: product for site, product in products.items()}

    def total(cell: Cell) -> Tensor:
        parts = [(cell.mask(rows, by_layer[layer], grid.axis_names) * by_layer[layer]).flatten(1).sum(1) for layer in cell.layers]
        return torch.stack(parts).sum(0)

    return torch.stack([total(cell) for cell in grid.cells], dim=1).cpu()


def _told(pairs: Pairs, steps: int | None) -> str:
    how = "first order" if steps is None else f"integrated gradients, {steps} midpoints"
    return f"estimated ({how}); {pairs.direction}"


def _with_base(pairs: Pairs, effects: Float[Tensor, "pair *shape"]) -> Float[Tensor, "pair *shape"]:
    return effects + pairs.base_values.reshape(-1, *[1] * (effects.ndim - 1))


def _batches(n_pairs: int, batch_size: int, progress: bool) -> Iterator[Tensor]:
    yield from tqdm(row_chunks(n_pairs, batch_size), desc="attributing", unit="batch", disable=not progress)
