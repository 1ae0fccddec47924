"""Padding that nobody stated is refused wherever it would get into a number, and nowhere else."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import interp
from interp import metrics
from interp.errors import DataError
from interp.models import TransformerConfig, build_model
from interp.result import Result

D_VOCAB, POS, PAD, BOS = 29, 7, 0, 1
LAST = torch.tensor([6, 3, 6, 5])  # the last real token of each row
Measure = Callable[[torch.nn.Module, torch.Tensor, metrics.Metric], Result]


def made(pad: int | None = PAD) -> torch.nn.Module:
    model = build_model(TransformerConfig(d_vocab=D_VOCAB, d_model=12, n_heads=2, n_layers=2, n_ctx=16), seed=0)
    model.tokenizer = SimpleNamespace(pad_token_id=pad, bos_token_id=BOS, eos_token_id=2)
    return model


def real() -> torch.Tensor:
    return torch.randint(3, D_VOCAB, (4, POS), generator=torch.Generator().manual_seed(0))


def padded(pad: int = PAD) -> torch.Tensor:
    return real().masked_fill(torch.arange(POS) > LAST[:, None], pad)


def changed(tokens: torch.Tensor) -> torch.Tensor:
    other = tokens.clone()
    other[:, 1] = (other[:, 1] - 2) % (D_VOCAB - 3) + 3
    return other


MEASURES: dict[str, Measure] = {
    "ablation_sweep": lambda m, t, metric: interp.ablation_sweep(m, t, metric, mode="zero", progress=False),
    "logit_lens": lambda m, t, metric: interp.logit_lens(m, t, metric),
    "activation_patching": lambda m, t, metric: interp.activation_patching(m, t, changed(t), metric, progress=False),
    "attribution_patching": lambda m, t, metric: interp.attribution_patching(m, t, changed(t), metric, progress=False),
}
every = pytest.mark.parametrize("name", MEASURES)


@every
def test_metrics_that_read_padding_are_refused(name: str) -> None:
    do, model = MEASURES[name], made()
    for metric in (
        metrics.loss(),
        metrics.loss([2, 4]),
        metrics.logit_diff(3, 4),
        metrics.logit_diff(3, 4, torch.tensor([6, 4, 6, 5])),
    ):
        with pytest.raises(DataError, match=r"it reads where the tokenizer's padding id 0 stands. .*pad_token = None"):
            do(model, padded(), metric)
        do(model, real(), metric)  # unpadded: no alarm
        do(made(pad=None), padded(), metric)  # the way out
    with pytest.raises(DataError, match="begins with the tokenizer's padding id 0"):
        do(model, padded().flip(1), metrics.logit_diff(3, 4))


@every
def test_padding_behind_what_is_read_changes_nothing_and_is_let_through(name: str) -> None:
    do, model = MEASURES[name], made()
    for metric in (metrics.logit_diff(3, 4, LAST), metrics.loss([1, 3])):
        found, expected = do(model, padded(), metric), do(made(pad=None), real(), metric)
        torch.testing.assert_close(found.values, expected.values, atol=1e-6, rtol=0)
    own = metrics.from_callable(lambda logits, tokens, last: logits[torch.arange(len(last)), last, 3], last=LAST)
    do(model, padded(), own)


def test_padding_where_it_is_bos_or_eos_needs_two() -> None:
    model, eos = made(pad=2), real()
    eos[1, -1] = 2
    eos[:, 0] = BOS
    interp.ablation_sweep(model, eos, metrics.loss(), progress=False)
    eos[1, -2] = 2
    with pytest.raises(DataError, match="in 1 of 4 rows it reads where the tokenizer's padding id 2 stands"):
        interp.ablation_sweep(model, eos, metrics.loss(), progress=False)
    interp.ablation_sweep(model, eos, metrics.logit_diff(3, 4, 4), mode="zero", progress=False)


@pytest.mark.parametrize("mode", ["mean", "position_mean", "resample"])
def test_padding_is_kept_out_of_what_is_put_in(mode: str) -> None:
    model, metric = made(), metrics.logit_diff(3, 4, LAST)
    for reference in (None, padded()):
        with pytest.raises(DataError, match="hold the tokenizer's padding id 0"):
            interp.ablation_sweep(model, padded(), metric, mode=mode, reference=reference, progress=False)
    interp.ablation_sweep(model, padded(), metric, mode=mode, reference=real(), progress=False)
    if mode != "position_mean":
        with pytest.raises(DataError, match="Give rows of equal length"):
            interp.activation_patching(model, padded(), changed(padded()), metric, source=mode, progress=False)


def test_patterns_of_padded_rows() -> None:
    model, tokens = made(), padded()
    with pytest.raises(DataError, match="pad_id=0"):
        interp.attention_patterns(model, tokens)
    found = interp.attention_patterns(model, tokens, pad_id=PAD).values
    each = torch.stack([interp.attention_patterns(model, row[None], pad_id=-1).values for row in real()])
    for query in range(POS):
        counted = query <= LAST
        torch.testing.assert_close(found[:, :, query], each[counted][:, :, :, query].mean(0), atol=1e-6, rtol=0)
    assert interp.attention_patterns(model, tokens[1:2], pad_id=PAD).values[:, :, 4:].isnan().all()
    assert torch.equal(interp.attention_patterns(model, real()).values, interp.attention_patterns(made(None), real()).values)


def test_the_remedy_names_no_setting_that_is_not_there() -> None:
    for measure in (lambda m, t: interp.in_context_learning(m, t, 2, 5, window=1), interp.null_scores):
        with pytest.raises(DataError, match=r"Give rows of equal length.*pad_token = None") as found:
            measure(made(), padded())
        assert "pad_id" not in str(found.value)
