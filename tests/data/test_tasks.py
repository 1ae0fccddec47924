"""Repeated random tokens: structure, distinctness, uniformity, separate streams."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.config import as_dict, build
from interp.data import RepeatedConfig, load_task, repeated_sequences
from interp.data.repeated import _distinct
from interp.errors import ConfigError, DataError


@given(st.data())
def test_structure_for_any_vocabulary(data: st.DataObject) -> None:
    d_vocab = data.draw(st.integers(2, 300))
    bos = data.draw(st.integers(0, d_vocab - 1))
    exclude = data.draw(st.sets(st.integers(0, d_vocab - 1), max_size=d_vocab // 2))
    available = d_vocab - len({bos, *exclude})
    period = data.draw(st.integers(1, max(1, available)))
    if period > available:
        with pytest.raises(DataError, match=f"only {available} of {d_vocab} remain"):
            repeated_sequences(d_vocab, 3, period=period, seed=0, bos_id=bos, exclude=exclude)
        return
    tokens = repeated_sequences(d_vocab, 7, period=period, seed=data.draw(st.integers(0, 99)), bos_id=bos, exclude=exclude)
    assert tokens.shape == (7, 1 + 2 * period)
    assert (tokens[:, 0] == bos).all()
    assert torch.equal(tokens[:, 1 : 1 + period], tokens[:, 1 + period :])
    for row in tokens[:, 1 : 1 + period].tolist():
        assert len(set(row)) == period
        assert set(row) <= set(range(d_vocab)) - {bos, *exclude}


def test_seed_decides_everything_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = repeated_sequences(50, 9, period=4, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, repeated_sequences(50, 9, period=4, seed=1))
    assert not torch.equal(first, repeated_sequences(50, 9, period=4, seed=2))


@pytest.mark.parametrize(("n_options", "n_drawn"), [(5, 2), (5, 3), (4, 4)])  # by rejection, by sorting, a permutation
def test_every_order_is_equally_likely(n_options: int, n_drawn: int) -> None:
    n_rows = 24_000
    rows = _distinct(n_options, n_rows, n_drawn, torch.Generator().manual_seed(3))
    found, counts = rows.unique(dim=0, return_counts=True)
    n_orders = math.perm(n_options, n_drawn)
    assert len(found) == n_orders
    expected = n_rows / n_orders
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < n_orders + 5 * math.sqrt(2 * n_orders)  # chi-squared: mean and five standard deviations


def test_sorting_in_chunks_keeps_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.data.repeated._KEYS_AT_ONCE", 25)
    tokens = repeated_sequences(11, 17, period=8, seed=0)
    assert tokens.shape == (17, 17)
    assert len(tokens.unique(dim=0)) == 17


def test_large_vocabulary_uses_all_of_it() -> None:
    tokens = repeated_sequences(50_000, 2_000, period=31, seed=0)
    assert tokens.max() > 49_900
    assert (tokens[:, 1:32].sort(dim=1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize(("n_sequences", "period"), [(0, 3), (3, 0), (-1, 3)])
def test_counts_must_be_positive(n_sequences: int, period: int) -> None:
    with pytest.raises(DataError, match="must be at least 1"):
        repeated_sequences(10, n_sequences, period=period, seed=0)


def test_splits_are_separate_streams() -> None:
    data = load_task(RepeatedConfig(d_vocab=40, period=9, n_train=50, n_validation=30))
    assert (data.train.shape, data.validation.shape, data.test.shape) == ((50, 19), (30, 19), (30, 19))
    assert (data.d_vocab, data.bos_id, data.tokenizer) == (40, 0, None)
    rows = [tuple(row) for split in (data.train, data.validation, data.test) for row in split.tolist()]
    assert len(set(rows)) == len(rows)


def test_every_setting_changes_the_tokens() -> None:
    base = {"d_vocab": 40, "period": 9, "n_train": 50, "n_validation": 30, "seed": 0}
    prints = {load_task(RepeatedConfig(**base)).fingerprint}
    assert load_task(RepeatedConfig(**base)).fingerprint in prints
    for name, value in {"d_vocab": 41, "period": 8, "n_train": 51, "n_validation": 31, "seed": 1}.items():
        prints.add(load_task(RepeatedConfig(**{**base, name: value})).fingerprint)
    assert len(prints) == 6


def test_settings_survive_a_file_and_refuse_the_impossible() -> None:
    config = RepeatedConfig(d_vocab=20, period=19)
    assert build(RepeatedConfig, as_dict(config)) == config
    with pytest.raises(ConfigError, match=r"period must be at most d_vocab - 1 = 19, not 20"):
        build(RepeatedConfig, {"d_vocab": 20, "period": 20})
    with pytest.raises(ConfigError, match=r"n_train must be at least 1, not 0"):
        build(RepeatedConfig, {"n_train": 0})


def test_varied_periods_repeat_without_a_fixed_distance() -> None:
    config = RepeatedConfig(d_vocab=41, period=9, min_period=4, n_train=300, n_validation=7)
    data = load_task(config)
    assert data.train.shape == (300, 19)
    found = set()
    for row in data.train[:, 1:].tolist():
        period = next(p for p in range(1, 19) if all(row[i] == row[i % p] for i in range(18)))
        assert len(set(row[:period])) == period, "the tokens of r are distinct"
        found.add(period)
    assert found == set(range(4, 10))
    with pytest.raises(ConfigError, match="min_period must lie between 1 and period = 9, not 10"):
        build(RepeatedConfig, {"d_vocab": 41, "period": 9, "min_period": 10})
