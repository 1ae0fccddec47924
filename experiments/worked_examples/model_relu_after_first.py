"""Worked example: a transformer whose residual stream goes through a ReLU after the first layer."""

from typing import Literal

from torch import nn

from interp.config import settings
from interp.models import Transformer, TransformerConfig, architecture


@settings
class ReluAfterFirstConfig(TransformerConfig):
    """A transformer with a ReLU on the residual stream after its first layer."""

    kind: Literal["relu_after_first"] = "relu_after_first"


@architecture
class ReluAfterFirst(Transformer):
    """What `blocks.0.hook_resid_post` holds has been through the ReLU."""

    config_class = ReluAfterFirstConfig

    def make_block(self, layer: int) -> nn.Module:
        block = super().make_block(layer)
        if layer == 0:
            block.ln_post = nn.Sequential(block.ln_post, nn.ReLU())
        return block
