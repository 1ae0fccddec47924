"""What a model gains from its context: late against early tokens, and the second copy of a repeat against the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.probes.loss import check_finite_losses, cross_entropy
from interp.probes.padding import WHOLE_ROWS, check_unpadded
from interp.probes.repeats import check_repeats
from interp.result import Result, left_out, mean_over_examples
from interp.running import Probe, Readings, run
from interp.sites import OUTPUT, HookedModel, Site


@dataclass(frozen=True)
class InContextLearning(Probe):
    """Mean loss of the `window` tokens centred on position `early`, on position `late`, and late − early."""

    early: int
    late: int
    window: int
    name: ClassVar[str] = "in_context_learning"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        early, late, half, n = self.early, self.late, self.window // 2, tokens.shape[1]
        if self.window < 1 or self.window % 2 == 0 or not early - half >= 1 or not early < late or not late + half < n:
            raise DataError(
                f"in_context_learning(early={early}, late={late}, window={self.window})",
                f"an odd window must fit around both among the {n - 1} predicted tokens of a row, early before late",
                "Choose other places, a smaller window, or longer sequences",
            )
        return tokens

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        losses = cross_entropy(activation, prepared)  # entry i is the loss of token i + 1
        starts = (place - 1 - self.window // 2 for place in (self.early, self.late))
        early, late = (losses[:, start : start + self.window].mean(-1) for start in starts)
        return torch.stack([early, late, late - early], dim=-1)

    def result(self, readings: Readings) -> Result:
        return _parts(
            self.name,
            readings[OUTPUT],
            labels=("early", "late", "late - early"),
            description=f"loss around tokens {self.early} and {self.late} (windows of {self.window}); "
            "late − early is negative when the model learns in context",
        )


def in_context_learning(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    early: int = 50,
    late: int = 500,
    *,
    window: int = 11,
    batch_size: int | None = None,
) -> Result:
    """Loss early and late in context, and late − early: **negative when the model learns in context**. Axes (part,), in nats.

    `early` and `late` are positions of predicted tokens (position 0 is never predicted); each loss is the mean over the odd
    `window` of positions centred there, as one index is noisy. Standard errors are over sequences, paired for the difference.
    Olsson et al. 2022 take the loss of the 500th token minus that of the 50th (window 1) on 512-token examples; public code
    has both signs. All rows must be whole texts of equal length: padded tokens are refused. Rows with a NaN among these losses
    are left out of all parts and counted in the description. Raises `DataError` when a window does not fit, `ModelError` for an
    infinite loss. Cost: one forward pass.
    """
    check_unpadded(model, tokens, WHOLE_ROWS)
    return run(model, tokens, [InContextLearning(early, late, window)], batch_size=batch_size)[InContextLearning.name]


@dataclass(frozen=True)
class RepeatLoss(Probe):
    """Loss on the first and on the second copy of sequences BOS + r + r, over the same target tokens r_2 … r_S.

    The first token of each copy is left out: nothing before the second copy says that it begins. The `gain`, first minus
    second, is what the repeat is worth in nats; its standard error is over sequences, paired.
    """

    period: int
    name: ClassVar[str] = "repeat_loss"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        check_repeats(tokens, self.period)
        return tokens

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        losses = cross_entropy(activation, prepared)  # entry i is the loss of token i + 1
        first = losses[:, 1 : self.period].mean(-1)
        second = losses[:, self.period + 1 : 2 * self.period].mean(-1)
        return torch.stack([first, second, first - second], dim=-1)

    def result(self, readings: Readings) -> Result:
        return _parts(
            self.name,
            readings[OUTPUT],
            labels=("first copy", "second copy", "gain"),
            description="loss on both copies of a repeated sequence; gain = first − second, positive when the repeat helps",
        )


def repeat_loss(model: HookedModel, tokens: Int[Tensor, "batch pos"], period: int, *, batch_size: int | None = None) -> Result:
    """Loss on the two copies of BOS + r + r and the gain; see `RepeatLoss`. Cost: one forward pass.

    Rows with a NaN among these losses are left out and counted in the description; an infinite one raises `ModelError`.
    """
    return run(model, tokens, [RepeatLoss(period)], batch_size=batch_size)[RepeatLoss.name]


def _parts(name: str, readings: Float[Tensor, "example part"], *, labels: tuple[str, ...], description: str) -> Result:
    check_finite_losses(name, readings[:, :2])  # the third part is their difference
    defined = readings[~readings.isnan().any(1)]  # all parts over the same rows: the difference of the means is their mean
    n = len(readings)
    mean, stderr = mean_over_examples(defined)
    return Result(
        name=name,
        values=mean,
        stderr=stderr,
        axes=("part",),
        labels={"part": labels},
        count=len(defined),
        unit="nats",
        description=description + left_out(n - len(defined), n, "sequences", "loss"),
    )
