"""Direct logit attribution and the logit lens where every number is known on paper."""

import math

import pytest
import torch
from torch import Tensor

import interp
from interp.data.pairs import PromptPairs, induction_pairs
from interp.metrics import Metric, logit_diff, prob
from interp.metrics.weighted import logit
from interp.models import AttnAttn, ConvAttn
from interp.models.constructed import GAIN, induction_circuit
from interp.probes.direct import direct_logit_attribution
from interp.probes.lens import logit_lens, logit_lens_tokens

D_VOCAB = 31


@pytest.fixture(scope="module")
def circuit() -> AttnAttn:
    model = induction_circuit(D_VOCAB).model
    assert isinstance(model, AttnAttn)
    return model


@pytest.fixture(scope="module")
def pairs(circuit: AttnAttn) -> PromptPairs:
    return induction_pairs(circuit, n=6, period=7)


def test_the_induction_head_writes_the_whole_answer(circuit: AttnAttn, pairs: PromptPairs) -> None:
    parts = direct_logit_attribution(circuit, pairs.clean, pairs.metric())
    found = dict(zip(parts.labels["component"], parts.values.tolist(), strict=True))
    assert found.pop("L1H0") == pytest.approx(GAIN, abs=1e-5)
    assert set(found) == {"embed", "pos_embed", "L0H0", "L0H1", "L1H1", "bias"}
    assert max(map(abs, found.values())) < 1e-5
    assert parts.stderr is not None
    assert parts.stderr.max() < 1e-5, "the same for every pair"


def test_the_corrupted_prompt_calls_for_the_other_token(circuit: AttnAttn, pairs: PromptPairs) -> None:
    grid = direct_logit_attribution(circuit, pairs.corrupted, pairs.metric(), by="head")
    assert grid.axes == ("layer", "head")
    torch.testing.assert_close(grid.values, torch.tensor([[0.0, 0.0], [-GAIN, 0.0]], dtype=torch.float64), atol=1e-5, rtol=0)


def test_nothing_is_left_without_the_induction_head(circuit: AttnAttn, pairs: PromptPairs) -> None:
    with interp.ablated(circuit, heads=[(1, 0)], mode="zero"):
        parts = direct_logit_attribution(circuit, pairs.clean, pairs.metric())
    assert parts.values.abs().max() < 1e-5


def test_one_logit_alone(circuit: AttnAttn, pairs: PromptPairs) -> None:
    layers = direct_logit_attribution(circuit, pairs.clean, logit(pairs.answers), by="layer")
    found = dict(zip(layers.labels["component"], layers.values.tolist(), strict=True))
    assert found == pytest.approx({"embed": 0, "pos_embed": 0, "L0 attn": 0, "L1 attn": GAIN, "bias": 0}, abs=1e-5)


def test_the_lens_sees_the_answer_after_the_last_layer_only(circuit: AttnAttn, pairs: PromptPairs) -> None:
    lens = logit_lens(circuit, pairs.clean, prob(pairs.answers))
    assert lens.labels["layer"] == ("input", "0", "1")
    known = 1 / (1 + (D_VOCAB - 1) * math.exp(-GAIN))
    assert lens.values.tolist() == pytest.approx([1 / D_VOCAB, 1 / D_VOCAB, known], abs=1e-6)
    diff = logit_lens(circuit, pairs.clean, pairs.metric(), places=[0, -1])
    assert diff.axes == ("layer", "pos")
    torch.testing.assert_close(diff.values[:, 1], torch.tensor([0.0, 0.0, GAIN], dtype=torch.float64), atol=1e-5, rtol=0)
    assert diff.values[:, 0].abs().max() < 1e-5, "at BOS nothing is to be copied"


def test_the_tokens_that_the_lens_reads(circuit: AttnAttn, pairs: PromptPairs) -> None:
    table = logit_lens_tokens(circuit, pairs.clean, k=2)
    last = table[(table["layer"] == "1") & (table["rank"] == 1)]
    assert last["id"].tolist() == pairs.answers.tolist()
    assert last["probability"].min() > 0.998
    assert list(table.columns) == ["example", "layer", "rank", "id", "token", "probability"]
    assert len(table) == len(pairs) * 3 * 2


@pytest.mark.parametrize("residual", [False, True])
def test_toys_part_by_part(residual: bool) -> None:
    """Without a residual stream only the last layer writes to the logits; all by hand from the toy's own weights."""
    torch.manual_seed(0)
    model = ConvAttn(d_vocab=19, d_model=12, n_heads=3, n_layers=2, residual=residual).eval().double()
    tokens = torch.randint(0, 19, (4, 6), generator=torch.Generator().manual_seed(1))
    answers, wrong = torch.tensor([3, 4, 5, 6]), torch.tensor([7, 8, 9, 3])
    metric = logit_diff(answers, wrong, position=4)
    parts = direct_logit_attribution(model, tokens, metric)
    weight = model.unembed.weight.detach()
    direction = weight[answers] - weight[wrong]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)

    def along(vectors: Tensor) -> float:
        return float((vectors * direction).sum(-1).mean())

    by_hand = {"embed": along(cache["hook_embed"][:, 4]), "conv": along(cache["hook_conv"][:, 4])}
    for layer in range(2):
        for head in range(3):
            z = cache["z", layer][:, 4, head]
            by_hand[f"L{layer}H{head}"] = along(z @ model.blocks[layer].attn.W_O[head].detach())
    if not residual:
        by_hand = {name: value if name.startswith("L1") else 0.0 for name, value in by_hand.items()}
        assert "no residual stream" in parts.description
    by_hand["bias"] = float((model.unembed.bias[answers] - model.unembed.bias[wrong]).detach().mean())
    assert dict(zip(parts.labels["component"], parts.values.tolist(), strict=True)) == pytest.approx(by_hand, abs=1e-12)
    assert sum(by_hand.values()) == pytest.approx(own(model, tokens, metric), abs=1e-12)


def own(model: AttnAttn | ConvAttn, tokens: Tensor, metric: Metric) -> float:
    return float(interp.metrics.metric_values(model, tokens, metric).values.mean())
