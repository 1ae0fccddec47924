"""Next-token loss and accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.metrics.standard import hits
from interp.result import Result, left_out, mean_over_examples
from interp.running import Probe, Readings
from interp.sites import OUTPUT, HookedModel, Site

NO_TARGET = -100


def cross_entropy(logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch target"]:
    """Loss in nats of each token but the first, given those before it (entry i belongs to token i + 1)."""
    # Over all positions, the last without a target: slicing the logits first would copy the largest tensor there is.
    targets = nn.functional.pad(tokens[:, 1:].long(), (0, 1), value=NO_TARGET)
    flat = rearrange(logits, "batch pos d_vocab -> (batch pos) d_vocab")
    losses = nn.functional.cross_entropy(flat, targets.flatten(), reduction="none", ignore_index=NO_TARGET)
    return rearrange(losses, "(batch pos) -> batch pos", batch=len(tokens))[:, :-1]


def check_finite_losses(asked: str, losses: Tensor) -> None:
    """Raise `ModelError`, opening with `asked`, for a loss that is infinite: its token's logit is −inf. NaN is not looked at."""
    infinite = int(losses.isinf().sum())
    if infinite:
        raise ModelError(
            asked,
            f"{infinite} of {losses.numel()} losses are infinite: the model gives these tokens the logit −inf",
            "Leave out sequences with tokens that the model rules out, or give those a finite logit",
        )


@dataclass(frozen=True)
class TokenLoss(Probe):
    """Mean next-token loss in nats, over targets and examples. Perplexity is its exponential.

    Examples whose loss is NaN are left out and counted in the description; an infinite one raises `ModelError`.
    """

    name: ClassVar[str] = "loss"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return cross_entropy(activation, prepared).mean(-1)

    def result(self, readings: Readings) -> Result:
        check_finite_losses("the mean next-token loss", readings[OUTPUT])
        return _scalar("loss", readings[OUTPUT], "nats", "mean next-token loss; lower is better")


@dataclass(frozen=True)
class NextTokenAccuracy(Probe):
    """Share of next tokens that the largest logit names; examples with a NaN among the logits are left out and counted."""

    name: ClassVar[str] = "accuracy"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return hits(activation[:, :-1], prepared[:, 1:]).mean(-1)

    def result(self, readings: Readings) -> Result:
        return _scalar("accuracy", readings[OUTPUT], "share", "share of next tokens predicted; higher is better")


def _scalar(name: str, readings: Tensor, unit: str, description: str) -> Result:
    mean, stderr = mean_over_examples(readings)
    n, undefined = len(readings), int(readings.isnan().sum())
    told = description + left_out(undefined, n, "examples", name)
    return Result(name=name, values=mean, stderr=stderr, axes=(), count=n - undefined, unit=unit, description=told)
