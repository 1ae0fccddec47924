"""The two fine-tuning studies on a published model: a GPT-2 of a few thousand random weights in a Hugging Face folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.attention_ablation import __main__ as attention
from experiments.optimizer_comparison import __main__ as optimizers
from experiments.optimizer_comparison.answers import BEFORE
from experiments.optimizer_comparison.config import ADAMW, OPTIMIZERS, PRESETS, SGD, grid, lowest
from experiments.optimizer_comparison.measure import best_rates
from interp.cli import run_study
from interp.errors import DataError
from interp.result import Result
from interp.training.grid import GridError
from tests.training.tiny import published, write_text


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The settings of a study that ends in seconds."""
    return [
        "--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1", "--preset", "gpt2", "seeds=[0]",
        f"model={published(tmp_path / 'tiny-gpt2')}", f"moved.then.corpus={write_text(tmp_path)}", "moved.then.length=24",
        "moved.then.n_train=16", "moved.then.n_held_out=8", "train.epochs=1", "train.batch_size=8",
    ]  # fmt: skip


def results_in(folder: Path) -> tuple[dict[str, Result], str]:
    data = json.loads((folder / "results.json").read_text())
    return {name: Result.from_json(found) for name, found in data["results"]["results"].items()}, (
        folder / "index.html"
    ).read_text()


def test_optimizers_on_a_published_model(tmp_path: Path, words: list[str]) -> None:
    optimizers.main([*words, "rates=3", "timed_steps=2"])
    found, html = results_in(tmp_path / "page")
    assert "The base model is tiny-gpt2 as published" in html
    losses = dict(zip(found["test loss"].labels_of("variant"), found["test loss"].values[:, 0].tolist(), strict=True))
    assert len(set(losses.values())) == len(OPTIMIZERS) + 1
    assert losses[ADAMW] < losses[BEFORE]
    assert found["padding"].values[:2].tolist() == [0, 0]


def test_attention_ablated_in_a_published_model(tmp_path: Path, words: list[str]) -> None:
    attention.main([*words, "sweep_rows=4", "sweep_length=8", "floor_rows=16", "train.lr=1e-2"])
    found, _ = results_in(tmp_path / "page")
    assert found["heads"].values.shape == (2, 1, 2, 3)
    assert found["removal"].values[:, 0].tolist() == [0] * 4
    assert len(set(found["test loss"].values[:, 0].tolist())) == 11


def test_without_the_hub_the_error_names_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import HfApi, constants

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    for main in (optimizers.main, attention.main):
        assert run_study(main, ["--preset", "gpt2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]) == 1
        assert "there is no folder 'gpt2'" in (told := capsys.readouterr().err) and "give a folder" in told
    assert not (tmp_path / "page").exists()


def test_a_rate_at_which_training_diverges_is_not_chosen(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = optimizers.study_command("x", "?", PRESETS, [*words, "rates=3"])
    asked: dict[str, Any] = {}

    def diverging(configs: dict[str, Any], folder: Path, **_: object) -> None:
        asked.update(configs)
        wild = [name for name in configs if name.startswith("search-sgd-0")][-2:]
        raise GridError("training", "some failed", "Look", {name: Path(name) for name in configs if name not in wild}, wild)

    class Opened:
        def __init__(self, config: Any, folder: Path):
            self.metrics = [{"answer_loss": abs(config.train.lr - 1e-2)}]

    starts = optimizers.bases(command.config.model, command.config.moved, [0, 9], tmp_path / "runs", 1)
    monkeypatch.setattr(optimizers, "fit_all", diverging)
    monkeypatch.setattr(optimizers, "open_run", Opened)
    table = optimizers.search(command, starts, 16)
    row = table.values[list(OPTIMIZERS).index(SGD)]
    assert row.isnan().tolist() == [False, True, True]
    assert lowest(row) == 0
    assert best_rates(table, command.config)[SGD] == grid(command.config, SGD)[0]
    table.values[0] = torch.nan
    with pytest.raises(DataError, match="AdamW: it diverged at every rate"):
        best_rates(table, command.config)

    def failing(*_: object, **__: object) -> None:
        raise GridError("training", "a worker died", "Look", {}, ["one"])

    monkeypatch.setattr(optimizers, "fit_all", failing)
    with pytest.raises(GridError, match="a worker died"):
        optimizers.search(command, starts, 16)
