"""Recurrent blocks (GRU or LSTM) on a residual stream."""

from typing import Literal

import torch
from torch import nn
from transformer_lens.hook_points import HookPoint

from interp.config import setting, settings
from interp.models.architectures import Positive, architecture
from interp.models.parts import Residual
from interp.models.residual import ResidualConfig, ResidualModel


@settings
class RecurrentConfig(ResidualConfig):
    """Recurrent layers instead of attention."""

    kind: Literal["recurrent"] = "recurrent"
    positions: Literal["learned", "sinusoidal", "none"] = setting("none", "what is added to token embeddings to tell positions")
    cell: Literal["gru", "lstm"] = setting("gru", "the recurrent unit")
    d_state: Positive | None = setting(None, "width of the state; null means d_model")


class RecurrentLayer(nn.Module):
    """state_t = cell(x_t, state_{t−1}); out_t = state_t W + b. The state starts at 0.

    `hook_state` holds the states of all positions (for an LSTM the hidden state, not the cell's). The states are computed before
    it: an edit changes what the layer puts out at those positions, not the states that follow. To change those, edit what the
    layer reads.
    """

    def __init__(self, d_model: int, d_state: int, cell: str = "gru", bias: bool = True):
        super().__init__()
        self.cells = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](d_model, d_state, batch_first=True, bias=bias)
        self.hook_state = HookPoint()
        self.out = nn.Linear(d_state, d_model, bias=bias)

    def forward(self, x: Residual) -> Residual:
        if x.is_cuda and torch.is_grad_enabled() and not self.training:  # cuDNN has no gradients in eval mode
            with torch.backends.cudnn.flags(enabled=False):
                states, _ = self.cells(x)
        else:
            states, _ = self.cells(x)
        return self.out(self.hook_state(states))


@architecture
class Recurrent(ResidualModel):
    """Embedding → recurrent layer [and feed-forward layer] per block → unembedding; all settings in `RecurrentConfig`.

    Causal by construction. Hooks are those of a transformer's residual stream, and `blocks.{l}.rnn.hook_state` (see
    `RecurrentLayer` for what an edit there does) and `blocks.{l}.hook_rnn_out`.
    """

    config_class = RecurrentConfig
    layer_name = "rnn"

    def make_layer(self, layer: int) -> nn.Module:
        config = self.config
        return RecurrentLayer(config.d_model, config.d_state or config.d_model, config.cell, config.bias)
