"""Worked example: a transformer with squared feed-forward activations (squared ReLU with activation=relu; So et al. 2021)."""

from typing import Literal

from torch import Tensor

from interp.config import settings
from interp.models import MLP, Transformer, TransformerConfig, architecture


@settings
class SquaredActivationConfig(TransformerConfig):
    """A transformer whose feed-forward activations are squared."""

    kind: Literal["squared_activation"] = "squared_activation"


class SquaredMLP(MLP):
    def activate(self, x: Tensor) -> Tensor:
        return super().activate(x).square()


@architecture
class SquaredActivation(Transformer):
    config_class = SquaredActivationConfig
    mlp_class = SquaredMLP
