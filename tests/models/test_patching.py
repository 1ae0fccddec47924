"""Fast sweeps give what one full forward pass per cell gives, on every kind of model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from interp import ablated, edited, metrics
from interp.errors import ModelError
from interp.interventions import patching_effects
from interp.interventions.edits import Freeze
from interp.interventions.modes import capture
from interp.interventions.patching.cells import PATCHABLE
from interp.models.calling import standing_hooks
from interp.sites import Site, available_kinds

from .zoo import BUILDERS, KINDS_OF_MODEL, TL, tokens, zoo

SOME = ("native", "attn-attn", "llama", "own")
ALIKE = ("gpt2-compatible", "transformer-post", "own")  # as gpt2, or not taken apart: the others try every site
READ = metrics.logit_diff([1, 2, 3], [4, 5, 6])
SMALL = {"llama": 1e-6}  # its norms and rotations are computed in float32 whatever the model's type
TAKEN_APART = "each cell restarted"  # how the description says that a model was


@cache
def double(name: str) -> Any:
    return BUILDERS[name]().double()


def prompts() -> tuple[Tensor, Tensor]:
    """Three pairs that share a prefix of 2, of 3 and of no tokens; the second differs in all that follows."""
    clean = tokens(pos=6, seed=1)
    corrupted = clean.clone()
    corrupted[0, 2] = clean[0, 2] % 50 + 1
    corrupted[1, 3:] = clean[1, 3:] % 50 + 1
    corrupted[2, 0] = clean[2, 0] % 50 + 1
    return clean, corrupted


@cache
def loop(name: str, site: str) -> Tensor:
    clean, corrupted = prompts()
    return patching_effects(double(name), clean, corrupted, READ, site, mode="reference", progress=False).values


def difference(model: Any, site: str, slow: Tensor | None = None, **options: Any) -> tuple[float, str]:
    """Largest difference to the loop, relative to the largest value, and how the fast way was taken."""
    clean, corrupted = prompts()
    metric, mode = options.pop("metric", READ), options.pop("mode", "auto")
    if slow is None:
        slow = patching_effects(model, clean, corrupted, metric, site, mode="reference", progress=False, **options).values
    fast = patching_effects(model, clean, corrupted, metric, site, mode=mode, progress=False, **options)
    assert float((slow.flatten(1) - slow.flatten(1)[:, :1]).abs().max()) > 1e-3  # there is something to be wrong about
    return float((fast.values - slow).abs().max() / slow.abs().max()), fast.description


def sites_of_kind(name: str) -> list[str]:
    tried = ("z", "resid_pre", "k") if name in ALIKE else PATCHABLE
    dropped = {"pattern"} if name == "native" and TL < (4, 0) else set()  # the loop cannot write it
    return [kind for kind in tried if kind in available_kinds(zoo(name)) and kind not in dropped]


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_every_site_equals_the_loop(name: str) -> None:
    """In float64, where rounding is eight orders below all else. Two kinds cannot be taken apart: norms after, no ln_final."""
    for site in sites_of_kind(name):
        error, way = difference(double(name), site, loop(name, site))
        assert error < SMALL.get(name, 1e-12), f"{site}: {way}"
        assert (TAKEN_APART in way) == (name not in ("own", "transformer-post")), way


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_one_pass_of_the_model_itself_equals_the_loop(name: str) -> None:
    for site in ("z", "resid_mid"):
        if site in sites_of_kind(name):
            error, way = difference(double(name), site, loop(name, site), mode="growing")
            assert error < SMALL.get(name, 1e-12), f"{site}: {way}"


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_in_float32_within_rounding(name: str) -> None:
    error, way = difference(zoo(name), "z", loop(name, "z"))
    assert error < 1e-4, way  # to the loop in float64


@pytest.mark.parametrize("name", SOME)
def test_grids_directions_and_sources_equal_the_loop(name: str) -> None:
    cases: list[dict[str, Any]] = [
        {"site": "z", "over": ("layer", "head", "position"), "heads": [1, 2], "layers": [0]},
        {"site": "z", "over": "position", "layers": [0], "direction": "noising", "values": "recovery"},
        {"site": "resid_pre", "over": "layer", "positions": {"changed": torch.tensor([2, 4, 0])}, "source": "mean"},
        {"site": "v", "over": ("head", "layer"), "positions": [-1, 4], "source": "resample", "values": "effect"},
        {"site": "attn_out", "over": "position", "source": "zero", "metric": metrics.loss(range(2, 5))},
    ]
    for case in cases:
        error, way = difference(double(name), **case)
        assert error < SMALL.get(name, 1e-11), f"{case}: {way}"


@pytest.mark.parametrize("name", SOME[:2])
def test_whatever_the_metric_reads(name: str) -> None:
    """Positions and ids per pair, all of the vocabulary, all positions, and a function that nothing is known of."""

    def largest(logits: Tensor, ids: Tensor) -> Tensor:
        return logits.log_softmax(-1).amax((1, 2))

    clean, _ = prompts()
    per_pair = metrics.logit_diff(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]), position=torch.tensor([4, 5, 2]))
    for metric in (
        per_pair,
        metrics.prob([1, 2, 3], position=4),
        metrics.loss(),
        metrics.kl_from_run(double(name), clean),
        largest,
    ):
        error, way = difference(double(name), "resid_pre", metric=metric)
        assert error < 1e-11, f"{metric}: {way}"


def test_a_model_without_hooks_of_a_caller_is_run_the_fast_way() -> None:
    for name in ("llama", "native", "conv-attn"):
        zoo(name)(tokens(pos=6, seed=1))  # some bridges put hooks of their own on their modules when they are first run
        assert standing_hooks(zoo(name)) == []


def frozen(model: Any) -> Any:
    """The patterns of the second layer, held as they are: nothing changes until something before them does."""
    clean, corrupted = prompts()
    both = torch.cat([corrupted, clean])
    return edited(model, [Freeze(capture(model, both, [Site("pattern", 1)]), both)], tokens=corrupted)


def clamped(model: Any) -> Any:
    """A bound on mlp_out that does not bind in the run that is patched."""
    site = Site("mlp_out", 0)
    kept = capture(model, prompts()[1], [site])[site]
    return model.hooks([(site.hook_name, lambda activation, hook: activation.clamp(kept.min(), kept.max()))])


def by_row(model: Any) -> Any:
    """Leaves three rows as they are, all that there are in a pass for one cell."""

    def hook(activation: Tensor, hook: Any) -> Tensor:
        return activation * (1 - 0.5 * (torch.arange(len(activation)) >= 3).to(activation))[:, None, None]

    return model.hooks([("blocks.1.hook_attn_out", hook)])


@contextmanager
def in_torch(model: Any) -> Iterator[None]:
    """The same bound, by a hook of torch's on the MLP."""
    module = dict(model.original_model.named_modules())["model.layers.0._original_component.mlp"]
    kept = capture(model, prompts()[1], [Site("mlp_out", 0)])[Site("mlp_out", 0)]
    handle = module.register_forward_hook(lambda module, inputs, output: output.clamp(kept.min(), kept.max()))
    try:
        yield
    finally:
        handle.remove()


def without_first_head(model: Any) -> Any:
    return ablated(model, heads=[(1, 0)])  # its mean over the batch, whatever else is in the batch


@pytest.mark.parametrize("under", [frozen, clamped, by_row, in_torch, without_first_head])
def test_hooks_that_stand_on_a_model_act_in_every_cell(under: Any) -> None:
    """Also such as leave the run that is patched as it is, so that no untouched row gives them away."""
    model = double("llama")
    for site, source in (("z", "run"), ("resid_pre", "zero")):
        free = loop_of(model, site, source)
        with under(model):
            error, way = difference(model, site, loop_of(model, site, source), source=source)
            with pytest.raises(ModelError, match="hooks stand on the model"):
                difference(model, site, free, source=source, mode="trimmed")
            changed = float((loop_of(model, site, source) - free).abs().max()) > 1e-4
        assert error == 0 and changed == (under is not by_row)
        assert "not trimmed: hooks stand on the model (at " in way and "computed: one full pass" in way
    assert TAKEN_APART in difference(model, "z")[1]


def loop_of(model: Any, site: str, source: str) -> Tensor:
    clean, corrupted = prompts()
    return patching_effects(model, clean, corrupted, READ, site, source=source, mode="reference", progress=False).values
