"""A bidirectional encoder that classifies padded sequences, with every part of its attention in the open.

    model = Encoder(d_vocab=120, n_classes=2)
    logits = model(tokens)                            # batch class; rows of tokens are padded with `pad_id`
    context, weights = model.blocks[0].attn(x, real)  # batch pos d_model, batch head query key

It carries TransformerLens' hook names and a `cfg`, so probes, ablation and `interp.diagnose` work on it. To try a change,
subclass `PaddedAttention` or `EncoderBlock` and name it in a subclass of `Encoder`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.config import build, setting, settings
from interp.errors import DataError, ModelError
from interp.models.architectures import Positive, TransformerLensConfig
from interp.models.parts import Attention, Residual
from interp.models.residual import MLP, Norm

FILLS = {"-inf": -torch.inf, "-1e9": -1e9}
Real = Bool[Tensor, "batch pos"]
Pattern = Float[Tensor, "batch head query key"]


@settings
class EncoderConfig:
    """An encoder's shape, and how it treats padding."""

    d_vocab: Positive = setting(128, "size of the vocabulary")
    n_classes: Annotated[int, Field(ge=2)] = setting(2, "how many classes there are")
    pad_id: Annotated[int, Field(ge=0)] = setting(0, "the id of padding; wherever it stands, it is not a token")
    d_model: Positive = setting(32, "width of the residual stream")
    n_layers: Positive = setting(2, "number of blocks")
    n_heads: Positive = setting(4, "attention heads per layer")
    d_mlp: Positive | None = setting(None, "width of the feed-forward layer; null means 4 × d_model")
    n_ctx: Positive = setting(64, "longest sequence accepted, padding included")
    activation: Literal["gelu", "relu", "silu"] = setting("gelu", "activation of the feed-forward layer")
    norm: Literal["pre", "post"] = setting("pre", "normalise what a layer reads, or the stream after it was added")
    mask: Literal["-inf", "-1e9"] = setting("-inf", "what stands for the score of padding before the softmax")
    dropout: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "in training, share of entries set to 0: of the embedding, of patterns, and of what each layer adds"
    )

    @model_validator(mode="after")
    def _fits(self) -> "EncoderConfig":
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}: change one")
        if self.pad_id >= self.d_vocab:
            raise ValueError(f"pad_id {self.pad_id} is outside the vocabulary of {self.d_vocab}: choose one inside")
        return self


@dataclass(frozen=True)
class EncoderShape(TransformerLensConfig):
    """`cfg` of an encoder: TransformerLens' fields, and what else probes ask."""

    n_classes: int = 0
    pad_id: int = 0


def padding_mask(scores: Pattern, real: Real, fill: float) -> Pattern:
    """The scores with `fill` at the keys that are padding, the same for every query and head."""
    return scores.masked_fill(~rearrange(real, "batch key -> batch 1 1 key"), fill)


class PaddedAttention(Attention):
    """softmax(q k / sqrt(d_head)) over the real tokens of each row; returns what the heads write together, and their weights.

    Padding is filled with `fill` before the softmax: −inf or −1e9, which leave it exactly 0 as long as a row has a real token.
    Queries at padding attend like any other; nothing reads them. Dropout acts on the weights after they are returned.
    """

    def __init__(self, d_model: int, n_heads: int, *, fill: float = -torch.inf, dropout: float = 0.0):
        super().__init__(d_model, n_heads, d_model // n_heads, output_projection=True, causal=False, bias=True, dropout=dropout)
        self.fill = fill

    def forward(self, x: Residual, real: Real) -> tuple[Residual, Pattern]:  # type: ignore[override]
        q, k, v = (self.project(x, weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True))
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        scores = self.hook_attn_scores(self.hide_padding(self.scores(q, k), real))
        weights = self.hook_pattern(self.normalise(scores))
        z = einsum(self.dropout(weights), v, "batch head query key, batch key head d_head -> batch query head d_head")
        return self.output(self.hook_z(z)), weights

    def hide_padding(self, scores: Pattern, real: Real) -> Pattern:
        """The scores, with padding hidden."""
        return padding_mask(scores, real, self.fill)

    def normalise(self, scores: Pattern) -> Pattern:
        """Scores to shares of attention."""
        return scores.softmax(-1)


class EncoderBlock(nn.Module):
    """x + attn(norm(x)), then x + mlp(norm(x)); with norm "post" norm(x + attn(x)), then norm(x + mlp(x)).

    `after_attention` and `after_mlp` say what is added to what.
    """

    attention_class = PaddedAttention

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.attn = self.attention_class(config.d_model, config.n_heads, fill=FILLS[config.mask], dropout=config.dropout)
        self.mlp = MLP(config.d_model, config.d_mlp or 4 * config.d_model, config.activation)
        self.ln1, self.ln2 = Norm(config.d_model), Norm(config.d_model)
        self.pre = config.norm == "pre"
        self.dropout = nn.Dropout(config.dropout)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, x: Residual, real: Real) -> Residual:
        x = self.hook_resid_pre(x)
        context, _ = self.attn(self.ln1(x) if self.pre else x, real)
        mid = self.after_attention(x, self.hook_attn_out(self.dropout(context)))
        mid = self.hook_resid_mid(mid if self.pre else self.ln1(mid))
        out = self.mlp(self.ln2(mid) if self.pre else mid)
        post = self.after_mlp(x, mid, self.hook_mlp_out(self.dropout(out)))
        return self.hook_resid_post(post if self.pre else self.ln2(post))

    def after_attention(self, x: Residual, attn_out: Residual) -> Residual:
        """The residual stream between attention and feed-forward layer."""
        return x + attn_out

    def after_mlp(self, x: Residual, mid: Residual, mlp_out: Residual) -> Residual:
        """The residual stream after the block; `x` is what entered it, `mid` the stream after attention."""
        return mid + mlp_out


class Encoder(HookedRootModule):
    """Embedding + learned positions → blocks → final norm → mean over real tokens → logits [batch class].

    `Encoder(d_vocab=120)` or `Encoder(EncoderConfig(…))`. Tokens equal to `pad_id` are padding, on whichever side: logits do not
    depend on how much of it follows a sequence. Weights are drawn from torch's global random state. Raises `DataError`
    for a row of nothing but padding.
    """

    block_class = EncoderBlock

    def __init__(self, config: EncoderConfig | None = None, **values: Any):
        super().__init__()
        if config is not None and values:
            raise ModelError("building an Encoder", "both a config and single settings were given", "Give one of the two")
        self.config = config = config or build(EncoderConfig, values, source="Encoder")
        self.tokenizer: Any = None
        self.embed, self.pos_embed = (nn.Embedding(n, config.d_model) for n in (config.d_vocab, config.n_ctx))
        for embedding in (self.embed, self.pos_embed):
            nn.init.normal_(embedding.weight, std=config.d_model**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(self.block_class(config) for _ in range(config.n_layers))
        self.ln_final = Norm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.unembed = nn.Linear(config.d_model, config.n_classes)
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.setup()

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch n_classes"]:
        real = tokens != self.config.pad_id
        if not bool(real.any(1).all()):
            raise DataError("classifying", "a row holds nothing but padding", "Give every row at least one token")
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        x = self.dropout(self.hook_embed(self.embed(tokens)) + self.hook_pos_embed(self.pos_embed(places)))
        for block in self.blocks:
            x = block(x, real)
        return self.unembed(_mean_of_real(self.ln_final(x), real))

    @property
    def cfg(self) -> EncoderShape:
        """The shape of the model in TransformerLens' words, with the device and type its weights have now."""
        config, weight = self.config, self.embed.weight
        return EncoderShape(
            n_layers=config.n_layers,
            d_model=config.d_model,
            d_vocab=config.d_vocab,
            d_vocab_out=config.n_classes,
            n_ctx=config.n_ctx,
            n_heads=config.n_heads,
            d_head=config.d_model // config.n_heads,
            d_mlp=config.d_mlp or 4 * config.d_model,
            act_fn=config.activation,
            attn_only=False,
            normalization_type="LN",
            attention_dir="bidirectional",
            positional_embedding_type="standard",
            device=weight.device,
            dtype=weight.dtype,
            n_classes=config.n_classes,
            pad_id=config.pad_id,
        )


class PadAware(nn.Module):
    """A Hugging Face encoder called with tokens alone: its attention mask is made from the padding id.

    What `hooked` calls gets tokens only; with this around it, `hooked(PadAware(bert, pad_id), {"pattern": "module.…", …})` keeps
    padding out of sight as training does. The logits are `module(input_ids=…, attention_mask=…).logits`.
    """

    def __init__(self, module: nn.Module, pad_id: int):
        super().__init__()
        self.module, self.pad_id = module, pad_id
        self.config = getattr(module, "config", None)
        self.training = module.training

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        return self.module(input_ids=tokens, attention_mask=(tokens != self.pad_id).long())


def _mean_of_real(x: Residual, real: Real) -> Float[Tensor, "batch d_model"]:
    kept = torch.where(rearrange(real, "batch pos -> batch pos 1"), x, 0.0)  # not a product: NaN at padding stays out
    return kept.sum(1) / rearrange(real.sum(1), "batch -> batch 1").to(x)
