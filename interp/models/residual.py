"""What the transformer, recurrent and state-space architectures share: norms, feed-forward layers, blocks, a residual stream."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from einops import einsum
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint

from interp.config import setting, settings
from interp.models.architectures import Architecture, ArchitectureConfig, Positive
from interp.models.parts import Residual

EPSILON = 1e-5
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
Neurons = Float[Tensor, "batch pos d_mlp"]


@settings
class ResidualConfig(ArchitectureConfig):
    """What every architecture with a residual stream can vary."""

    positions: str = setting("none", "how positions are told")  # each architecture says what it can
    norm: Literal["pre", "post", "none"] = setting(
        "pre", "normalise what a layer reads, or the stream after it was added, or not"
    )
    norm_kind: Literal["layer", "rms"] = setting("layer", "layer: centre and scale; rms: scale alone")
    mlp: bool = setting(True, "give each block a feed-forward layer after its sequence layer")
    d_mlp: Positive | None = setting(None, "width of the feed-forward layer; null means 4 × d_model")
    activation: Literal["gelu", "relu", "silu"] = setting("gelu", "activation of the feed-forward layer")
    gated: bool = setting(False, "multiply the activation by a second linear map of the input (GLU)")
    bias: bool = setting(True, "give the linear maps biases (norms have theirs anyway)")
    tied: bool = setting(False, "unembed with the token embedding's weights")
    dropout: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "in training, share of entries set to 0: of the embedding, of patterns, and of what each layer adds"
    )

    @model_validator(mode="after")
    def _options_act(self) -> "ResidualConfig":
        if not self.mlp and (self.d_mlp is not None or self.gated or self.activation != "gelu"):
            raise ValueError("d_mlp, activation and gated act only on a feed-forward layer: leave them out, or set mlp")
        if self.norm == "none" and self.norm_kind != "layer":
            raise ValueError("norm_kind acts only where there are norms: leave it out, or set norm to pre or post")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions come in pairs and d_model {self.d_model} is odd: make it even")
        return self

    @property
    def mlp_width(self) -> int:
        """The width of the feed-forward layer after defaults."""
        return self.d_mlp or 4 * self.d_model


class Norm(nn.Module):
    """Layer norm, (x − mean) / scale · w + b, or with `centred=False` RMS norm, x / scale · w, with TransformerLens' hooks.

    The scale is the root mean square of what is divided, √(mean x² + ε); in half precision it is computed in float32.
    """

    def __init__(self, d_model: int, centred: bool = True):
        super().__init__()
        self.w = nn.Parameter(torch.ones(d_model))
        self.b = nn.Parameter(torch.zeros(d_model)) if centred else None
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, x: Residual) -> Residual:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.b is not None:
            wide = wide - wide.mean(-1, keepdim=True)
        scale = self.hook_scale((wide.square().mean(-1, keepdim=True) + EPSILON).sqrt())
        normalised = self.hook_normalized((wide / scale).to(x.dtype))
        return normalised * self.w if self.b is None else normalised * self.w + self.b


class MLP(nn.Module):
    """activate(x W_in + b_in) W_out + b_out; gated: (activate(x W_gate) · (x W_in) + b_in) W_out + b_out, as in TransformerLens.

    Weights are Xavier-normal, biases start at 0. Override `activate` for another activation.
    """

    def __init__(self, d_model: int, d_mlp: int, activation: str = "gelu", gated: bool = False, bias: bool = True):
        super().__init__()
        self.activation = activation
        self.W_in, self.W_out = _matrix(d_model, d_mlp), _matrix(d_mlp, d_model)
        self.W_gate = _matrix(d_model, d_mlp) if gated else None
        self.b_in, self.b_out = (nn.Parameter(torch.zeros(n)) if bias else None for n in (d_mlp, d_model))
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()
        if gated:
            self.hook_pre_linear = HookPoint()

    def activate(self, x: Neurons) -> Neurons:
        """The activation function."""
        return ACTIVATIONS[self.activation](x)

    def forward(self, x: Residual) -> Residual:
        if self.W_gate is None:
            neurons = self.activate(self.hook_pre(F.linear(x, self.W_in.T, self.b_in)))
        else:
            linear = self.hook_pre_linear(F.linear(x, self.W_in.T))
            neurons = self.activate(self.hook_pre(F.linear(x, self.W_gate.T))) * linear
            neurons = neurons if self.b_in is None else neurons + self.b_in
        return F.linear(self.hook_post(neurons), self.W_out.T, self.b_out)


class Sinusoids(nn.Module):
    """Fixed position embeddings: sin and cos of pos / 10000^(2f/d_model) (Vaswani et al. 2017), the sines first."""

    like: Tensor

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.register_buffer("like", torch.empty(0), persistent=False)  # follows the model's type and device

    def forward(self, places: Int[Tensor, "batch pos"]) -> Residual:
        dtype = torch.promote_types(self.like.dtype, torch.float32)
        entries = torch.arange(self.d_model // 2, dtype=dtype, device=places.device)
        angle = einsum(places.to(dtype), 10000.0 ** (-2 * entries / self.d_model), "batch pos, entry -> batch pos entry")
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.like.dtype)


class ResidualBlock(nn.Module):
    """x + layer(norm(x)), then x + mlp(norm(x)), on one residual stream; `layer` moves information between positions.

    It stands under its `name` ("attn", "rnn", "ssm"), what it adds at `hook_{name}_out`. `ln1` and `ln2` normalise what the two
    read (norm "pre"); `ln_mid` and `ln_post` the stream after each was added (norm "post"), before `hook_resid_mid` and
    `hook_resid_post`; those not used are identities. Without an MLP there is no `hook_resid_mid` and no `hook_mlp_out`.
    """

    def __init__(
        self,
        name: str,
        layer: nn.Module,
        mlp: nn.Module | None,
        *,
        norm: Callable[[], nn.Module],
        place: str,
        dropout: float,
    ):
        super().__init__()
        self.layer_name = name
        self.add_module(name, layer)
        self.mlp = mlp
        self.ln1 = norm() if place == "pre" else nn.Identity()
        self.ln_post = norm() if place == "post" else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        self.add_module(f"hook_{name}_out", HookPoint())
        if mlp is not None:
            self.ln2 = norm() if place == "pre" else nn.Identity()
            self.ln_mid = norm() if place == "post" else nn.Identity()
            self.hook_resid_mid, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, x: Residual) -> Residual:
        x = self.hook_resid_pre(x)
        layer, out = self.get_submodule(self.layer_name), self.get_submodule(f"hook_{self.layer_name}_out")
        x = x + out(self.dropout(layer(self.ln1(x))))
        if self.mlp is not None:
            x = self.hook_resid_mid(self.ln_mid(x))
            x = x + self.hook_mlp_out(self.dropout(self.mlp(self.ln2(x))))
        return self.hook_resid_post(self.ln_post(x))


class ResidualModel(Architecture):
    """Embedding [+ positions] → blocks on a residual stream → [final norm] → unembedding.

    Subclasses say in `make_layer` what moves information between positions, and what it is called. The final norm is there with
    norm "pre". Embeddings are normal with variance 1 / d_model.
    """

    config: Any
    layer_name: str
    mlp_class = MLP
    block_class = ResidualBlock

    def make_embed(self) -> nn.Module:
        return self._embedding(self.config.d_vocab)

    def make_positions(self) -> nn.Module | None:
        if self.config.positions == "sinusoidal":
            return Sinusoids(self.config.d_model)
        return self._embedding(self.config.n_ctx) if self.config.positions == "learned" else None

    def build_mixer(self) -> None:
        self.dropout = nn.Dropout(self.config.dropout) if self.config.dropout else nn.Identity()

    def mix(self, x: Residual) -> Residual:
        return self.dropout(x)

    def make_block(self, layer: int) -> nn.Module:
        config = self.config
        parts = self.make_layer(layer), self.make_mlp(layer)
        return self.block_class(self.layer_name, *parts, norm=self.make_norm, place=config.norm, dropout=config.dropout)

    def make_layer(self, layer: int) -> nn.Module:
        """What moves information between positions in one layer, from and to [batch pos d_model]."""
        raise NotImplementedError

    def make_mlp(self, layer: int) -> nn.Module | None:
        """The feed-forward layer of one layer, or None for none."""
        config = self.config
        if not config.mlp:
            return None
        return self.mlp_class(config.d_model, config.mlp_width, config.activation, config.gated, config.bias)

    def make_norm(self) -> nn.Module:
        """A norm, wherever there is one."""
        return Norm(self.config.d_model, centred=self.config.norm_kind == "layer")

    def make_final_norm(self) -> nn.Module:
        return self.make_norm() if self.config.norm == "pre" else nn.Identity()

    def make_unembed(self) -> nn.Module:
        unembed = nn.Linear(self.config.d_model, self.config.d_vocab, bias=self.config.bias)
        if self.config.tied:
            unembed.weight = self.embed.weight  # type: ignore[assignment]
        return unembed

    def shape(self) -> dict[str, Any]:
        config = self.config
        return {
            "attn_only": not config.mlp,
            "d_mlp": config.mlp_width if config.mlp else None,
            "act_fn": config.activation if config.mlp else None,
            "gated_mlp": config.gated,
            "normalization_type": None if config.norm == "none" else {"layer": "LN", "rms": "RMS"}[config.norm_kind],
            "positional_embedding_type": {"learned": "standard"}.get(config.positions, config.positions),
        }

    def _embedding(self, n: int) -> nn.Embedding:
        embedding = nn.Embedding(n, self.config.d_model)
        nn.init.normal_(embedding.weight, std=self.config.d_model**-0.5)
        return embedding


def _matrix(n_in: int, n_out: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(n_in, n_out)))
