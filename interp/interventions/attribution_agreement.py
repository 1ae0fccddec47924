"""How far attribution can be trusted: its estimates beside exact effects, on a random sample of cells."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from interp.errors import DataError
from interp.interventions.attribution import attribution_patching, edge_attribution
from interp.interventions.edges import Edge, wiring
from interp.interventions.pair_runs import Direction, Pairs, Tokens
from interp.interventions.patching.cells import Patch, Positions, chosen_sites, make_grid
from interp.interventions.patching.sources import read_run
from interp.interventions.paths import edge_patching
from interp.metrics.base import MetricLike
from interp.metrics.values import measured_values
from interp.result import Result, mean_over_examples
from interp.seeds import seed_for
from interp.sites import HookedModel

QUANTITIES = ("pearson", "spearman", "mean error", "mean effect", "cells")
SMALL = 1e-6  # of the largest effect: smaller differences are rounding, and ties when ranked
Sample = Int[Tensor, " cell"]


def attribution_agreement(
    model: HookedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: MetricLike,
    site: str | Literal["edges"] = "z",
    *,
    over: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    positions: Positions | None = None,
    direction: Direction = "denoising",
    steps: int | None = None,
    n_cells: int = 48,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """How well `attribution_patching` (or, for `site="edges"`, `edge_attribution`) agrees with exact patching; axis quantity.

    `n_cells` cells drawn by `seed` (all when there are fewer) are patched exactly. "pearson" and "spearman" are the
    correlations of estimated and exact effects over them, NaN when either never varies (differences below a millionth of the
    largest effect are ties when ranked); "mean error" and "mean effect" the
    means of |estimate − exact| and of |exact|, in the metric's unit; "cells" how many were compared. The other arguments are
    those of the attribution. Cost: the attribution, and one forward pass per cell and pair (two per edge), all pairs at once.
    """
    if n_cells < 3:
        raise DataError(f"agreement on {n_cells} cells", "a correlation of two points is always ±1", "Give n_cells ≥ 3")
    pairs = Pairs(model, clean, corrupted, metric, direction)
    draw = _drawing(n_cells, seed)
    if site == "edges":
        estimate = edge_attribution(model, clean, corrupted, metric, direction=direction, steps=steps, progress=progress)
        graph = wiring(model, pairs.both)
        chosen: list[Edge] = [graph.edges[i] for i in draw(len(graph.edges)).tolist()]
        exact = edge_patching(model, clean, corrupted, metric, chosen, direction=direction, progress=progress)
        asked = ~exact.values.isnan()
        return _agreement(pairs, estimate, estimate.values[asked], exact.values[asked])
    estimate = attribution_patching(
        model, clean, corrupted, metric, site, over=over, layers=layers, heads=heads, positions=positions,
        direction=direction, steps=steps, values="effect", progress=progress,
    )  # fmt: skip
    sample = draw(estimate.values.numel())
    sources = read_run(model, pairs.source, chosen_sites(model, site, layers), pairs.metric).at
    grid = make_grid(site, sources, len(clean), over=over, heads=heads, positions=positions)
    rows, effects = torch.arange(len(clean)), []
    for number in tqdm(sample.tolist(), desc="patching exactly", unit="cell", disable=not progress):
        patch = Patch(grid.cells[number], site, sources, rows)
        effects.append(measured_values(model, pairs.base, pairs.metric, [patch]).cpu().double() - pairs.base_values)
    return _agreement(pairs, estimate, estimate.values.flatten()[sample], mean_over_examples(torch.stack(effects, dim=1))[0])


def _drawing(n_cells: int, seed: int) -> Callable[[int], Sample]:
    generator = torch.Generator().manual_seed(seed_for("cells of an agreement", seed))
    return lambda n: torch.randperm(n, generator=generator)[:n_cells].sort().values


def _agreement(pairs: Pairs, estimate: Result, estimated: Float[Tensor, " cell"], exact: Float[Tensor, " cell"]) -> Result:
    import pandas as pd

    frame = pd.DataFrame({"estimated": estimated.numpy(), "exact": exact.numpy()}).dropna()
    found = [
        _correlation(frame),
        _correlation((frame / (frame.abs().max() * SMALL)).round().rank()),
        float((frame["estimated"] - frame["exact"]).abs().mean()),
        float(frame["exact"].abs().mean()),
        float(len(frame)),
    ]
    return Result(
        name=f"{estimate.name}: agreement with exact patching",
        values=torch.tensor(found, dtype=torch.float64),
        axes=("quantity",),
        labels={"quantity": QUANTITIES},
        count=estimate.count,
        description=estimate.description,
        provenance=estimate.provenance,
    )


def _correlation(frame: "pd.DataFrame") -> float:  # type: ignore[name-defined]  # noqa: F821
    """Pearson's; NaN when a column varies by no more than rounding."""
    spread = frame.max() - frame.min()
    if len(frame) < 3 or bool((spread <= 1e-12 * (1 + frame.abs().max())).any()):
        return float("nan")
    return float(frame["estimated"].corr(frame["exact"]))
