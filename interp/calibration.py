"""Calibration: every probe on models whose answers are known on paper.

`print(interp.calibrate())` shows the table; `interp calibrate` prints it and exits with 1 when a row fails.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.display import card, table
from interp.errors import ConfigError, each_a
from interp.models.constructed import COPIES, PERIOD, Constructed, all_constructed
from interp.probes import (
    composition_scores,
    copying_scores,
    head_scores,
    in_context_learning,
    kernel_stats,
    key_smear,
    null_scores,
    perplexity,
    qk_trace_scores,
    repeat_loss,
    repeated_tokens,
    token_losses,
)
from interp.sites import HookedModel

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
FEW = 4  # sequences: on these models every one gives the same score
OTHER_PERIOD = 17  # where a head of fixed distance fails

Measurement = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Row:
    """One probe on one model: expected and measured values of all its heads, and whether they agree within `tolerance`."""

    model: str
    probe: str
    expected: tuple[float, ...]
    measured: tuple[float, ...]
    tolerance: float
    control: bool

    @property
    def error(self) -> float:
        """The largest difference; infinite where one is defined and the other is not, or where their numbers differ."""
        if len(self.expected) != len(self.measured):
            return math.inf
        return max(_difference(a, b) for a, b in zip(self.expected, self.measured, strict=True))

    @property
    def passed(self) -> bool:
        """Whether every value is within the tolerance."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Calibration:
    """The table of expected and measured values; prints as text, shows as a table in a notebook."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    def to_frame(self) -> "pd.DataFrame":
        """One row per model and probe; several heads are listed in order of layer and head."""
        import pandas as pd

        return pd.DataFrame(
            {
                "model": row.model + (" [control]" if row.control else ""),
                "probe": row.probe,
                "expected": _shown(row.expected),
                "measured": _shown(row.measured),
                "error": row.error,
                "tolerance": row.tolerance,
                "passed": row.passed,
            }
            for row in self.rows
        )

    def __str__(self) -> str:
        failed = sum(not row.passed for row in self.rows)
        table = self.to_frame().to_string(index=False, float_format=lambda value: f"{value:.0e}", justify="left")
        return f"{table}\n{len(self.rows) - failed} of {len(self.rows)} rows passed"

    def _repr_html_(self) -> str:
        failed = sum(not row.passed for row in self.rows)
        note = f"{len(self.rows) - failed} of {len(self.rows)} rows passed"
        return card("calibration", table(self.to_frame(), digits=2), note=note)


def calibrate(models: Sequence[Constructed] | None = None) -> Calibration:
    """Run every probe on `models` (default: all constructed ones) and compare with what they must show.

    One row per model and probe, in the units of the probe, values of all heads in order of layer and head, `-` where undefined.
    Rows of controls are models that must *not* show an effect, or must show it only under the wrong probe. Deterministic; a few
    seconds on a CPU. Raises `ConfigError` for anything but a list of constructed models, and `KeyError` for an expectation that
    no probe measures.
    """
    remedy = "Give some of interp.models.constructed.all_constructed(), or leave the models out to measure all"
    chosen = [] if models is None else each_a(Constructed, models, "calibrating", remedy, ConfigError)
    return Calibration(tuple(row for made in chosen or all_constructed() for row in _rows(made)))


def _rows(made: Constructed) -> Iterator[Row]:
    scores = head_scores(made.model, n_sequences=FEW)
    for index, name in enumerate(scores.labels_of("score")):
        if name in made.expected:
            yield _row(made, name, scores.values[index])
    for name in made.expected:
        if name not in scores.labels_of("score"):
            yield _row(made, name, MEASUREMENTS[name](made.model))


def _row(made: Constructed, name: str, measured: Tensor) -> Row:
    expected = tuple(value for layer in made.expected[name] for value in layer)
    return Row(made.name, name, expected, tuple(measured.double().flatten().tolist()), TOLERANCE, made.control)


def _other_period(model: HookedModel) -> Tensor:
    return head_scores(model, scores=["induction"], period=OTHER_PERIOD, n_sequences=FEW).values


def _learning(model: HookedModel) -> Tensor:
    tokens = repeated_tokens(model, n_sequences=FEW, period=PERIOD, copies=COPIES)
    return in_context_learning(model, tokens, early=10, late=60, window=1).values[2]


def _second_copy(model: HookedModel) -> Tensor:
    tokens = repeated_tokens(model, n_sequences=FEW, period=PERIOD)
    return repeat_loss(model, tokens, PERIOD).values[1]


def _token_losses(model: HookedModel) -> Tensor:
    tokens = repeated_tokens(model, n_sequences=FEW, period=PERIOD)
    return token_losses(model, tokens).values[:, PERIOD + 1 :].mean()


def _smallest_perplexity(model: HookedModel) -> Tensor:
    return perplexity(model, repeated_tokens(model, n_sequences=FEW, period=PERIOD)).values[1, 1]


MEASUREMENTS: dict[str, Measurement] = {
    "key_smear": lambda model: key_smear(model, n_examples=FEW).values,
    "key_smear (lag 2)": lambda model: key_smear(model, offset=-2, n_examples=FEW).values,
    "copying (eigenvalue)": lambda model: copying_scores(model, n_samples=FEW, n_null=1).values[0],
    "copying (logit raise)": lambda model: copying_scores(model, n_samples=FEW, n_null=1).values[1],
    "qk_trace": lambda model: qk_trace_scores(model, n_null=1).values[1],
    "composition K from L0H0": lambda model: composition_scores(model, "K", n_null=1).values[0, 0],
    "in_context_learning": _learning,
    "repeat_loss (second copy)": _second_copy,
    "token_losses (second copy)": _token_losses,
    "perplexity (smallest)": _smallest_perplexity,
    "induction at another period": _other_period,
    "kernel_stats (largest, by tap)": lambda model: kernel_stats(model).values[1, :, 0],
    "null of induction": lambda model: null_scores(model, n_sequences=FEW).values[0, 0],
}


def _difference(expected: float, measured: float) -> float:
    if math.isnan(expected) or math.isnan(measured):
        return 0.0 if math.isnan(expected) == math.isnan(measured) else math.inf
    return abs(expected - measured)


def _shown(values: tuple[float, ...]) -> str:
    return "  ".join("-" if math.isnan(value) else f"{value:.4f}" for value in values)
