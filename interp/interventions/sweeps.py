"""Ablation sweeps: the effect of each head, layer, MLP or tap, of sets of heads, and of more and more of them.

An effect is metric(ablated) − metric(untouched), per example; results are means over examples with the standard error of that
paired difference. Every forward pass runs a whole batch of examples; what a cell does not need is not held.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from interp.errors import ConfigError, DataError, ModelError, nearest
from interp.interventions import components as parts
from interp.interventions.components import Component, Part, n_heads_of
from interp.interventions.modes import Manner, capture, for_batches
from interp.metrics.base import MetricLike, as_metric
from interp.metrics.values import check_treats_rows_alone, measured_values, row_chunks
from interp.models.calling import check_tokens
from interp.probes.padding import WHOLE_ROWS, check_reads_unpadded, check_unpadded
from interp.probes.weights import TAP_NAMES
from interp.provenance import provenance_of
from interp.result import Result, left_out, mean_over_examples
from interp.sites import HookedModel, Site, check_model, sites_of

Tokens = Int[Tensor, "batch pos"]
Head = tuple[int, int]
OF_OTHERS = ("mean", "position_mean", "resample")  # modes that put in what stands at positions of other examples
HeadSets = Mapping[str, Sequence[Head]] | Sequence[Sequence[Head]]


@dataclasses.dataclass(frozen=True)
class _Grid:
    """The cells of a sweep and where each stands in the result."""

    cells: list[list[Component]]
    axes: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    shape: tuple[int, ...]
    places: list[int]  # the flat index of each cell in the shape; cells that do not exist stay NaN


def ablation_sweep(
    model: HookedModel,
    tokens: Tokens,
    metric: MetricLike,
    components: str = "heads",
    *,
    mode: str = "mean",
    reference: Int[Tensor, "example ref_pos"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Result:
    """Effect of ablating each component alone: metric(ablated) − metric(untouched), mean over examples.

    `components`: "heads" (axes layer, head), "layers" and "mlps" (axis layer: `attn_out`, `mlp_out`), "conv" (one number) or
    "taps" (axis tap; those not masked). `mode` and `reference` as in `ablated`, but means and other examples are those of
    the untouched model on `reference` or on all of `tokens`: no result depends on `batch_size` (None: all at once) beyond
    rounding. The standard error is of the paired difference. Examples whose metric is NaN are left out, and counted in the
    description. Effects of single examples: `ablation_effects`, same arguments.

    Equals the difference of two `run`s, one inside `ablated`. Raises `ConfigError` for unknown components or modes, `SiteError`
    for parts the model lacks, `ModelError` where its `cfg` gives another number of heads than it has, `DataError` for a metric
    made for other examples, for one that reads what looks like padding, and for padding among what a mean or another example is
    taken from. Cost: one forward pass per component and one without, plus what the mode costs (`modes`); each of
    `batch_size` examples (and for heads one of a single example).
    """
    effects = ablation_effects(
        model,
        tokens,
        metric,
        components,
        mode=mode,
        reference=reference,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    return _averaged(effects)


def ablate_together(
    model: HookedModel,
    tokens: Tokens,
    metric: MetricLike,
    sets: HeadSets,
    *,
    mode: str = "mean",
    reference: Int[Tensor, "example ref_pos"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Result:
    """Effect of ablating each set of heads at once, axis "set".

    `sets` are sequences of (layer, head), named when given as a mapping. All else as in `ablation_sweep`; the effects of single
    examples are `ablation_effects(model, tokens, metric, sets)`. An empty set has the effect 0.
    """
    effects = ablation_effects(
        model, tokens, metric, sets, mode=mode, reference=reference, seed=seed, batch_size=batch_size, progress=progress
    )
    return _averaged(effects)


def ablation_effects(
    model: HookedModel,
    tokens: Tokens,
    metric: MetricLike,
    components: str | HeadSets = "heads",
    *,
    mode: str = "mean",
    reference: Int[Tensor, "example ref_pos"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Result:
    """What `ablation_sweep` and `ablate_together` average: the effect on each example, first axis "example".

    `components` is one of their words, or sets of heads. Everything else as there.
    """
    started = time.perf_counter()
    check_model(model)
    for ids in (tokens,) if reference is None else (tokens, reference):
        check_tokens(model, ids)
    metric = as_metric(metric)
    metric.check_examples(len(tokens))
    check_reads_unpadded(model, tokens, metric)
    if mode in OF_OTHERS:
        check_unpadded(model, tokens if reference is None else reference, WHOLE_ROWS)
    check_treats_rows_alone(model, tokens, metric, batch_size)
    grid = _grid(model, components, tokens)
    ablatable = list(dict.fromkeys(component for cell in grid.cells for component in cell))
    manner = Manner(mode, reference, seed, batch_size)
    manner.check(ablatable)
    batches = for_batches(model, ablatable, tokens, manner)
    chunks = row_chunks(len(tokens), batch_size)
    effects = torch.full((len(tokens), len(grid.cells)), torch.nan, dtype=torch.float64)
    intact = torch.full((len(tokens),), torch.nan, dtype=torch.float64)
    with tqdm(total=len(chunks) * len(grid.cells), desc="ablating", unit="run", disable=not progress) as bar:
        for rows in chunks:
            here, chunk = metric.select(rows), tokens[rows]
            intact[rows] = measured_values(model, chunk, here).to(intact)
            ablating = batches(rows)
            for index, cell in enumerate(grid.cells):
                values = measured_values(model, chunk, here, ablating(cell)) if cell else intact[rows]
                effects[rows, index] = values.to(effects) - intact[rows]
                bar.update()
    result = _placed(grid, effects, f"{metric.name}, {mode} ablation", metric.unit, _told(intact))
    provenance = provenance_of(cast(nn.Module, model), tokens, time.perf_counter() - started)
    return result.with_provenance(dataclasses.replace(provenance, seed=seed))


def cumulative_ablation(
    model: HookedModel,
    tokens: Tokens,
    metric: MetricLike,
    order: Sequence[Head],
    *,
    sizes: Sequence[int] | None = None,
    draws: int = 8,
    mode: str = "mean",
    reference: Int[Tensor, "example ref_pos"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Result:
    """Effect of ablating the first 1, 2, 3 … heads of `order` together, beside as many heads drawn at random.

    Axes (curve, size). Curve "ranked" follows `order` (`ranked_heads` makes one from scores); curves "random 1" … are `draws`
    random orders of all the model's heads, by `seed`. Standard errors are over examples; the baseline is the mean of the
    random curves at each size. `against_random` sets the ranked curve beside the random ones' mean and spread. `sizes` chooses
    the sizes (default: all up to the length of `order`). Cost: (1 + draws) × sizes forward passes, and one.
    """
    heads = [(site.layer or 0, head) for site, n in _heads_by_layer(model, tokens) for head in range(n)]
    sizes = tuple(range(1, len(order) + 1)) if sizes is None else tuple(sizes)
    if not sizes or len(set(order)) != len(order) or not all(0 < size <= len(order) for size in sizes):
        told = f"{len(order)} heads ({len(set(order))} distinct) are given, sizes {list(sizes)}"
        raise DataError("cumulative ablation", told, "Name each head once, and sizes from 1 to their number")
    if draws < 1:
        raise DataError(
            f"cumulative ablation with {draws} random orders", "without a control it cannot be judged", "Give draws ≥ 1"
        )
    generator = torch.Generator().manual_seed(seed)
    orders = [list(order)] + [[heads[i] for i in torch.randperm(len(heads), generator=generator)] for _ in range(draws)]
    sets = [row[:size] for row, size in product(orders, sizes)]
    flat = ablate_together(
        model, tokens, metric, sets, mode=mode, reference=reference, seed=seed, batch_size=batch_size, progress=progress
    )
    shape = (len(orders), len(sizes))
    values = flat.values.reshape(shape)
    return dataclasses.replace(
        flat,
        name=f"{flat.name}, cumulative",
        values=values,
        stderr=None if flat.stderr is None else flat.stderr.reshape(shape),
        baseline=values[1:].mean(0),
        axes=("curve", "size"),
        labels={
            "curve": ("ranked", *(f"random {draw + 1}" for draw in range(draws))),
            "size": tuple(map(str, sizes)),
        },
    )


def against_random(curves: Result) -> Result:
    """What `cumulative_ablation` found, in brief: axes (size, quantity).

    Quantities: "ranked", "random mean", "random spread" (standard deviation over draws, n − 1; NaN for one draw) and "as large at
    random": the share of draws whose effect is at least as large in size as the ranked one's.
    """
    ranked, random = curves.values[0], curves.values[1:]
    spread = random.std(0) if len(random) > 1 else torch.full_like(ranked, torch.nan)
    as_large = (random.abs() >= ranked.abs()).to(ranked.dtype).mean(0)
    quantities = ("ranked", "random mean", "random spread", "as large at random")
    return dataclasses.replace(
        curves,
        name=f"{curves.name}, against random heads",
        values=torch.stack([ranked, random.mean(0), spread, as_large], dim=-1),
        stderr=None,
        baseline=None,
        axes=("size", "quantity"),
        labels={"size": curves.labels_of("size"), "quantity": quantities},
    )


def ranked_heads(scores: Result, k: int | None = None, *, largest: bool = True) -> list[Head]:
    """The heads (layer, head) of a result with these two axes, largest value first (or smallest); undefined ones are left out."""
    if set(scores.axes) != {"layer", "head"}:
        raise DataError(f"ranking heads by {scores.name!r}", f"its axes are {scores.axes}", "Give a result with axes layer, head")
    frame = scores.to_frame().dropna(subset=["value"]).sort_values("value", ascending=not largest, kind="stable")
    heads = [(int(layer), int(head)) for layer, head in zip(frame["layer"], frame["head"], strict=True)]
    return heads[: len(heads) if k is None else k]


def _grid(model: HookedModel, components: str | HeadSets, tokens: Tokens) -> _Grid:
    if not isinstance(components, str):
        return _sets_grid(model, components)
    makers: Mapping[str, Callable[[], _Grid]] = {
        "heads": lambda: _heads_grid(model, tokens),
        "layers": lambda: _layers_grid(model, "attn_out"),
        "mlps": lambda: _layers_grid(model, "mlp_out"),
        "conv": lambda: _Grid([[parts.part(model, "conv")]], (), {}, (), [0]),
        "taps": lambda: _taps_grid(model),
    }
    if components not in makers:
        raise ConfigError(
            f"sweeping over {components!r}",
            f"the components are {', '.join(makers)}",
            f"{nearest(components, makers)}Name one of them, or give sets of heads",
        )
    return makers[components]()


def _heads_grid(model: HookedModel, tokens: Tokens) -> _Grid:
    by_layer = _heads_by_layer(model, tokens)
    width = max(n for _, n in by_layer)
    where = [(row, site.layer, head) for row, (site, n) in enumerate(by_layer) for head in range(n)]
    cells: list[list[Component]] = [[Part(Site("z", layer, head=head))] for _, layer, head in where]
    labels = {"layer": tuple(str(site.layer) for site, _ in by_layer)}
    places = [row * width + head for row, _, head in where]
    return _Grid(cells, ("layer", "head"), labels, (len(by_layer), width), places)


def _heads_by_layer(model: HookedModel, tokens: Tokens) -> list[tuple[Site, int]]:
    """The z sites and how many heads each has, from a forward pass over one example.

    Raises `ModelError` when the model's `cfg` says another number than the layer with most heads has.
    """
    sites, n_heads = sites_of(model, "z"), n_heads_of(model)
    z = capture(model, tokens[:1], sites)
    found = [(site, z[site].shape[2]) for site in sites]
    most = max(n for _, n in found)
    if n_heads not in (None, most):
        told = f"z has {most} of them and the model's cfg.n_heads is {n_heads}"
        raise ModelError("a sweep over heads", told, "Set cfg.n_heads to what a layer has")
    return found


def _layers_grid(model: HookedModel, kind: str) -> _Grid:
    found = parts.every(model, kind)
    labels = {"layer": tuple(str(component.site.layer) for component in found)}
    return _Grid([[component] for component in found], ("layer",), labels, (len(found),), list(range(len(found))))


def _taps_grid(model: HookedModel) -> _Grid:
    offsets = parts.taps(model).offsets
    names = tuple(TAP_NAMES.get(offset, f"{offset:+d}") for offset in offsets)
    cells: list[list[Component]] = [[parts.taps(model, [offset])] for offset in offsets]
    return _Grid(cells, ("tap",), {"tap": names}, (len(cells),), list(range(len(cells))))


def _sets_grid(model: HookedModel, sets: HeadSets) -> _Grid:
    if not sets:
        raise DataError("ablating sets of heads", "there are none", "Give at least one set of (layer, head)")
    listed: list[Sequence[Head]] = list(sets.values()) if isinstance(sets, Mapping) else list(sets)
    cells: list[list[Component]] = [[*parts.heads(model, heads)] for heads in listed]
    labels = {"set": tuple(sets)} if isinstance(sets, Mapping) else {}
    return _Grid(cells, ("set",), labels, (len(cells),), list(range(len(cells))))


def _placed(grid: _Grid, effects: Tensor, name: str, unit: str, told: str) -> Result:
    size = int(torch.tensor(grid.shape).prod()) if grid.shape else 1
    values = torch.full((len(effects), size), torch.nan, dtype=effects.dtype)
    values[:, grid.places] = effects
    return Result(
        name=name,
        values=values.reshape(len(effects), *grid.shape),
        axes=("example", *grid.axes),
        labels=grid.labels,
        baseline=0.0,
        count=int((~effects.isnan()).any(1).sum()),
        unit=unit,
        description=f"effect of the ablation: metric(ablated) − metric(untouched); {told}",
    )


def _told(intact: Tensor) -> str:
    undefined = int(intact.isnan().sum())
    return f"untouched, the metric is {float(intact.nanmean()):.4g}{left_out(undefined, len(intact), 'examples', 'metric')}"


def _averaged(effects: Result) -> Result:
    mean, stderr = mean_over_examples(effects.values)
    labels = {axis: names for axis, names in effects.labels.items() if axis != "example"}
    return dataclasses.replace(effects, values=mean, stderr=stderr, axes=effects.axes[1:], labels=labels)
