"""Every task against a slow solver of its own, written from the task's description: the answers, and where they stand."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from interp.data import (
    DATA,
    BracketsConfig,
    CopyConfig,
    HistogramConfig,
    InductionConfig,
    MarkovConfig,
    ModularAdditionConfig,
    RepeatedConfig,
    ReverseConfig,
    SortConfig,
    Task,
    TokenData,
    load_data,
)
from interp.data.markov import stationary
from interp.errors import ConfigError, DataError

SMALL = {"n_train": 300, "n_validation": 40}
Solver = Callable[[list[str]], dict[int, str]]


def after_separator(answer: Callable[[list[str]], list[str]]) -> Solver:
    def solve(row: list[str]) -> dict[int, str]:
        place = row.index("SEP")
        return dict(enumerate(answer(row[1:place]), start=place + 1))

    return solve


def looked_up(row: list[str]) -> dict[int, str]:
    value_of: dict[str, str] = {}
    answers = {}
    for place, token in enumerate(row):
        if token.startswith("k"):
            if token in value_of:
                answers[place + 1] = value_of[token]
            value_of[token] = row[place + 1]
    return answers


def verdict(row: list[str]) -> dict[int, str]:
    string = "".join(row[1:-1])
    for _ in string:
        for pair in ("()", "[]", "{}", "<>"):
            string = string.replace(pair, "")
    return {len(row) - 1: "unbalanced" if string else "balanced"}


def added(modulus: int) -> Solver:
    def solve(row: list[str]) -> dict[int, str]:
        _, a, plus, b, equals, _ = row
        assert (plus, equals) == ("+", "=")
        return {5: str((int(a) + int(b)) % modulus)}

    return solve


def repeats(shortest: int, longest: int) -> Solver:
    """What every period that fits the beginning agrees on."""

    def solve(row: list[str]) -> dict[int, str]:
        tokens, answers = row[1:], {}
        for place in range(len(tokens)):
            begun = tokens[:place]
            next_tokens: set[str | None] = set()
            for period in range(shortest, longest + 1):
                fits = all(begun[i] == begun[i % period] for i in range(place)) and len(set(begun[:period])) == len(
                    begun[:period]
                )
                if fits:
                    next_tokens.add(begun[place - period] if place >= period else None)
            if len(next_tokens) == 1 and None not in next_tokens:
                answers[place + 1] = str(next_tokens.pop())
        return answers

    return solve


CASES: list[tuple[Task, Solver]] = [
    (CopyConfig(n_symbols=5, length=7, **SMALL), after_separator(lambda string: string)),
    (ReverseConfig(n_symbols=5, length=7, **SMALL), after_separator(lambda string: string[::-1])),
    (SortConfig(n_symbols=13, length=6, **SMALL), after_separator(lambda string: sorted(string, key=int))),
    (HistogramConfig(n_symbols=3, length=5, **SMALL), after_separator(lambda string: [f"x{string.count(s)}" for s in string])),
    (InductionConfig(n_keys=7, n_values=3, n_distractors=5, n_pairs=4, n_noise=6, **SMALL), looked_up),
    (InductionConfig(n_keys=3, n_values=1, n_distractors=1, n_pairs=3, n_noise=1, **SMALL), looked_up),
    (BracketsConfig(n_types=1, length=12, **SMALL), verdict),
    (BracketsConfig(n_types=4, length=8, **SMALL), verdict),
    (ModularAdditionConfig(modulus=11), added(11)),
    (RepeatedConfig(d_vocab=12, period=5, **SMALL), repeats(5, 5)),
    (RepeatedConfig(d_vocab=9, period=8, min_period=3, **SMALL), repeats(3, 8)),
    (RepeatedConfig(d_vocab=9, period=6, min_period=1, **SMALL), repeats(1, 6)),
]


def named_rows(data: TokenData, split: str) -> list[list[str]]:
    assert data.symbols is not None
    return [[data.symbols[token] for token in row] for row in getattr(data, split).tolist()]


@pytest.mark.parametrize(("config", "solve"), CASES, ids=lambda value: getattr(value, "kind", ""))
def test_answers_are_those_of_a_slow_solver(config: Task, solve: Solver) -> None:
    data = load_data(config)
    assert data.answers is not None
    assert data.symbols is not None
    assert (data.floor, data.bos_id, data.tokenizer, len(data.symbols)) == (0.0, 0, None, data.d_vocab)
    assert len(set(data.symbols)) == data.d_vocab
    used = set()
    for split in ("train", "validation", "test"):
        tokens, mask = getattr(data, split), data.answers[split]
        assert mask.shape == tokens.shape
        assert (tokens[:, 0] == 0).all()
        assert (tokens[:, 1:] > 0).all()
        for row, marked in zip(named_rows(data, split), mask.tolist(), strict=True):
            right = solve(row)
            assert {place for place, is_answer in enumerate(marked) if is_answer} == set(right)
            assert all(row[place] == answer for place, answer in right.items())
            used |= set(row)
    assert used == set(data.symbols), "every symbol occurs"


def test_every_task_of_the_library_has_a_case() -> None:
    own = {kind for kind in DATA if DATA[kind].__module__.startswith("interp.")}
    assert own == {config.kind for config, _ in CASES} | {"markov", "text", "padded_text"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", [config for config, _ in CASES] + [MarkovConfig(**SMALL)], ids=lambda config: config.kind)
def test_seeds_decide_and_splits_differ(config: Task) -> None:
    from dataclasses import replace

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    data = load_data(config)
    assert torch.equal(torch.rand(2), expected), "the global generator is left alone"
    assert data.fingerprint == load_data(config).fingerprint
    other = load_data(replace(config, seed=7))  # type: ignore[call-arg]
    assert other.fingerprint != data.fingerprint
    assert not torch.equal(data.validation, data.test)


@pytest.mark.parametrize(
    "config",
    [
        CopyConfig(n_symbols=3, length=4, n_train=500, n_validation=60),  # 81 sequences
        BracketsConfig(n_types=1, length=8, n_train=500, n_validation=60),
        InductionConfig(n_keys=3, n_values=3, n_distractors=1, n_pairs=2, n_noise=0, n_train=500, n_validation=60),
        ModularAdditionConfig(modulus=7),
    ],
    ids=lambda config: config.kind,
)
def test_no_sequence_stands_in_two_splits(config: Task) -> None:
    data = load_data(config)
    splits = [set(map(tuple, getattr(data, split).tolist())) for split in ("train", "validation", "test")]
    assert all(splits)
    assert len(set.union(*splits)) == sum(map(len, splits))


def test_a_space_too_small_to_share_is_refused() -> None:
    with pytest.raises(DataError, match=r"task 'copy', split '\w+': it has too few different sequences: \d+ of \d+ drawn"):
        load_data(CopyConfig(n_symbols=1, length=3))


def test_the_addition_table_is_divided_without_mirror_images() -> None:
    data = load_data(ModularAdditionConfig(modulus=13, held_out=0.3))
    splits = {
        name: [(row[1] - 1, row[3] - 1) for row in getattr(data, name).tolist()] for name in ("train", "validation", "test")
    }
    assert sorted(pair for pairs in splits.values() for pair in pairs) == [(a, b) for a in range(13) for b in range(13)]
    assert all((b, a) in pairs for pairs in map(set, splits.values()) for a, b in pairs)
    n_held = round(0.3 * 13 * 14 / 2)
    assert [len({frozenset(pair) for pair in pairs}) for pairs in splits.values()] == [
        91 - n_held,
        n_held // 2,
        n_held - n_held // 2,
    ]
    with pytest.raises(ConfigError, match="held_out 0.1 of the 3 sums modulo 2 are 0: at least 2 must be held out"):
        ModularAdditionConfig(modulus=2, held_out=0.1)


def test_brackets_are_balanced_uniformly_and_broken_fairly() -> None:
    n_rows = 6000
    draw = BracketsConfig(n_types=1, length=6).draw(n_rows, torch.Generator().manual_seed(0))[0]
    balanced = draw[draw[:, -1] == 4][:, :-1]
    found, counts = balanced.unique(dim=0, return_counts=True)
    assert len(found) == 5, "the Catalan number of three pairs"
    half = (
        BracketsConfig(n_types=1, length=6)
        ._balanced(n_rows, torch.Generator().manual_seed(1))
        .unique(dim=0, return_counts=True)[1]
    )
    expected = n_rows / 5
    assert float(((half - expected) ** 2 / expected).sum()) < 4 + 5 * math.sqrt(8)  # chi-squared: mean and five deviations
    data = load_data(BracketsConfig(n_types=2, length=16, n_train=4000))
    rows = named_rows(data, "train")
    wrong = [Counter(row[1:-1]) for row in rows if row[-1] == "unbalanced"]
    assert 0.43 < len(wrong) / len(rows) < 0.5
    evenly = sum(count["("] == count[")"] and count["["] == count["]"] for count in wrong) / len(wrong)
    assert 0.3 < evenly < 0.6, "counting does not tell"


@pytest.mark.parametrize(("order", "n_symbols", "sharpness"), [(1, 5, 1.5), (2, 4, 2.0), (3, 3, 1.0)])
def test_the_entropy_of_a_markov_language_is_that_of_a_long_sample(order: int, n_symbols: int, sharpness: float) -> None:
    config = MarkovConfig(n_symbols=n_symbols, order=order, sharpness=sharpness, length=60, n_train=2000)
    data = load_data(config)
    assert data.answers is not None
    assert data.floor is not None
    table = config.table().tolist()
    surprises = []
    for row, marked in zip(data.train.tolist(), data.answers["train"].tolist(), strict=True):
        symbols = [token - 1 for token in row[1:]]
        assert marked == [False] * (1 + order) + [True] * (60 - order)
        for place in range(order, 60):
            context = 0
            for symbol in symbols[place - order : place]:
                context = context * n_symbols + symbol
            surprises.append(-math.log(table[context][symbols[place]]))
    found = torch.tensor(surprises, dtype=torch.float64).view(2000, 60 - order)
    error = float(found.mean(dim=1).std()) / math.sqrt(2000)
    assert abs(float(found.mean()) - data.floor) < 4 * error
    assert error < 0.01
    first, last = found[:, 0], found[:, -1]
    assert abs(float(first.mean() - last.mean())) < 4 * float(torch.stack([first, last]).std()) * math.sqrt(2 / 2000), (
        "stationary"
    )
    counts = torch.bincount(data.train[:, 1:].flatten() - 1).double()
    unigram = float(torch.special.entr(counts / counts.sum()).sum())
    assert unigram > data.floor + 0.05, "the control: without its context a symbol is more of a surprise"


def test_the_stationary_distribution_by_hand() -> None:
    table = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(stationary(table), torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert MarkovConfig(n_symbols=6, sharpness=0).floor == pytest.approx(math.log(6), rel=1e-12)
    assert MarkovConfig(language_seed=1).floor != MarkovConfig(language_seed=2).floor
    for order in (2, 3):  # against many steps of the chain
        config = MarkovConfig(n_symbols=3, order=order, sharpness=1.0)
        table, state = config.table(), torch.full((3**order,), 3.0**-order, dtype=torch.float64)
        for _ in range(300):
            moved = torch.zeros_like(state)
            for context in range(3**order):
                for symbol in range(3):
                    moved[(3 * context + symbol) % 3**order] += state[context] * table[context, symbol]
            state = moved
        torch.testing.assert_close(stationary(table), state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BracketsConfig(length=7), "length must be even, not 7"),
        (lambda: BracketsConfig(n_types=5), "less than or equal to 4"),
        (lambda: InductionConfig(n_keys=3, n_pairs=4), "n_pairs must be at most n_keys = 3, not 4"),
        (lambda: MarkovConfig(n_symbols=40, order=2), r"must be at most 1024, not 40\*\*2"),
        (lambda: MarkovConfig(n_symbols=4, order=3, length=3), "length must be more than order = 3"),
        (lambda: CopyConfig(length=0), "length: .*greater than 0"),
        (lambda: CopyConfig(n_train=0), "n_train: .*greater than 0"),
        (lambda: ModularAdditionConfig(held_out=1.0), "less than 1"),
    ],
)
def test_impossible_settings(make: Callable[[], Task], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
