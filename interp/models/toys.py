"""The toy models as hooked modules: ConvAttn, AttnAttn and SmearedKeyAttn.

They carry TransformerLens' hook names and a `cfg`, so `run_with_cache`, `run_with_hooks`, `ActivationCache` and
`transformer_lens.patching` work on them as on a transformer.
"""

from typing import Any, Literal

from pydantic import model_validator
from torch import nn
from transformer_lens.hook_points import HookPoint

from interp.config import setting, settings
from interp.models.architectures import Architecture, ArchitectureConfig, Positive, architecture
from interp.models.parts import Attention, Block, CausalConv, Residual


@settings
class ToyConfig(ArchitectureConfig):
    """What every toy can vary. The defaults are the published toys: no residual stream, no positions, one head."""

    n_layers: Positive = setting(1, "number of attention layers")
    n_heads: Positive = setting(1, "attention heads per layer")
    d_head: Positive | None = setting(None, "width of a head; null means d_model / n_heads")
    residual: bool = setting(False, "add each layer's output to a residual stream instead of replacing it")
    positions: bool = setting(False, "add learned position embeddings to the token embeddings")
    output_projection: bool = setting(False, "give heads an output matrix instead of concatenating them")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ToyConfig":
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}: change one, or set d_head")
        if not self.output_projection and self.d_head not in (None, self.d_model // self.n_heads):
            raise ValueError(f"heads of width {self.d_head} cannot be concatenated to {self.d_model}: set output_projection")
        return self

    @property
    def head_width(self) -> int:
        """The width of a head after defaults."""
        return self.d_head or self.d_model // self.n_heads


@settings
class ConvAttnConfig(ToyConfig):
    """A convolution over positions, then attention."""

    kind: Literal["conv_attn"] = "conv_attn"
    kernel: Positive = setting(3, "width of the convolution (odd); future taps are always masked")
    masked_taps: tuple[int, ...] = setting((), "further offsets to mask, e.g. [-1] removes the previous position")
    train_kernel: bool = setting(True, "false leaves the kernel as initialised, as the published model does")

    @model_validator(mode="after")
    def _taps_exist(self) -> "ConvAttnConfig":
        reach = self.kernel // 2
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even, so no tap is the current position: use an odd width")
        wrong = [tap for tap in self.masked_taps if not -reach <= tap <= 0]
        if wrong:
            raise ValueError(f"masked_taps {wrong} are not offsets of the kernel: choose from {list(range(-reach, 1))}")
        return self


@settings
class AttnAttnConfig(ToyConfig):
    """Two attention layers."""

    kind: Literal["attn_attn"] = "attn_attn"
    n_layers: Positive = setting(2, "number of attention layers")


@settings
class SmearedKeyAttnConfig(ToyConfig):
    """Attention whose keys are mixed with the key before (Olsson et al. 2022, Argument 2)."""

    kind: Literal["smeared_key_attn"] = "smeared_key_attn"


class Toy(Architecture):
    """Token embedding [+ positions] → [convolution] → attention layers → unembedding with bias.

    Every layer is causal: the logits at a position depend on tokens up to it and on no later one.
    """

    config: ToyConfig

    def make_positions(self) -> nn.Module | None:
        return nn.Embedding(self.config.n_ctx, self.config.d_model) if self.config.positions else None

    def make_block(self, layer: int) -> nn.Module:
        config, smeared = self.config, isinstance(self.config, SmearedKeyAttnConfig)
        attention = Attention(config.d_model, config.n_heads, config.head_width, smeared, config.output_projection)
        return Block(attention, config.residual)

    def shape(self) -> dict[str, Any]:
        return {"n_heads": self.config.n_heads, "d_head": self.config.head_width}


@architecture
class ConvAttn(Toy):
    """Embedding → causal convolution → attention → unembedding: can a convolution smear keys into induction?

    `ConvAttn(d_vocab=256, d_model=64)`; all settings in `ConvAttnConfig`. The convolution's output has the hook `hook_conv`.
    """

    config_class = ConvAttnConfig
    config: ConvAttnConfig

    def build_mixer(self) -> None:
        config = self.config
        self.conv = CausalConv(config.d_model, config.kernel, config.masked_taps, config.train_kernel)
        self.hook_conv = HookPoint()

    def mix(self, x: Residual) -> Residual:
        mixed = self.hook_conv(self.conv(x))
        return x + mixed if self.config.residual else mixed


@architecture
class AttnAttn(Toy):
    """Embedding → attention → attention → unembedding; all settings in `AttnAttnConfig`."""

    config_class = AttnAttnConfig


@architecture
class SmearedKeyAttn(Toy):
    """Embedding → attention with smeared keys → unembedding; all settings in `SmearedKeyAttnConfig`.

    `model.blocks[l].attn.previous_share` is the learnt share of each head's key owed to the previous position.
    """

    config_class = SmearedKeyAttnConfig
