"""Next-token loss and accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings
from interp.sites import OUTPUT, HookedModel, Site

NO_TARGET = -100


def cross_entropy(logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch target"]:
    """Loss in nats of each token but the first, given those before it (entry i belongs to token i + 1)."""
    # Over all positions, the last without a target: slicing the logits first would copy the largest tensor there is.
    targets = nn.functional.pad(tokens[:, 1:], (0, 1), value=NO_TARGET)
    flat = rearrange(logits, "batch pos d_vocab -> (batch pos) d_vocab")
    losses = nn.functional.cross_entropy(flat, targets.flatten(), reduction="none", ignore_index=NO_TARGET)
    return rearrange(losses, "(batch pos) -> batch pos", batch=len(tokens))[:, :-1]


@dataclass(frozen=True)
class TokenLoss(Probe):
    """Mean next-token loss in nats, over targets and examples. Perplexity is its exponential."""

    name: ClassVar[str] = "loss"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return cross_entropy(activation, prepared).mean(-1)

    def result(self, readings: Readings) -> Result:
        return _scalar("loss", readings[OUTPUT], "nats", "mean next-token loss; lower is better")


@dataclass(frozen=True)
class NextTokenAccuracy(Probe):
    """Share of next tokens that the largest logit names."""

    name: ClassVar[str] = "accuracy"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return (activation[:, :-1].argmax(-1) == prepared[:, 1:]).double().mean(-1)

    def result(self, readings: Readings) -> Result:
        return _scalar("accuracy", readings[OUTPUT], "share", "share of next tokens predicted; higher is better")


def _scalar(name: str, readings: Tensor, unit: str, description: str) -> Result:
    mean, stderr = mean_over_examples(readings)
    return Result(name=name, values=mean, stderr=stderr, axes=(), count=len(readings), unit=unit, description=description)
