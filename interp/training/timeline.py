"""What was measured while models trained, as results over steps."""

from collections.abc import Sequence

import torch

from interp.errors import ResultError, nearest
from interp.result import Result
from interp.training.fit import FinishedRun


def timeline(runs: Sequence[FinishedRun], metric: str, unit: str = "") -> Result:
    """One metric of several runs of the same length, axes (seed, step); NaN where a reading lacks it (training loss at step 0).

    Raises `ResultError` when the runs were read at different steps, or no reading has the metric.
    """
    steps = {tuple(int(row["step"]) for row in run.metrics) for run in runs}
    if len(steps) != 1:
        raise ResultError(
            f"timeline of {metric!r}", f"the runs have {len(steps)} different sets of steps", "Give runs of equal settings"
        )
    known = {name for run in runs for row in run.metrics for name in row}
    if metric not in known:
        raise ResultError(
            f"timeline of {metric!r}", f"the readings hold {', '.join(sorted(known))}", f"{nearest(metric, known)}Choose one"
        )
    values = [[row.get(metric, torch.nan) for row in run.metrics] for run in runs]
    return Result(
        name=metric,
        values=torch.tensor(values, dtype=torch.float64),
        axes=("seed", "step"),
        labels={"seed": tuple(str(run.config.train.seed) for run in runs), "step": tuple(map(str, steps.pop()))},
        count=len(runs),
        unit=unit,
        description=f"{metric} while training",
    )
