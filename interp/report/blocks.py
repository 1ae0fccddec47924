"""The parts a page is made of. Each is a small frozen value that renders itself to safe HTML."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import pandas as pd
from markupsafe import Markup

from interp.display import cell, is_numeric
from interp.errors import ReportError, nearest
from interp.report import circuitsvis, svg
from interp.report.atlas import HeadAtlas
from interp.report.contents import check_blocks
from interp.report.download import packed_csv
from interp.report.notebook import Shown, for_notebook
from interp.report.plotting import Drawn
from interp.report.rendering import Block, Drawing
from interp.report.text import number, paragraphs
from interp.report.token_rows import StackedTokens, TokenRow
from interp.result import Result

Outcome = Literal["supported", "refuted", "mixed", "not tested"]
SIGNS = {"supported": "✓", "refuted": "✗", "mixed": "≈", "not tested": "?"}
_WORDS = {
    "supported": "Supported",
    "refuted": "Refuted: the prediction failed",
    "mixed": "Mixed",
    "not tested": "Not tested",
}


@dataclass(frozen=True)
class Verdict(Shown):
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
        return drawing.fill("verdict", verdict=self, sign=SIGNS[self.outcome], word=_WORDS[self.outcome])


@dataclass(frozen=True)
class Prose(Shown):
    """Paragraphs of plain text. Blank lines part them, "- " makes list items, backticks make `code`."""

    text: str

    def render(self, drawing: Drawing) -> Markup:
        return drawing.fill("prose", html=paragraphs(self.text))


@dataclass(frozen=True, eq=False)
class Table(Shown):
    """A data frame with a caption; its CSV, unrounded, can be downloaded from the page.

    Numbers are shown with `digits` significant digits. An index other than 0, 1, … becomes the first columns.
    """

    frame: pd.DataFrame
    caption: str
    digits: int = 3

    def render(self, drawing: Drawing) -> Markup:
        frame = self.frame if isinstance(self.frame.index, pd.RangeIndex) else self.frame.reset_index()
        numeric = [is_numeric(frame.iloc[:, i]) for i in range(frame.shape[1])]
        csv = base64.b64encode(frame.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace"))
        return drawing.fill(
            "table",
            name=drawing.name("table"),
            caption=self.caption,
            columns=list(zip(map(_heading, frame.columns), numeric, strict=True)),
            rows=[[cell(value, self.digits) for value in row] for row in frame.itertuples(index=False, name=None)],
            csv="data:text/csv;charset=utf-8;base64," + csv.decode("ascii"),
        )


@dataclass(frozen=True, eq=False)
class Figure(Shown):
    """A drawn figure as a picture; itself as SVG and its numbers as CSV can be downloaded from the page.

    `alt` says in words what it shows, for those who cannot see it.
    """

    drawn: Drawn
    alt: str
    caption: str

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ReportError("a figure", "it has no alt text", "Say in one sentence what it shows")
        if not isinstance(self.drawn, Drawn):
            truth = f"a {type(self.drawn).__name__} has no numbers to download"
            raise ReportError("a figure", truth, "Give what curves(…) and the like return, or Drawn(figure, data)")

    def render(self, drawing: Drawing) -> Markup:
        width, height = svg.size_in_pixels(self.drawn.figure)
        return drawing.fill(
            "figure",
            name=drawing.name("figure"),
            address=svg.data_address(svg.to_svg(self.drawn.figure)),
            width=width,
            height=height,
            alt=self.alt,
            caption=self.caption,
            csv=packed_csv(self.drawn.data),
        )


@dataclass(frozen=True, eq=False)
class AttentionMaps(Shown):
    """Attention over the same tokens for several models, side by side, in one colour scale from 0 to `max_value`.

    Each panel is a name and a result with axes `head query key`. Meant for a few heads and up to about 64 tokens. A notebook
    shows an atlas of the heads instead.
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

    def for_notebook(self) -> Block:
        return Row([HeadAtlas(_as_layer(name, maps), self.tokens, f"{name}. {self.caption}") for name, maps in self.panels])


@dataclass(frozen=True, eq=False)
class ColoredTokens(Shown):
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

    def for_notebook(self) -> Block:
        row = TokenRow(self.values.name, self.values, self.min_value, self.max_value)
        return StackedTokens(self.tokens, [row], self.caption)


@dataclass(frozen=True, eq=False)
class Row(Shown):
    """Blocks side by side where the screen has room for them, one below the other where it has not.

    Raises `ReportError` for what is no block, and says what to wrap it in.
    """

    blocks: Sequence[Block]

    def __post_init__(self) -> None:
        check_blocks("a row", self.blocks)

    def render(self, drawing: Drawing) -> Markup:
        return drawing.fill("row", blocks=[block.render(drawing) for block in self.blocks])

    def for_notebook(self) -> Block:
        return Row([for_notebook(block) for block in self.blocks])


def _as_layer(name: str, maps: Result) -> Result:
    return replace(maps, values=maps.values[None], axes=("layer", *maps.axes), labels={"layer": (name,), **maps.labels})


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
