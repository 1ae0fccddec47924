"""Losses on inputs of every kind, against hand computation."""

import math
from types import SimpleNamespace

import pytest
import torch

import interp
from interp.errors import DataError, ModelError
from interp.models import AttnAttn
from interp.models.constructed import induction_circuit
from interp.probes import (
    InContextLearning,
    NextTokenAccuracy,
    TokenLoss,
    in_context_learning,
    perplexity,
    repeat_loss,
    repeated_tokens,
    token_losses,
)

D_VOCAB, D_MODEL = 23, 12


@pytest.fixture
def model() -> AttnAttn:
    torch.manual_seed(0)
    return AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, residual=True)


def slow(model: AttnAttn, row: list[int]) -> list[float]:
    """Minus log probability of each token after the first, each from its own prefix alone."""
    found = []
    for t in range(1, len(row)):
        logits = model(torch.tensor([row[:t]]))[0, -1].detach().double()
        found.append(float(logits.exp().sum().log() - logits[row[t]]))
    return found


ROWS = [[0, 5, 7, 5, 9, 22], [0, 3, 1, 4], [0, 8, 8, 6, 2]]


def padded(pad: int = 21) -> torch.Tensor:
    return torch.tensor([row + [pad] * (6 - len(row)) for row in ROWS])


def check(model: AttnAttn, found: torch.Tensor) -> None:
    for row, values in zip(ROWS, found, strict=True):
        n = len(row) - 1
        torch.testing.assert_close(values[:n], torch.tensor(slow(model, row), dtype=torch.float64), atol=1e-5, rtol=0)
        assert values[n:].isnan().all()


def test_padding_by_mask_by_id_and_by_loader(model: AttnAttn) -> None:
    mask = torch.tensor([[1] * len(row) + [0] * (6 - len(row)) for row in ROWS])
    check(model, token_losses(model, padded(), attention_mask=mask).values)
    check(model, token_losses(model, padded(), pad_id=21, batch_size=2).values)
    check(model, token_losses(model, [{"input_ids": padded(), "attention_mask": mask}]).values)
    found = token_losses(model, (torch.tensor([row]) for row in ROWS))
    check(model, found.values)
    assert found.labels_of("target")[0] == "1"
    assert found.provenance.weights


def test_strings_are_tokenised_each_by_itself(model: AttnAttn, monkeypatch: pytest.MonkeyPatch) -> None:
    model.tokenizer = SimpleNamespace(pad_token_id=None, bos_token_id=0, eos_token_id=None)
    texts = {"one": ROWS[0], "two": ROWS[1], "three": ROWS[2]}
    monkeypatch.setattr(type(model), "to_tokens", lambda self, text: torch.tensor([texts[text]]))
    check(model, token_losses(model, list(texts)).values)
    assert token_losses(model, "two").values.shape == (1, 3)


def test_perplexity_summarises_all_tokens(model: AttnAttn) -> None:
    found = perplexity(model, padded(), pad_id=21)
    every = torch.tensor([value for row in ROWS for value in slow(model, row)], dtype=torch.float64)
    expected = torch.stack([every.mean(), every.min(), every.max()])
    torch.testing.assert_close(found.values, torch.stack([expected, expected.exp()]), atol=0, rtol=1e-5)
    assert found.count == 12
    assert found.labels_of("measure") == ("loss", "perplexity")
    assert found.stderr is not None
    equal = perplexity(model, padded()[:, :3])  # rows of equal length: the plain standard error of their means
    means = torch.tensor([sum(slow(model, row[:3])) / 2 for row in padded().tolist()])
    assert equal.stderr is not None
    assert float(equal.stderr[0, 0]) == pytest.approx(float(means.std()) / math.sqrt(3), abs=1e-4)
    assert perplexity(model, padded()[:1, :3]).stderr.isnan().all()


def test_what_is_refused(model: AttnAttn) -> None:
    left = torch.tensor([[0, 1, 1], [1, 1, 1]])
    for mask in (left, torch.tensor([[1, 0, 1], [1, 1, 1]])):
        with pytest.raises(DataError, match="not ones followed by zeros"):
            token_losses(model, torch.ones(2, 3, dtype=torch.long), attention_mask=mask)
    with pytest.raises(DataError, match="has shape"):
        token_losses(model, padded(), attention_mask=torch.ones(3, 5))
    with pytest.raises(DataError, match="no tokenizer"):
        token_losses(model, ["text"])
    with pytest.raises(DataError, match="nothing"):
        token_losses(model, [])
    with pytest.raises(DataError, match="at least two"):
        token_losses(model, torch.ones(2, 1, dtype=torch.long))
    with pytest.raises(DataError, match="a batch is a int"):
        token_losses(model, [3])
    with pytest.raises(DataError, match="no token is predicted"):
        perplexity(model, torch.tensor([[3, 21, 21]]), pad_id=21)
    model.tokenizer = SimpleNamespace(pad_token_id=21, bos_token_id=0, eos_token_id=None)
    with pytest.raises(DataError, match="padding id 21"):
        token_losses(model, padded())


def test_in_context_learning_by_hand() -> None:
    made = induction_circuit(d_vocab=31)
    tokens = repeated_tokens(made.model, n_sequences=6, period=25, copies=3)
    found = in_context_learning(made.model, tokens, early=10, late=60, window=3)
    late = math.log(1 + 30 * math.exp(-10))

    def before(t: int) -> float:  # the target is new; t different tokens were seen, each with logit 10 / t
        return math.log(t * math.exp(10 / t) + 31 - t)

    early = sum(before(t) for t in (9, 10, 11)) / 3
    torch.testing.assert_close(found.values, torch.tensor([early, late, late - early], dtype=torch.float64), atol=1e-5, rtol=0)
    assert found.values[2] < 0, "negative: the model learns in context"
    for wrong in ({"early": 0}, {"late": 75}, {"window": 4}, {"early": 60, "late": 10}, {"early": 2, "window": 5}):
        with pytest.raises(DataError, match="must fit"):
            in_context_learning(made.model, tokens, **{"early": 10, "late": 60, "window": 3, **wrong})
    with pytest.raises(DataError, match="must fit"):
        interp.run(made.model, tokens, [InContextLearning(early=2, late=60, window=5)])


def test_one_window_is_the_mean_of_token_losses(model: AttnAttn) -> None:
    tokens = torch.randint(0, D_VOCAB, (7, 20), generator=torch.Generator().manual_seed(3))
    losses = token_losses(model, tokens).values  # target t is at index t - 1
    found = in_context_learning(model, tokens, 5, 15, window=3, batch_size=2)
    early, late = losses[:, 3:6].mean(1), losses[:, 13:16].mean(1)
    expected = torch.stack([early.mean(), late.mean(), (late - early).mean()])
    torch.testing.assert_close(found.values, expected, atol=1e-6, rtol=0)
    assert found.stderr is not None
    assert float(found.stderr[2]) == pytest.approx(float((late - early).std()) / math.sqrt(7), abs=1e-6)


def test_shuffled_tokens_are_the_null_of_learning_in_context() -> None:
    model = induction_circuit().model
    tokens = interp.repeated_tokens(model, n_sequences=16, period=25, copies=4)
    shuffled = interp.shuffled_tokens(tokens, seed=3)
    assert torch.equal(shuffled.sort(dim=1).values, tokens.sort(dim=1).values)
    assert torch.equal(shuffled[:, 0], tokens[:, 0])
    assert torch.equal(shuffled, interp.shuffled_tokens(tokens, seed=3))
    assert not torch.equal(shuffled, interp.shuffled_tokens(tokens, seed=4))
    learnt, null = (
        interp.in_context_learning(model, x, early=10, late=60, window=11).values[2].item() for x in (tokens, shuffled)
    )
    assert learnt < -3
    assert null > -0.5


BROKEN = 13  # the id whose embedding is NaN in the tests below: every logit of a row that holds it is NaN


def broken(model: AttnAttn) -> torch.Tensor:
    """Repeats of which the second of four rows holds the broken id."""
    tokens = torch.tensor([[0, 5, 7, 9, 5, 7, 9], [0, BROKEN, 7, 9, BROKEN, 7, 9], [0, 2, 4, 8, 2, 4, 8], [0, 1, 3, 6, 1, 3, 6]])
    with torch.no_grad():
        model.embed.weight[BROKEN] = math.nan
    assert model(tokens).isnan().flatten(1).any(1).tolist() == [False, True, False, False]
    return tokens


def test_undefined_losses_are_left_out_and_counted(model: AttnAttn) -> None:
    tokens = broken(model)
    whole = tokens[[0, 2, 3]]
    found = perplexity(model, tokens)
    defined = token_losses(model, tokens).values.isnan().logical_not()
    n = int(defined.sum())
    assert n < 24 and found.count == n and f"{24 - n} of 24 predicted tokens have no defined loss" in found.description
    assert found.values[0, 0] == token_losses(model, tokens).values[defined].mean()
    assert f"at {24 - n} of 24 tokens" in token_losses(model, tokens).description
    assert "left out" not in perplexity(model, whole).description
    for measure in (lambda rows: repeat_loss(model, rows, 3), lambda rows: in_context_learning(model, rows, 2, 5, window=1)):
        found, expected = measure(tokens), measure(whole)
        torch.testing.assert_close(found.values, expected.values, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.stderr, expected.stderr, atol=1e-6, rtol=0)
        assert (found.count, expected.count) == (3, 3)
        assert "1 of 4 sequences have no defined loss and are left out" in found.description
        assert "left out" not in expected.description
        nothing = measure(tokens[[1, 1]])
        assert nothing.values.isnan().all() and nothing.count == 0 and "2 of 2" in nothing.description
    for probe in (TokenLoss(), NextTokenAccuracy()):
        found = interp.run(model, tokens, [probe])[probe.name]
        assert found.item() == pytest.approx(interp.run(model, whole, [probe])[probe.name].item(), abs=1e-6)
        assert found.count == 3 and "1 of 4 examples" in found.description


def test_perplexity_of_a_model_that_computes_nan_does_not_speak_of_short_sequences(model: AttnAttn) -> None:
    with torch.no_grad():
        model.embed.weight.fill_(math.nan)
    found = perplexity(model, torch.tensor(ROWS[:1]))
    assert found.values.isnan().all() and found.count == 0
    assert "5 of 5 predicted tokens have no defined loss" in found.description


@pytest.mark.parametrize(("logit", "message"), [(-math.inf, "are infinite: .* logit −inf"), (-1e4, "too large for a number")])
def test_a_loss_too_large_for_perplexity_is_said(model: AttnAttn, logit: float, message: str) -> None:
    class Ruled(torch.nn.Module):
        def __init__(self, head: torch.nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.head(x).clone()
            logits[..., 4] = logit
            return logits

    model.unembed = Ruled(model.unembed)
    tokens = torch.tensor([[0, 5, 7, 4, 9], [0, 3, 1, 2, 8]])
    with pytest.raises(ModelError, match=message):
        perplexity(model, tokens)
    if logit == -math.inf:
        for measure in (token_losses, lambda model, tokens: in_context_learning(model, tokens, 1, 3, window=1)):
            with pytest.raises(ModelError, match=message):
                measure(model, tokens)
    else:
        assert float(token_losses(model, tokens).values.max()) > 9e3
    assert perplexity(model, tokens[1:]).values.isfinite().all()
