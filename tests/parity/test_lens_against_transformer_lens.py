"""Every kind of model adds up, and the numbers are TransformerLens' own where it has them."""

import importlib
from typing import Any

import pytest
import torch

from interp.metrics import logit_diff, metric_values, prob
from interp.metrics.weighted import logit
from interp.probes.direct import direct_logit_attribution
from interp.probes.lens import logit_lens, logit_lens_tokens
from tests.models.zoo import BRIDGES, KINDS_OF_MODEL, MISSING, TL, hf_bridge, hooked_transformer, tokens, zoo

ANSWERS, WRONG = torch.tensor([3, 4, 5]), torch.tensor([7, 8, 9])
NEW_TOOLS = pytest.mark.skipif(TL < (4, 0), reason="TransformerLens 3 has no logit lens")


def tool(name: str) -> Any:
    """A function of `transformer_lens.tools.analysis`, called without gradients (TransformerLens wants none)."""
    return torch.no_grad()(getattr(importlib.import_module(f"transformer_lens.tools.analysis.{name}"), name))


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_every_kind_of_model_adds_up(name: str) -> None:
    model = zoo(name)
    metric = logit_diff(ANSWERS, WRONG, position=torch.tensor([-1, 5, 2]))
    want = float(metric_values(model, tokens(), metric).values.double().mean())
    assert logit_lens(model, tokens(), metric).values[-1].item() == pytest.approx(want, abs=1e-5)
    if name == "transformer-post":
        return  # its stream is normalised between its parts: a test of its own says that this is refused
    for by in ("component", "layer"):
        parts = direct_logit_attribution(model, tokens(), metric, by=by)
        assert float(parts.values.sum()) == pytest.approx(want, abs=1e-5)
        assert parts.values.abs().max() > 0.01


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_bridges_in_other_number_types(kind: str, dtype: torch.dtype) -> None:
    """Llama's norm is done in float32 whatever the type; GPT-2's is not, and its parts then sum to rounding in float64."""
    model = hf_bridge(kind).to(dtype)
    metric = logit_diff(ANSWERS, WRONG)
    want = float(metric_values(model, tokens(), metric).values.double().mean())
    bound = {torch.float16: 5e-3, torch.float64: 1e-13 if kind == "gpt2" else 1e-6}[dtype]
    assert float(direct_logit_attribution(model, tokens(), metric).values.sum()) == pytest.approx(want, abs=bound)
    assert logit_lens(model, tokens(), metric).values[-1].item() == pytest.approx(want, abs=bound)


@NEW_TOOLS
@pytest.mark.parametrize("name", BRIDGES)
def test_the_lens_is_transformer_lens_logit_lens(name: str) -> None:
    model = zoo(name)
    theirs = tool("logit_lens")(model, tokens(), targets=ANSWERS, return_type="probs")
    ours = logit_lens(model, tokens(), prob(ANSWERS))
    torch.testing.assert_close(ours.values.float(), theirs.values.squeeze(-1).mean(-1), atol=1e-6, rtol=0)
    best = tool("logit_lens")(model, tokens(), top_k=3)
    table = logit_lens_tokens(model, tokens(), k=3)
    ids = torch.tensor(table["id"].tolist()).reshape(len(tokens()), -1, 3).transpose(0, 1)
    assert torch.equal(ids, best.readout.top_ids)


def assert_attributions_agree(model: Any) -> None:
    """Ours, and TransformerLens' tool on a model whose norm is folded: by layer and by head."""
    attribution = tool("direct_logit_attribution")
    theirs = attribution(model, tokens(), ANSWERS, WRONG, unit="component")
    layers = direct_logit_attribution(model, tokens(), logit_diff(ANSWERS, WRONG), by="layer")
    ours = dict(zip(layers.labels["component"], layers.values.tolist(), strict=True))
    names = {"embed": "embed", "pos_embed": "pos_embed"}
    names |= {
        f"{layer}_{what}_out": f"L{layer} {label}" for layer in (0, 1) for what, label in (("attn", "attn"), ("mlp", "MLP"))
    }
    found = {names[label]: float(value.mean()) for label, value in zip(theirs.labels, theirs.attribution, strict=True)}
    bias = ours.pop("bias")
    assert ours == pytest.approx(found, abs=1e-5)
    assert bias == pytest.approx(float((model.b_U[ANSWERS] - model.b_U[WRONG]).detach().mean()), abs=1e-5), (
        "theirs leaves b_U out"
    )
    heads = attribution(model, tokens(), ANSWERS, WRONG, unit="head")
    grid = direct_logit_attribution(model, tokens(), logit_diff(ANSWERS, WRONG), by="head")
    for label, value in zip(heads.labels, heads.attribution.mean(-1).tolist(), strict=True):
        if label != "remainder":
            layer, head = map(int, label[1:].split("H"))
            assert grid.values[layer, head].item() == pytest.approx(value, abs=1e-5)


def test_attributions_on_a_bridge_are_transformer_lens_own() -> None:
    assert_attributions_agree(zoo("gpt2-compatible"))


@pytest.mark.skipif("hooked-transformer" in MISSING, reason=MISSING.get("hooked-transformer", ""))
def test_attributions_on_a_hooked_transformer_are_transformer_lens_own() -> None:
    model = hooked_transformer()
    model.process_weights_()
    assert_attributions_agree(model)


def test_folding_the_norm_changes_no_head() -> None:
    """The bridge as it came and the same with its norm folded: the constants move into the bias, nothing else does."""
    plain, folded = (
        direct_logit_attribution(zoo(name), tokens(), logit_diff(ANSWERS, WRONG), by="head")
        for name in ("gpt2", "gpt2-compatible")
    )
    assert not torch.allclose(plain.values, folded.values, atol=1e-4), "folding the values' bias moves a constant out of heads"
    total = [
        direct_logit_attribution(zoo(name), tokens(), logit_diff(ANSWERS, WRONG)).values.sum().item()
        for name in ("gpt2", "gpt2-compatible")
    ]
    assert total[0] == pytest.approx(total[1], abs=1e-5)
    one = [
        direct_logit_attribution(zoo(name), tokens(), logit(ANSWERS)).values.sum().item() for name in ("gpt2", "gpt2-compatible")
    ]
    assert abs(one[0] - one[1]) > 1e-3, "centring the unembedding moves every logit alike"
