"""Diagonal linear state-space blocks on a residual stream."""

import math
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint

from interp.config import setting, settings
from interp.models.architectures import Positive, architecture
from interp.models.parts import Residual
from interp.models.residual import ResidualConfig, ResidualModel

SLOWEST, FASTEST = 0.99, 0.5  # range of the initial decays


@settings
class StateSpaceConfig(ResidualConfig):
    """Diagonal linear state-space layers instead of attention."""

    kind: Literal["state_space"] = "state_space"
    positions: Literal["learned", "sinusoidal", "none"] = setting("none", "what is added to token embeddings to tell positions")
    d_state: Positive | None = setting(None, "number of states per layer; null means d_model")
    diagonal: Literal["complex", "real"] = setting("complex", "complex states decay and turn, real ones decay")


class StateSpaceLayer(nn.Module):
    """s_t = λ s_{t−1} + √(1 − |λ|²) B x_t, entry by entry; out_t = C [Re s_t, Im s_t] + b (Orvieto et al. 2023, LRU).

    λ = exp(−exp(ν) + iθ), θ = 0 for a real diagonal: |λ| < 1 whatever ν is. The initial |λ|² is uniform between 0.5² and 0.99²,
    θ uniform. The states of all positions are computed at once, by adding what lies 1, 2, 4 … positions back: log₂(pos) steps,
    each position from earlier ones alone, and equal to the recurrence.

    `hook_state` holds the states, [batch pos d_state], for a complex diagonal [batch pos 2·d_state] with the real parts first. An
    edit there changes what the layer puts out at those positions, not the states that follow (edit what the layer reads).
    """

    def __init__(self, d_model: int, d_state: int, diagonal: str = "complex", bias: bool = True):
        super().__init__()
        turning = diagonal == "complex"
        size = torch.empty(d_state).uniform_(FASTEST**2, SLOWEST**2).sqrt()
        self.log_decay = nn.Parameter((-size.log()).log())
        self.angle = nn.Parameter(torch.empty(d_state).uniform_(0, 2 * math.pi)) if turning else None
        self.read_in = nn.Linear(d_model, (1 + turning) * d_state, bias=False)
        self.out = nn.Linear((1 + turning) * d_state, d_model, bias=bias)
        self.hook_state = HookPoint()

    @property
    def log_lambda(self) -> Float[Tensor, " d_state"] | Complex[Tensor, " d_state"]:
        """The logarithm of each state's factor per step."""
        decay = -self.log_decay.to(torch.promote_types(self.log_decay.dtype, torch.float32)).exp()
        return decay if self.angle is None else torch.complex(decay, self.angle.to(decay.dtype))

    def forward(self, x: Residual) -> Residual:
        log_lambda = self.log_lambda
        gain = (-torch.expm1(2 * log_lambda.real)).sqrt()
        driven = self.read_in(x).to(gain.dtype)
        if self.angle is not None:
            driven = torch.complex(*driven.chunk(2, dim=-1))
        states = scan(gain * driven, log_lambda)
        if self.angle is not None:
            states = torch.cat([states.real, states.imag], dim=-1)
        return self.out(self.hook_state(states.to(x.dtype)))


def scan(driven: Tensor, log_lambda: Tensor) -> Tensor:
    """s_t = λ s_{t−1} + driven_t for all t of [batch pos state], s before the first being 0. Cost: log₂(pos) passes."""
    reach = 1
    while reach < driven.shape[1]:
        earlier = F.pad(driven[:, :-reach], (0, 0, reach, 0))
        driven = driven + (reach * log_lambda).exp() * earlier
        reach *= 2
    return driven


@architecture
class StateSpace(ResidualModel):
    """Embedding → state-space layer [and feed-forward layer] per block → unembedding; all settings in `StateSpaceConfig`.

    Causal by construction. Hooks are those of a transformer's residual stream, and `blocks.{l}.ssm.hook_state` (see
    `StateSpaceLayer` for what an edit there does) and `blocks.{l}.hook_ssm_out`.
    """

    config_class = StateSpaceConfig
    layer_name = "ssm"

    def make_layer(self, layer: int) -> nn.Module:
        config = self.config
        return StateSpaceLayer(config.d_model, config.d_state or config.d_model, config.diagonal, config.bias)
