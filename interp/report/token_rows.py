"""One text, coloured once per result, so that scores of the same tokens can be compared line by line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from interp.errors import ReportError
from interp.report.download import packed_csv
from interp.report.grid import TEMPLATE
from interp.report.notebook import Shown
from interp.report.rendering import Drawing
from interp.report.text import number, visible_token
from interp.report.values import Scale, check_axes, check_tokens
from interp.result import Result


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One result over (pos,), coloured on a scale from `min_value` to `max_value` in which white is zero.

    Or over (target,), as `interp.token_losses(…).at(sequence=0)` gives: the labels say at which positions the values stand.
    """

    name: str
    result: Result
    min_value: float | int
    max_value: float | int

    def __post_init__(self) -> None:
        if self.result.axes != ("target",):
            check_axes(f"token row {self.name!r}", self.result, ("pos",))
        if not self.min_value <= 0 <= self.max_value or self.min_value == self.max_value:
            truth = f"the scale runs from {self.min_value} to {self.max_value}, and white must be zero"
            raise ReportError(f"token row {self.name!r}", truth, "Give min_value <= 0 <= max_value, not both 0")

    def values(self, tokens: Sequence[str]) -> Float[Tensor, " pos"]:
        """One value per token, NaN where the result has none. Raises `ReportError` where they do not fit."""
        values = self.result.values.detach().cpu().double()
        if self.result.axes == ("pos",):
            check_tokens(f"token row {self.name!r}", self.result, "pos", tokens)
            return values
        labels = self.result.labels_of("target")
        if list(labels) != [str(place) for place in range(1, len(tokens))]:
            truth = f"its targets are {', '.join(labels[:3])} … ({len(labels)}), and there are {len(tokens)} tokens"
            raise ReportError(
                f"token row {self.name!r}", truth, "Give all tokens that were run, from the first, which is no target"
            )
        return torch.cat([torch.full((1,), torch.nan, dtype=torch.float64), values])

    @property
    def scale(self) -> Scale:
        return Scale(float(self.min_value), float(self.max_value))


@dataclass(frozen=True, eq=False)
class StackedTokens(Shown):
    """The same text once per row, each coloured by that row's result on its own fixed scale.

    Hover, tap or the arrow keys show a token's values in all rows. Values beyond an end of the scale get the end's colour;
    NaN is hatched. The values can be downloaded as CSV. Raises `ReportError` without rows or tokens, or where they do not fit.
    """

    tokens: Sequence[str]
    rows: Sequence[TokenRow]
    caption: str

    def __post_init__(self) -> None:
        if not self.rows:
            raise ReportError("stacked tokens", "there is no row", "Give at least one TokenRow")
        for row in self.rows:
            row.values(self.tokens)

    def render(self, drawing: Drawing) -> Markup:
        drawing.use("interactive.css", "interactive.js", "tokens.js")
        shown = [visible_token(token, 24) for token in self.tokens]
        return drawing.fill(
            "stacked_tokens",
            template=TEMPLATE,
            name=drawing.name("stack"),
            caption=self.caption,
            rows=[_drawn(row, shown) for row in self.rows],
            note=_of_scales(self.rows),
            csv=packed_csv(self._frame()),
        )

    def _frame(self) -> pd.DataFrame:
        columns = [pd.Series(row.values(self.tokens).numpy(), name=row.name) for row in self.rows]
        return pd.concat([pd.Series(list(self.tokens), name="token"), *columns], axis=1)


def _of_scales(rows: Sequence[TokenRow]) -> str:
    """Whether colours can be compared between rows."""
    if len(rows) == 1:
        return "No colour is 0."
    scales = {(float(row.min_value), float(row.max_value), row.result.unit) for row in rows}
    if len(scales) == 1:
        return "All rows have the same scale; no colour is 0."
    every = len(scales) == len(rows)
    return f"{'Each row has its own scale' if every else 'Not all rows have the same scale, see beside each'}; no colour is 0."


def _drawn(row: TokenRow, tokens: list[str]) -> dict[str, object]:
    values = row.values(tokens).tolist()
    unit = f" {row.result.unit}" if row.result.unit else ""
    words = ["undefined" if math.isnan(value) else f"{number(value, 4)}{unit}" for value in values]
    return {
        "name": row.name,
        "unit": row.result.unit,
        "tokens": [(word, row.scale.cell(value, token)) for value, word, token in zip(values, words, tokens, strict=True)],
        "legend": row.scale.legend(any(map(math.isnan, values))),
    }
