"""`activation_patching`: exact sweeps over layers, heads and positions, by the fastest way that the model allows."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp.errors import ConfigError, InterpError, ModelError
from interp.interventions.pair_runs import VALUES, Direction, Pairs, Tokens, Values, averaged, one_of
from interp.interventions.patching.cells import Batch, Grid, Patch, Positions, chosen_sites, make_grid, tolerance
from interp.interventions.patching.growing import Growing
from interp.interventions.patching.saved_cells import SavedCells, describe
from interp.interventions.patching.sources import Run, Source, make_source, read_both, read_run
from interp.interventions.patching.trimmed import Trimmed, shared_prefix, sites_needed
from interp.metrics.base import Metric, MetricLike, Opaque
from interp.metrics.standard import Normalized
from interp.metrics.values import check_treats_rows_alone, measured_values, row_chunks, treats_rows_alone
from interp.models.calling import eval_mode, standing_hooks
from interp.models.pieces import NotTakenApart
from interp.probes.padding import WHOLE_ROWS, check_unpadded
from interp.result import Result
from interp.sites import HookedModel, Site

logger = logging.getLogger(__name__)
MODES = ("auto", "trimmed", "growing", "reference")
Batches = Iterator[tuple[Tensor, Tensor, Tensor]]  # (cell, pair, value)
TOLD = {
    "trimmed": "each cell restarted at the layer it patches",
    "growing": "all cells in one pass of the model, whose batch grows by those of each layer",
    "repeated": "all cells in one pass of the model, from its start",
    "reference": "one full pass for each cell",
}
FAILED = {  # a way that ended in an exception of the model's; the exception itself is logged
    "trimmed": "run layer by layer from outside, the model fails",
    "growing": "the model does not take rows that are added midway (its masks or positions are made for those it began with)",
    "repeated": "the model fails when it is given all cells in one batch",
}


def activation_patching(
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
    source: str = "run",
    values: Values = "metric",
    mode: str = "auto",
    seed: int = 0,
    batch_size: int | None = None,
    memory: float = 1.0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """The metric with one activation after another taken from the other run: mean over pairs, with its standard error.

    `clean` and `corrupted` are prompts [pair pos] of equal length. "denoising" patches clean activations into the corrupted
    run, "noising" the reverse. `site`: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, pattern, or a ConvAttn's
    conv. `over` names the grid's axes out of layer, head and position (default: layer and head where there are heads, else
    layer and position); along the others everything is patched at once, all of it or what `layers`, `heads` and `positions`
    choose. A position may be a number or one per pair [pair], and have a name: `positions={"subject": …}`. For a pattern
    it is the query's. `source` is what is put in: the other "run" on the same pair, "resample" (on another pair, by `seed`), its
    "mean" over pairs and positions (of a pattern: over pairs, at each query and key), or "zero".
    `values`: "metric", baseline the unpatched metric; "effect", the difference from it; "recovery", (metric − corrupted) /
    (clean − corrupted), NaN for pairs without a gap, which are counted in the description; refused when none has one. The
    description also says what of `layers`, `heads` and `positions` is patched at once.

    Exact: equal to running the model once for each cell (`mode="reference"`) within rounding; the description says which way
    was taken. "trimmed" restarts at the patched layer with all cells in one batch, on positions that can differ and with what
    the metric reads; "growing" adds a layer's cells as rows to one pass of the model itself; "auto" takes the first that
    gives the model's own result on untouched rows, and "reference" on a model that hooks stand on (also those of `ablated` and
    `edited`). `memory` is the GiB that a batch of rows may take; `batch_size` how many pairs are held at once (default: what
    fits). With `checkpoint`, finished cells are kept in that file: the same call goes on.
    Raises `DataError` for prompts that do not pair up or show nothing to recover, and for a metric that reads padding (or a
    "mean" or "resample" of it); `SiteError` and `ConfigError` for what does not exist, `ModelError` when the mode
    asked for cannot be had. Cost: two forward passes, and for each cell about a third of
    one (less with a shared prefix), in sweeps over heads; about a sixth over layers and positions.
    """
    effects = patching_effects(
        model,
        clean,
        corrupted,
        metric,
        site,
        over=over,
        layers=layers,
        heads=heads,
        positions=positions,
        direction=direction,
        source=source,
        values=values,
        mode=mode,
        seed=seed,
        batch_size=batch_size,
        memory=memory,
        checkpoint=checkpoint,
        progress=progress,
    )
    return averaged(effects)


def patching_effects(
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
    source: str = "run",
    values: Values = "metric",
    mode: str = "auto",
    seed: int = 0,
    batch_size: int | None = None,
    memory: float = 1.0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """What `activation_patching` averages: the value on each pair, first axis "pair". Everything as there."""
    one_of("mode", mode, MODES)
    one_of("values", values, VALUES)
    if not memory > 0:
        raise ConfigError(f"memory {memory}", "a sweep needs some", "Give GiB, e.g. 1.0")
    if isinstance(metric, Normalized):
        raise ConfigError("activation patching of a normalized metric", "it normalises by itself", 'Give values="recovery"')
    pairs = Pairs(model, clean, corrupted, metric, direction)
    metric, into, other = pairs.metric, pairs.base, pairs.source
    if source in ("mean", "resample"):
        check_unpadded(model, other, WHOLE_ROWS)  # other pairs' positions
    sites = chosen_sites(model, site, layers)
    size = batch_size or _pairs_at_once(model, len(clean), clean.shape[1], len(sites), memory)
    size = size if batch_size or metric.per_example() or not isinstance(metric, Opaque) else len(clean)
    check_treats_rows_alone(model, pairs.base, metric, size)
    filling = make_source(source, model, other, sites, seed=seed, batch_size=size)
    sweep = _Sweep(model, into, other, metric, sites, filling, mode, memory)
    asked = {"over": over, "heads": heads, "positions": positions}
    told = {"direction": direction, "site": site, "layers": layers, "source": source, "seed": seed, **asked}
    described = ""
    if checkpoint is not None:
        described = describe(model, metric=metric, prompts=[clean, corrupted], told=told)
    cells = sweep.run(row_chunks(len(clean), size), partial(SavedCells, checkpoint, described), asked, progress)
    pairs.base_values, pairs.source_values = sweep.base, sweep.other
    grid, drawn = sweep.grid, "" if source == "run" else f", {source}"
    result = pairs.per_pair(
        cells.reshape(len(clean), *grid.shape),
        f"{metric.name}, {site} patched ({direction}{drawn})",
        axes=grid.axes,
        labels=grid.labels,
        values=values,
        told="; ".join([*filter(None, [grid.at_once]), f"computed: {TOLD[sweep.ways[0]]}", *dict.fromkeys(sweep.passed_over)]),
    )
    seeded = dataclasses.replace(result.provenance, seed=seed if source == "resample" else None)
    return result.with_provenance(seeded)


@dataclasses.dataclass(eq=False)
class _Sweep:
    """What the batches of pairs share, and which way the sweep goes."""

    model: HookedModel
    into: Tokens  # the prompts whose run is patched
    other_tokens: Tokens
    metric: Metric
    sites: list[Site]
    source: Source
    mode: str
    memory: float

    def __post_init__(self) -> None:
        ways = {"auto": ["trimmed", "growing", "repeated", "reference"], "growing": ["growing", "repeated"]}
        self.ways = ways.get(self.mode, [self.mode])
        self.passed_over: list[str] = []
        self.base = torch.full((len(self.into),), torch.nan, dtype=torch.float64)
        self.other = self.base.clone()
        self.grid: Grid
        if places := list(dict.fromkeys(name for name, _ in standing_hooks(self.model))):
            named = f"{places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}"
            self._to_reference(f"hooks stand on the model (at {named}); a full pass for each cell calls them as they were meant")

    def run(
        self, chunks: Sequence[Tensor], kept: Callable[[tuple[int, int]], SavedCells], asked: Mapping[str, Any], progress: bool
    ) -> Tensor:
        """The values [pair cell]."""
        saved: SavedCells | None = None
        bar = tqdm(desc=f"patching {self.sites[0].kind}", unit="cell", disable=not progress)
        try:
            for rows in chunks:
                base, other = self._read(rows)
                if saved is None:
                    self.grid = make_grid(
                        self.sites[0].kind, {site: other.at[site] for site in self.sites}, len(self.into), **asked
                    )
                    saved = kept((len(self.into), len(self.grid.cells)))
                    bar.total = saved.known.numel()
                    bar.update(int(saved.known.sum()))
                while not self._run_chunk(rows, base, other, saved, bar):
                    if self.ways[0] == "reference":
                        base, other = self._read(rows)
            assert saved is not None
            saved.write()
        except BaseException:
            if saved is not None and bool(saved.known.any()):
                saved.write()
            raise
        finally:
            bar.close()
        return saved.values

    def _run_chunk(self, rows: Tensor, base: Run, other: Run, saved: SavedCells, bar: Any) -> bool:
        """Run the cells of some pairs that are not known yet; False when another way has to be taken for the rest."""
        self.base[rows], self.other[rows] = base.values.to(self.base), other.values.to(self.other)
        saved.check_runs(rows, base.values, other.values, tolerance(base.logits.dtype))
        todo = [cell for cell in range(len(self.grid.cells)) if not bool(saved.known[rows, cell].all())]
        if not todo:
            return True
        grid = dataclasses.replace(self.grid, cells=tuple(self.grid.cells[cell] for cell in todo))
        batch = Batch(self.model, rows, self.metric.select(rows), base, self.source.of(rows, other))
        try:
            for cells, pairs, values in self._batches(grid, batch):
                numbers = torch.tensor(todo)[cells]
                fresh = ~saved.known[rows[pairs], numbers]
                saved.add(numbers, rows[pairs], values)
                bar.update(int(fresh.sum()))
        except NotTakenApart as reason:
            self._next_way(reason)
            return False
        return True

    def _read(self, rows: Tensor) -> tuple[Run, Run]:
        """The run that is patched and the other one, of these pairs."""
        sites, metric = self.sites, self.metric.select(rows)
        while self.ways[0] == "trimmed":
            try:
                sites = list(dict.fromkeys([*sites, *sites_needed(self.model, self.sites[0].kind)]))
                break
            except NotTakenApart as reason:
                self._next_way(reason)
        into, other = self.into[rows], self.other_tokens[rows]
        if self.ways[0] != "reference" and not isinstance(metric, Opaque):
            return read_both(self.model, into, other, sites, metric)
        # nothing is assumed: neither that rows do not feel each other, nor that a function treats each alone
        base, source = read_run(self.model, into, sites, metric), read_run(self.model, other, self.sites, metric)
        if self.ways[0] != "reference" and not treats_rows_alone(metric, base.logits, base.tokens, base.values):
            told = "the metric does not treat each pair alone (answers in a closure? metrics.from_callable takes them)"
            self._to_reference(told)
        return base, source

    def _to_reference(self, reason: str) -> None:
        while self.ways[0] != "reference":
            self._next_way(NotTakenApart(reason))

    def _next_way(self, reason: NotTakenApart) -> None:
        """Go on to the next way; why this one is passed over is told in plain words, and an exception behind it is logged."""
        way = self.ways.pop(0)
        told = str(reason) if reason.__cause__ is None else FAILED[way]
        logger.debug("patching: not %s: %s", way, reason, exc_info=reason)
        if not self.ways:
            raise ModelError(
                f'activation patching with mode="{self.mode}"',
                f"this model cannot be run that way: {told}",
                'Leave mode at "auto", which takes the fastest way that is exact',
            ) from reason
        self.passed_over.append(f"not {way}: {told}")

    def _batches(self, grid: Grid, batch: Batch) -> Batches:
        way = self.ways[0]
        if way == "reference":
            return _loop(grid, batch)
        if way == "trimmed":
            shared = torch.zeros(len(batch.rows), dtype=torch.long)
            if self.source.is_run:
                shared = shared_prefix(batch.base.tokens, self.other_tokens[batch.rows])
            trimmed = Trimmed(batch, grid, shared)
            return self._inside(lambda: trimmed.run(self._rows_at_once(trimmed.cost_of_a_row())))
        growing = Growing(batch, grid, grow=way == "growing")
        return _or_next(growing.run(self._rows_at_once(growing.cost_of_a_row())))

    def _inside(self, batches: Callable[[], Batches]) -> Batches:
        with torch.no_grad(), eval_mode(self.model):
            yield from _or_next(batches())

    def _rows_at_once(self, cost: int) -> int:
        return max(1, int(self.memory * 2**30 / max(1, cost)))


def _loop(grid: Grid, batch: Batch) -> Batches:
    pairs = torch.arange(len(batch.rows))
    for number, cell in enumerate(grid.cells):
        patch = Patch(cell, grid.kind, batch.sources, batch.rows)
        values = measured_values(batch.model, batch.base.tokens, batch.metric, [patch])
        yield torch.full_like(pairs, number), pairs, values


def _or_next(batches: Batches) -> Batches:
    """What goes wrong inside a model that is run in an unusual way is a reason to run it in another."""
    try:
        yield from batches
    except (NotTakenApart, InterpError, MemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise NotTakenApart(f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}") from error


def _pairs_at_once(model: HookedModel, n_pairs: int, length: int, n_sites: int, memory: float) -> int:
    """How many pairs' activations fit into half the memory."""
    config = getattr(model, "cfg", None)
    width = getattr(config, "d_model", None) or 1024
    heads = getattr(config, "n_heads", None) or 1
    vocabulary = getattr(config, "d_vocab", None) or 0
    a_pair = 8 * length * (n_sites * (6 * width + heads * length) + 2 * vocabulary)
    return max(1, min(n_pairs, int(memory * 2**29 / a_pair)))
