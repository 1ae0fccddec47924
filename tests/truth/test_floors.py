"""N-gram floors: worked out by hand, against a slow loop, and what must fail."""

import math
from collections import Counter

import pytest
import torch

import interp
from interp.errors import DataError


def test_a_cycle_is_certain_to_bigrams_and_uniform_to_unigrams() -> None:
    rows = torch.arange(41).remainder(4).expand(3, 41)
    floors = interp.ngram_floors(rows, rows, 4)
    assert float(floors.values[0, 1]) == pytest.approx(math.log(4))
    assert float(floors.values[1, 1]) == 0
    assert float(floors.values[1, 0]) < 0.1
    assert float(floors.values[0, 0]) > 1.3


def test_tokens_drawn_alone_gain_nothing_from_the_one_before() -> None:
    draws = torch.multinomial(
        torch.tensor([0.5, 0.25, 0.25]), 60000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    rows = draws.reshape(300, 200)
    floors = interp.ngram_floors(rows[:200], rows[200:], 3).values
    entropy = 1.5 * math.log(2)
    assert torch.allclose(floors, torch.full((2, 2), entropy, dtype=torch.float64), atol=0.01)


def slow(train: torch.Tensor, held_out: torch.Tensor, d_vocab: int) -> tuple[float, float, float]:
    """Held-out unigram and bigram losses, and the largest deviation of a bigram distribution's sum from 1."""
    ones = Counter(token for row in train.tolist() for token in row[1:])
    twos = Counter(pair for row in train.tolist() for pair in zip(row, row[1:], strict=False))
    kinds, total = Counter(a for a, _ in twos), Counter()
    for (a, _), n in twos.items():
        total[a] += n
    seen = [list(twos.values()).count(n) for n in (1, 2)]
    discount = seen[0] / (seen[0] + 2 * seen[1]) if all(seen) else 0.5

    def one(b: int) -> float:
        return (ones[b] + 1) / (sum(ones.values()) + d_vocab)

    def two(a: int, b: int) -> float:
        if not total[a]:
            return one(b)
        return (max(twos[a, b] - discount, 0) + discount * kinds[a] * one(b)) / total[a]

    pairs = [pair for row in held_out.tolist() for pair in zip(row, row[1:], strict=False)]
    sums = [abs(sum(two(a, b) for b in range(d_vocab)) - 1) for a in range(d_vocab)]
    return (
        -sum(math.log(one(b)) for _, b in pairs) / len(pairs),
        -sum(math.log(two(a, b)) for a, b in pairs) / len(pairs),
        max(sums),
    )


@pytest.mark.parametrize("n_rows", [1, 12])
def test_equals_a_slow_loop(n_rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    train, held_out = (torch.randint(0, 9, (n, 7), generator=generator).square() // 8 for n in (n_rows, 5))
    unigram, bigram, off = slow(train, held_out, 11)
    floors = interp.ngram_floors(train, held_out, 11)
    assert float(floors.values[0, 0]) == pytest.approx(unigram, abs=1e-12)
    assert float(floors.values[1, 0]) == pytest.approx(bigram, abs=1e-12)
    assert off < 1e-12
    assert floors.count == 30


def test_padding_left_out_changes_nothing() -> None:
    rows = torch.randint(0, 9, (6, 7), generator=torch.Generator().manual_seed(2))
    padded = torch.cat([rows, torch.full((6, 5), 3)], 1)
    real = torch.ones_like(padded, dtype=torch.bool)
    real[:, 7:] = False
    masked = interp.ngram_floors(padded, padded, 9, train_counted=real, counted=real)
    assert torch.equal(masked.values, interp.ngram_floors(rows, rows, 9).values)
    assert not torch.equal(masked.values, interp.ngram_floors(padded, padded, 9).values)


def test_what_cannot_be_counted_is_refused() -> None:
    rows = torch.randint(0, 9, (6, 7))
    with pytest.raises(DataError, match="ids outside 0 to 4"):
        interp.ngram_floors(rows * 0 + 5, rows * 0, 5)
    with pytest.raises(DataError, match="floors of held_out: no token is predicted"):
        interp.ngram_floors(rows, rows[:, :1], 9)
    with pytest.raises(DataError, match="floors of train: no token is predicted"):
        interp.ngram_floors(rows[:0], rows, 9)
    with pytest.raises(DataError, match="floors of train: it has shape"):
        interp.ngram_floors(rows, rows, 9, train_counted=torch.ones(2, 2, dtype=torch.bool))
