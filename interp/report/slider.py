"""A grid that moves: a slider walks training steps or checkpoints, and a line shows how one cell changed."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from markupsafe import Markup

from interp.errors import ReportError
from interp.report.circuitsvis import packed, properties
from interp.report.download import packed_csv
from interp.report.grid import TEMPLATE, axes_of, extremes, table
from interp.report.notebook import Shown
from interp.report.rendering import Drawing
from interp.report.values import Scale, check_axes, check_filled, listed, names_along, scale_of
from interp.result import Result


@dataclass(frozen=True, eq=False)
class StepSlider(Shown):
    """Results over (step, and two more axes) as a grid at one step, which a slider chooses.

    `frames` maps a name to a result; with several, a picker chooses. All share their steps and cells. Each has one colour
    scale, the same at every step (see `Grid`). A line shows how the chosen cell moved; at first that is the cell of the
    first frame that changed most. `curve`, a result over the same (step,), is drawn below it, e.g. the loss. Without
    scripts and in print the last step stands there. Raises `ReportError` when axes, labels or sizes do not fit.
    """

    frames: Mapping[str, Result]
    caption: str
    curve: Result | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise ReportError("a step slider", "it has no frame", "Give a name and a result over (step, layer, head)")
        first = next(iter(self.frames.values()))
        for name, result in self.frames.items():
            asked = f"step slider frame {name!r}"
            if len(result.axes) != 3 or result.axes[0] != "step":
                truth = f"{result.name!r} has axes {result.axes}, not 'step' and two more"
                raise ReportError(asked, truth, "Put the steps first, and fix others with .at(…)")
            check_filled(asked, result)
            check_axes(asked, result, first.axes)
            for axis in result.axes:
                _check_labels(asked, result, first, axis)
            _scale(name, result)
        if self.curve is not None:
            check_axes("the curve of a step slider", self.curve, ("step",))
            _check_labels("the curve of a step slider", self.curve, first, "step")

    def render(self, drawing: Drawing) -> Markup:
        drawing.use("interactive.css", "interactive.js", "grid.js", "slider.js")
        first_name, first = next(iter(self.frames.items()))
        last, scale = first.at(step=-1), _scale(first_name, first)
        undefined = any(bool(result.values.isnan().any()) for result in self.frames.values())
        shown = [
            {"name": name, "unit": result.unit, "scale": _scale(name, result).properties(), "chosen": _most_moved(result)}
            for name, result in self.frames.items()
        ]
        facts = {"frames": shown, "steps": names_along(first, "step"), **axes_of(first)}
        if self.curve is not None:
            facts["curve"] = {"name": self.curve.name, "unit": self.curve.unit, "values": listed(self.curve.values)}
        numbers = properties({"frames": [listed(result.values.flatten(1), 4) for result in self.frames.values()]})
        return drawing.fill(
            "step_slider",
            template=TEMPLATE,
            name=drawing.name("steps"),
            caption=self.caption,
            alt=f"At step {names_along(first, 'step')[-1]}, {extremes(last)}" if not last.values.isnan().all() else "",
            frames=list(self.frames),
            steps=names_along(first, "step"),
            table=table(last, scale),
            legend=scale.legend(undefined),
            unit=first.unit,
            properties=properties(facts),
            packed=packed(str(numbers)),
            csv=packed_csv(pd.concat([r.to_frame().assign(frame=name) for name, r in self.frames.items()])),
        )


def _scale(name: str, result: Result) -> Scale:
    return scale_of(f"step slider frame {name!r}", result.values)


def _check_labels(asked: str, result: Result, first: Result, axis: str) -> None:
    if result.labels_of(axis) != first.labels_of(axis):
        truth = f"axis {axis!r} of {result.name!r} is labelled otherwise than that of {first.name!r}"
        raise ReportError(asked, truth, "Give the same steps and cells for all")


def _most_moved(result: Result) -> list[int]:
    """Row and column of the cell whose values lie farthest apart."""
    values = result.values.detach().double()
    most = values.nan_to_num(-torch.inf).amax(0) - values.nan_to_num(torch.inf).amin(0)
    return [int(i) for i in torch.unravel_index(most.argmax(), most.shape)]
