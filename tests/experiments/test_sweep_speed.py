"""The benchmark of patching sweeps runs at a size of seconds, counts what a hand counts, and says when something is missing."""

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from experiments.sweep_speed.__main__ import main
from experiments.sweep_speed.answers import Numbers, headline, judged, shown, verdicts
from experiments.sweep_speed.config import DeepConfig
from experiments.sweep_speed.floor import Shape, heads_floor, loop_count, positions_floor
from experiments.sweep_speed.measure import FLOPS, TABLES, TIME, counted, counting, largest, loop_values
from experiments.sweep_speed.tools import OURS, OURS_SHARED, has_nnsight, nnsight_traces, ours, spread_out, transformer_lens
from experiments.sweep_speed.workload import HEADS, PLACES, SWEEPS, toy, transformer
from interp.errors import DataError, InterpError
from interp.result import Result

TINY = DeepConfig(n_layers=2, d_model=12, n_heads=3, d_vocab=31, n_tokens=8, rounds=1, rounds_all_threads=1, sampled=2, checked=2)
BY_HAND = Shape(n_layers=1, d_model=4, n_heads=2, d_vocab=5, n_tokens=3, mlp=16)


def settings(name: str, **values: object) -> list[str]:
    shape = {"d_model": 12, "n_heads": 3, "d_vocab": 31, "n_tokens": 8, "rounds": 1, "rounds_all_threads": 0} | values
    return [f"{name}.{key}={value}" for key, value in shape.items()]


def test_the_benchmark_ends_in_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    growth = ["growth.d_model=8", "growth.n_heads=2", "growth.d_vocab=31", "growth.layers=[1]", "growth.tokens=[4]"]
    main(
        [
            *("--out", str(tmp_path), "product=64", *growth, "growth.pairs=[1,2]", "growth.rounds=1"),
            *settings("gpt2", n_layers=2, n_tokens=6, rounds=2, rounds_all_threads=1, sampled=2, checked=1),
            *settings("gpt2_long", n_layers=1, every=4, sampled=1, checked=1),
            *settings("small", n_layers=1, n_tokens=4, sampled=1),
            *settings("toys", n_tokens=4, sampled=1),
        ]
    )
    assert torch.get_num_threads() == threads
    said = capsys.readouterr().out
    assert "The report is at" in said
    assert "[not tested] On a GPU" in said
    data = json.loads((tmp_path / "results.json").read_text())
    results = {name: Result.from_json(entry) for name, entry in data["results"].items()}
    assert set(TABLES) <= set(results)
    assert results[TIME].values[0].shape == (2, 4 + has_nnsight(), 2)
    assert bool(results[TIME].values[0].isfinite().all())
    assert bool(results[TIME].values[1:, ..., 1].isnan().all()), "one round was timed there"
    for name in ("fewest FLOPs", "memory", "spread of effects"):
        assert bool((results[name].values > 0).all()), name
    page = (tmp_path / "index.html").read_text()
    assert has_nnsight() or "not installed" in page
    assert "each cell restarted at the layer it patches (all)" in page
    again = verdicts(results, "cpu")
    assert data["question"] == headline(results) and "faster than TransformerLens'" in data["question"]
    assert all(card.control in ("", card.control.strip()) and card.control[-1:] in ("", ".") for card in again)
    assert all(card.control[:1] == card.control[:1].upper() for card in again)
    assert [card.outcome for card in again if "same number" in card.question] == ["supported"]


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InterpError, match="no GPU"):
        main(["--out", str(tmp_path), "device=cuda"])


def test_the_floor_by_hand() -> None:
    """One layer of width 4 on 3 tokens: per head 2·2·4 through W_O, 16·16 of MLP, 2·4·2 of logits."""
    assert heads_floor(BY_HAND) == 2 * (16 + 256 + 16)
    first = 3 * 16 + 3 * 256 + (3 * 64 + 320 + 48) + 16  # and before it the last block's keys, values and one position
    assert heads_floor(replace(BY_HAND, n_layers=2)) == 2 * (first + 16 + 256 + 16)
    third = 3 * 16 + 3 * 256 + 3 * (24 * 16 + 48) + (3 * 64 + 320 + 48) + 16
    assert heads_floor(replace(BY_HAND, n_layers=3)) == 2 * (third + first + 16 + 256 + 16)
    assert positions_floor(BY_HAND, shared=1) == (28 * 16 + 48 + 16) + (24 * 16 + 48 + 16)
    assert positions_floor(BY_HAND, every=2) == (32 * 16 + 48 + 16) + (24 * 16 + 48 + 16)
    assert positions_floor(BY_HAND, shared=3) == 0


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_loop_by_closed_form_is_what_is_counted(sweep: str) -> None:
    """TransformerLens runs the clean prompt once, and one full pass a cell; also when two cells are timed and scaled."""
    work = transformer("tiny", TINY, "cpu")
    cells = len(work.cells(sweep))
    for sampled in (2, None):
        found = counted(partial(transformer_lens, replace(work, timing=replace(TINY, sampled=sampled)), sweep))
        assert found.cost == loop_count(work.shape, cells + 1)
        assert len(found.values) == (sampled or cells)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_ours_never_counts_below_the_floor(sweep: str) -> None:
    work = transformer("tiny", TINY, "cpu")
    for shared in (0, work.shared(sweep)):
        floor = heads_floor(work.shape, shared) if sweep == HEADS else positions_floor(work.shape, shared)
        assert floor < counted(partial(ours, work, sweep, shared)).cost < 3 * loop_count(work.shape, len(work.cells(sweep)))


def test_attention_is_counted() -> None:
    queries = torch.randn(2, 3, 5, 4)
    for options in ({"is_causal": True}, {"attn_mask": torch.ones(5, 5, dtype=torch.bool)}):
        with torch.no_grad(), counting() as counter:
            torch.nn.functional.scaled_dot_product_attention(queries, queries, queries, **options)  # type: ignore[arg-type]
        assert counter.get_total_flops() == 2 * (2 * 2 * 3 * 5 * 5 * 4)


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize("name", ["transformer", "ConvAttn"])
def test_every_tool_finds_the_same(sweep: str, name: str) -> None:
    work = transformer("tiny", TINY, "cpu") if name == "transformer" else toy(name, TINY, "cpu")
    own = ours(work, sweep, 0, time.perf_counter).values
    spread = max(own.values()) - min(own.values())
    assert spread > 0.01
    others = [transformer_lens(work, sweep, time.perf_counter).values, loop_values(work, sweep, 0)]
    if has_nnsight():
        others.append(nnsight_traces(work, sweep, time.perf_counter).values)
    for values in others:
        assert largest(values, own) < 1e-4 * spread
    shuffled = {cell: -value for cell, value in own.items()}
    assert largest(others[0], shuffled) > 0.01, "control: a wrong sweep is seen"


def test_prompts_differ_where_they_should() -> None:
    work = transformer("tiny", TINY, "cpu", n_pairs=2)
    assert not bool((work.clean == work.corrupted).any())
    same = work.clean == work.corrupted_sharing(work.shared(HEADS))
    assert bool(same[:, :6].all())
    assert not bool(same[:, 6:].any())


def test_an_undefined_cell_is_no_agreement() -> None:
    with pytest.raises(DataError, match="missing or undefined"):
        largest({(0, 0): 1.0, (0, 1): float("nan")}, {(0, 0): 1.0, (0, 1): 1.0})
    with pytest.raises(DataError, match="missing or undefined"):
        largest({(0, 0): 1.0}, {})


def test_outcomes_follow_the_numbers() -> None:
    assert [judged(met) for met in ([True, True], [True, False], [False], [])] == ["supported", "mixed", "refuted", "not tested"]
    values = torch.tensor([[[[1.0, 2.0, 1.0], [12.0, 12.0, 9.0]]]], dtype=torch.float64)
    labels = {"model": ("m",), "sweep": (PLACES,), "tool": (OURS, "other")}
    numbers = Numbers({TIME: Result(name=TIME, values=values, axes=TABLES[TIME][0], labels=labels)})
    assert shown(numbers.ratios("m", PLACES, "other")) == "9.0 (6.0–12.0)"
    for rounds, said in (
        ([1.9, 1.9, 2.0], "1.90 (1.90–2.00)"),
        ([3.0, 3.1, 3.0], "3.0 (3.0–3.1)"),
        ([99.6, 120.0, 130.0], "120 (100–130)"),
    ):
        assert shown(torch.tensor(rounds)) == said
    assert numbers.ratios("m", PLACES, "other", OURS_SHARED).numel() == 0
    assert bool(numbers.get(FLOPS, "m").isnan())


def test_a_sample_is_spread_from_first_to_last() -> None:
    assert spread_out(range(10), 4) == [0, 3, 6, 9]
    assert spread_out(range(5), 1) == [2]
    assert spread_out(range(3), 7) == spread_out(range(3), None) == [0, 1, 2]
