"""Ids held as int32 give what the same ids give as int64, everywhere."""

from collections.abc import Callable

import pytest
import torch

import interp
from interp import metrics
from interp.models import TransformerConfig, build_model
from interp.result import Result

Tokens = torch.Tensor
D_VOCAB, PERIOD = 31, 5


def model() -> torch.nn.Module:
    return build_model(TransformerConfig(d_vocab=D_VOCAB, d_model=12, n_heads=2, n_layers=2, n_ctx=16), seed=0)


def repeats() -> Tokens:
    return interp.repeated_tokens(model(), n_sequences=4, period=PERIOD)


def corrupted(tokens: Tokens) -> Tokens:
    changed = tokens.clone()
    changed[:, 2] = (changed[:, 2] + 1) % D_VOCAB
    return changed


DIFFERENCE = metrics.logit_diff(1, 2)
MEASURES: dict[str, Callable[[torch.nn.Module, Tokens], Result]] = {
    "token_losses": lambda m, t: interp.token_losses(m, t),
    "perplexity": lambda m, t: interp.perplexity(m, t, pad_id=3),
    "repeat_loss": lambda m, t: interp.repeat_loss(m, t, PERIOD),
    "in_context_learning": lambda m, t: interp.in_context_learning(m, t, 2, 8, window=1),
    "loss probe": lambda m, t: interp.run(m, t, [interp.probes.TokenLoss()])["loss"],
    "head_scores": lambda m, t: interp.head_scores(m, t, period=PERIOD),
    "null_scores": lambda m, t: interp.null_scores(m, t, period=PERIOD),
    "logit_lens": lambda m, t: interp.logit_lens(m, t, metrics.loss()),
    "direct_logit_attribution": lambda m, t: interp.direct_logit_attribution(m, t, DIFFERENCE),
    "metric_values": lambda m, t: metrics.metric_values(m, t, metrics.loss()),
    "ablation_sweep": lambda m, t: interp.ablation_sweep(m, t, metrics.loss(), progress=False),
    "ablation by a reference": lambda m, t: interp.ablation_sweep(
        m, t, metrics.loss(), mode="resample", reference=t.flip(0), progress=False
    ),
    "activation_patching": lambda m, t: interp.activation_patching(m, t, corrupted(t), metrics.loss(), progress=False),
    "patching one by one": lambda m, t: interp.activation_patching(
        m, t, corrupted(t), metrics.loss(), mode="reference", progress=False
    ),
    "attribution_patching": lambda m, t: interp.attribution_patching(m, t, corrupted(t), metrics.loss(), progress=False),
    "edge_attribution": lambda m, t: interp.edge_attribution(m, t, corrupted(t), DIFFERENCE, progress=False),
    "path_patching": lambda m, t: interp.path_patching(m, t, corrupted(t), DIFFERENCE, [interp.Site("q", 1)], progress=False),
}


@pytest.mark.parametrize("name", MEASURES)
def test_int32_ids_give_what_int64_ids_give(name: str) -> None:
    made, tokens = model(), repeats()
    expected, found = (MEASURES[name](made, tokens.to(dtype)) for dtype in (torch.int64, torch.int32))
    assert torch.equal(found.values.nan_to_num(7), expected.values.nan_to_num(7))
    assert found.provenance.tokens == expected.provenance.tokens != ""


def test_shuffles_depend_on_the_ids_and_not_on_what_holds_them() -> None:
    tokens = repeats()
    assert torch.equal(interp.shuffled_tokens(tokens.int()).long(), interp.shuffled_tokens(tokens))
    assert not torch.equal(interp.shuffled_tokens(tokens, seed=1), interp.shuffled_tokens(tokens))


def test_a_model_gets_int64_ids_whatever_is_given() -> None:
    made, seen = model(), []
    made.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    interp.run(made, repeats().int(), [interp.probes.TokenLoss()])
    assert seen == [torch.int64]
