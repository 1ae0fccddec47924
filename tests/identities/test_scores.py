"""Attention scores: the one-pass reduction against obvious loops, and what must be refused."""

import math
from collections.abc import Callable

import pytest
import torch
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import interp
from interp.errors import ConfigError, DataError, ModelError, SiteError
from interp.models import AttnAttn, ConvAttn
from interp.models.constructed import induction_circuit
from interp.probes import head_scores, null_scores, prefix_matching_scores, repeated_tokens
from interp.probes.scores import all_scores
from interp.provenance import tensor_hash

N_LAYERS, N_HEADS, D_VOCAB, BATCH = 2, 3, 13, 5


class Patterned(HookedRootModule):
    """A module of which only the attention patterns matter: made by `pattern` from tokens and layer."""

    def __init__(self, pattern: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
        super().__init__()
        self.pattern = pattern
        self.blocks = torch.nn.ModuleList(torch.nn.Module() for _ in range(N_LAYERS))
        for block in self.blocks:
            block.attn = torch.nn.Module()
            block.attn.hook_pattern = HookPoint()
        self.setup()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for layer, block in enumerate(self.blocks):
            block.attn.hook_pattern(self.pattern(tokens, layer))
        return torch.zeros(*tokens.shape, D_VOCAB, dtype=torch.float64)


def logits(tokens: torch.Tensor, layer: int) -> torch.Tensor:
    """Anything that differs by example, head, query and key: sines of the tokens and their places."""
    heads = torch.arange(1.0, N_HEADS + 1, dtype=torch.float64)[:, None, None]
    places = torch.arange(tokens.shape[1], dtype=torch.float64)
    query, key = tokens[:, None, :, None] + 0.1 * places[:, None], tokens[:, None, None, :] + 0.3 * places
    return 3 * torch.sin(heads * query * (layer + 2) + key * 1.7)


def causal(tokens: torch.Tensor, layer: int) -> torch.Tensor:
    scores = logits(tokens, layer)
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def bidirectional(tokens: torch.Tensor, layer: int) -> torch.Tensor:
    return logits(tokens, layer).softmax(-1)


def text(n: int = 17) -> torch.Tensor:
    return torch.randint(1, D_VOCAB, (BATCH, n), generator=torch.Generator().manual_seed(1))


def slow_scores(a: torch.Tensor, x: list[int], n: int) -> list[float]:
    """One head on one sequence, by the definitions' own words, over the first n positions."""

    def mean(rows: dict[int, list[int]]) -> float:
        kept = [sum(float(a[i, j]) for j in keys) for i, keys in rows.items() if keys]
        return sum(kept) / len(kept) if kept else math.nan

    followers = {i: [j for j in range(1, i + 1) if j - 1 < i and x[j - 1] == x[i]] for i in range(n)}
    return [
        mean(followers),
        mean(followers),
        mean({i: [j for j in range(i) if x[j] == x[i]] for i in range(n)}),
        mean({i: [i - 1] for i in range(2, n)}),
        mean({i: [i] for i in range(1, n)}),
        mean({i: [0] for i in range(1, n)}),
        sum(-float(a[i, j]) * math.log(float(a[i, j])) for i in range(1, n) for j in range(i + 1)) / (n - 1),
    ]


def slow_means(model: Patterned, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    values = torch.tensor(
        [
            [[slow_scores(model.pattern(tokens, layer)[b, head], tokens[b].tolist(), lengths[b]) for head in range(N_HEADS)]
             for layer in range(N_LAYERS)]
            for b in range(len(tokens))
        ],
        dtype=torch.float64,
    )  # fmt: skip
    return values.permute(3, 1, 2, 0).nanmean(-1)


def test_one_pass_equals_the_definitions_read_aloud() -> None:
    model, tokens = Patterned(causal), text()
    tokens[0, 3] = tokens[0, 0]  # a repeated first token has a follower too
    found = head_scores(model, tokens)
    assert found.axes == ("score", "layer", "head")
    torch.testing.assert_close(found.values, slow_means(model, tokens, [17] * BATCH), atol=1e-14, rtol=0)
    assert found.values.std() > 0.01


def test_padding_counts_for_nothing() -> None:
    model, tokens, lengths = Patterned(causal), text(), [17, 11, 9, 16, 12]
    for row, length in zip(tokens, lengths, strict=True):
        row[length:] = 0
    found = head_scores(model, tokens, pad_id=0)
    torch.testing.assert_close(found.values, slow_means(model, tokens, lengths), atol=1e-14, rtol=0)
    assert (head_scores(model, tokens).values - found.values).abs().max() > 0.01


def test_baseline_is_the_score_of_a_uniform_head() -> None:
    def uniform(tokens: torch.Tensor, layer: int) -> torch.Tensor:
        n = tokens.shape[1]
        return (torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]).expand(len(tokens), N_HEADS, n, n)

    for tokens, period in ((text(), None), (repeated_tokens(AttnAttn(d_vocab=D_VOCAB, d_model=8), period=6, copies=3), 6)):
        found = head_scores(Patterned(uniform), tokens, period=period)
        assert isinstance(found.baseline, torch.Tensor)
        torch.testing.assert_close(found.values, found.baseline, atol=2e-7, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_scores_and_nulls_do_not_depend_on_the_batch(batch_size: int) -> None:
    model, tokens = Patterned(causal), text()
    for function in (head_scores, null_scores):
        whole, split = function(model, tokens), function(model, tokens, batch_size=batch_size)
        torch.testing.assert_close(whole.values, split.values, atol=1e-14, rtol=0)


def test_single_scores_are_rows_of_the_whole() -> None:
    model = AttnAttn(d_vocab=41, d_model=12, n_heads=3)
    whole = head_scores(model)
    rows = dict(zip(whole.labels_of("score"), range(7), strict=True))
    singles = {
        "induction": interp.induction_scores(model),
        "previous_token": interp.previous_token_scores(model),
        "duplicate_token": interp.duplicate_token_scores(model),
        "prefix_matching": prefix_matching_scores(model, n_sequences=32),
    }
    for name, single in singles.items():
        row = whole.at(score=rows[name])
        assert single.name == name
        torch.testing.assert_close(single.values, row.values, atol=1e-7, rtol=0)
        torch.testing.assert_close(single.baseline, row.baseline)
        torch.testing.assert_close(single.stderr, row.stderr, atol=1e-7, rtol=0)
    picked = head_scores(model, scores=["entropy", "induction"])
    torch.testing.assert_close(picked.values, whole.values[[rows["entropy"], rows["induction"]]], atol=1e-7, rtol=0)


def test_exact_rows_and_token_match_agree_on_distinct_repeats() -> None:
    model = Patterned(causal)
    tokens = repeated_tokens(AttnAttn(d_vocab=D_VOCAB, d_model=8), period=7)
    exact, matched = head_scores(model, tokens, period=7), head_scores(model, tokens)
    torch.testing.assert_close(exact.values, matched.values, atol=1e-14, rtol=0)
    more = repeated_tokens(AttnAttn(d_vocab=D_VOCAB, d_model=8), period=7, copies=4)
    assert torch.equal(more[:, :15], tokens)
    later = head_scores(model, more, period=7)
    torch.testing.assert_close(later.values[0], exact.values[0], atol=1e-14, rtol=0)
    torch.testing.assert_close(later.values[1], head_scores(model, more).values[1], atol=1e-14, rtol=0)


def test_key_shuffles_have_the_baseline_as_their_mean() -> None:
    model = Patterned(causal)
    tokens = torch.randint(1, D_VOCAB, (400, 9), generator=torch.Generator().manual_seed(2))
    null, scores = null_scores(model, tokens), head_scores(model, tokens)
    spread = (null.values[1] - null.values[0]) / 1.6449
    off = (null.values[0] - scores.baseline).abs() / spread
    assert off[3:6].max() < 4.5
    assert not torch.equal(null.values, null_scores(model, tokens, seed=1).values)


@pytest.mark.parametrize(
    ("spoil", "truth"),
    [
        (lambda a: a.index_fill(1, torch.tensor(1), torch.nan), "NaN"),
        (lambda a: torch.sigmoid(a), "do not sum to 1"),
        (lambda a: a * 0.99, "do not sum to 1"),
        (lambda a: a + torch.eye(a.shape[-1]) * 0.5 - 0.5 * torch.eye(a.shape[-1]).roll(1, -1), "negative"),
        (lambda a: a.log(), "do not sum to 1|NaN"),
        (lambda a: a[:, :, :, :-1], "has shape"),
        (lambda a: a[:, 0], "has shape"),
    ],
)
def test_what_is_not_attention_is_refused(spoil: Callable, truth: str) -> None:
    def pattern(tokens: torch.Tensor, layer: int) -> torch.Tensor:
        a = causal(tokens, layer)
        return spoil(a) if layer == 1 else a

    with pytest.raises(ModelError, match=truth):
        head_scores(Patterned(pattern), text())
    with pytest.raises(ModelError, match=truth):
        interp.previous_token_scores(Patterned(pattern), text())


def test_bidirectional_attention_is_refused_unless_stated() -> None:
    model, tokens = Patterned(bidirectional), text()
    with pytest.raises(ModelError, match="later tokens"):
        interp.induction_scores(model, tokens)
    found = head_scores(model, tokens, bidirectional=True)
    assert found.labels_of("score") == ("previous_token", "current_token", "first_token", "entropy")
    assert isinstance(found.baseline, torch.Tensor)
    torch.testing.assert_close(found.baseline[:3], torch.full_like(found.baseline[:3], 1 / 17))
    torch.testing.assert_close(found.baseline[3], torch.full_like(found.baseline[3], math.log(17)))
    with pytest.raises(ConfigError, match="induction"):
        head_scores(model, tokens, scores=["induction"], bidirectional=True)
    with pytest.raises(ConfigError, match="padding"):
        head_scores(model, tokens, bidirectional=True, pad_id=0)


class Tokenizer:
    def __init__(self, pad: int | None, bos: int | None = 1, eos: int | None = 2) -> None:
        self.pad_token_id, self.bos_token_id, self.eos_token_id, self.all_special_ids = pad, bos, eos, [1, 2]


def test_tokens_that_look_padded_are_refused_until_told() -> None:
    model, tokens = Patterned(causal), text().clamp(min=3)
    model.tokenizer = Tokenizer(pad=0)
    head_scores(model, tokens)
    tokens[2, -1] = 0
    with pytest.raises(DataError, match="padding id 0"):
        head_scores(model, tokens)
    with pytest.raises(DataError, match="padding id 0"):
        interp.duplicate_token_scores(model, tokens)
    head_scores(model, tokens, pad_id=0)
    model.tokenizer = Tokenizer(pad=2)  # as with GPT-2, padding is EOS: one at the end may be real, two are not
    tokens[2, -1] = 2
    assert torch.equal(head_scores(model, tokens).values, head_scores(model, tokens, pad_id=-1).values)
    tokens[2, -2] = 2
    with pytest.raises(DataError, match="padding id 2"):
        head_scores(model, tokens)
    tokens[2, :2] = 2
    with pytest.raises(DataError, match="begins with padding"):
        head_scores(model, tokens, pad_id=2)


def test_wrong_requests() -> None:
    model, tokens = Patterned(causal), text()
    with pytest.raises(ConfigError, match="Did you mean 'induction'"):
        head_scores(model, tokens, scores=["inducton"])
    with pytest.raises(ConfigError, match="once"):
        head_scores(model, tokens, scores=["entropy", "entropy"])
    with pytest.raises(DataError, match="period 0"):
        head_scores(AttnAttn(d_vocab=D_VOCAB, d_model=8), period=0)
    with pytest.raises(DataError, match="period 5"):
        head_scores(model, tokens, period=5)
    with pytest.raises(DataError, match="copies in a row differ"):
        head_scores(model, tokens, period=8)
    with pytest.raises(DataError, match="no row that counts"):
        interp.previous_token_scores(model, tokens[:, :2])


def test_a_sequence_without_a_match_has_no_score_and_does_not_count() -> None:
    model = Patterned(causal)
    distinct = torch.arange(1, 8).expand(2, 7)
    found = head_scores(model, distinct)
    assert found.values[:3].isnan().all()
    assert not found.values[3:].isnan().any()
    repeated = torch.tensor([[1, 2, 3, 1, 2, 3, 4]])
    both, one = (interp.induction_scores(model, t) for t in (torch.cat([distinct, repeated]), repeated))
    torch.testing.assert_close(both.values, one.values, atol=1e-14, rtol=0)
    assert both.count == 1
    assert both.stderr is None


def test_half_precision_patterns_are_summed_in_float32() -> None:
    tokens = text()
    exact = head_scores(Patterned(causal), tokens).values
    half = head_scores(Patterned(lambda t, layer: causal(t, layer).to(torch.bfloat16)), tokens).values
    assert 0 < (half - exact).abs().max() < 0.02


def test_marks_never_stand_above_the_diagonal() -> None:
    tokens = torch.tensor([[0, 1, 2, 1, 1, 2, 1, 1, 2]])
    for score in all_scores(None)[:-1]:
        assert not score.marks(tokens).triu(1).any()


def test_a_short_context_is_told_which_period_fits() -> None:
    model = ConvAttn(d_vocab=41, d_model=12, n_ctx=47)
    with pytest.raises(DataError, match=r"101 positions and this model has 47\. Give period=11 or less"):
        interp.head_scores(model, period=25)
    with pytest.raises(DataError, match=r"101 positions and this model has 47\. Give period=11 or less"):
        interp.prefix_matching_scores(model, period=25)
    assert interp.head_scores(model, period=11).values.shape == (7, 1, 1)


@pytest.mark.parametrize("n_ctx", [16, 64, 101, 200])
def test_the_default_period_fits_a_short_context(n_ctx: int) -> None:
    model = ConvAttn(d_vocab=41, d_model=12, n_ctx=n_ctx)
    fits = min(25, (n_ctx - 1) // 4)
    drawn = repeated_tokens(model, n_sequences=32, period=fits, copies=4)
    every = interp.head_scores(model)
    assert every.provenance.tokens == tensor_hash(drawn)
    assert torch.equal(every.values, interp.head_scores(model, drawn, period=fits).values)
    for measure in (interp.previous_token_scores, interp.duplicate_token_scores):
        assert measure(model).provenance.tokens == tensor_hash(drawn)
    ten = repeated_tokens(model, n_sequences=10, period=fits, copies=4)
    assert interp.prefix_matching_scores(model).provenance.tokens == tensor_hash(ten)
    two = repeated_tokens(model, n_sequences=32, period=min(25, (n_ctx - 1) // 2), copies=2)
    assert interp.induction_scores(model).provenance.tokens == tensor_hash(two)


def test_the_null_names_the_tokens_it_was_asked_about_whatever_the_batches() -> None:
    model = ConvAttn(d_vocab=41, d_model=12, n_ctx=47)
    tokens = repeated_tokens(model, n_sequences=7, period=9)
    whole, split = (null_scores(model, tokens, period=9, batch_size=size) for size in (None, 3))
    assert whole.provenance.tokens == split.provenance.tokens == tensor_hash(tokens)
    torch.testing.assert_close(whole.values, split.values, atol=1e-6, rtol=0)
    shuffled = interp.shuffled_tokens(tokens, seed=2)
    assert torch.equal(shuffled, torch.cat([interp.shuffled_tokens(part, seed=2) for part in tokens.split(3)]))


def test_chosen_patterns_are_those_of_all() -> None:
    model = induction_circuit().model
    tokens = interp.repeated_tokens(model, n_sequences=2, period=5)
    whole = interp.attention_patterns(model, tokens)
    some = interp.attention_patterns(model, tokens, layers=[1], heads=[1, 0])
    assert torch.equal(some.values, whole.values[[1]][:, [1, 0]])
    assert some.labels_of("layer") == ("1",) and some.labels_of("head") == ("1", "0")
    for wrong in ({"layers": [2]}, {"heads": [0, 2]}, {"heads": [-1]}):
        with pytest.raises(SiteError):
            interp.attention_patterns(model, tokens, **wrong)
