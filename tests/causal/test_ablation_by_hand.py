"""Ablations whose result is worked out another way: by hand, in plain PyTorch, or by a model built without the part."""

from itertools import product

import pytest
import torch
from transformer_lens import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from interp import metrics
from interp.errors import SiteError
from interp.interventions import (
    SetPattern,
    ablate_together,
    ablated,
    ablation_effects,
    ablation_sweep,
    against_random,
    cumulative_ablation,
    ranked_heads,
)
from interp.models import AttnAttn, ConvAttn
from interp.sites import Site

D_VOCAB, D_MODEL, N_HEADS, BATCH, POS = 23, 12, 3, 5, 7


def tokens_of(batch: int = BATCH, seed: int = 0) -> torch.Tensor:
    return torch.randint(D_VOCAB, (batch, POS), generator=torch.Generator().manual_seed(seed))


def two_layers(**options: object) -> AttnAttn:
    torch.manual_seed(1)
    return (
        AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS, residual=True, **options)
        .double()
        .eval()
        .requires_grad_(False)
    )


def conv_model(kernel: int = 3, **options: object) -> ConvAttn:
    torch.manual_seed(2)
    return ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, kernel=kernel, **options).eval().requires_grad_(False)


def pattern_of(model: AttnAttn, layer: int, x: torch.Tensor) -> torch.Tensor:
    attn = model.blocks[layer].attn
    q, k = (torch.einsum("bpm,hmd->bhpd", x, w) for w in (attn.W_Q, attn.W_K))
    scores = q @ k.transpose(-1, -2) / (D_MODEL // N_HEADS) ** 0.5
    return scores.masked_fill(torch.ones(POS, POS, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def outputs_of(model: AttnAttn, layer: int, x: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """What each head adds to the residual stream, [head batch pos d_model]."""
    attn = model.blocks[layer].attn
    values = torch.einsum("bpm,hmd->bhpd", x, attn.W_V)
    return torch.einsum("bhpd,hdm->hbpm", pattern @ values, attn.W_O)


def test_without_its_only_head_a_model_says_its_bias() -> None:
    model = conv_model()
    with ablated(model, heads=[(0, 0)], mode="zero"):
        logits = model(tokens_of())
    assert torch.equal(logits, model.unembed.bias.expand_as(logits))
    with ablated(model, layers=[0], mode="zero"):
        assert torch.equal(model(tokens_of()), logits)


def test_without_attention_a_residual_model_is_a_bigram_table() -> None:
    model, tokens = two_layers(), tokens_of()
    with ablated(model, layers=[0, 1], mode="zero"):
        logits = model(tokens)
    assert torch.equal(logits, model.unembed(model.embed(tokens)))


def test_the_predicted_effect_is_the_measured_one() -> None:
    """In the last layer a head's effect on a logit difference is minus what it writes along that direction."""
    model, tokens = two_layers(), tokens_of()
    answers, wrong = torch.arange(BATCH), torch.arange(BATCH) + BATCH
    x = model.embed(tokens)
    x = x + outputs_of(model, 0, x, pattern_of(model, 0, x)).sum(0)
    writes = outputs_of(model, 1, x, pattern_of(model, 1, x))[:, :, -1]
    direction = model.unembed.weight[answers] - model.unembed.weight[wrong]
    predicted = -(writes * direction).sum(-1)
    metric = metrics.logit_diff(answers, wrong)
    effects = ablation_effects(model, tokens, metric, mode="zero", batch_size=2, progress=False)
    assert effects.axes == ("example", "layer", "head")
    torch.testing.assert_close(effects.values[:, 1].T, predicted, atol=1e-12, rtol=0)
    sweep = ablation_sweep(model, tokens, metric, mode="zero", progress=False)
    torch.testing.assert_close(sweep.values[1], predicted.mean(1), atol=1e-12, rtol=0)
    torch.testing.assert_close(sweep.stderr[1], predicted.std(1) / BATCH**0.5)
    assert predicted.abs().min() > 1e-4, "every head does something"
    together = ablate_together(model, tokens, metric, {"none": [], "two": [(1, 0), (1, 2)]}, mode="zero", progress=False)
    torch.testing.assert_close(together.values, torch.stack([torch.tensor(0.0), predicted[[0, 2]].sum(0).mean()]).double())
    assert together.labels_of("set") == ("none", "two")


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"positions": True}])
@pytest.mark.parametrize(("kernel", "offset"), [(3, -1), (3, 0), (5, -2)])
def test_a_tap_zeroed_equals_a_tap_masked(options: dict, kernel: int, offset: int) -> None:
    model, tokens = conv_model(kernel, **options), tokens_of()
    masked = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, kernel=kernel, masked_taps=(offset,), **options)
    masked.load_state_dict(model.state_dict())
    with ablated(model, taps=[offset], mode="zero"):
        assert torch.equal(model(tokens), masked(tokens))
    assert not torch.equal(model(tokens), masked(tokens))


def test_tap_contributions_by_hand() -> None:
    """Identity taps: the convolution puts out 0.3 x(j − 1) + 0.7 x(j) + bias."""
    model, tokens = conv_model(), tokens_of()
    model.conv.conv.weight[:, :, 0] = 0.3 * torch.eye(D_MODEL)
    model.conv.conv.weight[:, :, 1] = 0.7 * torch.eye(D_MODEL)
    x, bias = model.embed(tokens), model.conv.conv.bias
    earlier = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    seen = []

    def conv_under(mode: str, taps: list[int]) -> torch.Tensor:
        with ablated(model, taps=taps, mode=mode), model.hooks(fwd_hooks=[("hook_conv", lambda t, hook: seen.append(t))]):
            model(tokens)
        return seen[-1]

    def close(found: torch.Tensor, expected: torch.Tensor) -> None:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    close(conv_under("zero", [-1]), 0.7 * x + bias)
    close(conv_under("zero", [-1, 0]), bias.expand_as(x))
    close(conv_under("mean", [0]), 0.3 * earlier + 0.7 * x.mean((0, 1)) + bias)
    close(conv_under("position_mean", [-1]), 0.3 * earlier.mean(0) + 0.7 * x + bias)
    resampled = conv_under("resample", [-1]) - 0.7 * x - bias
    distance = (resampled[:, None] - 0.3 * earlier).abs().amax((2, 3))
    assert (distance.min(1).values < 1e-6).all() and (distance.diagonal() > 1e-2).all(), "another example's share, never its own"


def test_a_sweep_over_taps_equals_masked_models() -> None:
    model, tokens = conv_model(5, masked_taps=(-2,)), tokens_of()
    sweep = ablation_sweep(model, tokens, metrics.loss(), "taps", mode="zero", progress=False)
    assert sweep.axes == ("tap",) and sweep.labels_of("tap") == ("previous", "current")
    for index, offset in enumerate((-1, 0)):
        masked = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, kernel=5, masked_taps=(-2, offset))
        masked.load_state_dict(model.state_dict())
        change = metrics.loss()(masked(tokens), tokens).double() - metrics.loss()(model(tokens), tokens).double()
        torch.testing.assert_close(sweep.values[index], change.mean(), atol=1e-7, rtol=0)


def test_frozen_and_full_ablation_differ_by_where_later_heads_look() -> None:
    model, tokens, head = two_layers(), tokens_of(), 2
    x = model.embed(tokens)
    writes = outputs_of(model, 0, x, pattern_of(model, 0, x))
    intact, cut = x + writes.sum(0), x + writes.sum(0) - writes[head]

    def logits(pattern: torch.Tensor) -> torch.Tensor:
        return model.unembed(cut + outputs_of(model, 1, cut, pattern).sum(0))

    frozen, full = logits(pattern_of(model, 1, intact)), logits(pattern_of(model, 1, cut))
    with ablated(model, heads=[(0, head)], mode="frozen", reference=tokens):
        torch.testing.assert_close(model(tokens), frozen, atol=1e-12, rtol=0)
        torch.testing.assert_close(model(tokens[[3, 1]]), frozen[[3, 1]], atol=1e-12, rtol=0)
    with ablated(model, heads=[(0, head)], mode="zero"):
        torch.testing.assert_close(model(tokens), full, atol=1e-12, rtol=0)
    assert (frozen - full).abs().max() > 1e-2
    sweep = ablation_effects(model, tokens, metrics.loss(), mode="frozen", batch_size=3, progress=False)
    expected = metrics.loss()(frozen, tokens) - metrics.loss()(model(tokens), tokens)
    torch.testing.assert_close(sweep.values[:, 0, head], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", ["uniform", "previous", "self"])
def test_set_patterns_by_hand(mode: str) -> None:
    model, tokens = two_layers(), tokens_of()
    x = model.embed(tokens)
    pattern = pattern_of(model, 0, x)
    for row in range(POS):
        pattern[:, 1, row] = 0
        if mode == "uniform":
            pattern[:, 1, row, : row + 1] = 1 / (row + 1)
        else:
            pattern[:, 1, row, max(row - 1, 0) if mode == "previous" else row] = 1
    x = x + outputs_of(model, 0, x, pattern).sum(0)
    x = x + outputs_of(model, 1, x, pattern_of(model, 1, x)).sum(0)
    with ablated(model, heads=[(0, 1)], mode=mode):
        torch.testing.assert_close(model(tokens), model.unembed(x), atol=1e-7, rtol=0)
    assert (model(tokens) - model.unembed(x)).abs().max() > 1e-2


def test_means_and_other_examples_of_a_reference() -> None:
    model, tokens, reference = two_layers(), tokens_of(), tokens_of(8, seed=9)
    z = model.run_with_cache(reference)[1]["z", 1][:, :, 2]
    for mode, expected in (("mean", z.mean((0, 1))), ("position_mean", z.mean(0)), ("resample", None)):
        seen = []
        catch = [("blocks.1.attn.hook_z", lambda t, hook, seen=seen: seen.append(t[:, :, 2]))]
        with ablated(model, heads=[(1, 2)], mode=mode, reference=reference, batch_size=3), model.hooks(fwd_hooks=catch):
            model(tokens)
        if expected is not None:
            torch.testing.assert_close(seen[0], expected.expand_as(seen[0]), atol=1e-12, rtol=0)
            continue
        chosen = (seen[0][:, None] - z).abs().amax((2, 3)).min(1)
        assert chosen.values.max() < 1e-12 and len(set(chosen.indices.tolist())) == BATCH, "distinct examples of the reference"


def test_cumulative_curves_and_their_control() -> None:
    model, tokens = two_layers(), tokens_of()
    order = [(1, 2), (0, 1), (0, 0), (1, 0), (0, 2), (1, 1)]
    curves = cumulative_ablation(model, tokens, metrics.loss(), order, draws=3, mode="zero", progress=False)
    assert curves.axes == ("curve", "size") and curves.values.shape == (4, 6)
    for size in (1, 4):
        with ablated(model, heads=order[:size], mode="zero"):
            change = metrics.loss()(model(tokens), tokens)
        change = change - metrics.loss()(model(tokens), tokens)
        torch.testing.assert_close(curves.values[0, size - 1], change.mean(), atol=1e-12, rtol=0)
    torch.testing.assert_close(curves.values[:, -1], curves.values[:1, -1].expand(4), atol=1e-12, rtol=0)
    assert (curves.values[1:, :-1].std(0) > 1e-3).all(), "the draws differ until all heads are gone"
    torch.testing.assert_close(curves.baseline, curves.values[1:].mean(0))
    brief = against_random(curves)
    assert brief.labels_of("quantity") == ("ranked", "random mean", "random spread", "as large at random")
    torch.testing.assert_close(brief.values[:, 2], curves.values[1:].std(0))
    some = cumulative_ablation(model, tokens, metrics.loss(), order, sizes=[4, 1], draws=3, mode="zero", progress=False)
    torch.testing.assert_close(some.values, curves.values[:, [3, 0]], atol=1e-12, rtol=0)
    sweep = ablation_sweep(model, tokens, metrics.loss(), mode="zero", progress=False)
    best = ranked_heads(sweep, 3)
    assert best == sorted(product(range(2), range(3)), key=lambda at: -sweep.values[at])[:3]
    assert ranked_heads(sweep, largest=False)[-1] == best[0]


def native_bridge() -> TransformerBridge:
    """Grouped keys: four query heads share two key heads."""
    torch.manual_seed(3)
    config = TransformerBridgeConfig(
        d_model=20, d_head=5, n_layers=2, n_heads=4, n_key_value_heads=2, n_ctx=16, d_vocab=D_VOCAB, d_mlp=28, act_fn="gelu"
    )
    return TransformerBridge.boot_native(config).eval().requires_grad_(False)


def test_a_bridge_with_grouped_keys() -> None:
    model, tokens = native_bridge(), tokens_of()
    _, cache = model.run_with_cache(tokens)
    intact = model(tokens)
    last = cache["blocks.1.hook_resid_pre"]
    with ablated(model, layers=[1], mlps=[1], mode="zero"):
        torch.testing.assert_close(model(tokens), model.unembed(model.ln_final(last)), atol=1e-6, rtol=0)
    for head in range(4):
        z = cache["blocks.1.attn.hook_z"].clone()
        z[:, :, head] = z[:, :, head].mean((0, 1))
        by_hand = model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.attn.hook_z", lambda t, hook, z=z: z)])
        with ablated(model, heads=[(1, head)]):
            assert (model(tokens) - by_hand).abs().max() < 1e-6 < (by_hand - intact).abs().max()
    assert ablation_sweep(model, tokens, metrics.loss(), mode="resample", progress=False).values.shape == (2, 4)
    assert ablation_sweep(model, tokens, metrics.loss(), "mlps", progress=False).axes == ("layer",)


@pytest.mark.parametrize("mode", ["uniform", "previous", "self"])
def test_a_set_pattern_reaches_the_values_of_a_bridge(mode: str) -> None:
    """Some bridges drop pattern edits: then this must raise, never look like no effect."""
    model, tokens = native_bridge(), tokens_of()
    _, cache = model.run_with_cache(tokens)
    seen = []
    catch = [("blocks.0.attn.hook_z", lambda t, hook: seen.append(t.clone()))]
    try:
        with ablated(model, heads=[(0, 3)], mode=mode), model.hooks(fwd_hooks=catch):
            changed = model(tokens)
    except SiteError as refused:
        assert "the model drops what is written there" in str(refused)
        return
    values = cache["blocks.0.attn.hook_v"][:, :, 1]  # query head 3 reads key-value head 3 // 2
    pattern = torch.ones(1, 4, POS, POS)
    pattern = SetPattern(Site("pattern", 0), mode).edit(pattern, Site("pattern", 0), tokens)[0, 0]
    torch.testing.assert_close(seen[0][:, :, 3], pattern @ values, atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[0][:, :, :3], cache["blocks.0.attn.hook_z"][:, :, :3], atol=0, rtol=0)
    assert (changed - model(tokens)).abs().max() > 1e-4


def test_generating_under_an_ablation() -> None:
    model, prompt = native_bridge(), tokens_of(2)
    options = {"max_new_tokens": 4, "do_sample": False, "stop_at_eos": False, "verbose": False, "return_type": "tokens"}
    with ablated(model, layers=[0, 1], mlps=[0, 1], mode="zero"):
        generated = model.generate(prompt, **options)
        step_by_step = prompt
        for _ in range(4):
            step_by_step = torch.cat([step_by_step, model(step_by_step)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generated, step_by_step)
