"""The toy models as hooked modules: ConvAttn, AttnAttn and SmearedKeyAttn.

They carry TransformerLens' hook names and a `cfg`, so `run_with_cache`, `run_with_hooks`, `ActivationCache` and
`transformer_lens.patching` work on them as on a transformer.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.config import build, setting, settings
from interp.errors import ModelError
from interp.models.parts import Attention, Block, CausalConv

Positive = Annotated[int, Field(gt=0)]


@settings
class ToyConfig:
    """What every toy can vary. The defaults are the published toys: no residual stream, no positions, one head."""

    d_vocab: Positive | None = setting(None, "size of the vocabulary; null means that of the data trained on")
    d_model: Positive = setting(64, "width of the embedding and of every layer")
    n_layers: Positive = setting(1, "number of attention layers")
    n_heads: Positive = setting(1, "attention heads per layer")
    d_head: Positive | None = setting(None, "width of a head; null means d_model / n_heads")
    n_ctx: Positive = setting(512, "longest sequence accepted")
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


@dataclass(frozen=True)
class TransformerLensConfig:
    """The fields that TransformerLens' own tools read from `model.cfg`."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_ctx: int
    device: torch.device
    dtype: torch.dtype
    n_key_value_heads: int | None = None
    attn_only: bool = True
    normalization_type: str | None = None
    d_vocab_out: int = 0
    d_mlp: int | None = None
    act_fn: str | None = None


class Toy(HookedRootModule):
    """Token embedding [+ positions] → [convolution] → attention layers → unembedding with bias.

    Input: token ids [batch pos]. Output: logits [batch pos d_vocab]. Tokens may be any ids below `d_vocab`; no BOS is assumed.
    Every layer is causal: the logits at a position depend on tokens up to it and on no later one.
    """

    config_class: type[ToyConfig] = ToyConfig

    def __init__(self, config: ToyConfig | None = None, **settings: Any):
        super().__init__()
        if config is not None and settings:
            raise ModelError(
                f"building {type(self).__name__}", "both a config and single settings were given", "Give one of the two"
            )
        if config is not None and type(config) is not self.config_class:
            raise ModelError(
                f"building {type(self).__name__}",
                f"it was given a {type(config).__name__}",
                f"Give a {self.config_class.__name__}",
            )
        self.config: ToyConfig = config or build(self.config_class, settings, source=type(self).__name__)
        if self.config.d_vocab is None:
            raise ModelError(f"building {type(self).__name__}", "the size of its vocabulary is not known", "Give d_vocab")
        self.tokenizer: Any = None  # set when opened from a run folder that has one
        self._build_layers()
        self.setup()

    def _build_layers(self) -> None:
        config, d_vocab = self.config, int(self.config.d_vocab or 0)
        self.embed = nn.Embedding(d_vocab, config.d_model)
        self.hook_embed = HookPoint()
        if config.positions:
            self.pos_embed = nn.Embedding(config.n_ctx, config.d_model)
            self.hook_pos_embed = HookPoint()
        self._build_mixer()
        smeared = isinstance(config, SmearedKeyAttnConfig)
        self.blocks = nn.ModuleList(
            Block(
                Attention(config.d_model, config.n_heads, config.head_width, smeared, config.output_projection),
                config.residual,
            )
            for _ in range(config.n_layers)
        )
        self.unembed = nn.Linear(config.d_model, d_vocab)

    def _build_mixer(self) -> None:
        """What stands between the embedding and the first block; nothing by default."""

    def mix(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the embedding goes through before the first block: unchanged by default."""
        return x

    def forward(
        self, tokens: Int[Tensor, "batch pos"], return_type: Literal["logits"] | None = "logits"
    ) -> Float[Tensor, "batch pos d_vocab"] | None:
        """Logits at every position; None with `return_type=None` (TransformerLens asks so when it wants hooks only)."""
        if return_type not in ("logits", None):
            raise ModelError(f"return_type {return_type!r}", "a toy returns logits", "Compute losses with interp.metrics")
        x = self.hook_embed(self.embed(tokens))
        if self.config.positions:
            places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
            x = x + self.hook_pos_embed(self.pos_embed(places))
        x = self.mix(x)
        for block in self.blocks:
            x = block(x)
        return self.unembed(x) if return_type else None

    @property
    def cfg(self) -> TransformerLensConfig:
        """The shape of the model in TransformerLens' words, with the device and type its weights have now."""
        config, weight = self.config, self.unembed.weight
        return TransformerLensConfig(
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            d_model=config.d_model,
            d_head=config.head_width,
            d_vocab=self.unembed.out_features,
            d_vocab_out=self.unembed.out_features,
            n_ctx=config.n_ctx,
            device=weight.device,
            dtype=weight.dtype,
        )

    def to_tokens(self, text: str | Int[Tensor, "..."]) -> Int[Tensor, "batch pos"]:
        """Token ids of a text (BOS first), or ids given as a tensor with a batch axis added when it has none."""
        if isinstance(text, Tensor):
            return text if text.ndim == 2 else text[None]
        if self.tokenizer is None:
            raise ModelError("turning text into tokens", "this model has no tokenizer", "Give token ids, or set model.tokenizer")
        from interp.data import encode_text

        return encode_text(self.tokenizer, text)

    def run_with_cache(
        self, *inputs: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **options: Any
    ) -> Any:
        """TransformerLens' `run_with_cache`, returning an `ActivationCache` as its transformers do (a dict when asked)."""
        out, cache = super().run_with_cache(*inputs, remove_batch_dim=remove_batch_dim, **options)
        return out, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache


class ConvAttn(Toy):
    """Embedding → causal convolution → attention → unembedding: can a convolution smear keys into induction?

    `ConvAttn(d_vocab=256, d_model=64)`; all settings in `ConvAttnConfig`. The convolution's output has the hook `hook_conv`.
    """

    config_class = ConvAttnConfig
    config: ConvAttnConfig

    def _build_mixer(self) -> None:
        config = self.config
        self.conv = CausalConv(config.d_model, config.kernel, config.masked_taps, config.train_kernel)
        self.hook_conv = HookPoint()

    def mix(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        mixed = self.hook_conv(self.conv(x))
        return x + mixed if self.config.residual else mixed


class AttnAttn(Toy):
    """Embedding → attention → attention → unembedding; all settings in `AttnAttnConfig`."""

    config_class = AttnAttnConfig


class SmearedKeyAttn(Toy):
    """Embedding → attention with smeared keys → unembedding; all settings in `SmearedKeyAttnConfig`.

    `model.blocks[l].attn.previous_share` is the learnt share of each head's key owed to the previous position.
    """

    config_class = SmearedKeyAttnConfig


ModelConfig = Annotated[ConvAttnConfig | AttnAttnConfig | SmearedKeyAttnConfig, Field(discriminator="kind")]
TOYS: dict[type[ToyConfig], type[Toy]] = {toy.config_class: toy for toy in (ConvAttn, AttnAttn, SmearedKeyAttn)}


def build_model(config: ToyConfig, seed: int = 0) -> Toy:
    """A freshly initialised toy in eval mode; equal config and seed give equal weights. The global random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TOYS[type(config)](config).eval()
