"""What all figures share: the style, the colours, numbers on axes, and reading a result's axes with clear errors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from interp.display import whole
from interp.errors import ReportError
from interp.report import svg
from interp.result import Result

# Okabe and Ito's colours, told apart by nearly everyone; the darker ones first. Line styles differ as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)))
INK, SOFT, LINE = "#1f242b", "#59616d", "#e2dfd8"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "text.color": INK,
    "text.parse_math": False,  # a token with a "$" is not a formula
    "axes.edgecolor": "#9aa0a8",
    "axes.labelcolor": SOFT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "legend.frameon": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """A matplotlib figure and the numbers in it: one row per value that is drawn, unrounded, NaN where undefined."""

    figure: Figure
    data: pd.DataFrame

    def _repr_html_(self) -> str:
        (width, height), address = svg.size_in_pixels(self.figure), svg.data_address(svg.to_svg(self.figure))
        return f'<img src="{address}" width="{width}" height="{height}" alt="Figure of {len(self.data)} values">'


@contextmanager
def styled() -> Iterator[None]:
    """The report's look for the figures built inside; nothing of it remains afterwards."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float = 5.3, height: float = 3.4) -> Figure:
    """An empty figure; at 5.3 inches its text stays readable on a phone."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def values_of(result: Result, *choices: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values as float64. Raises `ReportError` unless the axes are one of `choices` and some value is defined."""
    asked = f"a figure of {result.name!r}"
    if result.axes not in choices:
        wanted = " or ".join(map(str, choices))
        raise ReportError(asked, f"it has axes {result.axes}, not {wanted}", "Fix or reorder axes, e.g. with .at(…)")
    values: np.ndarray[Any, np.dtype[np.float64]] = result.values.detach().cpu().double().numpy()
    if values.size == 0 or np.isnan(values).all():
        raise ReportError(asked, "it has no defined value", "Leave it out of the figure")
    return values


def numbers_along(result: Result, axis: str) -> list[float]:
    """The labels along `axis` as numbers. Raises `ReportError` when they are something else."""
    try:
        return [float(text) for text in result.labels_of(axis)]
    except ValueError as error:
        raise ReportError(
            f"a curve of {result.name!r}", f"its {axis} labels are not numbers ({error})", "Label them so"
        ) from None


def check_any(items: Mapping[str, object]) -> None:
    """Raises `ReportError` when there is nothing to draw."""
    if not items:
        raise ReportError("a figure", "there is nothing to draw", "Give at least one result")


def tidy(axes: Axes, grid: str = "y") -> None:
    """Quiet ticks, and grid lines along one direction only."""
    axes.tick_params(colors=SOFT, labelsize=9.5, length=3)
    axes.grid(bool(grid), axis=grid or "both", color=LINE, linewidth=0.8)  # type: ignore[arg-type]


def short_number(value: float, _position: int | None = None) -> str:
    """A tick label: 0, 0.25, 50, 2k, 1.5M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def number_axis(axis: Any, formatter: Callable[..., str] = short_number) -> None:
    axis.set_major_formatter(FuncFormatter(formatter))


def tint(colour: str) -> tuple[float, ...]:
    """A light version of `colour`, opaque so that grid lines do not show through."""
    return tuple(0.36 * part + 0.64 for part in to_rgb(colour))


def legend_above(figure: Figure, axes: Axes) -> None:
    """A legend over the whole figure: one line if that fits its width, else two columns, else one."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    inches, room = [0.08 * len(label) + 0.62 for label in labels], figure.get_size_inches()[0]
    columns = len(labels) if sum(inches) < room else (2 if 2 * max(inches) < room else 1)
    lines = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, lines - 2))  # what the legend takes, the curves keep
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.4, fontsize=10)


def plain_text(figure: Figure) -> Figure:
    """The figure, with no text read as a formula, also in parts made before the style was set."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]
    return figure


def long_form(lines: Mapping[str, Result], column: str) -> pd.DataFrame:
    """The values of all results, one row each: the result's name in `column`, its axes, `value`."""
    frames = []
    for name, result in lines.items():
        frame = result.to_frame()[[*result.axes, "value"]]
        frame.insert(0, column, whole(name))
        frames.append(frame)
    axes = dict.fromkeys(axis for result in sorted(lines.values(), key=lambda r: -len(r.axes)) for axis in result.axes)
    # an axis that a line lacks stays empty there, and does not turn the others' whole numbers into fractions
    data = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)[[column, *axes, "value"]]
    return data.astype({"value": float})


def with_baseline(data: pd.DataFrame, label: str, baseline: float | int | None) -> pd.DataFrame:
    """The rows and, where a baseline is drawn, one more that has only its label and value."""
    if baseline is None:
        return data
    row = dict.fromkeys(data.columns, None) | {data.columns[0]: whole(label), "value": baseline}
    return pd.concat([data.astype(object), pd.DataFrame([row], dtype=object)], ignore_index=True).astype({"value": float})
