"""Losses: per token, and what a model gains on the second copy of a repeated sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.probes.repeats import check_repeats
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings, run
from interp.sites import LOGITS, HookedModel, Site

OUTPUT = Site(LOGITS)


def cross_entropy(logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch target"]:
    """Loss in nats of each token but the first, given those before it (entry i belongs to token i + 1)."""
    classes = rearrange(logits[:, :-1], "batch target d_vocab -> batch d_vocab target")
    return nn.functional.cross_entropy(classes, tokens[:, 1:], reduction="none")


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
        mean, stderr = mean_over_examples(readings[OUTPUT])
        return Result(
            name=self.name,
            values=mean,
            stderr=stderr,
            axes=("part",),
            labels={"part": ("first copy", "second copy", "gain")},
            count=len(readings[OUTPUT]),
            unit="nats",
            description="loss on both copies of a repeated sequence; gain = first − second, positive when the repeat helps",
        )


def repeat_loss(model: HookedModel, tokens: Int[Tensor, "batch pos"], period: int, *, batch_size: int | None = None) -> Result:
    """Loss on the two copies of BOS + r + r and the gain; see `RepeatLoss`. Cost: one forward pass."""
    return run(model, tokens, [RepeatLoss(period)], batch_size=batch_size)[RepeatLoss.name]


def _scalar(name: str, readings: Tensor, unit: str, description: str) -> Result:
    mean, stderr = mean_over_examples(readings)
    return Result(name=name, values=mean, stderr=stderr, axes=(), count=len(readings), unit=unit, description=description)
