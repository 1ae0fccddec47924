"""Patching sweeps that are asked for what is not there, are interrupted, or meet damaged files."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp import (
    Site,
    activation_patching,
    attribution_patching,
    circuit_curve,
    circuit_values,
    edge_attribution,
    edge_patching,
    metrics,
    patching_effects,
    path_patching,
)
from interp.errors import ConfigError, DataError, ModelError, ResultError, SiteError
from interp.interventions.patching import sweep
from interp.metrics.values import measured_values
from interp.models import AttnAttn
from interp.models.pieces import NotTakenApart

READ = metrics.logit_diff(1, 2)


def model() -> AttnAttn:
    torch.manual_seed(1)
    return AttnAttn(d_vocab=19, d_model=8, n_heads=2, residual=True).eval()


def prompts(n: int = 2, length: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    clean, corrupted = (torch.randint(19, (n, length), generator=generator) for _ in range(2))
    return clean, corrupted


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"site": "zz"}, SiteError, "Did you mean 'z'"),
        ({"site": "mlp_out"}, SiteError, "has no 'mlp_out'"),
        ({"site": "attn_scores"}, SiteError, "the sites are resid_pre"),
        ({"layers": [2]}, SiteError, r"layers \[0, 1\]"),
        ({"layers": []}, SiteError, "a list of layers"),
        ({"heads": [2]}, SiteError, "heads 0 to 1"),
        ({"site": "resid_pre", "heads": [0]}, SiteError, "has no heads"),
        ({"over": ("layer", "haed")}, ConfigError, "Did you mean 'head'"),
        ({"over": ("layer", "layer")}, ConfigError, "each once"),
        ({"positions": [5]}, ConfigError, "2 pairs of 5 positions"),
        ({"positions": {"end": torch.tensor([1, 2, 3])}}, ConfigError, "2 pairs"),
        ({"positions": "end"}, ConfigError, "a list of positions"),
        ({"positions": [1, 1]}, ConfigError, "given twice"),
        ({"direction": "denoise"}, ConfigError, "Did you mean 'denoising'"),
        ({"source": "means"}, ConfigError, "Did you mean 'mean'"),
        ({"values": "recovered"}, ConfigError, "Did you mean 'recovery'"),
        ({"mode": "fast"}, ConfigError, "auto, trimmed"),
        ({"memory": 0.0}, ConfigError, "needs some"),
        ({"memory": float("nan")}, ConfigError, "needs some"),
        ({"metric": metrics.logit_diff(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))}, DataError, "3 entries"),
        ({"metric": metrics.normalized(READ, torch.ones(2), torch.zeros(2))}, ConfigError, 'values="recovery"'),
        ({"metric": metrics.logit_diff(40, 2)}, DataError, "token id 40"),
        ({"mode": "trimmed", "over": "head"}, ModelError, "several layers at once"),
    ],
)
def test_what_is_not_there_is_named(options: dict[str, Any], error: type, said: str) -> None:
    clean, corrupted = prompts()
    arguments: dict[str, Any] = {"metric": READ, "progress": False} | options
    with pytest.raises(error, match=said):
        activation_patching(model(), clean, corrupted, **arguments)


@pytest.mark.usefixtures("unchecked")
def test_prompts_that_do_not_pair_up() -> None:
    clean, corrupted = prompts()
    for wrong in (corrupted[:1], corrupted[:, :4]):
        with pytest.raises(DataError, match="pairs of equal length"):
            activation_patching(model(), clean, wrong, READ)
    with pytest.raises(DataError, match="at least one"):
        activation_patching(model(), clean[:0], corrupted[:0], READ)
    with pytest.raises(DataError, match="no other example"):
        activation_patching(model(), clean[:1], corrupted[:1], READ, source="resample", progress=False)


def test_a_metric_that_is_nan_on_a_pair_leaves_that_pair_out() -> None:
    clean, corrupted = prompts(3)

    def sometimes(logits: Tensor, tokens: Tensor) -> Tensor:
        return torch.where(tokens[:, 0] == corrupted[1, 0], torch.nan, logits[:, -1, 1])

    assert len(set(corrupted[:, 0].tolist())) == 3
    result = activation_patching(model(), clean, corrupted, sometimes, progress=False)
    assert result.count == 2 and "1 of 3 pairs are undefined" in result.description
    assert bool(result.values.isfinite().all())


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, corrupted = prompts(3)
    kept, calls, stop_after = tmp_path / "cells.safetensors", [], [1000]

    class Stop(BaseException):
        pass

    def counted(*arguments: Any) -> Tensor:
        if len(calls) >= stop_after[0]:
            raise Stop
        calls.append(1)
        return measured_values(*arguments)

    def swept(subject: AttnAttn, **changed: Any) -> Tensor:
        arguments = {"metric": READ, "mode": "reference", "checkpoint": kept, "progress": False} | changed
        return patching_effects(subject, clean, corrupted, site="resid_pre", **arguments).values

    monkeypatch.setattr(sweep, "measured_values", counted)
    whole = swept(model(), checkpoint=None)
    full, calls[:], stop_after[0] = len(calls), [], 7
    broken = model()
    with pytest.raises(Stop):
        swept(broken)
    assert kept.exists() and not broken.training
    assert not any(point._forward_hooks for point in broken.hook_dict.values())
    stop_after[0] = 1000
    with pytest.raises(ResultError, match="another sweep"):  # the metric has changed
        swept(model(), metric=metrics.logit_diff(1, 3))
    calls[:] = []
    resumed = swept(model())
    assert 0 < len(calls) < full
    assert torch.equal(resumed, whole)
    kept.write_bytes(b"not safetensors")
    with pytest.raises(ResultError, match="cannot be read"):
        swept(model())


def test_cells_of_a_function_that_closes_over_other_answers_are_not_taken_up(tmp_path: Path) -> None:
    clean, corrupted = prompts(2)

    def reading(answers: Tensor) -> Any:
        return lambda logits, tokens: logits[torch.arange(len(tokens)), -1, answers]

    options: dict[str, Any] = {"checkpoint": tmp_path / "cells.safetensors", "progress": False}
    first = patching_effects(model(), clean, corrupted, reading(torch.tensor([1, 2])), **options)
    again = patching_effects(model(), clean, corrupted, reading(torch.tensor([1, 2])), **options)
    assert torch.equal(first.values, again.values)
    with pytest.raises(ResultError, match="another sweep"):
        patching_effects(model(), clean, corrupted, reading(torch.tensor([1, 3])), **options)


def test_a_function_with_answers_in_its_closure_gets_all_pairs_in_order() -> None:
    """Of two pairs that share different prefixes, rows of one pair alone are run together: answers would be mixed up."""
    clean, corrupted = prompts(2)
    corrupted[0, 1:] = clean[0, 1:]
    answers = torch.tensor([1, 2])
    closed = patching_effects(
        model(), clean, corrupted, lambda logits, tokens: logits[torch.arange(2), -1, answers], "resid_pre", progress=False
    )
    own = metrics.from_callable(lambda logits, tokens, ids: logits[torch.arange(len(ids)), -1, ids], ids=answers)
    told = patching_effects(model(), clean, corrupted, own, "resid_pre", progress=False)
    torch.testing.assert_close(closed.values, told.values, atol=1e-6, rtol=1e-5)
    assert "does not treat each pair alone" in closed.description and "restarted" in told.description

    def mixed(logits: Tensor, tokens: Tensor) -> Tensor:  # works for any number of rows, but by their place
        return logits[:, -1, 1] * (1 + torch.arange(len(tokens)))

    slow = patching_effects(model(), clean, corrupted, mixed, "resid_pre", mode="reference", progress=False)
    fast = patching_effects(model(), clean, corrupted, mixed, "resid_pre", progress=False)
    assert torch.equal(slow.values, fast.values)
    with pytest.raises(ModelError, match="treat each pair alone"):
        patching_effects(model(), clean, corrupted, mixed, "resid_pre", mode="trimmed", progress=False)


def test_what_mixes_pairs_refuses_a_function_that_needs_them_in_order() -> None:
    clean, corrupted = prompts(3)
    answers = torch.tensor([1, 2, 3])

    def closed(logits: Tensor, tokens: Tensor) -> Tensor:  # runs with any number of rows, each with another's answer
        return logits[torch.arange(len(tokens)), -1, answers[torch.arange(len(tokens)) % 3]]

    told = metrics.from_callable(lambda logits, tokens, ids: logits[torch.arange(len(ids)), -1, ids], ids=answers)
    subject, receiver = model(), Site("logits")
    path_patching(subject, clean, corrupted, told, receiver, progress=False)
    with pytest.raises(DataError, match="another order"):
        path_patching(subject, clean, corrupted, closed, receiver, progress=False)
    whole = attribution_patching(subject, clean, corrupted, closed, progress=False)
    parts = attribution_patching(subject, clean, corrupted, told, batch_size=2, progress=False)
    torch.testing.assert_close(whole.values, parts.values)
    with pytest.raises(DataError, match="another order"):
        attribution_patching(subject, clean, corrupted, closed, batch_size=2, progress=False)
    with pytest.raises(DataError, match="or it fails"):
        metrics.metric_values(subject, clean, lambda logits, tokens: logits[torch.arange(3), -1, answers], batch_size=2)


@pytest.mark.parametrize("mode", ["auto", "trimmed", "growing", "reference"])
def test_batches_of_pairs_refuse_a_function_that_looks_at_others(mode: str) -> None:
    """By their place, or all at once in a way that neither another order nor twice each can show."""
    clean, corrupted = prompts(3)
    answers = torch.tensor([1, 2, 3])
    by_place = lambda logits, tokens: logits[torch.arange(len(tokens)), -1, answers[: len(tokens)]]  # noqa: E731
    of_largest = lambda logits, tokens: logits[:, -1, 3] / logits[:, -1, 3].abs().max()  # noqa: E731
    centred = lambda logits, tokens: (logits[:, -1, 3] - logits[:, -1, 3].mean()) ** 2  # noqa: E731
    swept = partial(activation_patching, model(), clean, corrupted, mode=mode, progress=False)
    for coupled in (by_place, of_largest, centred):
        with pytest.raises(DataError, match="fewer at a time"):
            swept(coupled, batch_size=2)
    alone = lambda logits, tokens: logits[:, -1, 3]  # noqa: E731
    assert torch.allclose(swept(alone, batch_size=2).values, swept(alone).values, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_heads_may_be_any_whole_numbers() -> None:
    swept = partial(activation_patching, model(), *prompts(3), READ, progress=False)
    for heads in ([np.int64(1)], torch.tensor([1]), np.array([1])):
        assert torch.equal(swept(heads=heads).values, swept(heads=[1]).values)
    for wrong in ([1.0], 1, [np.int64(2)]):
        with pytest.raises(SiteError, match="heads 0 to 1"):
            swept(heads=wrong)


def test_the_model_is_left_as_it_was() -> None:
    clean, corrupted = prompts()
    subject = model().train()
    before = {name: value.clone() for name, value in subject.state_dict().items()}
    subject.blocks[0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in subject.parameters()]
    for mode in ("auto", "growing", "reference"):
        with pytest.raises(RuntimeError, match="mine"):
            activation_patching(subject, clean, corrupted, _raises, "v", mode=mode, progress=False)
        activation_patching(subject, clean, corrupted, READ, "v", mode=mode, progress=False)
    assert subject.training and flags == [parameter.requires_grad for parameter in subject.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in subject.state_dict().items())
    assert not any(point._forward_hooks for point in subject.hook_dict.values())


def _raises(logits: Tensor, tokens: Tensor) -> Tensor:
    raise RuntimeError("mine")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", ["blocks.0.attn.hook_z", "hook_z", "Z", Site("z", 0)])
@pytest.mark.parametrize("patching", [activation_patching, attribution_patching])
def test_other_names_of_a_site_are_told_the_one_to_use(wrong: Any, patching: Any) -> None:
    clean, corrupted = prompts()
    with pytest.raises(SiteError, match="Did you mean 'z'.*`layers` and `heads` choose"):
        patching(model(), clean, corrupted, READ, wrong, progress=False)


def test_recovery_without_any_gap_is_refused_and_with_some_is_counted() -> None:
    clean, corrupted = prompts(3)
    sender = {"receivers": Site("logits")}
    asked: list[tuple[Any, dict[str, Any]]] = [
        (activation_patching, {}),
        (patching_effects, {"direction": "noising"}),
        (attribution_patching, {}),
        (path_patching, sender),
        (path_patching, {**sender, "direction": "noising"}),
        (edge_patching, {}),
        (circuit_values, {"circuits": [[]]}),
    ]
    for patching, more in asked:
        call = partial(patching, model(), clean, metric=READ, values="recovery", progress=False, **more)
        with pytest.raises(DataError, match='recovery of 3 pairs: the metric is the same on .* each, .*values="effect"'):
            call(corrupted=clean)
        some = call(corrupted=torch.cat([clean[:1], corrupted[1:]]))
        assert some.count == 2 and "1 of 3 pairs are undefined and left out" in some.description
        effect = patching(model(), clean, clean, metric=READ, values="effect", progress=False, **more).values
        assert float(effect[~effect.isnan()].abs().max()) < 1e-6
    with pytest.raises(DataError, match="so there is no gap"):
        circuit_curve(model(), clean, clean, READ, edge_attribution(model(), clean, corrupted, READ, progress=False), sizes=[1])


def test_recovery_where_the_metric_is_nan_says_so() -> None:
    clean, corrupted = prompts(3)

    def undefined_on(rows: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
        firsts = clean[rows, 0]
        return lambda logits, tokens: torch.where(torch.isin(tokens[:, 0], firsts), torch.nan, logits[:, -1, 1])

    assert len(set(clean[:, 0].tolist())) == 3
    for rows, said in (([0, 1, 2], "is NaN on each of them"), ([1], "is NaN on 1 of them and is the same .* of the other 2")):
        with pytest.raises(DataError, match=f"recovery of 3 pairs: the metric {said}"):
            activation_patching(model(), clean, clean, undefined_on(rows), values="recovery", progress=False)


@pytest.mark.usefixtures("unchecked")
def test_a_word_for_values_that_is_none_is_refused_before_anything_is_run() -> None:
    clean, corrupted = prompts()
    subject = model()
    calls = []
    subject.register_forward_hook(lambda *_: calls.append(1))
    for patching, more in ((activation_patching, {}), (path_patching, {"receivers": Site("logits")}), (edge_patching, {})):
        with pytest.raises(ConfigError, match="Did you mean 'recovery'"):
            patching(subject, clean, corrupted, READ, values="recovered", progress=False, **more)
    assert not calls


@pytest.mark.parametrize("mode", ["auto", "trimmed", "growing", "reference"])
def test_a_patch_where_both_runs_are_the_same_changes_nothing(mode: str) -> None:
    """Whole prompts, or only the places that are patched: no row can differ, and no way of running them stumbles over that."""
    clean, corrupted = prompts(3)
    corrupted[:, :3] = clean[:, :3]
    for other, where in ((clean, None), (corrupted, [0, 2])):
        found = activation_patching(model(), clean, other, READ, "resid_pre", positions=where, mode=mode, progress=False)
        assert "not trimmed" not in found.description
        assert torch.allclose(found.values, torch.tensor(found.baseline).expand_as(found.values).double(), atol=1e-7)
    control = activation_patching(model(), clean, corrupted, READ, "resid_pre", positions=[3], mode=mode, progress=False)
    assert float((control.values - control.baseline).abs().max()) > 1e-4  # type: ignore[operator]


def test_what_is_patched_at_once_is_said() -> None:
    clean, corrupted = prompts(3)
    places = {"source": torch.tensor([1, 2, 3]), "end": -1}
    told: list[tuple[dict[str, Any], str]] = [
        ({"positions": places}, "patched at once: positions source, end"),
        ({"positions": {"source": places["source"]}}, "patched at once: position source"),
        ({"positions": [0, 1, 2], "over": "layer"}, "patched at once: positions 0 to 2"),
        ({"positions": [3], "heads": [1], "over": "layer"}, "patched at once: head 1, position 3"),
        ({"layers": [1], "over": ("head", "position")}, "patched at once: layer 1"),
        ({"over": "head"}, "patched at once: layers 0, 1"),
    ]
    for patching in (activation_patching, attribution_patching):
        for asked, said in told:
            parts = patching(model(), clean, corrupted, READ, "z", progress=False, **asked).description.split("; ")
            assert said in parts, parts
        for quiet in ({}, {"positions": places, "over": ("layer", "head", "position")}, {"layers": [0], "heads": [1]}):
            assert "at once" not in patching(model(), clean, corrupted, READ, "z", progress=False, **quiet).description


class Stubborn(AttnAttn):
    """Knows how many rows it began with, as models do that make their masks first."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits = super().forward(tokens)
        return logits + torch.zeros(len(tokens), 1, 1)


@pytest.mark.usefixtures("unchecked")
def test_why_a_way_was_passed_over_is_said_in_plain_words(caplog: pytest.LogCaptureFixture) -> None:
    clean, corrupted = prompts(3)
    torch.manual_seed(1)
    stubborn = Stubborn(d_vocab=19, d_model=8, n_heads=2, residual=True).eval()
    with caplog.at_level("DEBUG", logger="interp.interventions.patching.sweep"):
        found = activation_patching(stubborn, clean, corrupted, READ, mode="growing", progress=False)
    assert "not growing: the model does not take rows that are added midway" in found.description
    assert "Error" not in found.description and "tensor" not in found.description
    assert "must match the size" in caplog.text and "RuntimeError" in caplog.text
    loop = activation_patching(stubborn, clean, corrupted, READ, mode="reference", progress=False)
    assert torch.allclose(found.values, loop.values, atol=1e-6)


def test_an_exception_behind_a_refused_way_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, corrupted = prompts(3)

    def broken(*_: Any) -> Iterator[Any]:
        yield from ()
        raise IndexError("index 7 is out of range")

    monkeypatch.setattr(sweep.Trimmed, "run", broken)
    with pytest.raises(ModelError, match="the model fails") as caught:
        activation_patching(model(), clean, corrupted, READ, mode="trimmed", progress=False)
    assert "index 7" not in str(caught.value)
    assert isinstance(caught.value.__cause__, NotTakenApart) and isinstance(caught.value.__cause__.__cause__, IndexError)
    told = activation_patching(model(), clean, corrupted, READ, progress=False).description
    assert "not trimmed: run layer by layer from outside, the model fails" in told and "index 7" not in told
