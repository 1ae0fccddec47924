"""Worked example: attention scores are multiplied by a number, but only when the batch contains a given token.

What a sequence's logits are then depends on the rest of its batch, and measurements on the batch size. For a factor per sequence,
write `(tokens == token).any(1)` and give the factor the axes of the scores.
"""

from typing import Any, Literal

from torch import Tensor

from experiments.worked_examples.model_scaled_scores import ScaledScores, ScaledScoresConfig
from interp.config import setting, settings
from interp.models import architecture


@settings
class ScaledWhenSeenConfig(ScaledScoresConfig):
    """A transformer whose attention scores are multiplied by a number when a given token is in the batch."""

    kind: Literal["scaled_when_seen"] = "scaled_when_seen"
    token: int = setting(0, "the token that has to be in the batch")


@architecture
class ScaledWhenSeen(ScaledScores):
    config_class = ScaledWhenSeenConfig

    def forward(self, tokens: Tensor, *options: Any, **named: Any) -> Any:
        seen = bool((tokens == self.config.token).any())
        for block in self.blocks:
            block.attn.factor = self.config.factor if seen else 1.0
        return super().forward(tokens, *options, **named)
