"""Attention ablated through a handle: what it equals, that gradients know, and that nothing stays behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp
from interp.data import RepeatedConfig
from interp.errors import ConfigError, SiteError
from interp.interventions import ATTENTION_MODES, ablate_attention
from interp.interventions.training_ablation import RandomPattern
from interp.models import Transformer, TransformerConfig
from interp.sites import Site
from interp.training import AblatedAttention, Callback, RunConfig, TrainConfig, Training, fit, fit_all
from interp.training.readings import validation_numbers

TOKENS = torch.randint(0, 31, (5, 9), generator=torch.Generator().manual_seed(0))
HEADS = [(layer, head) for layer in range(3) for head in range(4)]


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(1)
    return Transformer(d_vocab=31, d_model=20, n_layers=3, n_heads=4, n_ctx=12, bias=True).eval()


def n_hooks(model: Transformer) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("mode", ATTENTION_MODES)
def test_a_removed_ablation_leaves_every_bit(model: Transformer, mode: str) -> None:
    before, hooks = model(TOKENS), n_hooks(model)
    handle = ablate_attention(model, mode)
    during = model(TOKENS)
    assert handle.active
    assert not torch.allclose(before, during, atol=1e-3)
    handle.remove()
    handle.remove()
    assert torch.equal(model(TOKENS), before)
    assert n_hooks(model) == hooks
    assert not handle.active
    with pytest.raises(RuntimeError), ablate_attention(model, mode):
        raise RuntimeError
    assert torch.equal(model(TOKENS), before)


@pytest.mark.parametrize("mode", ["zero", "uniform", "previous", "self"])
def test_equals_ablated(model: Transformer, mode: str) -> None:
    parts = {"layers": [0, 1, 2]} if mode == "zero" else {"heads": HEADS}
    with interp.ablated(model, mode=mode, **parts):  # type: ignore[arg-type]
        expected = model(TOKENS)
    with ablate_attention(model, mode):
        assert torch.equal(model(TOKENS), expected)
        assert torch.equal(interp.token_losses(model, TOKENS).values.isnan(), torch.zeros(5, 8, dtype=torch.bool))
    with ablate_attention(model, mode, layers=[1]):
        assert not torch.equal(model(TOKENS), expected)


def test_random_patterns_are_patterns_and_the_same_for_every_length(model: Transformer) -> None:
    with ablate_attention(model, "random", seed=3):
        whole = interp.attention_patterns(model, TOKENS[:1])
        short = interp.attention_patterns(model, TOKENS[1:2, :5])
        assert torch.allclose(whole.values.sum(-1), torch.ones(3, 4, 9, dtype=torch.float64))
        assert torch.equal(whole.values, whole.values.tril())
        assert torch.equal(whole.values[..., :5, :5], short.values)
    heads = whole.values.flatten(0, 1)
    assert len({tuple(row.flatten().tolist()) for row in heads}) == 12, "every head has its own"
    assert not torch.allclose(heads[:, -1], torch.full_like(heads[:, -1], 1 / 9), atol=0.1)
    with ablate_attention(model, "random", seed=4):
        assert not torch.equal(interp.attention_patterns(model, TOKENS[:1]).values, whole.values)


def test_a_random_pattern_serves_a_cache() -> None:
    pattern = RandomPattern(Site("pattern", 0), 0)
    whole = pattern.edit(torch.zeros(1, 4, 7, 7), pattern.site, TOKENS)
    last = RandomPattern(Site("pattern", 0), 0).edit(torch.zeros(1, 4, 2, 7, dtype=torch.float64), pattern.site, TOKENS)
    assert torch.equal(whole[:, :, 5:].double(), last)


def test_handles_are_removed_in_any_order(model: Transformer) -> None:
    before = model(TOKENS)
    with ablate_attention(model, "zero", layers=[2]):
        only_second = model(TOKENS)
    first, second = ablate_attention(model, "uniform", layers=[0]), ablate_attention(model, "zero", layers=[2])
    with interp.ablated(model, heads=[(1, 2)], mode="zero"):
        model(TOKENS)
        first.remove()
    assert torch.equal(model(TOKENS), only_second)
    second.remove()
    assert torch.equal(model(TOKENS), before)


@pytest.mark.parametrize(("mode", "silent"), [("zero", "QKVO"), ("uniform", "QK"), ("previous", "QK"), ("random", "QK")])
def test_what_is_cut_gets_no_gradient(model: Transformer, mode: str, silent: str) -> None:
    with ablate_attention(model, mode):
        model(TOKENS).square().mean().backward()
    for name, parameter in model.named_parameters():
        if ".attn." in name:
            moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert moved == (name[-1] not in silent), name


def test_mistakes_are_told(model: Transformer) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'previous'"):
        ablate_attention(model, "previos")
    with pytest.raises(SiteError, match="attention stands in layers 0, 1, 2"):
        ablate_attention(model, layers=[3])
    with pytest.raises(SiteError, match="Name one or more"):
        ablate_attention(model, layers=[])
    assert n_hooks(model) == 0


@pytest.mark.parametrize("mode", ["uniform", "random"])
def test_double_and_half_precision(model: Transformer, mode: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        with ablate_attention(model.to(dtype), mode):
            assert model(TOKENS).dtype == dtype
            assert bool(model(TOKENS).isfinite().all())


TINY = RunConfig(
    model=TransformerConfig(d_model=12, n_layers=2, n_heads=3, n_ctx=11),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, weight_decay=0.0, device="cpu", sample_tokens=0),
)


class Fails(Callback):
    """Raises in the middle of a run."""

    def after_step(self, training: Training) -> None:
        self.model = training.model
        raise KeyboardInterrupt


def test_a_run_trains_and_reads_without_attention_and_leaves_the_model_with_it() -> None:
    from interp.data import load_data

    run = fit(TINY, callbacks=[AblatedAttention("zero")], progress=False)
    data = load_data(TINY.data)
    last = run.metrics[-1]["validation_loss"]
    assert n_hooks(run.model) == 0
    assert validation_numbers(run.model, data, TINY.train)["validation_loss"] != last
    with ablate_attention(run.model, "zero"):
        assert validation_numbers(run.model, data, TINY.train)["validation_loss"] == last
    fresh = interp.build_model(replace(TINY.model, d_vocab=23), seed=TINY.train.seed)
    kept = dict(fresh.named_parameters())
    moved = {name for name, parameter in run.model.named_parameters() if not torch.equal(parameter, kept[name])}
    assert {name for name in kept if ".attn." in name}.isdisjoint(moved)
    assert any(".mlp." in name for name in moved)


def test_an_error_while_training_leaves_no_hook() -> None:
    failing = Fails()
    with pytest.raises(KeyboardInterrupt):
        fit(TINY, callbacks=[AblatedAttention("random"), failing], progress=False)
    assert n_hooks(failing.model) == 0


def test_workers_train_under_it_too(tmp_path: Path) -> None:
    callbacks: Callable[[str], list[Callback]] = lambda mode: [AblatedAttention(mode, seed=1)]  # noqa: E731
    runs = fit_all({"cut": TINY, "whole": TINY}, tmp_path, callbacks={"cut": callbacks("previous")}, progress=False)
    alone = fit(TINY, callbacks=callbacks("previous"), progress=False)
    for mine, theirs in zip(alone.model.parameters(), runs["cut"].model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert runs["whole"].metrics[-1]["validation_loss"] != runs["cut"].metrics[-1]["validation_loss"]
    assert runs["whole"].folder != runs["cut"].folder
