"""Training curves of one run or many."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.config import describe_fields
from interp.errors import ResultError, nearest
from interp.training.config import RunConfig
from interp.training.fit import FinishedRun
from interp.training.folder import read_metrics
from interp.training.verify import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, float | int]]
Group = list[tuple[RunConfig, Rows]]


def plot_metrics(
    runs: Sequence[FinishedRun | str | Path],
    metrics: str | Sequence[str] = "validation_loss",
    *,
    x: Literal["step", "samples", "tokens", "seconds"] = "step",
    log_x: bool = True,
) -> "Figure":
    """Curves of `metrics` (one panel each) over training; runs that differ only in their seed share a colour.

    Runs are given as `fit` returned them or as run folders, finished or not. A line is the mean over seeds and its band runs from
    the lowest to the highest; where seeds were read at different places, each is drawn alone. Labels name the settings in which
    the groups differ. With `log_x` the reading before the first step is left out. Raises `ResultError` when there is nothing to
    draw, or no run has a metric; `RunFolderError` for a folder that is none.
    """
    groups = _groups([_opened(run) for run in runs])
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    known = {name for group in groups.values() for _, rows in group for row in rows for name in row}
    wrong = [name for name in names if name not in known]
    if not known or not names or wrong:
        truth = f"the readings hold {', '.join(sorted(known)) or 'nothing'}"
        hint = nearest(wrong[0], known) if wrong else ""
        raise ResultError(f"plotting {', '.join(map(repr, wrong or names)) or 'no metrics'}", truth, f"{hint}Choose one of them")
    from interp.report import plotting  # late: the report comes after training

    with plotting.styled():
        figure = plotting.new_figure(6.0, 3.2 * len(names))
        panels = figure.subplots(len(names), squeeze=False)[:, 0]
        for panel, metric in zip(panels, names, strict=True):
            for index, (label, group) in enumerate(groups.items()):
                colour = plotting.COLOURS[index % len(plotting.COLOURS)]
                _draw(panel, [_curve(rows, metric, x, log_x) for _, rows in group], label, colour)
            panel.set_xscale("log" if log_x else "linear")
            panel.set_ylabel(metric)
            plotting.tidy(panel)
        panels[-1].set_xlabel(x)
        if len(groups) > 1:
            panels[0].legend(fontsize="small")
        return plotting.plain_text(figure)


def _draw(panel: Any, curves: list[tuple[np.ndarray, np.ndarray]], label: str, color: str) -> None:
    curves = [curve for curve in curves if len(curve[0])]
    if len(curves) > 1 and all(np.array_equal(curves[0][0], places) for places, _ in curves):
        values = np.stack([heights for _, heights in curves])
        panel.plot(curves[0][0], values.mean(0), color=color, label=label)
        panel.fill_between(curves[0][0], values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)
        return
    for number, (places, heights) in enumerate(curves):
        panel.plot(places, heights, color=color, label=label if number == 0 else None)


def _curve(rows: Rows, metric: str, x: str, log_x: bool) -> tuple[np.ndarray, np.ndarray]:
    points = [(row[x], row[metric]) for row in rows if metric in row and x in row and (row[x] > 0 or not log_x)]
    table = np.array(points, dtype=float).reshape(len(points), 2)
    return table[:, 0], table[:, 1]


def _opened(run: FinishedRun | str | Path) -> tuple[RunConfig, Rows]:
    if isinstance(run, FinishedRun):
        return replace(run.config, model=run.model.config), run.metrics  # with the vocabulary's size, as folders have it
    return read_config(run), read_metrics(Path(run))


def _groups(runs: Group) -> dict[str, Group]:
    """The runs by a label that names the settings in which they differ, seeds apart."""
    described = [
        {name: value for name, value, _ in describe_fields(replace(config, train=replace(config.train, seed=0)))}
        for config, _ in runs
    ]
    names = dict.fromkeys(name for settings in described for name in settings)
    differing = [name for name in names if len({settings.get(name) for settings in described}) > 1]
    groups: dict[str, Group] = {}
    for run, settings in zip(runs, described, strict=True):
        label = ", ".join(f"{name}={settings[name]}" for name in differing if name in settings)
        groups.setdefault(label, []).append(run)
    return groups
