"""The parts a page is made of. Each is a small frozen value that renders itself to safe HTML."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import figure as matplotlib_figure

from interp.errors import ReportError, nearest
from interp.report import circuitsvis, svg
from interp.report.rendering import Block, Drawing
from interp.report.text import MISSING, number, paragraphs
from interp.result import Result

Outcome = Literal["supported", "refuted", "mixed", "not tested"]
_SIGNS = {"supported": "✓", "refuted": "✗", "mixed": "≈", "not tested": "?"}
_WORDS = {
    "supported": "Supported",
    "refuted": "Refuted: the prediction failed",
    "mixed": "Mixed",
    "not tested": "Not tested",
}


@dataclass(frozen=True)
class Verdict:
    """A card: the question, the answer in words, and what it rests on. A failed prediction is as visible as a met one.

    `evidence` should name numbers and thresholds; `control` says what would have shown the claim false. All plain text.
    """

    question: str
    answer: str
    outcome: Outcome
    evidence: str
    control: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            known = get_args(Outcome)
            raise ReportError(f"outcome {self.outcome!r}", f"outcomes are {known}", f"{nearest(self.outcome, known)}Choose one")

    def render(self, drawing: Drawing) -> Markup:
        return drawing.fill("verdict", verdict=self, sign=_SIGNS[self.outcome], word=_WORDS[self.outcome])


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text. Blank lines part them, "- " makes list items, backticks make `code`."""

    text: str

    def render(self, drawing: Drawing) -> Markup:
        return drawing.fill("prose", html=paragraphs(self.text))


@dataclass(frozen=True, eq=False)
class Table:
    """A data frame with a caption; its CSV, unrounded, can be downloaded from the page.

    Numbers are shown with `digits` significant digits. An index other than 0, 1, … becomes the first columns.
    """

    frame: pd.DataFrame
    caption: str
    digits: int = 3

    def render(self, drawing: Drawing) -> Markup:
        frame = self.frame if isinstance(self.frame.index, pd.RangeIndex) else self.frame.reset_index()
        numeric = [_is_numeric(frame.iloc[:, i]) for i in range(frame.shape[1])]
        csv = base64.b64encode(frame.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace"))
        return drawing.fill(
            "table",
            name=drawing.name("table"),
            caption=self.caption,
            columns=list(zip(map(_heading, frame.columns), numeric, strict=True)),
            rows=[[self._cell(value) for value in row] for row in frame.itertuples(index=False, name=None)],
            csv="data:text/csv;charset=utf-8;base64," + csv.decode("ascii"),
        )

    def _cell(self, value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if _is_missing(value):
            return MISSING
        if isinstance(value, Integral):
            return number(int(value))
        return number(float(value), self.digits) if isinstance(value, Real) else str(value)


@dataclass(frozen=True, eq=False)
class Figure:
    """A matplotlib figure as a picture. `alt` says in words what it shows, for those who cannot see it."""

    figure: matplotlib_figure.Figure
    alt: str
    caption: str

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ReportError("a figure", "it has no alt text", "Say in one sentence what it shows")

    def render(self, drawing: Drawing) -> Markup:
        width, height = svg.size_in_pixels(self.figure)
        address = svg.data_address(svg.to_svg(self.figure))
        return drawing.fill(
            "figure", name=drawing.name("figure"), address=address, width=width, height=height, alt=self.alt, caption=self.caption
        )


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention over the same tokens for several models, side by side, in one colour scale from 0 to `max_value`.

    Each panel is a name and a result with axes `head query key`. Meant for a few heads and up to about 64 tokens.
    """

    panels: Sequence[tuple[str, Result]]
    tokens: Sequence[str]
    caption: str
    max_value: float | int = 1.0

    def __post_init__(self) -> None:
        for name, result in self.panels:
            _check_values(f"attention maps of {name!r}", result, ("head", "query", "key"), self.tokens)
            low, high = float(result.values.min()), float(result.values.max())
            if low < -1e-4 or high > 1 + 1e-4:
                truth = f"weights run from {low:.3g} to {high:.3g}, and attention lies between 0 and 1"
                raise ReportError(f"attention maps of {name!r}", truth, "Give patterns after the softmax")
        if not 0 < self.max_value <= 1:
            raise ReportError(
                f"max_value={self.max_value}", "the colour scale runs from 0 up to it", "Give it above 0, at most 1"
            )

    def render(self, drawing: Drawing) -> Markup:
        drawn = []
        for name, result in self.panels:
            heads = result.labels_of("head")
            component, props = circuitsvis.attention(result.values, heads, self.tokens, self.max_value)
            drawn.append((name, drawing.panel(component, props, f"Attention of {name}")))
        return drawing.fill("attention_maps", panels=drawn, caption=self.caption, maximum=number(self.max_value))


@dataclass(frozen=True, eq=False)
class ColoredTokens:
    """A text whose tokens are coloured by a result with axis `pos`, on a scale that is fixed and stated: zero is white.

    Values beyond `min_value` or `max_value` are coloured as the end of the scale; hovering shows the value itself.
    """

    tokens: Sequence[str]
    values: Result
    caption: str
    min_value: float | int
    max_value: float | int

    def __post_init__(self) -> None:
        _check_values("coloured tokens", self.values, ("pos",), self.tokens)
        if not self.min_value <= 0 < self.max_value:
            truth = f"the scale runs from {self.min_value} to {self.max_value}, and white must be zero"
            raise ReportError("coloured tokens", truth, "Give min_value <= 0 < max_value")

    def render(self, drawing: Drawing) -> Markup:
        # CircuitsVis divides by the lower end, also when no value is negative
        low = self.min_value or -self.max_value
        component, props = circuitsvis.coloured_tokens(self.values.values, self.tokens, low, self.max_value)
        panel = drawing.panel(component, props, self.caption)
        scale = (number(self.min_value), number(self.max_value))
        return drawing.fill("coloured_tokens", panel=panel, caption=self.caption, scale=scale, unit=self.values.unit)


@dataclass(frozen=True, eq=False)
class Row:
    """Blocks side by side where the screen has room for them, one below the other where it has not."""

    blocks: Sequence[Block]

    def render(self, drawing: Drawing) -> Markup:
        return drawing.fill("row", blocks=[block.render(drawing) for block in self.blocks])


def _check_values(asked: str, result: Result, axes: tuple[str, ...], tokens: Sequence[str]) -> None:
    if result.axes != axes:
        raise ReportError(asked, f"{result.name!r} has axes {result.axes}, not {axes}", "Fix or reorder axes, e.g. with .at(…)")
    shape = tuple(result.values.shape)
    if 0 in shape or any(size != len(tokens) for size, axis in zip(shape, axes, strict=True) if axis != "head"):
        truth = f"{result.name!r} has shape {shape} over {axes} for {len(tokens)} tokens"
        raise ReportError(asked, truth, "Give one token per position, the same for all panels")
    if bool(result.values.isnan().any()):
        raise ReportError(
            asked, f"{result.name!r} holds NaN, which would be drawn as if it were zero", "Leave those positions out"
        )


def _heading(column: Any) -> str:
    return " ".join(map(str, column)) if isinstance(column, tuple) else str(column)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, Real) and math.isnan(value))


def _is_numeric(column: pd.Series) -> bool:
    present = [value for value in column if not _is_missing(value)]
    return bool(present) and all(isinstance(value, Real) and not isinstance(value, bool | np.bool_) for value in present)
