"""The transformer, hooked and configurable."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import nn

from interp.config import setting, settings
from interp.models.architectures import Positive, architecture
from interp.models.parts import Attention
from interp.models.residual import ResidualConfig, ResidualModel


@settings
class TransformerConfig(ResidualConfig):
    """A transformer: attention [and a feed-forward layer] per block, on a residual stream."""

    kind: Literal["transformer"] = "transformer"
    n_layers: Positive = setting(2, "number of blocks")
    n_heads: Positive = setting(4, "attention heads per layer")
    d_head: Positive | None = setting(None, "width of a head; null means d_model / n_heads")
    causal: bool = setting(True, "let each position see itself and earlier ones alone; false: all, for masked language modelling")
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = setting(
        "learned",
        "how positions are told: added to token embeddings (learned, sinusoidal), by rotating queries and keys, not at all",
    )
    rotary_share: Annotated[float, Field(gt=0, le=1)] = setting(
        1.0, "share of a head's entries that turn with rotary positions; the rest compare content alike at every distance"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> "TransformerConfig":
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}: change one, or set d_head")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions turn pairs of entries and heads have {self.head_width}: make that even")
        if self.positions != "rotary" and self.rotary_share != 1:
            raise ValueError("rotary_share acts only on rotary positions: leave it out, or set positions to rotary")
        if self.positions == "rotary" and not (
            self.n_turned > 0 and math.isclose(2 * self.n_turned, self.rotary_share * self.head_width)
        ):
            raise ValueError(
                f"rotary_share {self.rotary_share:g} of {self.head_width} entries is not a whole number of pairs: "
                f"take a multiple of {2 / self.head_width:g}"
            )
        return self

    @property
    def n_turned(self) -> int:
        """How many pairs of a head's entries turn with the position."""
        return round(self.rotary_share * self.head_width / 2) if self.positions == "rotary" else 0

    @property
    def head_width(self) -> int:
        """The width of a head after defaults."""
        return self.d_head or self.d_model // self.n_heads


@architecture
class Transformer(ResidualModel):
    """A transformer; all settings in `TransformerConfig`. `Transformer(d_vocab=256, n_layers=2, mlp=False)` is attention-only.

    To change one thing, subclass it: `attention_class`, `mlp_class` and `block_class` name its layers, `make_layer`, `make_mlp`,
    `make_norm` and `make_block` build those of one layer.
    """

    config_class = TransformerConfig
    layer_name = "attn"
    attention_class = Attention

    def make_layer(self, layer: int) -> nn.Module:
        config = self.config
        return self.attention_class(
            config.d_model,
            config.n_heads,
            config.head_width,
            output_projection=True,
            causal=config.causal,
            rotary=config.n_turned,
            bias=config.bias,
            dropout=config.dropout,
        )

    def shape(self) -> dict[str, Any]:
        direction = "causal" if self.config.causal else "bidirectional"
        return super().shape() | {"n_heads": self.config.n_heads, "d_head": self.config.head_width, "attention_dir": direction}
