"""Patching grids known on paper, identities, and the same numbers from TransformerLens."""

from typing import Any

import pytest
import torch
import transformer_lens.patching
from torch import Tensor

from interp import activation_patching, metrics, patching_effects
from interp.models import AttnAttn
from interp.models.constructed import GAIN, induction_circuit

MODES = ("auto", "growing", "reference")
PERIOD, COPIED = 6, 2  # the token at place 2 of r is what the last token asks for


def copied_prompts(n: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """BOS + r + the start of r, up to the token before the copied one; in the corrupted prompts that one is another."""
    rows = [torch.randperm(30, generator=torch.Generator().manual_seed(row))[: PERIOD + 1] + 1 for row in range(n)]
    r, other = torch.stack(rows)[:, :PERIOD], torch.stack(rows)[:, PERIOD]
    bos = torch.zeros(n, 1, dtype=torch.long)
    clean = torch.cat([bos, r, r[:, :COPIED]], dim=1)
    corrupted = clean.clone()
    corrupted[:, 1 + COPIED] = other
    return clean, corrupted, r[:, COPIED], other


@pytest.mark.parametrize("mode", MODES)
def test_one_head_restores_the_answer(mode: str) -> None:
    """The answer is read by the induction head alone: its z brings it back, whatever else is patched does not."""
    clean, corrupted, answer, other = copied_prompts()
    metric = metrics.logit_diff(answer, other)
    model = induction_circuit().model
    grid = activation_patching(model, clean, corrupted, metric, mode=mode, progress=False)
    torch.testing.assert_close(grid.values, torch.tensor([[-GAIN, -GAIN], [GAIN, -GAIN]], dtype=torch.float64))
    assert grid.axes == ("layer", "head")
    assert grid.baseline == pytest.approx(-GAIN)
    assert grid.stderr is not None and float(grid.stderr.max()) < 1e-5
    back = activation_patching(model, clean, corrupted, metric, direction="noising", values="recovery", mode=mode, progress=False)
    torch.testing.assert_close(back.values, torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("site", "where"),
    [("resid_pre", {(0, 1 + COPIED), (1, 1 + COPIED)}), ("v", {(1, 0)}), ("k", set()), ("q", set()), ("pattern", set())],
)
def test_the_answer_travels_by_value(site: str, where: set[tuple[int, int]], mode: str) -> None:
    """Up to layer 1 the copied token stands at its own place; the induction head's value moves it, and where it looks stays."""
    clean, corrupted, answer, other = copied_prompts()
    metric = metrics.logit_diff(answer, other)
    grid = activation_patching(
        induction_circuit().model, clean, corrupted, metric, site, values="recovery", mode=mode, progress=False
    )
    expected = torch.zeros_like(grid.values)
    for index in where:
        expected[index] = 1.0
    torch.testing.assert_close(grid.values, expected, atol=1e-6, rtol=0)


def test_the_key_is_where_the_previous_token_head_matters() -> None:
    """Corrupt the token before the copied one: then the induction head cannot find it, and the key or L0H0's z mends that."""
    clean, _, answer, other = copied_prompts()
    corrupted = clean.clone()
    corrupted[:, COPIED] = other
    metric = metrics.from_callable(lambda logits, tokens, ids: logits[torch.arange(len(ids)), -1, ids], ids=answer)
    model = induction_circuit().model
    heads = activation_patching(model, clean, corrupted, metric, "z", values="recovery", progress=False)
    torch.testing.assert_close(heads.values, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64), atol=0.02, rtol=0)
    keys = activation_patching(model, clean, corrupted, metric, "k", values="recovery", progress=False)
    torch.testing.assert_close(keys.values, torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64), atol=0.02, rtol=0)
    queries = activation_patching(model, clean, corrupted, metric, "q", values="recovery", progress=False)
    assert float(queries.values.abs().max()) < 1e-6  # the control: what the last token asks for was never corrupted


def model_and_prompts(n: int = 4) -> tuple[Any, Tensor, Tensor, Any]:
    torch.manual_seed(3)
    model = AttnAttn(d_vocab=23, d_model=12, n_heads=3, n_layers=3, residual=True, positions=True, output_projection=True)
    model = model.double().eval()
    generator = torch.Generator().manual_seed(4)
    clean, corrupted = (torch.randint(23, (n, 7), generator=generator) for _ in range(2))
    return model, clean, corrupted, metrics.logit_diff(list(range(n)), list(range(n, 2 * n)))


def test_clean_into_clean_does_nothing() -> None:
    model, clean, _, metric = model_and_prompts()
    for site in ("z", "resid_pre", "pattern"):
        grid = patching_effects(model, clean, clean, metric, site, values="effect", progress=False)
        assert float(grid.values.abs().max()) == 0.0  # nothing can differ, so nothing is run


@pytest.mark.parametrize("mode", MODES)
def test_patching_everything_turns_corrupted_into_clean(mode: str) -> None:
    model, clean, corrupted, metric = model_and_prompts()
    for site, layers in (("resid_pre", [0]), ("resid_pre", [2]), ("resid_post", [2]), ("resid_pre", None)):
        grid = patching_effects(
            model, clean, corrupted, metric, site, over=(), layers=layers, values="recovery", mode=mode, progress=False
        )
        torch.testing.assert_close(grid.values, torch.ones(len(clean), dtype=torch.float64))


def test_the_numbers_do_not_depend_on_how_the_work_is_cut() -> None:
    model, clean, corrupted, metric = model_and_prompts()
    whole = patching_effects(model, clean, corrupted, metric, "resid_pre", progress=False)
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"memory": 1e-5}, {"memory": 1e-5, "mode": "growing"}):
        cut = patching_effects(model, clean, corrupted, metric, "resid_pre", progress=False, **options)
        torch.testing.assert_close(cut.values, whole.values, atol=1e-12, rtol=1e-10)
    alone = [
        patching_effects(model, clean[[i]], corrupted[[i]], metric.select(torch.tensor([i])), "resid_pre", progress=False)
        for i in range(len(clean))
    ]
    torch.testing.assert_close(torch.cat([result.values for result in alone]), whole.values, atol=1e-12, rtol=1e-10)


def test_the_mean_and_its_error_are_those_of_the_pairs() -> None:
    model, clean, corrupted, metric = model_and_prompts()
    effects = patching_effects(model, clean, corrupted, metric, progress=False)
    mean = activation_patching(model, clean, corrupted, metric, progress=False)
    torch.testing.assert_close(mean.values, effects.values.mean(0))
    torch.testing.assert_close(mean.stderr, effects.values.std(0) / len(clean) ** 0.5)
    assert effects.axes == ("pair", *mean.axes)


def test_pairs_without_a_gap_are_counted_not_infinite() -> None:
    model, clean, corrupted, metric = model_and_prompts()
    corrupted[1] = clean[1]
    grid = activation_patching(model, clean, corrupted, metric, values="recovery", progress=False)
    assert grid.count == 3 and "1 of 4 pairs are undefined" in grid.description
    assert bool(grid.values.isfinite().all())


def test_the_same_as_transformer_lens() -> None:
    model, clean, corrupted, _ = model_and_prompts(1)
    metric = metrics.logit_diff([1], [2])

    def theirs(logits: Tensor) -> Tensor:
        return logits[0, -1, 1] - logits[0, -1, 2]

    _, cache = model.run_with_cache(clean)
    tools = {
        ("z", ("layer", "head")): transformer_lens.patching.get_act_patch_attn_head_out_all_pos,
        ("z", ("layer", "position", "head")): transformer_lens.patching.get_act_patch_attn_head_out_by_pos,
        ("resid_pre", ("layer", "position")): transformer_lens.patching.get_act_patch_resid_pre,
        ("attn_out", ("layer", "position")): transformer_lens.patching.get_act_patch_attn_out,
        ("v", ("layer", "head")): transformer_lens.patching.get_act_patch_attn_head_v_all_pos,
        ("pattern", ("layer", "head")): transformer_lens.patching.get_act_patch_attn_head_pattern_all_pos,
    }
    for (site, over), tool in tools.items():
        ours = activation_patching(model, clean, corrupted, metric, site, over=over, progress=False)
        theirs_kept_in_float32 = tool(model, corrupted, cache, theirs).double()
        torch.testing.assert_close(ours.values, theirs_kept_in_float32, atol=1e-6, rtol=1e-6)
