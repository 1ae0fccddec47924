"""Metrics: numbers by hand, what each reads, and independence from how examples are batched."""

import math

import pytest
import torch

from interp import metrics
from interp.errors import DataError, InterpError
from interp.interventions import ablation_sweep
from interp.models import AttnAttn

BATCH, POS, D_VOCAB = 5, 7, 11
ANSWERS, WRONG = torch.tensor([1, 2, 3, 4, 10]), torch.tensor([[5, 6], [0, 7], [8, 9], [1, 0], [2, 3]])
PLACES = torch.tensor([6, 0, 3, -1, 2])


def logits_and_tokens(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(BATCH, POS, D_VOCAB, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(D_VOCAB, (BATCH, POS), generator=generator)


def reference() -> torch.Tensor:
    return torch.randn(BATCH, POS, D_VOCAB, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


ALL = {
    "loss": lambda: metrics.loss(),
    "loss of some": lambda: metrics.loss(range(3, 6)),
    "accuracy": lambda: metrics.accuracy([2, 5]),
    "logit_diff": lambda: metrics.logit_diff(ANSWERS, WRONG, PLACES),
    "logit_diff, one answer": lambda: metrics.logit_diff(4, WRONG),
    "prob": lambda: metrics.prob(WRONG, PLACES),
    "prob, one position": lambda: metrics.prob(list(range(BATCH)), 2),
    "kl": lambda: metrics.kl(reference()),
    "kl at": lambda: metrics.kl(reference(), PLACES),
    "normalized": lambda: metrics.normalized(
        metrics.logit_diff(ANSWERS, 0), torch.arange(1.0, BATCH + 1), torch.arange(0.0, BATCH) ** 2
    ),
    "callable": lambda: metrics.from_callable(
        lambda logits, tokens, answers: logits[:, -1].gather(1, answers[:, None])[:, 0], answers=ANSWERS
    ),
}


def test_numbers_by_hand() -> None:
    logits = torch.full((2, 3, 4), 0.0, dtype=torch.float64)
    logits[0, 0, 2], logits[0, 1, 3], logits[1, 2, 1] = math.log(3), math.log(6), math.log(9)
    tokens = torch.tensor([[0, 2, 1], [3, 0, 0]])
    # example 0: p(2 | 0) = 3 / 6, p(1 | 0, 2) = 1 / 9; example 1: 1 / 4 twice
    close = lambda value, expected: torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))  # noqa: E731
    close(metrics.loss()(logits, tokens), [(math.log(2) + math.log(9)) / 2, math.log(4)])
    close(metrics.loss([2])(logits, tokens), [math.log(9), math.log(4)])
    close(metrics.accuracy()(logits, tokens), [0.5, 1.0])  # ties go to id 0, which example 1 wants twice
    close(metrics.logit_diff([3, 1], [2, 0], torch.tensor([1, -1]))(logits, tokens), [math.log(6), math.log(9)])
    close(
        metrics.logit_diff(torch.tensor([[3, 0], [1, 2]]), 3, torch.tensor([1, 2]))(logits, tokens),
        [-math.log(6) / 2, math.log(3)],
    )
    close(metrics.prob(1)(logits, tokens), [0.25, 0.75])
    close(metrics.prob(torch.tensor([[2, 3], [0, 3]]), 0)(logits, tokens), [4 / 6, 0.5])
    uniform = torch.zeros_like(logits)
    close(metrics.kl(uniform, -1)(logits, tokens), [0.0, math.log(1 / 4) - (math.log(9 / 12) + 3 * math.log(1 / 12)) / 4])
    close(metrics.kl(logits)(logits, tokens), [0.0, 0.0])
    impossible = uniform.clone()
    impossible[..., 0] = -torch.inf
    close(metrics.kl(impossible, 0)(uniform, tokens), [math.log(4 / 3)] * 2)


def test_normalized_recovery_by_hand() -> None:
    logits, tokens = logits_and_tokens()
    value = metrics.prob(ANSWERS)(logits, tokens)
    clean = torch.tensor([1.0, 0.5, value[2], value[3] + 1, 0.0], dtype=torch.float64)
    corrupted = torch.tensor([0.0, 0.5, value[2] - 1, value[3], 5e-324], dtype=torch.float64)
    recovered = metrics.normalized(metrics.prob(ANSWERS), clean, corrupted)
    assert recovered.undefined == 2, "a pair of equal values, and one whose gap could only be divided by to infinity"
    found = recovered(logits, tokens)
    assert found[0] == value[0] and found[1].isnan()
    assert found[2:4].tolist() == pytest.approx([1.0, 0.0])
    assert metrics.normalized(metrics.prob(1), torch.tensor([1.0]), torch.tensor([1.0 + 1e-7])).undefined == 1, "rounding"
    assert metrics.normalized(metrics.prob(1), torch.tensor([0.0]), torch.tensor([0.0])).undefined == 1


def test_a_gap_too_small_to_divide_by_is_undefined_not_infinite() -> None:
    logits, tokens = logits_and_tokens()
    tiny = metrics.normalized(
        metrics.prob(ANSWERS), torch.full((BATCH,), 1e-310, dtype=torch.float64), torch.zeros(BATCH).double()
    )
    found = tiny(logits, tokens)
    assert not found.isinf().any()
    assert int(found.isnan().sum()) == tiny.undefined == BATCH


@pytest.mark.parametrize("name", ALL)
def test_a_metric_reads_what_it_says_and_nothing_else(name: str) -> None:
    logits, tokens = logits_and_tokens()
    metric = ALL[name]()
    read = metrics.Reads(metric.reads.positions, metric.reads.ids).pick(torch.arange(logits.numel()).view(logits.shape).double())
    touched = torch.zeros(logits.numel(), dtype=torch.bool)
    touched[read.flatten().long()] = True
    touched = touched.view(logits.shape)
    poisoned = logits.masked_fill(~touched, torch.nan)
    if name == "loss":  # everything is read, the last position not used
        poisoned[:, -1] = torch.nan
    elsewhere = metric(poisoned, tokens)
    assert torch.equal(metric(logits, tokens), elsewhere) and not elsewhere.isnan().any()
    assert torch.equal(metric.score(metric.reads.pick(logits), tokens), metric(logits, tokens))
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert not torch.equal(metric(logits + 5 * noise.masked_fill(~touched, 0), tokens), metric(logits, tokens))


def test_reads_are_as_small_as_can_be() -> None:
    assert metrics.logit_diff(ANSWERS, WRONG).reads.ids.shape == (BATCH, 3)
    assert metrics.logit_diff(1, 2).reads.ids.tolist() == [1, 2]
    assert metrics.logit_diff(1, 2).reads.positions.tolist() == [-1]
    assert metrics.loss(range(3, 6)).reads.positions.tolist() == [2, 3, 4]
    assert metrics.kl(reference(), 2).reference.shape == (BATCH, 1, D_VOCAB), "only the position read is kept"


@pytest.mark.parametrize("name", ALL)
def test_selecting_rows_equals_computing_all(name: str) -> None:
    logits, tokens = logits_and_tokens()
    metric = ALL[name]()
    whole = metric(logits, tokens)
    rows = torch.tensor([4, 1, 3])
    assert torch.equal(metric.select(rows)(logits[rows], tokens[rows]), whole[rows])
    assert torch.equal(metric.select(rows).select(torch.tensor([2]))(logits[3:4], tokens[3:4]), whole[3:4])
    if metric.per_example():
        with pytest.raises(DataError, match="entries"):
            metric(logits[:3], tokens[:3])


@pytest.mark.parametrize("name", ALL)
def test_values_do_not_depend_on_the_batch_size(name: str) -> None:
    model = AttnAttn(d_vocab=D_VOCAB, d_model=6, n_heads=2).double().eval()
    tokens = logits_and_tokens()[1]
    whole = metrics.metric_values(model, tokens, ALL[name]())
    for size in (1, 2, 4):
        parts = metrics.metric_values(model, tokens, ALL[name](), batch_size=size)
        torch.testing.assert_close(parts.values, whole.values, atol=1e-13, rtol=0)
        assert parts.provenance.tokens == whole.provenance.tokens
    assert whole.axes == ("example",) and whole.count == BATCH


def test_kl_from_a_run_is_zero_on_that_run() -> None:
    torch.manual_seed(0)
    model = AttnAttn(d_vocab=D_VOCAB, d_model=6, n_heads=2).eval()
    other = AttnAttn(d_vocab=D_VOCAB, d_model=6, n_heads=2).eval()
    tokens = logits_and_tokens()[1]
    for position in (None, -1, PLACES):
        metric = metrics.kl_from_run(model, tokens, position, batch_size=2)
        assert metrics.metric_values(model, tokens, metric).values.abs().max() < 1e-6
        direct = metrics.kl(model(tokens).detach(), position)
        torch.testing.assert_close(metric(other(tokens), tokens), direct(other(tokens), tokens))
        assert metrics.metric_values(other, tokens, metric, batch_size=3).values.min() > 0.05


def test_half_precision_logits_are_not_subtracted_in_half_precision() -> None:
    logits, tokens = logits_and_tokens(torch.bfloat16)
    for name in ("loss", "prob", "logit_diff"):
        torch.testing.assert_close(ALL[name]()(logits, tokens), ALL[name]()(logits.float(), tokens), atol=0, rtol=0)


def test_plain_callables_and_what_is_not_a_metric() -> None:
    logits, tokens = logits_and_tokens()
    assert torch.equal(metrics.as_metric(lambda logits, tokens: logits[:, 0, 0])(logits, tokens), logits[:, 0, 0])
    with pytest.raises(DataError, match="one number per example"):
        metrics.as_metric(lambda logits, tokens: logits.mean())(logits, tokens)
    with pytest.raises(InterpError, match=r"Write loss\(…\)"):
        metrics.as_metric(metrics.loss)
    with pytest.raises(DataError, match="reading position 7"):
        metrics.prob(1, 7)(logits, tokens)
    with pytest.raises(DataError, match="reading token id 11"):
        metrics.prob(11)(logits, tokens)
    with pytest.raises(DataError, match="≥ 1"):
        metrics.loss([0, 3])
    with pytest.raises(DataError, match="Give pairs"):
        metrics.logit_diff([1, 2], [3, 4, 5])
    with pytest.raises(DataError, match="same tokens"):
        metrics.kl(reference()[:, :3])(logits, tokens)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("ids", [-2, 2.5, "Paris", True, [[[1]]], torch.tensor([1.0, 2.0]), [], [3, -1]])
def test_what_is_no_token_id_is_refused(ids: object) -> None:
    """A negative one would be read from the end of the vocabulary."""
    with pytest.raises(DataError, match="token ids answers"):
        metrics.logit_diff(ids, 0)
    with pytest.raises(DataError, match="token ids answers"):
        metrics.prob(ids)


@pytest.mark.usefixtures("unchecked")
def test_positions_may_be_a_list_or_any_integer() -> None:
    logits, tokens = logits_and_tokens()
    each = metrics.logit_diff(ANSWERS, 0, PLACES)(logits, tokens)
    assert torch.equal(metrics.logit_diff(ANSWERS, 0, PLACES.tolist())(logits, tokens), each)
    assert metrics.logit_diff(ANSWERS, 0, torch.tensor(3))(logits, tokens)[2] == each[2]
    for wrong in ("end", 1.5, [[1]]):
        with pytest.raises(DataError, match="position"):
            metrics.prob(ANSWERS, wrong)


@pytest.mark.usefixtures("unchecked")
def test_what_is_neither_metric_nor_function() -> None:
    with pytest.raises(InterpError, match="neither"):
        metrics.as_metric(3)
    with pytest.raises(DataError, match=r"e\.g\. \[5\]"):
        metrics.loss(5)


@pytest.mark.usefixtures("unchecked")
def test_normalized_takes_tensors_of_any_type() -> None:
    metric, tokens = metrics.logit_diff(ANSWERS, 0), torch.zeros(BATCH, POS, dtype=torch.long)
    logits, _ = logits_and_tokens()
    whole = metrics.normalized(metric, torch.arange(1, BATCH + 1), torch.zeros(BATCH, dtype=torch.long))
    same = metrics.normalized(metric, torch.arange(1.0, BATCH + 1), torch.zeros(BATCH))
    assert torch.equal(whole(logits, tokens), same(logits, tokens))
    model = AttnAttn(d_vocab=D_VOCAB, d_model=6, n_heads=2)
    with pytest.raises(DataError, match="metric_values"):
        metrics.normalized(metric, metrics.metric_values(model, tokens, metric), torch.zeros(BATCH))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_accuracy_is_undefined_where_a_logit_read_is_nan(dtype: torch.dtype) -> None:
    zeros = torch.zeros(1, 3, dtype=torch.long)  # the largest of NaN is said to be id 0, which is wanted here
    assert metrics.accuracy()(torch.full((1, 3, 5), torch.nan, dtype=dtype), zeros).isnan().all()
    logits = torch.zeros(2, 4, 5, dtype=dtype)
    logits[1, 1, 3] = torch.nan  # read for target 2 alone
    tokens = torch.zeros(2, 4, dtype=torch.long)
    assert metrics.accuracy()(logits, tokens).isnan().tolist() == [False, True]
    assert metrics.accuracy([1, 3])(logits, tokens).tolist() == [1.0, 1.0]
    logits[1, 1, 3] = -torch.inf
    assert metrics.accuracy()(logits, tokens).tolist() == [1.0, 1.0]


def test_a_sweep_says_which_accuracies_are_undefined() -> None:
    model = AttnAttn(d_vocab=11, d_model=8)
    with torch.no_grad():
        model.embed.weight[10] = torch.nan
    tokens = torch.randint(0, 10, (4, 6), generator=torch.Generator().manual_seed(0))
    tokens[2, 1] = 10
    for metric in (metrics.accuracy(), metrics.loss()):
        found = ablation_sweep(model, tokens, metric, mode="zero", progress=False)
        assert found.count == 3 and "1 of 4 examples have no defined metric and are left out" in found.description


def test_rows_of_one_token_have_none_to_predict() -> None:
    for metric in (metrics.loss(), metrics.accuracy()):
        with pytest.raises(DataError, match="rows of a single token have none that is predicted. Give rows of two tokens"):
            metric(torch.zeros(2, 1, 5), torch.zeros(2, 1, dtype=torch.long))
        assert metric(torch.zeros(2, 2, 5), torch.zeros(2, 2, dtype=torch.long)).isfinite().all()
