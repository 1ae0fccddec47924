"""Architectures: hooked models that a configuration names by their kind, built in or registered by a user.

@settings
class MineConfig(TransformerConfig): kind: Literal["mine"] = "mine"      # its settings
@architecture
class Mine(Transformer): config_class = MineConfig; mlp_class = MyMLP    # its layers: override what differs
build_model(MineConfig(d_vocab=…))                                       # also by configuration files and `load_model`
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

from interp.config import build, setting, settings
from interp.errors import ConfigError, ModelError, kind_of, with_article
from interp.models.parts import Residual
from interp.models.text import ReadsText
from interp.registry import Registry

Positive = Annotated[int, Field(gt=0)]

ARCHITECTURES = Registry("architecture")
ModelConfig = ARCHITECTURES.field()


@settings
class ArchitectureConfig:
    """What every architecture can vary."""

    d_vocab: Positive | None = setting(None, "size of the vocabulary; null means that of the data trained on")
    d_model: Positive = setting(64, "width of the embedding and of every layer")
    n_layers: Positive = setting(1, "number of layers")
    n_ctx: Positive = setting(512, "longest sequence accepted")

    model_class: ClassVar[type["Architecture"]]  # set by `architecture`


@dataclass(frozen=True)
class TransformerLensConfig:
    """The fields that TransformerLens' own tools read from `model.cfg`; None where the model has no such thing."""

    n_layers: int
    d_model: int
    d_vocab: int
    n_ctx: int
    device: torch.device
    dtype: torch.dtype
    n_heads: int | None = None
    d_head: int | None = None
    n_key_value_heads: int | None = None
    attn_only: bool = True
    normalization_type: str | None = None
    d_vocab_out: int = 0
    d_mlp: int | None = None
    act_fn: str | None = None
    gated_mlp: bool = False
    attention_dir: str = "causal"
    positional_embedding_type: str = "none"


class Architecture(ReadsText):
    """Token embedding [+ positions] → what `mix` does → blocks → final norm → unembedding.

    Input: token ids [batch pos]. Output: logits [batch pos d_vocab]. Tokens may be any ids below `d_vocab`; no BOS is assumed.
    A subclass says what its layers are by overriding `make_…`; what those return carries TransformerLens' hook names.
    Weights are drawn from torch's global random state in the order embedding, positions, mixer, blocks, final norm, unembedding.
    """

    config_class: type[ArchitectureConfig]
    config: Any  # of `config_class`
    embed: Any
    pos_embed: Any
    blocks: Any
    ln_final: Any
    unembed: Any

    def __init__(self, config: ArchitectureConfig | None = None, **settings: Any):
        super().__init__()
        name, wanted = type(self).__name__, self.config_class
        if config is not None and settings:
            raise ModelError(f"building {name}", "both a config and single settings were given", "Give one of the two")
        if config is not None and type(config) is not wanted:
            raise ModelError(f"building {name}", f"it was given {kind_of(config)}", f"Give {with_article(wanted.__name__)}")
        self.config = config or build(wanted, settings, source=name)
        if self.config.d_vocab is None:
            raise ModelError(f"building {name}", "the size of its vocabulary is not known", "Give d_vocab")
        self.tokenizer: Any = None  # set when opened from a run folder that has one
        self.embed = self.make_embed()
        self.hook_embed = HookPoint()
        self.pos_embed = self.make_positions()
        if self.pos_embed is not None:
            self.hook_pos_embed = HookPoint()
        self.build_mixer()
        self.blocks = nn.ModuleList(self.make_block(layer) for layer in range(self.config.n_layers))
        self.ln_final = self.make_final_norm()
        self.unembed = self.make_unembed()
        self.setup()

    def make_embed(self) -> nn.Module:
        """Token ids to [batch pos d_model]."""
        return nn.Embedding(self.config.d_vocab, self.config.d_model)

    def make_positions(self) -> nn.Module | None:
        """Position numbers [batch pos] to what is added to the token embedding; None for nothing."""
        return None

    def build_mixer(self) -> None:
        """Add the modules that `mix` uses; none by default."""

    def mix(self, x: Residual) -> Residual:
        """What the embedding goes through before the first block: unchanged by default."""
        return x

    def make_block(self, layer: int) -> nn.Module:
        """The block of one layer, from and to [batch pos d_model]."""
        raise NotImplementedError

    def make_final_norm(self) -> nn.Module:
        """What stands between the last block and the unembedding."""
        return nn.Identity()

    def make_unembed(self) -> nn.Module:
        """[batch pos d_model] to logits."""
        return nn.Linear(self.config.d_model, self.config.d_vocab)

    def forward(
        self, tokens: Int[Tensor, "batch pos"], return_type: Literal["logits"] | None = "logits"
    ) -> Float[Tensor, "batch pos d_vocab"] | None:
        """Logits at every position; None with `return_type=None` (TransformerLens asks so when it wants hooks only)."""
        if return_type not in ("logits", None):
            name = type(self).__name__
            raise ModelError(
                f"return_type {return_type!r}", f"{with_article(name)} returns logits", "Compute losses with interp.metrics"
            )
        x = self.hook_embed(self.embed(tokens))
        if self.pos_embed is not None:
            places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
            x = x + self.hook_pos_embed(self.pos_embed(places))
        x = self.mix(x)
        for block in self.blocks:
            x = block(x)
        x = self.ln_final(x)
        return self.unembed(x) if return_type else None

    @property
    def cfg(self) -> TransformerLensConfig:
        """The shape of the model in TransformerLens' words, with the device and type its weights have now."""
        config, weight = self.config, next(self.parameters())
        return TransformerLensConfig(
            n_layers=config.n_layers,
            d_model=config.d_model,
            d_vocab=config.d_vocab,
            d_vocab_out=config.d_vocab,
            n_ctx=config.n_ctx,
            device=weight.device,
            dtype=weight.dtype,
            **self.shape(),
        )

    def shape(self) -> dict[str, Any]:
        """The further fields of `cfg` that this architecture has."""
        return {}

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The token embedding."""
        return self.embed.weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding."""
        return self.unembed.weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """The unembedding's bias, zeros where it has none."""
        bias = self.unembed.bias
        return self.W_U.new_zeros(self.config.d_vocab) if bias is None else bias

    def tokens_to_residual_directions(self, tokens: int | Int[Tensor, "..."]) -> Float[Tensor, "... d_model"]:
        """The direction of the final residual stream that raises each token's logit: its column of `W_U`."""
        return self.W_U.T[tokens]

    def run_with_cache(
        self, *inputs: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **options: Any
    ) -> Any:
        """TransformerLens' `run_with_cache`, returning an `ActivationCache` as its transformers do (a dict when asked)."""
        out, cache = super().run_with_cache(*inputs, remove_batch_dim=remove_batch_dim, **options)
        return out, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache


A = TypeVar("A", bound=type[Architecture])


def architecture(cls: A) -> A:
    """Register a model class under the kind of its `config_class` (a decorator): configurations and run folders may then name it.

    Raises `ConfigError` when it has no settings class of its own, or when another architecture has that kind. A class of the same
    module and name replaces the one before (a notebook cell run twice).
    """
    config_class = cls.config_class
    taken = config_class.__dict__.get("model_class")
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(
            f"registering the architecture {cls.__name__}",
            f"its settings {config_class.__name__} are those of {taken.__name__}",
            f"Declare a settings class with a kind of its own, and set {cls.__name__}.config_class to it",
        )
    ARCHITECTURES.register(config_class)
    config_class.model_class = cls
    return cls


def build_model(config: Any, seed: int = 0) -> Any:
    """A fresh model in eval mode; equal config and seed give equal weights. The global random state is as before.

    A published model (`PretrainedConfig`) has the weights it was published with, whatever the seed.
    """
    published = getattr(config, "build", None)
    if published is not None:
        return published()
    model_class = getattr(config, "model_class", None)
    if model_class is None:
        name = type(config).__name__
        raise ModelError(
            f"building a model of {name}", "no model class names it as its config_class", "Decorate one: @architecture"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()
