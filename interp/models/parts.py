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


class Attention(nn.Module):
    """Causal attention without biases: softmax(q k / sqrt(d_head)) over the current and earlier positions.

    Without `output_projection` the heads' outputs are concatenated (needs n_heads * d_head == d_model), which `W_O` then states
    as slices of the identity. With `smeared` each key is mixed with the one before it, by a learnt share per head.
    Weights are Xavier-normal, as of the joint [d_model, n_heads * d_head] matrix.
    """

    W_O: Tensor

    def __init__(self, d_model: int, n_heads: int, d_head: int, smeared: bool = False, output_projection: bool = False):
        super().__init__()
        self.scale = d_head**-0.5
        self.W_Q, self.W_K, self.W_V = (_xavier(n_heads, d_model, d_head) for _ in range(3))
        self.output_projection = output_projection
        if output_projection:
            self.W_O = nn.Parameter(
                rearrange(_xavier(n_heads, d_model, d_head).data, "head d_model d_head -> head d_head d_model")
            )
        else:
            identity = rearrange(torch.eye(d_model), "(head d_head) d_model -> head d_head d_model", head=n_heads)
            self.register_buffer("W_O", identity, persistent=False)
        self.alpha = nn.Parameter(torch.zeros(n_heads)) if smeared else None
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = HookPoint(), HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        if smeared:
            self.hook_k_unsmeared = HookPoint()

    @property
    def previous_share(self) -> Float[Tensor, " head"] | None:
        """Share of each key owed to the previous position, 1 - sigmoid(alpha), or None without smearing."""
        return None if self.alpha is None else 1 - torch.sigmoid(self.alpha)

    def forward(self, x: Residual) -> Residual:
        q, k, v = (einsum(x, w, "batch pos d_model, head d_model d_head -> batch pos head d_head") for w in self.weights)
        if self.previous_share is not None:
            k = smear_keys(self.hook_k_unsmeared(k), self.previous_share)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        scores = einsum(q, k, "batch query head d_head, batch key head d_head -> batch head query key") * self.scale
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        pattern = self.hook_pattern(self.hook_attn_scores(scores.masked_fill(future, -torch.inf)).softmax(-1))
        z = self.hook_z(einsum(pattern, v, "batch head query key, batch key head d_head -> batch query head d_head"))
        if self.output_projection:
            return einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model")
        return rearrange(z, "batch pos head d_head -> batch pos (head d_head)")

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The query, key and value weights, each [head d_model d_head]."""
        return self.W_Q, self.W_K, self.W_V


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
