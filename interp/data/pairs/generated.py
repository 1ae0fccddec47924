"""Pairs made on the spot: repeated random tokens, two people and a gift, a span of years."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedTokenizerFast

from interp.data.packing import bos_id, encode_documents
from interp.data.pairs import words
from interp.data.pairs.encoding import check_tokenizer, ids_of, rows_of, single_words
from interp.data.pairs.values import PromptPairs
from interp.data.repeated import repeated_sequences
from interp.errors import DataError, nearest
from interp.seeds import seed_for

Corruption = Literal["swap", "third", "new"]
InductionCorruption = Literal["source", "prefix"]
MOST_EXAMPLES = 4  # of words, in an error


def induction_pairs(
    model: Any, *, n: int = 32, period: int = 16, corruption: InductionCorruption = "source", seed: int = 0
) -> PromptPairs:
    """`n` prompts BOS + r + r without its last token, which is the answer: r is `period` distinct random tokens.

    Named positions: "prefix" (the token before the one that is copied, in the first copy), "source" (the one that is copied)
    and "end" (the prefix again). What `corruption` changes in the corrupted prompt, to a token found nowhere else, `wrong`:

    * "source": the token that is copied, so that each prompt calls for a token that only its own first copy holds. What
      carries the answer shows; what tells where it stands is the same in both prompts, and does not;
    * "prefix": the token before it, so that nothing matches the end any more. What tells where the answer stands shows too
      (a previous-token head, through the keys of an induction head).

    A head that attends at a fixed distance answers the first kind too: compare several periods.

    `model` is a model (its vocabulary without special tokens, its BOS; 0 where it has no tokenizer) or the size of a vocabulary.
    The tokens are on the CPU and depend on `seed` alone.
    Raises `DataError` when the vocabulary is unknown or too small, or when the prompts exceed the model's context.
    """
    _check_corruption("induction pairs", corruption, InductionCorruption)
    d_vocab, n_ctx = (model, None) if isinstance(model, int) else _shape_of(model)
    if n_ctx is not None and 2 * period > n_ctx:
        raise DataError(
            f"induction pairs of period {period}",
            f"they need {2 * period} positions and this model has {n_ctx}",
            f"Give period={n_ctx // 2} or less",
        )
    tokenizer = getattr(model, "tokenizer", None)
    bos = getattr(tokenizer, "bos_token_id", None) or 0
    special = tuple(getattr(tokenizer, "all_special_ids", ()))
    if period < 2:
        raise DataError(f"induction pairs of period {period}", "the copied token needs one before it", "Give period=2 or more")
    # One more token than the period: the last of each row of distinct tokens is what replaces the one before it.
    drawn = repeated_sequences(
        d_vocab, n, period=period + 1, seed=seed_for("induction_pairs", seed), bos_id=bos, exclude=special
    )[:, : period + 2]
    start, copied, other = drawn[:, :period], drawn[:, period], drawn[:, period + 1]
    prefix = start[:, 1:]
    clean = torch.cat([start, copied[:, None], prefix], dim=1)
    places = _everywhere(n, prefix=period - 1, source=period)
    corrupted = clean.clone()
    corrupted[torch.arange(n), places[corruption]] = other
    return PromptPairs(
        clean=clean,
        corrupted=corrupted,
        answers=copied,
        wrong=other,
        positions=places,
        description=f"induction pairs: BOS + r + r, r of {period} distinct random tokens out of {d_vocab}, "
        f"the {corruption} changed, seed {seed}",
    )


def ioi_pairs(
    tokenizer: PreTrainedTokenizerFast, *, n: int = 32, corruption: Corruption = "swap", bos: bool = True, seed: int = 0
) -> PromptPairs:
    """Indirect-object identification (Wang et al. 2022): "After Mary and John …, John handed the ring to" calls for " Mary".

    Half the prompts name the receiver first, half second, in sentences of our own. IO is the receiver, S1 and S2 the two mentions
    of the giver; `answers` is IO and `wrong` is S. What `corruption` changes in the corrupted prompt:

    * "swap": S2 becomes IO, so that the prompt calls for S: the answers change places;
    * "third": S2 becomes a third name, so that neither of the two stands out;
    * "new": all three mentions become three different new names, so that nothing about IO and S is left.

    Named positions: "IO", "S1", "S1+1", "S2" and "end". `bos` puts the BOS token in front. Names, places and objects are those
    that are one token behind a space in this tokenizer, and sentences those of the commonest length. Drawn from `seed` alone.
    Raises `DataError` when fewer than five names, or no place or object, are single tokens here, or for an unknown `corruption`.
    """
    asked = "indirect-object pairs"
    _check_corruption(asked, corruption, Corruption)
    _check(asked, n, tokenizer)
    names = _enough(asked, "names", words.NAMES, single_words(tokenizer, words.NAMES), 5)
    places = _enough(asked, "places", words.PLACES, single_words(tokenizer, words.PLACES, "the"), 1)
    objects = _enough(asked, "objects", words.OBJECTS, single_words(tokenizer, words.OBJECTS, "the"), 1)
    sentences = _of_one_length(tokenizer, names, places, objects)
    draw = random.Random(seed_for("ioi_pairs", seed))
    clean, corrupted, people = [], [], []
    for row in range(n):
        io, s, *others = draw.sample(sorted(names), 5)
        first, second = (io, s) if row % 2 == 0 else (s, io)
        fill = {"P": draw.choice(sorted(places)), "O": draw.choice(sorted(objects))}
        sentence = draw.choice(sentences)
        new = {
            "swap": {"A": first, "B": second, "S": io},
            "third": {"A": first, "B": second, "S": others[0]},
            "new": {"A": others[1], "B": others[2], "S": others[0]},
        }[corruption]
        clean.append(sentence.format(A=first, B=second, S=s, **fill))
        corrupted.append(sentence.format(**new, **fill))
        people.append((names[io], names[s]))
    tokens, strings = _rows(asked, tokenizer, clean + corrupted, bos)
    answers, wrong = torch.tensor(people).unbind(1)
    return PromptPairs(
        clean=tokens[:n],
        corrupted=tokens[n:],
        answers=answers,
        wrong=wrong,
        positions=_mentions(asked, tokens[:n], answers, wrong),
        texts=tuple(zip(clean, corrupted, strict=True)),
        strings=strings[:n],
        description=f"indirect-object pairs ({corruption}): {len(sentences)} sentences, {len(names)} names, seed {seed}",
    )


def greater_than_pairs(tokenizer: PreTrainedTokenizerFast, *, n: int = 32, bos: bool = True, seed: int = 0) -> PromptPairs:
    """Greater-than (Hanna et al. 2023): "The war lasted from the year 1732 to the year 17" calls for a number above 32.

    In the corrupted prompt the first year ends in 01, so that every number will do. `answers` is a number above the year's last
    two digits and `wrong` one below them (and above 01), each drawn among those that are one token; `greater_than_metric`
    weighs all of them. Named positions: "YY" (its last two digits) and "end". `bos` puts the BOS token in front.
    Raises `DataError` for a tokenizer that does not split four-digit years into two tokens of two digits each.
    """
    asked = "greater-than pairs"
    _check(asked, n, tokenizer)
    split = _centuries(tokenizer)
    ids = _numbers(split)
    nouns = _enough(asked, "nouns", words.EVENTS, single_words(tokenizer, words.EVENTS, "The"), 1)
    # A century must have 01 for the corrupted prompt, and years with another on either side.
    years = {century: sorted(set(found) & set(ids) - {0, 1}) for century, found in split.items() if 1 in found and 1 in ids}
    years = {century: known for century, known in years.items() if len(known) > 2}
    if not years:
        raise DataError(
            asked,
            "of no century from 1100 to 1999 does this tokenizer split 01 and three other years into two tokens of two digits",
            "Use a tokenizer such as GPT-2's, which has a token for every two digits",
        )
    draw = random.Random(seed_for("greater_than_pairs", seed))
    clean, corrupted, answers, wrong = [], [], [], []
    for _ in range(n):
        noun, century = draw.choice(sorted(nouns)), draw.choice(sorted(years))
        known = years[century]
        year = draw.choice(known[1:-1])
        clean.append(_span(noun, century, f"{year:02}"))
        corrupted.append(_span(noun, century, "01"))
        answers.append(ids[draw.choice([other for other in known if other > year])])
        wrong.append(ids[draw.choice([other for other in known if other < year])])
    tokens, strings = _rows(asked, tokenizer, clean + corrupted, bos)
    changed = (tokens[:n] != tokens[n:]).long()
    if bool((changed.sum(1) != 1).any()):
        raise DataError(asked, "the two years differ in more than one token here", "Use another tokenizer")
    return PromptPairs(
        clean=tokens[:n],
        corrupted=tokens[n:],
        answers=torch.tensor(answers),
        wrong=torch.tensor(wrong),
        positions={"YY": changed.argmax(1)},
        texts=tuple(zip(clean, corrupted, strict=True)),
        strings=strings[:n],
        description=f"greater-than pairs: {sum(map(len, years.values()))} years of {len(years)} centuries, seed {seed}",
    )


def greater_than_metric(pairs: PromptPairs, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Probability of all numbers above the year's last two digits minus that of all below or equal, in [−1, 1], as a metric.

    `pairs` come from `greater_than_pairs`; the numbers are 00 to 99, those that are one token here. Larger is better; a
    model that knows nothing of the first year has the same value under the clean and the corrupted prompt.
    """
    from interp.metrics.weighted import weighted_prob

    years = two_digit_ids(tokenizer)
    number_of = {token: number for number, token in years.items()}
    place = pairs.position("YY")
    found = [number_of.get(token) for token in pairs.clean.gather(1, place[:, None])[:, 0].tolist()]
    if None in found:
        raise DataError(
            "the greater-than metric",
            "the pairs' years are not numbers of this tokenizer",
            "Give the tokenizer they were made with",
        )
    numbers, limits = torch.tensor(sorted(years)), torch.tensor([number for number in found if number is not None])
    signs = torch.where(numbers > limits[:, None], 1.0, -1.0)
    return weighted_prob(torch.tensor([years[int(number)] for number in numbers]), signs, position=pairs.position("end"))


def two_digit_ids(tokenizer: PreTrainedTokenizerFast) -> dict[int, int]:
    """The numbers 00 to 99 that are one token behind the first two digits of a year, with their ids."""
    return _numbers(_centuries(tokenizer))


def _centuries(tokenizer: PreTrainedTokenizerFast) -> dict[int, dict[int, int]]:
    """For each century the years that are split after two digits, with the id of the last two: not all are (1900 may be one)."""
    pairs = [(century, number) for century in range(11, 20) for number in range(100)]
    starts = dict(
        zip(range(11, 20), encode_documents([f"the year {century}" for century in range(11, 20)], tokenizer), strict=True)
    )
    whole = encode_documents([f"the year {century}{number:02}" for century, number in pairs], tokenizer)
    found: dict[int, dict[int, int]] = {century: {} for century in starts}
    for (century, number), ids in zip(pairs, whole, strict=True):
        if ids[:-1] == starts[century]:
            found[century][number] = ids[-1]
    return found


def _numbers(centuries: Mapping[int, Mapping[int, int]]) -> dict[int, int]:
    ids = {number: {years[number] for years in centuries.values() if number in years} for number in range(100)}
    return {number: found.pop() for number, found in ids.items() if len(found) == 1}


def _span(noun: str, century: int, year: str) -> str:
    return words.YEARS.format(noun=noun, century=century, year=year) + words.YEARS_END.format(century=century)


def _of_one_length(
    tokenizer: PreTrainedTokenizerFast, names: Mapping[str, int], places: Mapping[str, int], objects: Mapping[str, int]
) -> list[str]:
    """The sentences of the commonest length; the earliest length where several are as common."""
    a, b, *_ = sorted(names)
    fill = {"A": a, "B": b, "S": a, "P": min(places), "O": min(objects)}
    by_length: dict[int, list[str]] = {}
    for sentence in words.TWO_PEOPLE:
        by_length.setdefault(len(ids_of(tokenizer, sentence.format(**fill))), []).append(sentence)
    return max(by_length.values(), key=len)


def _mentions(asked: str, clean: torch.Tensor, io: torch.Tensor, s: torch.Tensor) -> dict[str, torch.Tensor]:
    """Where the names stand. Raises `DataError` unless IO is found once and S twice in each prompt."""
    is_io, is_s = (clean == io[:, None]).long(), (clean == s[:, None]).long()
    if bool((is_io.sum(1) != 1).any()) or bool((is_s.sum(1) != 2).any()):
        raise DataError(asked, "this tokenizer joins some names with what stands beside them", "Use another tokenizer")
    first, last = is_s.argmax(1), clean.shape[1] - 1 - is_s.flip(1).argmax(1)
    return {"IO": is_io.argmax(1), "S1": first, "S1+1": first + 1, "S2": last}


def _rows(asked: str, tokenizer: PreTrainedTokenizerFast, texts: list[str], bos: bool) -> tuple[torch.Tensor, Any]:
    lengths = {len(ids_of(tokenizer, text)) for text in texts}
    if len(lengths) > 1:
        told = f"the prompts have {min(lengths)} to {max(lengths)} tokens here, because it joins words with their neighbours"
        raise DataError(asked, told, "Use another tokenizer")
    if bos:
        bos_id(tokenizer)
    return rows_of(tokenizer, texts, bos)


def _enough(asked: str, what: str, all_words: Sequence[str], found: dict[str, int], least: int) -> dict[str, int]:
    if len(found) < least:
        shown = f" ({', '.join(list(found)[:MOST_EXAMPLES])})" if found else ""
        raise DataError(
            asked,
            f"{len(found)} of {len(all_words)} {what} are one token in this tokenizer{shown}, and {least} are needed",
            "Use a tokenizer with a larger vocabulary of English, or induction_pairs, which need none",
        )
    return found


def _everywhere(n: int, **places: int) -> dict[str, torch.Tensor]:
    return {name: torch.full((n,), place) for name, place in places.items()}


def _check_corruption(asked: str, corruption: str, ways: Any) -> None:
    known = get_args(ways)
    if corruption not in known:
        raise DataError(
            f"{asked} corrupted by {corruption!r}", f"the ways are {', '.join(known)}", f"{nearest(corruption, known)}Use one"
        )


def _check(asked: str, n: int, tokenizer: Any) -> None:
    check_tokenizer(asked, tokenizer)
    if n < 1:
        raise DataError(f"{n} {asked}", "there is at least one", "Give a positive n")


def _shape_of(model: Any) -> tuple[int, int | None]:
    config = getattr(model, "cfg", None)
    d_vocab, n_ctx = getattr(config, "d_vocab", None), getattr(config, "n_ctx", None)
    if not isinstance(d_vocab, int) or d_vocab < 1:
        raise DataError(
            f"induction pairs for a {type(model).__name__}",
            "it does not say how large its vocabulary is",
            "Set model.cfg.d_vocab, or give the size of the vocabulary instead of the model",
        )
    return d_vocab, n_ctx if isinstance(n_ctx, int) and n_ctx > 0 else None
