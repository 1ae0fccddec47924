"""The benchmark runs at a size of seconds and writes what it measured; no time is asserted."""

import json
from pathlib import Path

import pytest
import torch

from experiments.score_speed.__main__ import headline, main
from experiments.score_speed.measure import side_by_side
from interp.memory import allocated_at_peak
from interp.result import Result

TINY = ["n_layers=2", "d_model=32", "n_heads=4", "d_vocab=300", "n_sequences=2", "rounds=2", "memory_period=20"]


def test_the_benchmark_ends_in_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        main(["--out", str(tmp_path), *TINY])
    finally:
        torch.set_num_threads(threads)
    assert "The report is at" in capsys.readouterr().out
    data = json.loads((tmp_path / "results.json").read_text())
    spent = Result.from_json(data["results"]["time"])
    assert spent.values.shape == (3, 2)
    assert (
        data["question"] == headline(spent, Result.from_json(data["results"]["memory"]))
        and "bare forward pass" in data["question"]
    )
    assert (spent.values > 0).all()


def test_memory_is_what_tensors_hold_at_once() -> None:
    def call() -> None:
        first = torch.zeros(1024, 1024)
        second = first + 1
        del first, second
        torch.zeros(512, 1024)

    assert 8 <= allocated_at_peak(call) < 8.5


def test_a_perfect_head_scores_one_whatever_the_copies() -> None:
    for copies in (2, 3):
        row = side_by_side(copies).iloc[0]
        assert row["interp"] == pytest.approx(1, abs=1e-6)
        assert row["detect_head mul"] == pytest.approx((copies - 1) * 25 / (1 + copies * 25), abs=0.02)
