"""The architectures compute what they say: against Hugging Face and plain torch with the same weights, and step by step.

Two ways of summing differ by rounding, so each comparison is made in float64 too and must shrink by about 2^-29.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import patching

from interp.models import Architecture, Recurrent, StateSpace, Transformer
from interp.models.state_space import StateSpaceLayer, scan
from tests.models.zoo import MISSING, randomised

D_VOCAB, D_MODEL, N_HEADS, D_MLP, N_CTX, BATCH, POS = 37, 24, 3, 40, 19, 5, 11
SHAPE = {"d_vocab": D_VOCAB, "d_model": D_MODEL, "n_layers": 2, "n_ctx": N_CTX}
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.float64, 1e-12)])


def tokens(seed: int = 0) -> Tensor:
    return torch.randint(0, D_VOCAB, (BATCH, POS), generator=torch.Generator().manual_seed(seed))


def build(kind: Callable[..., Any], dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """With biases and gains that are not 0 and 1: weights that act."""
    torch.manual_seed(0)
    return randomised(kind(**SHAPE, **options)).to(dtype)


def assert_equal_with_gradients(model: nn.Module, reference: Callable[[Tensor], Tensor], tolerance: float) -> None:
    direction = torch.randn(BATCH, POS, D_VOCAB, generator=torch.Generator().manual_seed(3)).to(next(model.parameters()))
    parameters = dict(model.named_parameters())

    def gradients(logits: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((logits * direction).sum(), list(parameters.values())))

    ours, theirs = model(tokens()), reference(tokens())
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    for name, a, b in zip(parameters, gradients(ours), gradients(theirs), strict=True):
        allowed = 10 * tolerance * (1 + float(b.abs().max()))
        torch.testing.assert_close(a, b, atol=allowed, rtol=tolerance, msg=lambda text, n=name: f"{n}: {text}")
        keys_alone = name.endswith("b_K")  # a softmax does not feel what all keys share
        assert keys_alone or float(b.abs().max()) > 1e-3, f"{name} has no gradient, so nothing was compared"


def plain_norm(norm: Any, x: Tensor) -> Tensor:
    if isinstance(norm, nn.Identity):
        return x
    if norm.b is None:
        return F.rms_norm(x, x.shape[-1:], norm.w, eps=1e-5)
    return F.layer_norm(x, x.shape[-1:], norm.w, norm.b, eps=1e-5)


def plain_attention(attn: Any, x: Tensor) -> Tensor:
    q, k, v = (
        torch.stack([F.linear(x, w.T) + (0 if b is None else b[h]) for h, w in enumerate(weight)], dim=1)
        for weight, b in zip(attn.weights, attn.biases, strict=True)
    )
    if attn.rotary:
        q, k = turned(q, attn.rotary), turned(k, attn.rotary)
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=attn.causal)
    out = sum(F.linear(heads[:, h], w.T) for h, w in enumerate(attn.W_O))
    return out + (0 if attn.b_O is None else attn.b_O)


def turned(x: Tensor, n: int) -> Tensor:
    """Rotary positions as complex numbers: pair (f, f + half) times e^{i pos / 10000^(f / n)} for f < n."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(x.shape[-2]).double(), 10000 ** -(torch.arange(n).double() / n))
    pairs = torch.complex(*x.double().split(half, -1))
    pairs = torch.cat([pairs[..., :n] * torch.polar(torch.ones_like(angle), angle), pairs[..., n:]], dim=-1)
    return torch.cat([pairs.real, pairs.imag], dim=-1).to(x.dtype)


def plain_mlp(mlp: Any, x: Tensor) -> Tensor:
    act = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[mlp.activation]
    b_in, b_out = (0 if bias is None else bias for bias in (mlp.b_in, mlp.b_out))
    neurons = act(x @ mlp.W_in + b_in) if mlp.W_gate is None else act(x @ mlp.W_gate) * (x @ mlp.W_in) + b_in
    return neurons @ mlp.W_out + b_out


def plain_transformer(model: Any, ids: Tensor) -> Tensor:
    x, config = F.embedding(ids, model.embed.weight), model.config
    if config.positions == "learned":
        x = x + model.pos_embed.weight[: ids.shape[1]]
    if config.positions == "sinusoidal":
        places, entries = torch.arange(ids.shape[1]).double(), torch.arange(D_MODEL // 2).double()
        angle = places[:, None] / 10000 ** (2 * entries / D_MODEL)
        x = x + torch.cat([angle.sin(), angle.cos()], dim=1).to(x)
    for block in model.blocks:
        if config.norm == "post":
            x = plain_norm(block.ln_mid if config.mlp else block.ln_post, x + plain_attention(block.attn, x))
            x = plain_norm(block.ln_post, x + plain_mlp(block.mlp, x)) if config.mlp else x
        else:
            x = x + plain_attention(block.attn, plain_norm(block.ln1, x))
            x = x + plain_mlp(block.mlp, plain_norm(block.ln2, x)) if config.mlp else x
    return F.linear(
        plain_norm(model.ln_final, x), model.embed.weight if config.tied else model.unembed.weight, model.unembed.bias
    )


CASES: list[dict[str, Any]] = [
    {},
    {"mlp": False, "norm": "none", "bias": False},
    {"norm": "post", "gated": True, "activation": "silu"},
    {"norm": "post", "mlp": False, "norm_kind": "rms"},
    {"positions": "sinusoidal", "causal": False, "tied": True, "activation": "relu"},
    {"positions": "rotary", "norm_kind": "rms", "d_head": 10, "gated": True},
    {"positions": "rotary", "rotary_share": 0.4, "d_head": 10, "mlp": False},
    {"positions": "none", "norm": "none", "bias": False, "d_head": 5},
]


@pytest.mark.parametrize("options", CASES, ids=str)
@PRECISIONS
def test_the_transformer_is_that_of_plain_torch(options: dict, dtype: torch.dtype, tolerance: float) -> None:
    model = build(Transformer, dtype, n_heads=N_HEADS, **({"d_mlp": D_MLP} if options.get("mlp", True) else {}), **options)
    assert_equal_with_gradients(model, lambda ids: plain_transformer(model, ids), tolerance)


@PRECISIONS
def test_the_defaults_are_a_gpt2(dtype: torch.dtype, tolerance: float) -> None:
    import transformers as hf

    sizes: dict[str, Any] = {"n_embd": D_MODEL, "n_layer": 2, "n_head": N_HEADS, "n_positions": N_CTX, "n_inner": D_MLP}
    config = hf.GPT2Config(vocab_size=D_VOCAB, activation_function="gelu", attn_implementation="eager", **sizes)
    theirs = randomised(hf.GPT2LMHeadModel(config)).to(dtype)
    model = build(Transformer, dtype, n_heads=N_HEADS, d_mlp=D_MLP, tied=True)
    state = theirs.transformer.state_dict()
    ours = {"embed.weight": state["wte.weight"], "pos_embed.weight": state["wpe.weight"]}
    ours |= {"unembed.weight": state["wte.weight"], "unembed.bias": torch.zeros(D_VOCAB)}
    ours |= {f"ln_final.{a}": state[f"ln_f.{b}"] for a, b in (("w", "weight"), ("b", "bias"))}
    for layer in range(2):
        at, block = f"h.{layer}", f"blocks.{layer}"
        for a, b in (("w", "weight"), ("b", "bias")):
            ours |= {f"{block}.ln1.{a}": state[f"{at}.ln_1.{b}"], f"{block}.ln2.{a}": state[f"{at}.ln_2.{b}"]}
        for name, weight, bias in zip(
            "QKV", state[f"{at}.attn.c_attn.weight"].chunk(3, -1), state[f"{at}.attn.c_attn.bias"].chunk(3), strict=True
        ):
            ours[f"{block}.attn.W_{name}"] = weight.unflatten(1, (N_HEADS, -1)).transpose(0, 1)
            ours[f"{block}.attn.b_{name}"] = bias.unflatten(0, (N_HEADS, -1))
        ours[f"{block}.attn.W_O"] = state[f"{at}.attn.c_proj.weight"].unflatten(0, (N_HEADS, -1))
        ours |= {f"{block}.attn.b_O": state[f"{at}.attn.c_proj.bias"]}
        ours |= {f"{block}.mlp.W_in": state[f"{at}.mlp.c_fc.weight"], f"{block}.mlp.b_in": state[f"{at}.mlp.c_fc.bias"]}
        ours |= {f"{block}.mlp.W_out": state[f"{at}.mlp.c_proj.weight"], f"{block}.mlp.b_out": state[f"{at}.mlp.c_proj.bias"]}
    model.load_state_dict(ours)
    torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, atol=tolerance, rtol=tolerance)


@pytest.mark.skipif("hooked-transformer" in MISSING, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rotary", [False, True])
def test_every_hook_holds_what_that_of_a_hooked_transformer_holds(rotary: bool) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    options = {"positions": "rotary", "norm_kind": "rms", "gated": True, "activation": "silu"} if rotary else {}
    model = build(Transformer, n_heads=N_HEADS, d_mlp=D_MLP, **options)
    shape = model.cfg
    config = HookedTransformerConfig(
        n_layers=2, d_model=D_MODEL, n_heads=N_HEADS, d_head=shape.d_head, d_mlp=D_MLP, d_vocab=D_VOCAB, n_ctx=N_CTX,
        act_fn=shape.act_fn, normalization_type=shape.normalization_type, gated_mlp=rotary, device="cpu",
        positional_embedding_type="rotary" if rotary else "standard",
        **({"rotary_adjacent_pairs": False, "rotary_dim": shape.d_head, "final_rms": True} if rotary else {}),
    )  # fmt: skip
    theirs = HookedTransformer(config).eval()
    names = {"embed.weight": "embed.W_E", "pos_embed.weight": "pos_embed.W_pos", "unembed.bias": "unembed.b_U"}
    state = {names.get(name, name): weight for name, weight in model.state_dict().items() if name != "unembed.weight"}
    found = theirs.load_state_dict(state | {"unembed.W_U": model.W_U}, strict=False)
    assert not found.unexpected_keys and not [name for name in found.missing_keys if "W_" in name or "b_" in name]
    logits, cache = theirs.run_with_cache(tokens())
    ours, our_cache = model.run_with_cache(tokens())
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
    assert set(our_cache) <= set(cache) and len(our_cache) > 30
    for name, activation in our_cache.items():
        torch.testing.assert_close(activation, cache[name], atol=1e-4, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_direct_logit_attribution_adds_up() -> None:
    """TransformerLens' own cache tools: the parts of the last residual stream, behind the final norm, give the logits."""
    model = build(Transformer, n_heads=N_HEADS, d_mlp=D_MLP)
    logits, cache = model.run_with_cache(tokens())
    parts, labels = cache.decompose_resid(apply_ln=True, return_labels=True)
    assert labels == ["embed", "pos_embed", "0_attn_out", "0_mlp_out", "1_attn_out", "1_mlp_out"]
    final = parts.sum(0) * model.ln_final.w + model.ln_final.b
    torch.testing.assert_close(final @ model.W_U + model.b_U, logits, atol=1e-4, rtol=1e-4)
    heads = cache.stack_head_results(layer=1)
    torch.testing.assert_close(heads.sum(0) + model.blocks[0].attn.b_O, cache["attn_out", 0], atol=1e-5, rtol=1e-4)


def test_patching_by_transformer_lens_equals_hooks_by_hand() -> None:
    model = build(Transformer, n_heads=N_HEADS, d_mlp=D_MLP)
    _, clean = model.run_with_cache(tokens(1))

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 3].sum()

    heads = patching.get_act_patch_attn_head_out_all_pos(model, tokens(), clean, metric)
    streams = patching.get_act_patch_resid_mid(model, tokens(), clean, metric)
    for layer in range(2):

        def patch_head(z: Tensor, hook: Any, layer: int = layer) -> Tensor:
            return torch.cat([z[:, :, :1], clean["z", layer][:, :, 1:2], z[:, :, 2:]], dim=2)

        def patch_mid(x: Tensor, hook: Any, layer: int = layer) -> Tensor:
            return torch.cat([x[:, :4], clean["resid_mid", layer][:, 4:5], x[:, 5:]], dim=1)

        by_hand = model.run_with_hooks(tokens(), fwd_hooks=[(f"blocks.{layer}.attn.hook_z", patch_head)])
        assert heads[layer, 1].item() == pytest.approx(metric(by_hand).item(), abs=1e-4)
        by_hand = model.run_with_hooks(tokens(), fwd_hooks=[(f"blocks.{layer}.hook_resid_mid", patch_mid)])
        assert streams[layer, 4].item() == pytest.approx(metric(by_hand).item(), abs=1e-4)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@PRECISIONS
def test_recurrent_states_are_those_of_one_cell_run_step_by_step(cell: str, dtype: torch.dtype, tolerance: float) -> None:
    model = build(Recurrent, dtype, cell=cell, d_state=10)
    layer = model.blocks[1].rnn
    one = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}[cell](D_MODEL, 10).to(dtype)
    one.load_state_dict({name.removesuffix("_l0"): weight for name, weight in layer.cells.state_dict().items()})
    _, cache = model.run_with_cache(tokens())
    state: Any = None
    for pos in range(POS):
        state = one(cache["blocks.1.ln1.hook_normalized"][:, pos] * model.blocks[1].ln1.w + model.blocks[1].ln1.b, state)
        hidden = state[0] if cell == "lstm" else state
        torch.testing.assert_close(cache["blocks.1.rnn.hook_state"][:, pos], hidden, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(cache["blocks.1.hook_rnn_out"], layer.out(cache["blocks.1.rnn.hook_state"]))


@pytest.mark.parametrize("diagonal", ["complex", "real"])
@PRECISIONS
def test_state_space_states_are_those_of_the_recurrence(diagonal: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    layer = StateSpaceLayer(D_MODEL, 10, diagonal).to(dtype)
    x = torch.randn(BATCH, POS, D_MODEL, dtype=dtype)
    seen: list[Tensor] = []
    layer.hook_state.add_hook(lambda activation, hook: seen.append(activation))
    out = layer(x)
    modulus = torch.exp(-torch.exp(layer.log_decay))
    angle = torch.zeros_like(modulus) if layer.angle is None else layer.angle
    factor = torch.polar(modulus, angle)
    state = torch.zeros(BATCH, 10, dtype=factor.dtype)
    for pos in range(POS):
        driven = layer.read_in(x[:, pos])
        driven = torch.complex(*driven.chunk(2, -1)) if diagonal == "complex" else driven
        state = factor * state + (1 - modulus**2).sqrt() * driven
        flat = torch.cat([state.real, state.imag], -1) if diagonal == "complex" else state.real
        torch.testing.assert_close(seen[0][:, pos], flat, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(out[:, pos], layer.out(flat), atol=tolerance, rtol=tolerance)
    gradients = torch.autograd.grad(out.square().sum(), list(layer.parameters()))
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients)


def test_the_scan_is_the_convolution_with_powers() -> None:
    """By hand: λ = 1/2, driven 1 at the first position and 3 at the third, five positions."""
    driven = torch.tensor([1.0, 0, 3, 0, 0]).reshape(1, 5, 1)
    torch.testing.assert_close(scan(driven, torch.tensor([0.5]).log()).flatten(), torch.tensor([1, 0.5, 3.25, 1.625, 0.8125]))


@pytest.mark.parametrize("size", [-30.0, -8.0, 5.0, 30.0])
def test_states_stay_bounded_whatever_the_decay(size: float) -> None:
    layer = StateSpaceLayer(3, 4)
    layer.log_decay.data.fill_(size)
    assert bool((layer.log_lambda.exp().abs() <= 1).all())
    out = layer(torch.ones(1, 4000, 3))
    assert bool(out.isfinite().all())


EVERY: list[tuple[type[Architecture], dict[str, Any]]] = [
    (Transformer, {"n_heads": N_HEADS, "dropout": 0.5}),
    (Recurrent, {"dropout": 0.5}),
    (Recurrent, {"cell": "lstm", "positions": "learned", "dropout": 0.5}),
    (StateSpace, {"dropout": 0.5}),
    (StateSpace, {"diagonal": "real", "positions": "sinusoidal", "norm": "post", "dropout": 0.5}),
]


@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_nothing_sees_what_comes_later(kind: type, options: dict) -> None:
    model = build(kind, **options)
    changed = tokens()
    changed[:, 7] = (changed[:, 7] + 1) % D_VOCAB
    before, after = model(tokens()), model(changed)
    assert torch.equal(before[:, :7], after[:, :7]), "bit by bit"
    assert (before[:, 7:] - after[:, 7:]).abs().amax((0, 2)).min() > 1e-5, "and all that follows feels it"


def test_without_a_mask_everything_is_seen() -> None:
    model = build(Transformer, n_heads=N_HEADS, causal=False)
    changed = tokens()
    changed[:, -1] = (changed[:, -1] + 1) % D_VOCAB
    assert ((model(tokens()) - model(changed)).abs().amax((0, 2)) > 1e-5).all()


@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_dropout_acts_in_training_alone_and_keeps_the_mean(kind: type, options: dict) -> None:
    model = build(kind, **options)
    assert torch.equal(model(tokens()), model(tokens()))
    assert torch.equal(model(tokens()), build(kind, **(options | {"dropout": 0.0}))(tokens()))
    model.train()
    torch.manual_seed(1)
    _, cache = model.run_with_cache(tokens())
    added = cache[f"blocks.0.hook_{model.layer_name}_out"]
    for dropped in (added, cache["blocks.0.hook_mlp_out"], cache["blocks.0.hook_resid_pre"]):
        assert 0.35 < float((dropped == 0).double().mean()) < 0.65
    if kind is Transformer:
        patterns, values = cache["pattern", 0], cache["v", 0]
        torch.testing.assert_close(patterns.sum(-1), torch.ones_like(patterns.sum(-1)))
        undropped = torch.einsum("bhqk,bkhe->bqhe", patterns, values)
        assert (cache["z", 0] - undropped).abs().max() > 0.1, "the pattern is dropped from after its hook"
    if model.config.norm == "pre":
        torch.testing.assert_close(cache["blocks.0.hook_resid_mid"], cache["blocks.0.hook_resid_pre"] + added)
    model(tokens()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "options"), EVERY[:4])
def test_half_precision_is_close(kind: type, options: dict, dtype: torch.dtype) -> None:
    exact, rough = build(kind, **options)(tokens()), build(kind, dtype, **options)(tokens())
    assert rough.dtype == dtype
    assert (rough.float() - exact).abs().max() < 0.15 * exact.abs().max()
