"""Numbers over seeds as a page tells them, and whether a prediction held."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.report.blocks import Outcome
from interp.result import Result


def spread(values: Sequence[float] | Float[Tensor, "*axes"], digits: int = 2) -> str:
    """`0.97 (0.96–0.98)`: mean, lowest and highest, one number per seed; NaN (a run that diverged) stays in sight."""
    values = torch.as_tensor(values, dtype=torch.float64)
    mean, low, high = (_fixed(float(value), digits) for value in (values.mean(), values.min(), values.max()))
    return f"{mean}\u00a0({low}\u2060–\u2060{high})"  # not to be broken over lines


def of_variant(result: Result, variant: str) -> Tensor:
    """The values of one label of the axis "variant", which comes first."""
    return result.values[result.labels_of("variant").index(variant)]


def mean_of(result: Result, variant: str) -> float:
    """The mean over seeds of one variant."""
    return float(of_variant(result, variant).mean())


def spread_of(result: Result, variant: str, digits: int = 2) -> str:
    """`spread` of one variant."""
    return spread(of_variant(result, variant), digits)


def outcome(held: bool) -> Outcome:
    """The verdict on a prediction that was tested."""
    return "supported" if held else "refuted"


def _fixed(value: float, digits: int) -> str:
    """So many digits after the point; what rounds to zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text
