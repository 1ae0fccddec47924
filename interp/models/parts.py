"""The layers the toys are made of, with TransformerLens' hook points inside."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

Residual = Float[Tensor, "batch pos d_model"]
PerHead = Float[Tensor, "batch pos head d_head"]


class CausalConv(nn.Module):
    """A 1-d convolution over positions whose kernel is multiplied by a 0/1 mask over taps before use.

    `width` is odd and the padding `width // 2`, so tap `t` reads offset `t - width // 2`: with width 3 the taps are previous,
    current, next. Future taps are always masked, and so are the `masked_taps` (offsets, e.g. -1 for the previous position).
    With `train_kernel=False` the kernel gets no gradient (and so, in torch optimizers, no weight decay either).
    """

    mask: Tensor

    def __init__(self, d_model: int, width: int, masked_taps: tuple[int, ...] = (), train_kernel: bool = True):
        super().__init__()
        self.offsets = tuple(range(-(width // 2), width // 2 + 1))
        self.conv = nn.Conv1d(d_model, d_model, width, padding=width // 2)
        self.conv.weight.requires_grad_(train_kernel)
        kept = [float(offset <= 0 and offset not in masked_taps) for offset in self.offsets]
        self.register_buffer("mask", torch.tensor(kept), persistent=False)

    @property
    def raw_kernel(self) -> Float[Tensor, "filter channel tap"]:
        """The stored kernel, masked taps included."""
        return self.conv.weight

    @property
    def effective_kernel(self) -> Float[Tensor, "filter channel tap"]:
        """The kernel that is used: masked taps are exactly zero."""
        return self.conv.weight * self.mask

    def forward(self, x: Residual) -> Residual:
        channels_first = rearrange(x, "batch pos d_model -> batch d_model pos")
        mixed = nn.functional.conv1d(channels_first, self.effective_kernel, self.conv.bias, padding=self.conv.padding[0])
        return rearrange(mixed, "batch d_model pos -> batch pos d_model")


def smear_keys(keys: PerHead, share: Float[Tensor, " head"]) -> PerHead:
    """k_j <- (1 - share) k_j + share k_{j-1} per head; the first key is unchanged (Olsson et al. 2022, smeared keys)."""
    share = rearrange(share, "head -> head 1")
    return torch.cat([keys[:, :1], (1 - share) * keys[:, 1:] + share * keys[:, :-1]], dim=1)


def rotated(x: PerHead, n_turned: int) -> PerHead:
    """Rotary positions: entry f of the first half and of the second turn together, as `rotation` says (Su et al. 2021)."""
    cos, sin = (rearrange(part, "pos entry -> pos 1 entry") for part in rotation(x.shape[1], x, n_turned))
    return turned(x, cos, sin)


def rotation(
    n_places: int, like: Tensor, n_turned: int, base: float = 10000.0
) -> tuple[Float[Tensor, "pos entry"], Float[Tensor, "pos entry"]]:
    """Cosines and sines of the angles at each position, for heads as wide as `like`; in float32 at least.

    The angle of entry f is pos · base^(−f/n_turned) for the first `n_turned` entries of half a head, and 0 for the others.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    places, entries = (torch.arange(n, dtype=dtype, device=like.device) for n in (n_places, like.shape[-1] // 2))
    speed = torch.where(entries < n_turned, base ** (-entries / n_turned), 0.0)
    angle = einsum(places, speed, "pos, entry -> pos entry")
    return angle.cos(), angle.sin()


def turned(x: Float[Tensor, "... d_head"], cos: Tensor, sin: Tensor) -> Float[Tensor, "... d_head"]:
    """Entry f of the first half of `x` and entry f of the second, turned together by the angle f."""
    first, second = x.to(cos.dtype).split(x.shape[-1] // 2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class Attention(nn.Module):
    """softmax(q k / sqrt(d_head)) over the current and earlier positions, or over all with `causal=False`.

    Without `output_projection` the heads' outputs are concatenated (needs n_heads * d_head == d_model), which `W_O` then states
    as slices of the identity. With `smeared` each key is mixed with the one before it, by a learnt share per head. `rotary`
    pairs of entries of queries and keys are rotated by their positions (0: none), after `hook_q` and `hook_k` and before
    `hook_rot_q` and `hook_rot_k`. `dropout` acts on the pattern, after `hook_pattern`. Weights are Xavier-normal, as of the
    joint [d_model, n_heads * d_head] matrix; biases (with `bias`) start at 0.
    """

    W_O: Tensor

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_head: int,
        smeared: bool = False,
        output_projection: bool = False,
        *,
        causal: bool = True,
        rotary: int = 0,
        bias: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.scale, self.causal, self.rotary = d_head**-0.5, causal, rotary
        self.W_Q, self.W_K, self.W_V = (_xavier(n_heads, d_model, d_head) for _ in range(3))
        self.output_projection = output_projection
        if output_projection:
            weight = rearrange(_xavier(n_heads, d_model, d_head).data, "head d_model d_head -> head d_head d_model")
            self.W_O = nn.Parameter(weight.contiguous())  # laid out as it is named: torch's fused optimizers need that
        else:
            identity = rearrange(torch.eye(d_model), "(head d_head) d_model -> head d_head d_model", head=n_heads)
            self.register_buffer("W_O", identity, persistent=False)
        self.b_Q, self.b_K, self.b_V = (_zeros(n_heads, d_head) if bias else None for _ in range(3))
        self.b_O = _zeros(d_model) if bias and output_projection else None
        self.alpha = nn.Parameter(torch.zeros(n_heads)) if smeared else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = HookPoint(), HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        if smeared:
            self.hook_k_unsmeared = HookPoint()
        if rotary:
            self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()

    @property
    def previous_share(self) -> Float[Tensor, " head"] | None:
        """Share of each key owed to the previous position, 1 - sigmoid(alpha), or None without smearing."""
        return None if self.alpha is None else 1 - torch.sigmoid(self.alpha)

    def forward(self, x: Residual) -> Residual:
        q, k, v = (self.project(x, weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True))
        if self.previous_share is not None:
            k = smear_keys(self.hook_k_unsmeared(k), self.previous_share)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.rotary:
            q, k = self.hook_rot_q(rotated(q, self.rotary)), self.hook_rot_k(rotated(k, self.rotary))
        pattern = self.hook_pattern(self.hook_attn_scores(self.masked(self.scores(q, k))).softmax(-1))
        z = einsum(self.dropout(pattern), v, "batch head query key, batch key head d_head -> batch query head d_head")
        return self.output(self.hook_z(z))

    def project(self, x: Residual, weight: Tensor, bias: Tensor | None) -> PerHead:
        """Queries, keys or values."""
        out = einsum(x, weight, "batch pos d_model, head d_model d_head -> batch pos head d_head")
        return out if bias is None else out + bias

    def scores(self, q: PerHead, k: PerHead) -> Float[Tensor, "batch head query key"]:
        """How well each query matches each key, before the mask."""
        return einsum(q, k, "batch query head d_head, batch key head d_head -> batch head query key") * self.scale

    def masked(self, scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """The scores with −∞ where a query must not look."""
        if not self.causal:
            return scores
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(future, -torch.inf)

    def output(self, z: PerHead) -> Residual:
        """What the heads write together."""
        if not self.output_projection:
            return rearrange(z, "batch pos head d_head -> batch pos (head d_head)")
        out = einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model")
        return out if self.b_O is None else out + self.b_O

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The query, key and value weights, each [head d_model d_head]."""
        return self.W_Q, self.W_K, self.W_V

    @property
    def biases(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The query, key and value biases, each [head d_head], or None."""
        return self.b_Q, self.b_K, self.b_V


class Block(nn.Module):
    """One attention layer, added to the residual stream or, without one, passed on alone."""

    def __init__(self, attention: Attention, residual: bool):
        super().__init__()
        self.attn, self.residual = attention, residual
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x: Residual) -> Residual:
        x = self.hook_resid_pre(x)
        out = self.hook_attn_out(self.attn(x))
        return self.hook_resid_post(x + out if self.residual else out)


def _xavier(n_heads: int, d_model: int, d_head: int) -> nn.Parameter:
    joint = nn.init.xavier_normal_(torch.empty(d_model, n_heads * d_head))
    return nn.Parameter(rearrange(joint, "d_model (head d_head) -> head d_model d_head", head=n_heads).contiguous())


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))
