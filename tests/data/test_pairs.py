"""Prompt pairs: what they hold, what each generator promises, and what is refused. Tokenizers are trained here."""

import math
from collections.abc import Iterable

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.data.pairs import PromptPairs, greater_than_metric, greater_than_pairs, induction_pairs, ioi_pairs, words
from interp.errors import DataError
from interp.metrics.standard import LogitDiff
from interp.models import AttnAttn

BOS = "<|bos|>"


def texts() -> Iterable[str]:
    """Every word of the generators, each often enough to become a token."""
    for sentence in words.TWO_PEOPLE:
        yield from (sentence.format(A=name, B=name, S=name, P="park", O="ring") for name in words.NAMES)
    yield from (f"the {word} and the {word}" for word in (*words.PLACES, *words.OBJECTS))
    yield from (f"The {word} lasted from the year" for word in words.EVENTS)
    yield from (f" {century}{number:02} {number:02}" for century in range(11, 20) for number in range(100))


def trained(pattern: str, vocab_size: int = 4000) -> PreTrainedTokenizerFast:
    """Byte-level BPE that never merges across the pieces that `pattern` cuts a text into."""
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=vocab_size, min_frequency=1, special_tokens=[BOS], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS)


@pytest.fixture(scope="module")
def gpt2_like() -> PreTrainedTokenizerFast:
    """Words with their space, years in pairs of digits."""
    return trained(r" ?[A-Za-z]+| ?\d{2}|.")


@pytest.fixture(scope="module")
def llama_like() -> PreTrainedTokenizerFast:
    """A space before every text becomes part of its first word, digits stand alone."""
    vocabulary = {token: number for number, token in enumerate([BOS, "<unk>", "▁", ",", *"0123456789"])}
    for text in texts():
        for word in text.replace(",", "").split():
            vocabulary.setdefault(f"▁{word}", len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"\d|,"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, unk_token="<unk>")


def at(rows: Tensor, places: Tensor) -> Tensor:
    return rows.gather(1, places[:, None])[:, 0]


def test_induction_pairs_differ_in_the_token_to_copy_alone() -> None:
    pairs = induction_pairs(41, n=9, period=5, seed=3)
    assert pairs.clean.shape == (9, 10)
    assert (pairs.clean[:, 0] == 0).all()
    assert torch.equal(pairs.clean[:, 1:5], pairs.clean[:, 6:]), "the second copy, but for its last token"
    assert torch.equal(at(pairs.clean, pairs.position("source")), pairs.answers)
    assert torch.equal(at(pairs.corrupted, pairs.position("source")), pairs.wrong)
    changed = pairs.clean != pairs.corrupted
    assert (changed.sum(1) == 1).all()
    assert torch.equal(changed.long().argmax(1), pairs.position("source"))
    assert torch.equal(at(pairs.clean, pairs.position("prefix")), at(pairs.clean, pairs.position("end")))
    for row, wrong in zip(pairs.clean.tolist(), pairs.wrong.tolist(), strict=True):
        assert len(set(row)) == 6
        assert wrong not in row


def test_induction_pairs_can_differ_in_what_marks_the_place() -> None:
    pairs, usual = (induction_pairs(41, n=9, period=5, corruption=kind, seed=3) for kind in ("prefix", "source"))
    assert torch.equal(pairs.clean, usual.clean) and torch.equal(pairs.answers, usual.answers)
    changed = pairs.clean != pairs.corrupted
    assert torch.equal(changed.nonzero()[:, 1], pairs.position("prefix"))
    assert torch.equal(at(pairs.corrupted, pairs.position("prefix")), pairs.wrong)
    assert not (pairs.corrupted[:, :-1] == pairs.corrupted[:, -1:]).any(), "nothing matches the end"


@pytest.mark.usefixtures("unchecked")
def test_a_corruption_that_is_not_there() -> None:
    with pytest.raises(DataError, match="corrupted by 'prefx'.*Did you mean 'prefix'"):
        induction_pairs(41, n=2, period=5, corruption="prefx")  # type: ignore[arg-type]


def test_induction_pairs_of_a_model_keep_to_its_vocabulary_and_context() -> None:
    model = AttnAttn(d_vocab=13, d_model=6, n_ctx=12)
    assert induction_pairs(model, n=3, period=6).clean.max() < 13
    with pytest.raises(DataError, match="period=6 or less"):
        induction_pairs(model, n=3, period=7)
    with pytest.raises(DataError, match="only 12 of 13"):
        induction_pairs(13, n=2, period=12)
    for period in (1, 0, -2):
        with pytest.raises(DataError, match="period=2 or more"):
            induction_pairs(31, period=period)
    with pytest.raises(DataError, match="n_sequences"):
        induction_pairs(31, n=0, period=4)
    with pytest.raises(DataError, match="vocabulary"):
        induction_pairs(torch.nn.Linear(2, 3))


def test_the_seed_decides_and_the_global_generator_is_left_alone(gpt2_like: PreTrainedTokenizerFast) -> None:
    state = torch.random.get_rng_state()
    for make in (lambda seed: induction_pairs(41, n=4, period=5, seed=seed), lambda seed: ioi_pairs(gpt2_like, n=4, seed=seed)):
        assert make(0).fingerprint == make(0).fingerprint != make(1).fingerprint
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("which", ["gpt2_like", "llama_like"])
def test_indirect_object_pairs(which: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(which)
    pairs = ioi_pairs(tokenizer, n=12, corruption="swap", seed=1)
    assert (pairs.clean[:, 0] == tokenizer.bos_token_id).all()
    for place, ids in {"IO": pairs.answers, "S1": pairs.wrong, "S2": pairs.wrong}.items():
        assert torch.equal(at(pairs.clean, pairs.position(place)), ids)
    assert torch.equal(at(pairs.corrupted, pairs.position("S2")), pairs.answers), "the giver is now the other one"
    assert ((pairs.clean != pairs.corrupted).sum(1) == 1).all()
    first = pairs.position("IO") < pairs.position("S1")
    assert first.tolist() == [True, False] * 6, "both orders, half each"
    assert torch.equal(pairs.position("S1+1"), pairs.position("S1") + 1)
    assert "<unk>" not in {word for row in pairs.strings for word in row}
    for (clean, corrupted), answer in zip(pairs.texts, pairs.answers.tolist(), strict=True):
        name = tokenizer.decode([answer]).strip()
        assert clean.count(name) == 1
        assert corrupted.count(name) == 2
        assert clean.endswith(" to")


def test_corruptions_change_what_they_say(gpt2_like: PreTrainedTokenizerFast) -> None:
    swap, third, new = (ioi_pairs(gpt2_like, n=8, corruption=how) for how in ("swap", "third", "new"))
    assert torch.equal(swap.clean, third.clean)
    assert torch.equal(swap.clean, new.clean), "the clean prompts are the same"
    s2 = at(third.corrupted, third.position("S2"))
    assert not ((s2 == third.answers) | (s2 == third.wrong)).any()
    assert ((third.clean != third.corrupted).sum(1) == 1).all()
    assert ((new.clean != new.corrupted).sum(1) == 3).all()
    for row, answer, wrong in zip(new.corrupted.tolist(), new.answers.tolist(), new.wrong.tolist(), strict=True):
        assert not {answer, wrong} & set(row)


def test_an_unknown_corruption_is_refused(gpt2_like: PreTrainedTokenizerFast, unchecked: None) -> None:
    with pytest.raises(DataError, match="Did you mean 'third'"):
        ioi_pairs(gpt2_like, corruption="thirds")  # type: ignore[arg-type]
    for make in (ioi_pairs, greater_than_pairs):
        with pytest.raises(DataError, match="at least one"):
            make(gpt2_like, n=0)


def test_without_bos_nothing_is_put_in_front(gpt2_like: PreTrainedTokenizerFast) -> None:
    plain, with_bos = ioi_pairs(gpt2_like, n=3, bos=False), ioi_pairs(gpt2_like, n=3)
    assert torch.equal(plain.clean, with_bos.clean[:, 1:])
    for name in plain.positions:
        assert torch.equal(plain.position(name) + 1, with_bos.position(name))
    gone = PreTrainedTokenizerFast(tokenizer_object=gpt2_like.backend_tokenizer)
    assert torch.equal(ioi_pairs(gone, n=3, bos=False).clean, plain.clean)
    with pytest.raises(DataError, match="BOS"):
        ioi_pairs(gone, n=3)


def test_greater_than_pairs(gpt2_like: PreTrainedTokenizerFast, llama_like: PreTrainedTokenizerFast) -> None:
    pairs = greater_than_pairs(gpt2_like, n=20)

    def number(ids: Tensor) -> list[int]:
        return [int(gpt2_like.decode([token])) for token in ids.tolist()]

    years = number(at(pairs.clean, pairs.position("YY")))
    assert set(number(at(pairs.corrupted, pairs.position("YY")))) == {1}
    assert all(year < answer for year, answer in zip(years, number(pairs.answers), strict=True))
    assert all(1 < wrong < year for year, wrong in zip(years, number(pairs.wrong), strict=True))
    assert ((pairs.clean != pairs.corrupted).sum(1) == 1).all()
    for clean, _ in pairs.texts:
        assert clean.split()[6][:2] == clean.split()[-1], "both years are of one century"
    with pytest.raises(DataError, match="two-digit|two tokens of two digits"):
        greater_than_pairs(llama_like)


def test_the_greater_than_metric_weighs_all_numbers(gpt2_like: PreTrainedTokenizerFast) -> None:
    pairs = greater_than_pairs(gpt2_like, n=5)
    metric = greater_than_metric(pairs, gpt2_like)
    logits = torch.randn(5, pairs.clean.shape[1], len(gpt2_like), generator=torch.Generator().manual_seed(0))
    probabilities = logits[:, -1].softmax(-1)
    ids = {number: gpt2_like(f"year 11{number:02}", add_special_tokens=False)["input_ids"][-1] for number in range(100)}
    for row, place in enumerate(pairs.position("YY").tolist()):
        year = int(gpt2_like.decode([pairs.clean[row, place]]))
        by_hand = sum(float(probabilities[row, ids[n]]) * (1 if n > year else -1) for n in range(100))
        assert float(metric(logits, pairs.clean)[row]) == pytest.approx(by_hand, abs=1e-6)
    cut = metric.select(torch.tensor([3, 0]))
    assert torch.equal(cut(logits[[3, 0]], pairs.clean[[3, 0]]), metric(logits, pairs.clean)[[3, 0]])
    with pytest.raises(DataError, match="'YY' of these pairs"):
        greater_than_metric(induction_pairs(31, n=2, period=4), gpt2_like)


def test_too_few_words_is_an_error_that_says_so() -> None:
    bytes_alone = trained(r".", vocab_size=257)
    for make in (ioi_pairs, greater_than_pairs):
        with pytest.raises(DataError, match=r"0 of \d+ (names|nouns) are one token"):
            make(bytes_alone)


def test_a_tokenizer_that_joins_names_with_the_comma_is_refused() -> None:
    joining = trained(r" ?[A-Za-z]+,?| ?\d{2}|.")
    with pytest.raises(DataError, match="tokens here, because it joins words"):
        ioi_pairs(joining, n=200)


def test_the_metric_reads_the_answers_at_the_end() -> None:
    pairs = induction_pairs(31, n=4, period=5)
    metric = pairs.metric()
    assert isinstance(metric, LogitDiff)
    assert metric.position == 9
    logits = torch.zeros(4, 10, 31)
    logits[torch.arange(4), 9, pairs.answers] = 3.0
    logits[torch.arange(4), 9, pairs.wrong] = 1.0
    assert metric(logits, pairs.clean).tolist() == [2.0] * 4
    early = PromptPairs(pairs.clean, pairs.corrupted, pairs.answers, pairs.wrong, {"end": torch.tensor([1, 2, 3, 9])})
    assert torch.equal(early.metric().position, torch.tensor([1, 2, 3, 9]))  # type: ignore[attr-defined]


def test_select_cuts_every_part(gpt2_like: PreTrainedTokenizerFast) -> None:
    pairs = ioi_pairs(gpt2_like, n=5)
    cut = pairs.select([4, -4])
    assert len(cut) == 2
    for name in ("clean", "corrupted", "answers", "wrong"):
        assert torch.equal(getattr(cut, name), getattr(pairs, name)[[4, 1]])
    assert cut.texts == (pairs.texts[4], pairs.texts[1])
    assert cut.strings == (pairs.strings[4], pairs.strings[1])
    assert torch.equal(cut.position("IO"), pairs.position("IO")[[4, 1]])
    assert cut.fingerprint != pairs.fingerprint == pairs.select(range(5)).fingerprint
    for rows in ([5], [-6], []):
        with pytest.raises(DataError, match="there are 5 pairs"):
            pairs.select(rows)


def test_tables_and_labels(gpt2_like: PreTrainedTokenizerFast) -> None:
    pairs = ioi_pairs(gpt2_like, n=3)
    table = pairs.to_frame()
    assert list(table.columns[:4]) == ["clean", "corrupted", "answer", "wrong"]
    assert table["at S2"].tolist() == pairs.position("S2").tolist()
    labels = pairs.labels
    assert len(labels) == len(set(labels)) == pairs.clean.shape[1]
    assert labels[0] == f"0 {BOS}"
    assert labels[3] == "3 and"
    assert labels[-1].endswith("end")
    assert "S2" in labels[int(pairs.position("S2")[0])]
    plain = induction_pairs(31, n=2, period=3)
    assert plain.labels == ("0", "1", "2 prefix", "3 source", "4", "5 end")
    assert "[0, " in plain.to_frame()["clean"][0]
    with pytest.raises(DataError, match="Did you mean 'source'"):
        plain.position("sauce")
    hostile = PromptPairs(plain.clean, plain.corrupted, plain.answers, plain.wrong, texts=(("<script>", "b"),) * 2)
    assert "<script>" not in hostile._repr_html_()


def test_parts_that_do_not_fit_are_refused(unchecked: None) -> None:
    rows, one = torch.ones(3, 4, dtype=torch.long), torch.ones(3, dtype=torch.long)
    for parts in (
        (rows, rows[:, :3], one, one),
        (rows[:0], rows[:0], one[:0], one[:0]),
        (rows, rows, one[:2], one),
        (rows, rows, one, one, {"subject": torch.tensor([0, 1, 4])}),
        (rows, rows, one, one, {"subject": torch.tensor([0, -1, 2])}),
        (rows, rows, one, one, {}, (("a", "b"),)),
        (rows[0], rows[0], one, one),
    ):
        with pytest.raises(DataError, match="prompt pairs"):
            PromptPairs(*parts)  # type: ignore[arg-type]
    assert not math.isnan(len(PromptPairs(rows, rows, one, one)))
