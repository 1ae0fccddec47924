"""Two axes of numbers as a grid of coloured cells that say their value: a table to a screen reader, a picture to the eye."""

from dataclasses import dataclass
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from interp.errors import ReportError
from interp.report.circuitsvis import properties
from interp.report.download import packed_csv
from interp.report.notebook import Shown
from interp.report.rendering import Drawing
from interp.report.text import number
from interp.report.values import Scale, check_filled, names_along, scale_of, spread
from interp.result import Result

TEMPLATE = "interactive.html.jinja"
_MOST_WITH_TEXT = 14  # columns; in more of them numbers would not fit
_SHORT = 3  # characters; longer column labels stand upright


@dataclass(frozen=True, eq=False)
class Grid(Shown):
    """Any result with two axes as a grid: rows are the first axis, columns the second.

    Hover, tap or the arrow keys show a cell's value, with its standard error and baseline where known. White is zero; blue
    is used for values of one sign, and red above and blue below zero where both occur. The colours run to the largest
    absolute value unless `min_value` or `max_value` fixes an end (values beyond it get the end's colour). NaN cells are
    hatched. `alt` says what the grid shows; without it, a sentence with its extremes stands in. The page offers the grid as
    SVG and its numbers, unrounded, as CSV. Up to a few thousand cells. Raises `ReportError` for other numbers of axes, for
    an empty axis, and when no value is defined.
    """

    result: Result
    caption: str
    alt: str = ""
    min_value: float | int | None = None
    max_value: float | int | None = None

    def __post_init__(self) -> None:
        if len(self.result.axes) != 2:
            truth = f"{self.result.name!r} has axes {self.result.axes}, and a grid has two"
            raise ReportError("a grid", truth, "Fix the others with .at(…)")
        check_filled("a grid", self.result)
        self._scale()

    def _scale(self) -> Scale:
        return scale_of(f"a grid of {self.result.name!r}", self.result.values, self.min_value, self.max_value)

    def render(self, drawing: Drawing) -> Markup:
        drawing.use("interactive.css", "interactive.js", "grid.js")
        scale = self._scale()
        return drawing.fill(
            "grid",
            template=TEMPLATE,
            name=drawing.name("grid"),
            caption=self.caption,
            alt=self.alt or extremes(self.result),
            table=table(self.result, scale),
            legend=scale.legend(bool(self.result.values.isnan().any())),
            unit=self.result.unit,
            properties=properties(spread(self.result) | {"scale": scale.properties(), **axes_of(self.result)}),
            csv=packed_csv(self.result.to_frame()),
        )


def table(result: Result, scale: Scale) -> dict[str, Any]:
    """What the template `cells` needs to draw two axes."""
    rows, columns = result.axes
    columns_shown = names_along(result, columns, 20)
    row_names = names_along(result, rows, 20)
    values = result.values.detach().cpu().double().tolist()
    return {
        "axes": (rows, columns),
        "columns": columns_shown,
        "rows": [
            (name, [scale.cell(value, scale.short(value)) for value in row]) for name, row in zip(row_names, values, strict=True)
        ],
        "dense": len(columns_shown) > _MOST_WITH_TEXT,
        "upright": max(map(len, columns_shown)) > (_SHORT if len(columns_shown) <= 2 * _MOST_WITH_TEXT else 1),
    }


def axes_of(result: Result) -> dict[str, Any]:
    """Names of the last two axes and of their entries, for the scripts."""
    rows, columns = result.axes[-2:]
    return {"axes": [rows, columns], "rows": names_along(result, rows, 40), "columns": names_along(result, columns, 40)}


def extremes(result: Result) -> str:
    """The size of a result and where its largest and smallest values are, in words; some value must be defined."""
    values = result.values.detach().cpu().double()
    missing = int(values.isnan().sum())

    def place(index: Tensor) -> str:
        at = [int(i) for i in torch.unravel_index(index, values.shape)]
        where = [f"{axis} {names_along(result, axis)[i]}" for axis, i in zip(result.axes, at, strict=True)]
        return f"{number(float(values[tuple(at)]))} at " + ", ".join(where)

    size = " × ".join(f"{n} {axis}" for n, axis in zip(values.shape, result.axes, strict=True))
    most, least = place(values.nan_to_num(-torch.inf).argmax()), place(values.nan_to_num(torch.inf).argmin())
    return f"{size}: largest {most}; smallest {least}." + (f" {missing} undefined." if missing else "")
