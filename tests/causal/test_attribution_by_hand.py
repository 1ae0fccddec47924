"""Attribution where the truth is known: linear parts, completeness, plain finite differences, and a case where it must fail."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import interp
from interp import metrics
from interp.errors import ConfigError, DataError, InterpError
from interp.metrics import metric_values
from interp.models import AttnAttn
from tests.causal.plain_toys import D_VOCAB, N_HEADS, POS, circuit_prompts, toy

METRIC = metrics.logit_diff([1, 2], [3, 5])


def prompts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean, corrupted = (torch.randint(D_VOCAB, (2, POS), generator=generator) for _ in range(2))
    return clean, corrupted


def gap(model: AttnAttn, *runs: Tensor) -> float:
    clean, corrupted = (metric_values(model, tokens, METRIC).values.mean() for tokens in runs)
    return float(clean - corrupted)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_it_is_exact_where_the_model_is_linear(direction: str) -> None:
    """The last layer's heads, and every edge into the logits, act linearly on a difference of logits."""
    model, options = toy(residual=True), {"direction": direction, "values": "effect", "progress": False}
    exact = interp.activation_patching(model, *prompts(), METRIC, "z", **options)
    guess = interp.attribution_patching(model, *prompts(), METRIC, "z", **options)
    assert guess.axes == exact.axes and guess.labels == exact.labels and guess.baseline == exact.baseline
    torch.testing.assert_close(guess.values[1], exact.values[1], atol=1e-12, rtol=0)
    assert float((guess.values[0] - exact.values[0]).abs().max()) > 1e-6  # the first layer's go through a softmax
    edges = interp.edge_attribution(model, *prompts(), METRIC, **options)
    truth = interp.edge_patching(model, *prompts(), METRIC, **options)
    assert edges.labels == truth.labels and torch.equal(edges.values.isnan(), truth.values.isnan())
    assert bool((truth.values[:, -1].abs() > 1e-6).all())
    torch.testing.assert_close(edges.values[:, -1], truth.values[:, -1], atol=1e-12, rtol=0)
    torch.testing.assert_close(edges.stderr[:, -1], truth.stderr[:, -1], atol=1e-12, rtol=0)
    values = [place for place, name in enumerate(edges.labels["receiver"]) if name.startswith("L1") and name.endswith("v")]
    torch.testing.assert_close(edges.values[:, values], truth.values[:, values], atol=1e-12, rtol=0, equal_nan=True)


class Nudged(nn.Module):
    """A toy's weights with every difference between two prompts made `size` times as large."""

    def __init__(self, size: float):
        super().__init__()
        self.model = toy(residual=True)
        embedding, (clean, corrupted) = self.model.embed.weight.data, (tokens[:, :5] for tokens in prompts())
        self.pairs = torch.arange(10).reshape(2, 5), torch.arange(10, 20).reshape(2, 5)  # every place a token of its own
        rows, others = embedding[corrupted].reshape(-1, embedding.shape[1]), embedding[clean].reshape(-1, embedding.shape[1])
        self.model.embed = nn.Embedding.from_pretrained(torch.cat([rows + size * (others - rows), rows]))


def test_small_changes_are_what_the_gradient_says() -> None:
    """Exact effects of a change made ever smaller approach the estimate, quadratically, for every edge and every head."""
    errors = {}
    for size in (1e-1, 1e-2):
        nudged = Nudged(size)
        model: AttnAttn = nudged.model
        exact = interp.edge_patching(model, *nudged.pairs, METRIC, progress=False).values
        guess = interp.edge_attribution(model, *nudged.pairs, METRIC, progress=False).values
        errors[size] = float((guess - exact).nan_to_num().abs().max())
    assert errors[1e-2] < 0.02 * errors[1e-1] and errors[1e-1] > 1e-7


def test_integrated_gradients_are_complete() -> None:
    model, runs = toy(residual=True), prompts()
    errors = []
    for steps in (3, 9):
        options = {"layers": [0], "steps": steps, "values": "effect", "progress": False}
        found = interp.attribution_patching(model, *runs, METRIC, "resid_pre", **options)
        whole = interp.attribution_patching(model, *runs, METRIC, "resid_pre", over=["layer"], **options)
        errors.append(abs(float(found.values.sum()) - gap(model, *runs)))
        assert abs(float(found.values.sum()) - whole.item()) < 1e-12
    assert errors[0] > 1e-7 and errors[1] < errors[0] / 7  # midpoints: 9 times smaller
    recovered = interp.attribution_patching(
        model, *runs, METRIC, "resid_pre", layers=[0], over=["layer"], steps=16, values="recovery", progress=False
    )
    assert abs(recovered.item() - 1) < 1e-2 and recovered.baseline == 0


def test_it_costs_no_more_than_four_forward_passes() -> None:
    model, runs = toy(residual=True).requires_grad_(False), prompts()

    def flops(function: object) -> int:
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    one = flops(lambda: model(runs[0]))
    for site in ("z", "resid_pre", "pattern"):
        interp.attribution_patching(model, *runs, METRIC, site, progress=False)  # the first call tries the sites out
        assert flops(lambda site=site: interp.attribution_patching(model, *runs, METRIC, site, progress=False)) < 4 * one


def test_where_the_softmax_saturates_the_estimate_fails_and_says_so() -> None:
    model, clean, _, corrupted, metric = circuit_prompts()
    options = {"direction": "noising", "progress": False}
    fooled = interp.attribution_agreement(model, clean, corrupted, metric, "edges", n_cells=1000, **options)
    assert fooled.labels["quantity"] == ("pearson", "spearman", "mean error", "mean effect", "cells")
    pearson, _, error, effect, cells = fooled.values.tolist()
    assert cells == len(interp.wiring(model, clean).edges) and pearson < 0.9 and error > 0.2 * effect
    linear = interp.attribution_agreement(model, clean, corrupted, metric, "z", layers=[1], over=["head", "position"], **options)
    torch.testing.assert_close(linear.values[:3], torch.tensor([1.0, 1.0, 0.0]).double(), atol=1e-6, rtol=0)


def test_agreement_is_that_of_the_whole_sweep() -> None:
    import numpy as np

    model, runs = toy(residual=True), prompts()
    options = {"over": ["layer", "position"], "progress": False}
    guess = interp.attribution_patching(model, *runs, METRIC, "z", **options).values.flatten()
    exact = interp.activation_patching(model, *runs, METRIC, "z", **options).values.flatten()
    found = interp.attribution_agreement(model, *runs, METRIC, "z", n_cells=99, **options)
    pearson = np.corrcoef(guess, exact)[0, 1]
    coarse = [(column / column.abs().max() * 1e6).round() for column in (guess, exact)]  # a millionth of the largest is a tie
    ranks = [(column[:, None] > column).sum(1) + (column[:, None] == column).sum(1) / 2 for column in coarse]
    expected = [pearson, np.corrcoef(*ranks)[0, 1], float((guess - exact).abs().mean())]
    assert np.allclose(found.values[:3], expected, atol=1e-9) and found.values[-1] == len(guess)
    part = interp.attribution_agreement(model, *runs, METRIC, "z", n_cells=5, seed=3, **options)
    assert part.values[-1] == 5 and not torch.equal(part.values, found.values)


def test_what_cannot_be_attributed_is_refused() -> None:
    model, runs = toy(residual=True), prompts()
    with pytest.raises(InterpError, match="gradients of the metric 'accuracy'"):
        interp.attribution_patching(model, *runs, metrics.accuracy(), progress=False)
    for steps in (0, -1):
        with pytest.raises(ConfigError, match="at least one step"):
            interp.edge_attribution(model, *runs, METRIC, steps=steps, progress=False)
    with pytest.raises(DataError, match="always ±1"):
        interp.attribution_agreement(model, *runs, METRIC, n_cells=2, progress=False)
    with pytest.raises(InterpError, match="Did you mean 'resid_pre'"):
        interp.attribution_patching(model, *runs, METRIC, "resid_pr", progress=False)


def test_pairs_without_a_metric_are_left_out_and_counted() -> None:
    model, runs = toy(residual=True), prompts()

    def broken(logits: Tensor, ids: Tensor) -> Tensor:
        return torch.where((ids == runs[1][0]).all(1), torch.nan, logits[:, -1, 0])

    undefined = interp.attribution_patching(model, *runs, broken, progress=False)
    assert undefined.count == 1 and "1 of 2" in undefined.description and bool(undefined.values.isfinite().all())
    assert undefined.values.shape == (2, N_HEADS)
