"""What a model expects to come next, at each place of a text, and whether it was right."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from interp.errors import ReportError
from interp.report.circuitsvis import properties
from interp.report.download import packed_csv
from interp.report.grid import TEMPLATE
from interp.report.notebook import Shown
from interp.report.rendering import Drawing
from interp.report.text import visible_token
from interp.report.values import check_axes, listed
from interp.result import Result


@dataclass(frozen=True, eq=False)
class NextTokens(Shown):
    """The likeliest next tokens at each position of a text, best first, with their probabilities as bars.

    `guesses[pos][rank]` is what the model expects after `tokens[pos]`, with `probabilities` over (pos, rank). There are as many
    positions as tokens, or one less: what follows the last token is not known, so no guess there is marked as right. Each
    token is coloured by the rank of the token that did follow it. Hover, tap or the arrow keys choose the position. Raises
    `ReportError` where sizes do not fit, or probabilities are NaN, not in 0 to 1, rise with rank, or sum to more than 1.
    """

    tokens: Sequence[str]
    guesses: Sequence[Sequence[str]]
    probabilities: Result
    caption: str

    def __post_init__(self) -> None:
        asked = "next tokens"
        check_axes(asked, self.probabilities, ("pos", "rank"))
        positions, ranks = self.probabilities.values.shape
        if positions not in (len(self.tokens), len(self.tokens) - 1):
            truth = f"axis 'pos' of {self.probabilities.name!r} has {positions} entries, and there are {len(self.tokens)} tokens"
            raise ReportError(asked, truth, "Give one position per token; the last may be left out")
        if len(self.guesses) != positions or any(len(row) != ranks for row in self.guesses):
            sizes = sorted({len(row) for row in self.guesses})
            truth = (
                f"there are {len(self.guesses)} rows of {sizes} guesses, and (pos, rank) probabilities of {positions} × {ranks}"
            )
            raise ReportError(asked, truth, "Give one guess per probability")
        values = self.probabilities.values.detach().double()
        if not bool(((values >= 0) & (values <= 1 + 1e-4)).all()):  # also false for NaN
            raise ReportError(asked, f"{self.probabilities.name!r} holds NaN or values outside 0 to 1", "Give probabilities")
        if bool((values.diff(dim=1) > 1e-6).any()) or bool((values.sum(1) > 1 + 1e-2).any()):
            truth = f"{self.probabilities.name!r} rises along axis 'rank', or sums to more than 1 at a position"
            raise ReportError(asked, truth, "Give the k largest probabilities of each position, largest first")

    def render(self, drawing: Drawing) -> Markup:
        drawing.use("interactive.css", "interactive.js", "tokens.js")
        ranks = [self._rank(position) for position in range(len(self.guesses))]
        shown = [visible_token(token, 24) for token in self.tokens]
        guesses = [[visible_token(guess, 24) for guess in row] for row in self.guesses]
        facts = {"tokens": shown, "guesses": guesses, "probabilities": listed(self.probabilities.values, 4), "ranks": ranks}
        return drawing.fill(
            "next_tokens",
            template=TEMPLATE,
            name=drawing.name("next"),
            caption=self.caption,
            tokens=[(token, _kind(ranks, position)) for position, token in enumerate(shown)],
            best=len(self.guesses[0]),
            properties=properties(facts),
            csv=packed_csv(self._frame()),
        )

    def _rank(self, position: int) -> int | None:
        """The rank of the token that did follow, from 0; −1 if it is not among the guesses, None at the end of the text."""
        if position + 1 == len(self.tokens):
            return None
        guesses = list(self.guesses[position])
        return guesses.index(self.tokens[position + 1]) if self.tokens[position + 1] in guesses else -1

    def _frame(self) -> pd.DataFrame:
        frame = self.probabilities.to_frame().drop(columns=["stderr", "baseline"], errors="ignore")
        positions, ranks = self.probabilities.values.shape
        place = [position for position in range(positions) for _ in range(ranks)]
        frame.insert(1, "token", [self.tokens[position] for position in place])
        frame.insert(3, "guess", [guess for row in self.guesses for guess in row])
        frame["right"] = [self._rank(position) == rank for position in range(positions) for rank in range(ranks)]
        return frame.rename(columns={"value": "probability"})


def _kind(ranks: list[int | None], position: int) -> str:
    """The class of a token: what became of the guesses after it."""
    rank = ranks[position] if position < len(ranks) else None
    if rank is None:
        return "open"
    return "missed" if rank < 0 else ("among" if rank else "first")
