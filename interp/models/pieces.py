"""A causal transformer's blocks taken apart, so that a sweep can run a block on some positions of some rows only.

Everything but attention treats each token alone, and is done by the model's own modules on packed tokens [token d_model]. What
mixes positions (queries against keys) is left to the caller, who holds the keys and values of the positions left out. Nothing
here is trusted: whoever computes with the pieces compares an untouched row with the model's own run.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.architectures import Architecture
from interp.models.parts import rotation, turned
from interp.sites import HookedModel, Site, layers_with

Tokenwise = Float[Tensor, "token d_model"]
Stream = Float[Tensor, "*where d_model"]
Heads = Float[Tensor, "token head d_head"]


class NotTakenApart(Exception):
    """The model is not built of the pieces known here; the message says what is different."""


class BlockPieces(ABC):
    """One block: resid_pre → queries, keys, values; z → attn_out; (resid_mid → mlp_out)."""

    W_O: Float[Tensor, "head d_head d_model"]
    b_O: Tensor | None = None
    scale: float
    parallel = False  # the MLP reads resid_pre, and resid_post is the sum of all three
    has_mlp = True
    share: Tensor | None = None  # of each head's key that is owed to the position before

    @abstractmethod
    def normed(self, resid_pre: Tokenwise) -> Tokenwise:
        """What queries, keys and values are made of."""

    @abstractmethod
    def queries(self, x: Tokenwise) -> Heads:
        """As at hook_q, of `normed` tokens."""

    @abstractmethod
    def keys_values(self, x: Tokenwise) -> tuple[Heads, Heads]:
        """Keys (before any smearing) and values, of `normed` tokens."""

    def rotated(self, x: Heads, places: Int[Tensor, " token"]) -> Heads:
        """Queries or keys turned by their position; the same for models without rotary positions."""
        return x

    def write(self, z: Heads) -> Tokenwise:
        """attn_out of z."""
        out = rearrange(z, "token head d_head -> token (head d_head)") @ self.W_O.flatten(0, 1)
        return out if self.b_O is None else out + self.b_O

    def joined(self, resid_pre: Stream, attn_out: Stream) -> Stream:
        """resid_mid (in a parallel block: resid_post without the MLP)."""
        return resid_pre + attn_out

    @abstractmethod
    def mlp(self, resid: Tokenwise) -> Tokenwise:
        """mlp_out, of resid_mid or, in a parallel block, resid_pre."""


class ModelPieces:
    """All blocks of a model, and what turns the last residual stream into logits."""

    def __init__(self, blocks: Sequence[BlockPieces], norm: Any, W_U: Tensor, b_U: Tensor | None):
        self.blocks, self.norm, self.W_U, self.b_U = blocks, norm, W_U, b_U

    def logits(self, resid: Tokenwise, ids: Int[Tensor, "token id"] | Int[Tensor, " id"] | None) -> Float[Tensor, "token id"]:
        """Logits of each token's ids: its own [token id], the same for all [id], or the whole vocabulary (None)."""
        x = resid if self.norm is None else self.norm(resid[None])[0]
        if ids is None:
            logits = x @ self.W_U
            return logits if self.b_U is None else logits + self.b_U
        if ids.ndim == 1:
            logits = x @ self.W_U[:, ids]
        else:
            logits = einsum(self.W_U.T[ids], x, "token id d_model, token d_model -> token id")
        return logits if self.b_U is None else logits + self.b_U[ids]


def take_apart(model: HookedModel, rotation: Mapping[Site, Tensor]) -> ModelPieces:
    """The pieces of `model`. Raises `NotTakenApart` with the reason for models not built of pieces known here.

    `rotation` holds what `rotation_sites` names, read in a run of as many positions as will be computed.
    """
    if not isinstance(model, nn.Module):
        raise NotTakenApart("it is not a torch module")
    n_layers = len(layers_with(model, "resid_pre"))
    blocks = getattr(model, "blocks", None)
    wanted = ("unembed", "ln_final", "blocks")
    if n_layers == 0 or blocks is None or not all(hasattr(model, name) for name in wanted):
        raise NotTakenApart(f"it has no {', '.join(name for name in wanted if not hasattr(model, name)) or 'resid_pre'}")
    try:
        if isinstance(model, Architecture):
            return ModelPieces([_OwnBlock(block) for block in model.blocks], model.ln_final, model.W_U, model.b_U)
        kind = _BridgeBlock if hasattr(blocks[0], "original_component") else _TransformerBlock
        taken = [kind(block, layer, model, rotation) for layer, block in enumerate(blocks)]
        unembed: Any = model.unembed
        return ModelPieces(taken, model.ln_final, unembed.W_U, unembed.b_U)
    except (AttributeError, RuntimeError, TypeError, IndexError, KeyError) as error:
        raise NotTakenApart(f"its blocks are not as expected ({type(error).__name__}: {str(error)[:120]})") from error


def rotation_sites(model: HookedModel) -> list[Site]:
    """The sites at which a bridge shows the cosines and sines of its rotary positions (none for other models)."""
    names = [f"blocks.{layer}.attn.hook_{part}" for layer in layers_with(model, "resid_pre") for part in ("cos", "sin")]
    points = model.hook_dict
    return [Site(name) for name in names if name in points]


def before_smearing(layer: int) -> Site:
    """The site of a layer's keys before they are smeared."""
    return Site(f"blocks.{layer}.attn.hook_k_unsmeared")


class _BridgeBlock(BlockPieces):
    """A block of a TransformerBridge: its own projections, norms and MLP."""

    def __init__(self, block: Any, layer: int, model: Any, rotation: Mapping[Site, Tensor]):
        self.block, self.attn = block, block.attn
        self.parallel = "Parallel" in type(block).__name__
        self.has_mlp = hasattr(block, "mlp")
        self.W_O = self.attn.W_O
        self.d_head = self.W_O.shape[1]
        self.scale = self.d_head**-0.5
        self.b_O = self.attn.o(torch.zeros_like(self.W_O.flatten(0, 1)[:, :1].T))[0]
        self.turn = [rotation.get(Site(f"blocks.{layer}.attn.hook_{part}")) for part in ("cos", "sin")]
        norm2 = getattr(block, "ln2", None) or (block.ln1 if self.parallel else None)
        self.ln1, self.ln2, self.q, self.k, self.v = map(_wrapped, (block.ln1, norm2, self.attn.q, self.attn.k, self.attn.v))

    def normed(self, resid_pre: Tokenwise) -> Tokenwise:
        return self.ln1(resid_pre[None])[0]

    def queries(self, x: Tokenwise) -> Heads:
        return self._projected(self.q, x)

    def keys_values(self, x: Tokenwise) -> tuple[Heads, Heads]:
        return self._projected(self.k, x), self._projected(self.v, x)

    def _projected(self, project: Any, x: Tokenwise) -> Heads:
        return rearrange(project(x[None]), "1 token (head d_head) -> token head d_head", d_head=self.d_head)

    def rotated(self, x: Heads, places: Int[Tensor, " token"]) -> Heads:
        cos, sin = self.turn
        if cos is None or sin is None:
            return x
        cos, sin = (table[0, places][:, None] for table in (cos, sin))
        width = cos.shape[-1]
        cos, sin = (table[..., : width // 2] for table in (cos, sin))  # both halves turn by the same angles
        return torch.cat([turned(x[..., :width], cos, sin), x[..., width:]], dim=-1)

    def mlp(self, resid: Tokenwise) -> Tokenwise:
        x = resid[None] if self.ln2 is None else self.ln2(resid[None])
        return self.block.mlp(x)[0]


def _wrapped(module: Any) -> Any:
    """What a bridge's component stands for: the same numbers, without hooks to pass."""
    return getattr(module, "original_component", module)


class _TransformerBlock(BlockPieces):
    """A block of a HookedTransformer."""

    def __init__(self, block: Any, layer: int, model: Any, rotation: Mapping[Site, Tensor]):
        config = model.cfg
        unknown = {
            "attention in both directions": config.attention_dir != "causal",
            "local attention": getattr(block.attn, "attn_type", "global") != "global",
            "norms after attention and MLP": getattr(config, "use_normalization_before_and_after", False),
            "positions added to queries and keys alone": config.positional_embedding_type == "shortformer",
        }
        if any(unknown.values()):
            raise NotTakenApart(f"it has {', '.join(name for name, there in unknown.items() if there)}")
        self.block, self.attn = block, block.attn
        self.parallel = bool(config.parallel_attn_mlp)
        self.has_mlp = not config.attn_only
        self.W_O, self.b_O = self.attn.W_O, self.attn.b_O
        self.scale = 1.0 / float(self.attn.attn_scale)
        names = ("Q", "K", "V") if not hasattr(self.attn, "_W_K") else ("Q", "_K", "_V")
        self.weights = []
        for name in names:
            weight, bias = (getattr(self.attn, f"{'_' if '_' in name else ''}{part}_{name[-1]}") for part in ("W", "b"))
            self.weights.append((rearrange(weight, "head d_model d_head -> d_model (head d_head)").contiguous(), bias))

    def normed(self, resid_pre: Tokenwise) -> Tokenwise:
        return self.block.ln1(resid_pre[None])[0]

    def queries(self, x: Tokenwise) -> Heads:
        return self._projected(x, 0)

    def keys_values(self, x: Tokenwise) -> tuple[Heads, Heads]:
        return self._projected(x, 1), self._projected(x, 2)

    def _projected(self, x: Tokenwise, which: int) -> Heads:
        weight, bias = self.weights[which]
        return (x @ weight).unflatten(-1, bias.shape) + bias

    def rotated(self, x: Heads, places: Int[Tensor, " token"]) -> Heads:
        if not hasattr(self.attn, "rotary_cos"):
            return x
        turned, rest = x[..., : self.attn.cfg.rotary_dim], x[..., self.attn.cfg.rotary_dim :]
        cos, sin = (table[places][:, None] for table in (self.attn.rotary_cos, self.attn.rotary_sin))
        return torch.cat([turned * cos + self.attn.rotate_every_two(turned) * sin, rest], dim=-1)

    def mlp(self, resid: Tokenwise) -> Tokenwise:
        x = (self.block.ln1 if self.parallel and not hasattr(self.block, "ln2") else self.block.ln2)(resid[None])
        return self.block.mlp(x)[0]


class _OwnBlock(BlockPieces):
    """A block of one of the library's own architectures."""

    def __init__(self, block: Any):
        self.block, self.attn = block, block.attn
        self.residual = getattr(block, "residual", True)
        self.has_mlp = getattr(block, "mlp", None) is not None
        self.W_O, self.b_O, self.scale = self.attn.W_O, self.attn.b_O, self.attn.scale
        self.share = self.attn.previous_share
        self.weights = [
            (rearrange(weight, "head d_model d_head -> d_model (head d_head)").contiguous(), bias)
            for weight, bias in zip(self.attn.weights, self.attn.biases, strict=True)
        ]

    def normed(self, resid_pre: Tokenwise) -> Tokenwise:
        return self.block.ln1(resid_pre[None])[0] if hasattr(self.block, "ln1") else resid_pre

    def queries(self, x: Tokenwise) -> Heads:
        return self._projected(x, 0)

    def keys_values(self, x: Tokenwise) -> tuple[Heads, Heads]:
        return self._projected(x, 1), self._projected(x, 2)

    def _projected(self, x: Tokenwise, which: int) -> Heads:
        weight, bias = self.weights[which]
        out = (x @ weight).unflatten(-1, self.W_O.shape[:2])
        return out if bias is None else out + bias

    def rotated(self, x: Heads, places: Int[Tensor, " token"]) -> Heads:
        if not self.attn.rotary or not len(places):
            return x
        cos, sin = (table[places][:, None] for table in rotation(int(places.max()) + 1, x, self.attn.rotary))
        return turned(x, cos, sin)

    def joined(self, resid_pre: Stream, attn_out: Stream) -> Stream:
        return resid_pre + attn_out if self.residual else attn_out

    def mlp(self, resid: Tokenwise) -> Tokenwise:
        return self.block.mlp(self.block.ln2(resid[None]))[0]
