"""Worked example: a transformer whose attention scores are multiplied by a number."""

from typing import Literal

from torch import Tensor, nn

from interp.config import setting, settings
from interp.models import Attention, Transformer, TransformerConfig, architecture


@settings
class ScaledScoresConfig(TransformerConfig):
    """A transformer whose attention scores are multiplied by a number."""

    kind: Literal["scaled_scores"] = "scaled_scores"
    factor: float = setting(2.0, "what attention scores are multiplied by")


class ScaledAttention(Attention):
    factor = 1.0

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return super().scores(q, k) * self.factor


@architecture
class ScaledScores(Transformer):
    config_class = ScaledScoresConfig
    attention_class = ScaledAttention

    def make_layer(self, layer: int) -> nn.Module:
        attention = super().make_layer(layer)
        attention.factor = self.config.factor
        return attention
