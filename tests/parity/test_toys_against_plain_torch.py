"""Each toy against an independent implementation in plain PyTorch with the same weights: logits and gradients.

The references use `nn.Linear`, `F.scaled_dot_product_attention` and a convolution over explicitly shifted copies. Tolerances: two
ways of summing differ by rounding, so the same comparison in float64 must shrink by about 2^-29; a wrong formula would not.
"""

import pytest
import torch
from torch.nn import functional as F

from interp.models import AttnAttn, ConvAttn, SmearedKeyAttn, Toy

D_VOCAB, D_MODEL, N_HEADS, POS, BATCH = 37, 24, 3, 11, 5


def plain_attention(model: Toy, layer: int, x: torch.Tensor) -> torch.Tensor:
    attn = model.blocks[layer].attn
    heads = []
    for head in range(model.cfg.n_heads):
        q, k, v = (F.linear(x, w[head].T) for w in (attn.W_Q, attn.W_K, attn.W_V))
        if isinstance(model, SmearedKeyAttn):
            keep = torch.sigmoid(attn.alpha[head])
            k = torch.stack([k[:, 0]] + [keep * k[:, j] + (1 - keep) * k[:, j - 1] for j in range(1, k.shape[1])], dim=1)
        heads.append(F.scaled_dot_product_attention(q, k, v, is_causal=True))
    return torch.cat(heads, dim=-1)


def plain_conv(model: ConvAttn, x: torch.Tensor) -> torch.Tensor:
    weight, bias = model.conv.conv.weight, model.conv.conv.bias
    reach = model.config.kernel // 2
    out = torch.zeros_like(x) + bias
    for offset in range(-reach, 1):
        if offset not in model.config.masked_taps:
            shifted = (
                torch.cat([torch.zeros_like(x[:, : -offset or None][:, :-offset]), x], dim=1)[:, : x.shape[1]] if offset else x
            )
            out = out + shifted @ weight[:, :, offset + reach].T
    return out


def plain_forward(model: Toy, tokens: torch.Tensor) -> torch.Tensor:
    x = F.embedding(tokens, model.embed.weight)
    if model.config.positions:
        x = x + model.pos_embed.weight[: tokens.shape[1]]
    if isinstance(model, ConvAttn):
        x = plain_conv(model, x) + (x if model.config.residual else 0)
    for layer in range(model.cfg.n_layers):
        x = plain_attention(model, layer, x) + (x if model.config.residual else 0)
    return x @ model.unembed.weight.T + model.unembed.bias


CASES = [
    (ConvAttn, {}),
    (ConvAttn, {"kernel": 5}),
    (ConvAttn, {"masked_taps": (-1,)}),
    (ConvAttn, {"n_heads": N_HEADS, "residual": True, "positions": True}),
    (AttnAttn, {}),
    (AttnAttn, {"n_heads": N_HEADS}),
    (AttnAttn, {"residual": True, "positions": True}),
    (SmearedKeyAttn, {}),
    (SmearedKeyAttn, {"n_heads": N_HEADS, "residual": True}),
]


@pytest.mark.parametrize(("toy", "options"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-13)])
def test_logits_and_gradients_equal_plain_torch(toy: type[Toy], options: dict, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model = toy(d_vocab=D_VOCAB, d_model=D_MODEL, **options).to(dtype)
    if isinstance(model, SmearedKeyAttn):
        torch.nn.init.normal_(model.blocks[0].attn.alpha)  # equal shares for all heads would hide a wrong head order
    tokens = torch.randint(0, D_VOCAB, (BATCH, POS))
    direction = torch.randn(BATCH, POS, D_VOCAB, dtype=dtype)
    parameters = dict(model.named_parameters())

    def gradients(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        found = torch.autograd.grad((logits * direction).sum(), list(parameters.values()))
        return dict(zip(parameters, found, strict=True))

    ours, plain = model(tokens), plain_forward(model, tokens)
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)
    ours_gradients, plain_gradients = gradients(ours), gradients(plain)
    for name, gradient in plain_gradients.items():
        scale = float(gradient.abs().max()) + 1
        torch.testing.assert_close(
            ours_gradients[name], gradient, atol=tolerance * scale, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert gradient.abs().max() > 0, f"{name} has no gradient, so nothing was compared"


def test_the_kernel_is_trained_unless_frozen() -> None:
    tokens = torch.randint(0, D_VOCAB, (BATCH, POS))
    for train_kernel in (True, False):
        model = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, train_kernel=train_kernel)
        model(tokens).square().sum().backward()
        gradient = model.conv.conv.weight.grad
        assert (gradient is not None) == train_kernel
        if gradient is not None:
            assert gradient[:, :, 2].abs().max() == 0, "the masked future tap must not be trained"
            assert gradient[:, :, :2].abs().min() > 0
