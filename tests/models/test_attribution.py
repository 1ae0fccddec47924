"""Attribution patching on every kind of model: frozen or not, gradients on or off, and nothing left behind."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp import metrics
from interp.metrics import metric_values
from interp.sites import layers_with
from tests.models.test_paths import SUMS, some_of
from tests.models.zoo import BUILDERS, KINDS_OF_MODEL, TL, own_model, tokens, zoo

METRIC = metrics.logit_diff(torch.tensor([[3], [4], [5]]), torch.tensor([[6], [7], [8]]))


def prompts() -> tuple[Tensor, Tensor]:
    clean = tokens()
    corrupted = clean.clone()
    corrupted[:, 3] = corrupted[:, 3] % 50 + 2
    return clean, corrupted


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_integrated_gradients_add_up_to_the_difference(name: str) -> None:
    model, (clean, corrupted) = zoo(name), prompts()
    found = interp.attribution_patching(
        model, clean, corrupted, METRIC, "resid_pre", layers=[0], steps=6, values="effect", progress=False
    )
    gap = metric_values(model, clean, METRIC).values - metric_values(model, corrupted, METRIC).values
    assert abs(float(found.values.sum()) - float(gap.mean())) < 6e-2 * float(gap.abs().mean())
    assert bool((found.values[0, :3] == 0).all())  # nothing differs there
    assert found.axes == ("layer", "position") and found.count == len(clean)


@pytest.mark.parametrize("name", some_of(SUMS, "gpt2", "llama", "neox", "hooked-transformer", "attn-attn", "own"))
def test_estimates_of_edges_agree_with_exact_ones(name: str) -> None:
    model, (clean, corrupted) = zoo(name), prompts()
    found = interp.attribution_agreement(model, clean, corrupted, METRIC, "edges", steps=3, n_cells=10, progress=False)
    pearson, _, error, effect, cells = found.values.tolist()
    assert cells == 10 and pearson > 0.7 and error < 0.6 * effect


@pytest.mark.parametrize("name", some_of(KINDS_OF_MODEL, "native", "gpt2", "llama", "hooked-transformer", "conv-attn", "own"))
def test_the_estimate_is_the_model_s_own_gradient(name: str) -> None:
    """The same numbers with parameters frozen, gradients off and in inference mode; and no trace of any of it."""
    model = BUILDERS[name]() if name in ("native", "own", "attn-attn") else copy.deepcopy(zoo(name))
    site = "z" if name != "native" or TL >= (4, 0) else "v"
    runs, points = prompts(), list(model.hook_dict.values())

    def estimate() -> Tensor:
        return interp.attribution_patching(model, *runs, METRIC, site, progress=False).values

    first = estimate()
    assert not any(point._forward_hooks for point in points) and all(p.grad is None for p in model.parameters())
    copy.deepcopy(model)  # no graph is kept
    with torch.no_grad():
        torch.testing.assert_close(estimate(), first, atol=1e-6, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(estimate(), first, atol=1e-6, rtol=0)
    model.requires_grad_(False)
    torch.testing.assert_close(estimate(), first, atol=1e-6, rtol=0)
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    one = interp.attribution_patching(model, *runs, METRIC, site, batch_size=1, progress=False)
    torch.testing.assert_close(one.values, first, atol=1e-5, rtol=0)


def test_every_patchable_site_and_the_convolution() -> None:
    model, runs = zoo("conv-attn"), prompts()
    for site in ("conv", "resid_pre", "resid_post", "attn_out", "z", "q", "k", "v", "pattern"):
        guess = interp.attribution_patching(model, *runs, METRIC, site, steps=10, values="effect", progress=False)
        exact = interp.activation_patching(model, *runs, METRIC, site, values="effect", progress=False)
        assert guess.axes == exact.axes and guess.labels == exact.labels
        if site in ("resid_post", "attn_out", "z"):  # the unembedding is linear
            torch.testing.assert_close(guess.values, exact.values, atol=1e-5, rtol=0)
        assert float((guess.values - exact.values).abs().max()) < 1e-6 + 0.5 * float(exact.values.abs().max())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_precisions(kind: Any) -> None:
    model, runs = own_model().to(kind), prompts()
    found = interp.attribution_patching(model, *runs, METRIC, "z", values="effect", progress=False)
    reference = interp.attribution_patching(zoo("own"), *runs, METRIC, "z", values="effect", progress=False)
    tolerance = 1e-5 if kind == torch.float64 else 0.2 * float(reference.values.abs().max())
    torch.testing.assert_close(found.values, reference.values, atol=tolerance, rtol=0)
    assert found.values.dtype == torch.float64 and len(layers_with(model, "z")) == len(found.labels["layer"])


def test_an_exception_leaves_the_model_as_it_was() -> None:
    model, runs = own_model().train(), prompts()

    def broken(logits: Tensor, ids: Tensor) -> Tensor:
        raise KeyboardInterrupt

    for function in (interp.attribution_patching, interp.edge_attribution):
        with pytest.raises(KeyboardInterrupt):
            function(model, *runs, broken, progress=False)
    assert model.training and not any(point._forward_hooks for point in model.hook_dict.values())
