"""Bugs of the kind people write, one change each to a model that is otherwise right, and the checks that should find them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interp.models import Attention, Transformer, TransformerConfig
from interp.models.encoder import Encoder, EncoderBlock, EncoderConfig, PaddedAttention, padding_mask


@dataclass(frozen=True)
class Bug:
    """A planted bug: how the model is built with it, and which checks count as having found it."""

    name: str
    what: str
    expected: tuple[str, ...]
    build: Callable[[EncoderConfig], Any]
    causal: bool = False  # a language model instead of an encoder


class NoAttentionResidual(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return attn_out


class WrongSum(EncoderBlock):
    def after_mlp(self, x: Tensor, mid: Tensor, mlp_out: Tensor) -> Tensor:
        return x + mlp_out


class AddedToItself(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return attn_out + attn_out


class StreamTwice(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return x + (x + attn_out)


class AttentionForgotten(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return x


class Bare(EncoderBlock):
    """Neither residuals nor norms."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self.ln1, self.ln2 = nn.Identity(), nn.Identity()

    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return attn_out

    def after_mlp(self, x: Tensor, mid: Tensor, mlp_out: Tensor) -> Tensor:
        return mlp_out


class GraphCut(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return (x + attn_out).detach()


class Damped(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return 0.05 * (x + attn_out)


class AlwaysDropping(EncoderBlock):
    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        return x + F.dropout(attn_out, 0.1)


class OnlyPadding(PaddedAttention):
    def hide_padding(self, scores: Tensor, real: Tensor) -> Tensor:
        return padding_mask(scores, ~real, self.fill)


class PaddingSeen(PaddedAttention):
    def hide_padding(self, scores: Tensor, real: Tensor) -> Tensor:
        return scores


class SoftmaxOverQueries(PaddedAttention):
    def normalise(self, scores: Tensor) -> Tensor:
        return scores.softmax(-2)


class SoftmaxOverHeads(PaddedAttention):
    def normalise(self, scores: Tensor) -> Tensor:
        return scores.softmax(1)


class Unscaled(PaddedAttention):
    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.scale = 1.0


class TimesWidth(PaddedAttention):
    def __init__(self, d_model: int, n_heads: int, **named: Any):
        super().__init__(d_model, n_heads, **named)
        self.scale = float(d_model)


class NoCausalMask(Attention):
    def masked(self, scores: Tensor) -> Tensor:
        return scores


class TransposedMask(Attention):
    def masked(self, scores: Tensor) -> Tensor:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(-1)
        return scores.masked_fill(past, -torch.inf)


class ShiftedTokens(Transformer):
    def mix(self, x: Tensor) -> Tensor:
        return x.roll(-1, dims=1)


def with_block(block: type[EncoderBlock], **changes: Any) -> Callable[[EncoderConfig], Encoder]:
    """An encoder of these blocks."""
    return lambda config: type("Encoder", (Encoder,), {"block_class": block})(replace(config, **changes))


def with_attention(attention: type[PaddedAttention], **changes: Any) -> Callable[[EncoderConfig], Encoder]:
    """An encoder of blocks with this attention."""
    return with_block(type("EncoderBlock", (EncoderBlock,), {"attention_class": attention}), **changes)


def correct(config: EncoderConfig) -> Encoder:
    """No bug."""
    return Encoder(config)


def left_in_training(config: EncoderConfig) -> Encoder:
    """eval() that does not reach the blocks."""

    class Encoder_(Encoder):
        def train(self, mode: bool = True) -> "Encoder_":
            super().train(mode)
            self.blocks.train()
            return self

    return Encoder_(replace(config, dropout=0.1))


def dead_relu(config: EncoderConfig) -> Encoder:
    """Biases so low that no unit fires."""
    model = Encoder(replace(config, activation="relu"))
    for block in model.blocks:
        block.mlp.b_in.data.fill_(-20.0)
    return model


def exploding(config: EncoderConfig) -> Encoder:
    """Linear layers drawn from a normal distribution of variance 1, whatever their width."""
    model = Encoder(config)
    for name, parameter in model.named_parameters():
        if ".W_" in name:
            nn.init.normal_(parameter)
    return model


def unnormalised(config: EncoderConfig) -> Any:
    """A language model of six layers without norms, linear layers drawn with three times their usual weights."""
    model = language_model(n_layers=6, norm="none")(config)
    for name, parameter in model.named_parameters():
        if ".W_" in name:
            parameter.data.mul_(3)
    return model


def without_queries(config: EncoderConfig) -> Encoder:
    """Query weights that a loading script left at zero."""
    model = Encoder(config)
    for block in model.blocks:
        block.attn.W_Q.data.zero_()
    return model


def language_model(
    attention: type[Attention] = Attention, base: type[Transformer] = Transformer, **changes: Any
) -> Callable[[EncoderConfig], Any]:
    """A causal transformer of the encoder's shape, with this attention."""

    def built(config: EncoderConfig) -> Any:
        shape = TransformerConfig(
            d_vocab=config.d_vocab, d_model=config.d_model, n_layers=config.n_layers, n_heads=config.n_heads, n_ctx=config.n_ctx
        )
        return type("Transformer", (base,), {"attention_class": attention})(replace(shape, **changes))

    return built


PAD, FUTURE = "mass on padding", "attention to the future"
PATH, ROWS, DROPOUT = "residual path", "rows do not sum to 1", "dropout on in eval"
BUGS = (
    Bug("residual missing", "attention's output replaces the stream", (PATH,), with_block(NoAttentionResidual)),
    Bug("residual around the wrong sum", "the MLP is added to what entered the block", (PATH,), with_block(WrongSum)),
    Bug("output added to itself", "attn + attn instead of x + attn", (PATH,), with_block(AddedToItself)),
    Bug("stream added twice", "x + (x + attn)", ("stream is rescaled",), with_block(StreamTwice)),
    Bug("attention forgotten", "x instead of x + attn", ("attention is not used",), with_block(AttentionForgotten)),
    Bug("padding mask reversed", "real tokens hidden, padding shown", (PAD,), with_attention(OnlyPadding, mask="-1e9")),
    Bug("padding mask reversed, −inf", "the same with −inf", ("not finite",), with_attention(OnlyPadding, mask="-inf")),
    Bug("padding mask missing", "scores of padding left as they are", (PAD,), with_attention(PaddingSeen)),
    Bug("softmax over queries", "dim=-2", (ROWS,), with_attention(SoftmaxOverQueries, mask="-1e9")),
    Bug("softmax over heads", "dim=1", (ROWS,), with_attention(SoftmaxOverHeads, mask="-1e9")),
    Bug("scale missing", "no division by √d_head", ("scale of the scores",), with_attention(Unscaled)),
    Bug("scores times d_model", "· d_model instead of / √d_head", ("attention has collapsed",), with_attention(TimesWidth)),
    Bug("queries zero", "query weights never loaded", ("attention is uniform",), without_queries),
    Bug("causal mask missing", "a language model that looks ahead", (FUTURE,), language_model(NoCausalMask), causal=True),
    Bug("causal mask transposed", "tril for triu", (FUTURE,), language_model(TransposedMask), causal=True),
    Bug(
        "tokens shifted the wrong way",
        "each position is given the next token",
        ("output depends on later tokens",),
        language_model(base=ShiftedTokens),
        causal=True,
    ),
    Bug("dropout always on", "F.dropout without training=self.training", (DROPOUT,), with_block(AlwaysDropping)),
    Bug("eval() does not reach the blocks", "train() overridden", (DROPOUT,), left_in_training),
    Bug("dead ReLUs", "biases of −20", ("dead units",), dead_relu),
    Bug("initial weights too large", "variance 1 whatever the width", ("norms grow with depth",), exploding),
    Bug("gradient cut", "a .detach() left behind", ("gradients vanish or explode",), with_block(GraphCut)),
    Bug("no residuals, no norms", "twelve bare layers", ("gradients vanish or explode",), with_block(Bare, n_layers=12)),
    Bug(
        "norms missing", "six layers, weights three times too large", ("gradients vanish or explode",), unnormalised, causal=True
    ),
    Bug("damped stream", "every sum scaled by 0.05", ("stream is rescaled",), with_block(Damped)),
)
"""Every planted bug."""


def build(name: str, config: EncoderConfig, seed: int) -> Any:
    """The model of this bug (or "correct") with weights of this seed, in eval mode. The global random state is as before."""
    make = correct if name == "correct" else next(bug.build for bug in BUGS if bug.name == name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(config).eval()
