"""What the interactive blocks share: checks, colour scales, and numbers as their scripts read them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import ReportError
from interp.report.text import MISSING, number, visible_token
from interp.result import Result

_OF_TOKENS = ("pos", "token", "query", "key")
_DEEP = 58  # from this percentage of the full colour on, text needs the other ink
_SWATCHES = 21


@dataclass(frozen=True)
class Scale:
    """A colour scale from `low` to `high`: white at zero, or at the end nearest to it where zero is outside.

    Blue for values of one sign and below zero, red above zero where both signs occur.
    """

    low: float
    high: float

    @property
    def both(self) -> bool:
        return self.low < 0 < self.high

    @property
    def white(self) -> float:
        return min(max(0.0, self.low), self.high)

    @property
    def reach(self) -> float:
        """How far from white the full colour is."""
        return max(self.high - self.white, self.white - self.low)

    def percent(self, value: float) -> int:
        """How much of the full colour `value` gets; values beyond the end get all of it."""
        return round(100 * min(1.0, abs(value - self.white) / self.reach))

    @property
    def decimals(self) -> int | None:
        """How many decimals the short numbers in cells have; None where they would be too long, and a power of ten is better."""
        power = math.ceil(math.log10(self.reach))
        if not -3 <= power <= 5:
            return None
        return 2 - power if power <= 0 else max(0, 3 - power)

    def short(self, value: float) -> str:
        """`value` as it stands in a cell."""
        if math.isnan(value):
            return MISSING
        text = f"{value:.0e}" if self.decimals is None else f"{value:.{self.decimals}f}"
        return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")

    def cell(self, value: float, text: str = "") -> dict[str, Any]:
        """A coloured cell for the templates: its text, percentage of the colour, and classes."""
        if math.isnan(value):
            return {"text": text, "percent": 0, "kind": "u"}
        percent = self.percent(value)
        kind = "w" * (self.both and value > 0) + "d" * (percent >= _DEEP)
        return {"text": text, "percent": percent, "kind": " ".join(kind)}

    def legend(self, undefined: bool) -> dict[str, Any]:
        """The bar under a block: swatches from low to high, and what its ends and white stand for."""
        steps = torch.linspace(self.low, self.high, _SWATCHES, dtype=torch.float64).tolist()
        zero = 100 * (0 - self.low) / (self.high - self.low) if self.both else None
        return {
            "swatches": [self.cell(value) for value in steps],
            "low": number(self.low),
            "high": number(self.high),
            "zero": zero,
            "undefined": undefined,
        }

    def properties(self) -> dict[str, Any]:
        """The scale for the scripts, which colour cells by the same rule."""
        words = {"low": number(self.low), "high": number(self.high)}
        colours = {"white": self.white, "reach": self.reach, "both": self.both, "ends": [self.low, self.high]}
        return {**colours, **words, "decimals": self.decimals}


def scale_of(asked: str, values: Tensor, low: float | int | None = None, high: float | int | None = None) -> Scale:
    """The scale that holds every value and zero, as far to either side where both signs occur; `low` and `high` override it.

    Raises `ReportError` when no value is defined or nothing lies between `low` and `high`.
    """
    known = values.detach().double()[~values.isnan()]
    if not len(known):
        raise ReportError(asked, f"none of its {values.numel()} values is defined", "Leave it out of the page")
    least, most = min(0.0, float(known.min())), max(0.0, float(known.max()))
    if least < 0 < most:
        least, most = -max(-least, most), max(-least, most)
    if least == most:
        most = 1.0  # nothing but zeros: white everywhere
    least, most = least if low is None else float(low), most if high is None else float(high)
    if not least < most:
        raise ReportError(asked, f"its colours run from {least:g} to {most:g}", "Give min_value below max_value")
    return Scale(least, most)


def check_axes(asked: str, result: Result, axes: tuple[str, ...]) -> None:
    """Raises `ReportError` unless the result has just these axes, in this order, and none is empty."""
    if result.axes != axes:
        raise ReportError(asked, f"{result.name!r} has axes {result.axes}, not {axes}", "Fix or reorder axes, e.g. with .at(…)")
    check_filled(asked, result)


def check_filled(asked: str, result: Result) -> None:
    """Raises `ReportError` when some axis of the result has no entry."""
    if 0 in result.values.shape:
        shape = ", ".join(f"{axis} {size}" for axis, size in zip(result.axes, result.values.shape, strict=True))
        raise ReportError(asked, f"{result.name!r} is empty ({shape})", "Give at least one entry along each axis")


def check_tokens(asked: str, result: Result, axis: str, tokens: Sequence[str]) -> None:
    """Raises `ReportError` unless there is one token per entry of that axis."""
    size = result.values.shape[result.axes.index(axis)]
    if size != len(tokens):
        truth = f"axis {axis!r} of {result.name!r} has {size} entries, and there are {len(tokens)} tokens"
        raise ReportError(asked, truth, "Give one token per position")


def names_along(result: Result, axis: str, longest: int = 24) -> list[str]:
    """The labels along an axis as they are shown; white space is marked where they are tokens."""
    return [_shown(label, axis, longest) for label in result.labels_of(axis)]


def _shown(label: str, axis: str, longest: int) -> str:
    if axis in _OF_TOKENS:
        return visible_token(label, longest)
    text = " ".join(visible_token(word, longest) for word in label.split(" "))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def listed(values: Tensor | float | None, digits: int = 6) -> Any:
    """Numbers for a script, nested as the tensor is, with that many significant digits; None where undefined or absent."""

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(entry) for entry in value]
        return None if math.isnan(value) else float(f"{value:.{digits}g}")

    return None if values is None else cut(torch.as_tensor(values).detach().cpu().double().tolist())


def spread(result: Result) -> dict[str, Any]:
    """The values of a result with their standard errors and baselines where known, as `listed` gives them."""
    baseline = result.baseline
    if isinstance(baseline, Tensor):
        baseline = baseline.expand_as(result.values)
    return {"values": listed(result.values), "stderr": listed(result.stderr), "baseline": listed(baseline), "unit": result.unit}
