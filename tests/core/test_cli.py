"""The command `interp`: what it trains and lists, what it says of mistakes, and that help needs no torch."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.cli import main as cli
from interp.cli.main import main
from interp.cli.train import divided, duration
from interp.errors import DataError
from interp.training.plans import read_plans

GRIDS = Path(__file__).parents[2] / "experiments" / "grids"
OWN_TASK = '''
from typing import Literal
import torch
from interp.config import setting
from interp.data import DrawnTask, task

@task
class FirstAgain(DrawnTask):
    """Symbols, then the first of them again."""

    kind: Literal["first_again"] = "first_again"
    length: int = setting(6, "symbols in a sequence")

    @property
    def symbols(self):
        return ("BOS", "a", "b", "c")

    def draw(self, n_sequences, generator):
        drawn = 1 + torch.randint(3, (n_sequences, self.length - 1), generator=generator)
        return torch.cat([drawn, drawn[:, :1]], dim=1), torch.arange(self.length) == self.length - 1
'''
GRID = """
model: {d_model: 8}
data: {kind: first_again, length: 30, n_train: 32, n_validation: 8}
train: {lr: [1e-3, 1e-2], max_steps: 2, batch_size: 16, n_evals: 2, device: cpu}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_tasks.py").write_text(OWN_TASK)
    (tmp_path / "grid.yaml").write_text(GRID)
    yield tmp_path
    sys.modules.pop("own_tasks", None)


def test_help_and_mistakes_in_arguments_need_no_torch() -> None:
    program = """
import sys
from interp.cli.main import main
from interp.cli.main import COMMANDS
for words in (["--help"], ["--version"], [], ["trian"], ["train"], ["train", "x", "--worker", "z"], ["runs", "--json", "--csv"],
              ["--nothing"], ["train", "x", "--workers", "0"], ["score"], ["ablate", "m", "--heads", "1"],
              ["score", "m", "--top", "0"], ["patch", "m", "--pairs", "nothing"], ["smear", "m", "--lags", "0"], ["sample", "m"],
              ["report"], ["completion", "csh"], ["score", "m", "--out", "m.txt"], ["report", "--index", "nowhere"],
              *([name, "--help"] for name in COMMANDS)):
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    assert code == (0 if {"--help", "--version"} & set(words) else 2), (words, code)
assert "torch" not in sys.modules and "pandas" not in sys.modules
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Did you mean 'train'" in found.stderr
    assert all(command in found.stdout for command in cli.COMMANDS)


def test_a_grid_from_a_file_to_its_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a task from a module of one's own, which the worker process must know too."""
    words = ["train", "grid.yaml", "train.seed=3", "--import", "own_tasks"]
    assert main([*words, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["train.lr"], row["steps"], row["length"]) for row in planned] == [
        ("grid-lr=0.001", 0.001, 2, 31),
        ("grid-lr=0.01", 0.01, 2, 31),
    ]
    assert planned[0]["parameters"] == 4 * 8 + (8 * 8 * 3 + 8) + 3 * 8 * 8 + (8 * 4 + 4), "embedding, kernel, q k v, unembedding"
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == ["grid.yaml", "own_tasks.py"]

    assert main([*words, "--out", "made/runs", "--workers", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert {"train.lr", "train_loss", "validation_loss", "folder"} <= set(printed[0].split())
    folders = [line.split()[-1] for line in printed[1:]]
    assert [re.sub(r"-\w+$", "", folder) for folder in folders] == ["made/runs/grid-lr=0.001", "made/runs/grid-lr=0.01"]
    assert json.loads((here / folders[1] / "config.json").read_text())["train"]["lr"] == 0.01
    with (here / "made/runs/runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert sorted(row["train.lr"] for row in table) == ["0.001", "0.01"]

    assert main(["runs", "made", "lr<0.005", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["folder"], row["state"], row["step"]) == (folders[0], "finished", 2)
    assert main(["runs", "made/runs", "data.kind=first_again", "--sort=-lr", "--columns", "name,lr", "--csv"]) == 0
    assert [line.split(",")[1] for line in capsys.readouterr().out.split()] == ["train.lr", "0.01", "0.001"]
    assert main(["runs", "made", "grid-lr=0.01-"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 runs"
    assert main(["runs", "made", "nothing"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 2 runs"
    assert main(["runs", "made", "validation_loss"]) == 2
    assert "validation_loss is a column" in (told := capsys.readouterr().err) and "--sort=validation_loss" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "gird.yaml"], "named 'gird.yaml'. Did you mean 'grid.yaml'"),
        (["train", "train.lr=1"], "none was named"),
        (["train", "grid.yaml", "data.kind=new"], r"data: there is no data of kind 'new'"),
        (["train", "grid.yaml", "--import", "own_task"], r"--import own_task: it cannot be imported \(ModuleNotFoundError"),
        (["train", "grid.yaml", "data={kind: copy}", "data.length=3"], "'data.length', a part of this group, is set too"),
        (["train", "grid.yaml", "--device", "cuda:77", "--import", "own_tasks"], "device|train.device"),
        (["train", "grid.yaml", "--device", "cpu", "train.device=cpu"], "train.device is set twice"),
        (["train", "grid.yaml", "--out", "grid.yaml/x"], "grid.yaml is not a folder that can be written to"),
        (["runs"], "there is no folder 'runs' here yet; interp train writes it"),
        (["runs", "data.kind=copy", "train.lr<1e-3"], "there is no folder 'runs' here yet; interp train writes it"),
        (["score", "attn-only-2l", "--scores", "inductionn"], "Did you mean 'induction'"),
        (["score", "attn-only-2l", "--text", "nope.txt"], "--text nope.txt: it cannot be read"),
        (["report", "attn-only-2l", "--text", "nope.txt"], "--text nope.txt: it cannot be read"),
        (["ablate", "attn-only-2l", "--mode", "zeroo"], "Did you mean 'zero'"),
        (["patch", "attn-only-2l", "--site", "resid_pree"], "Did you mean 'resid_pre'"),
        (["runs", "rusn"], "neither is 'rusn'"),
        (["settings", "modle"], "Did you mean 'model'"),
        (["settings", "model.kind=conv"], "no architecture of kind 'conv'"),
    ],
)
def test_mistakes_end_in_one_message_and_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err)
    assert said.err.startswith(f"interp {words[0]}: ")
    assert "Traceback" not in said.err
    assert said.out == ""
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == ["grid.yaml", "own_tasks.py"]


def test_what_fails_while_working_has_code_1_and_an_interrupt_130(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import interp.training

    def fails(*_: object, **__: object) -> None:
        raise DataError("corpus 'x'", "it is gone", "Bring it back")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = ["train", "grid.yaml", "--import", "own_tasks"]
    monkeypatch.setattr(interp.training, "fit_all", fails)
    assert main(words) == 1
    assert capsys.readouterr().err.endswith("interp train: corpus 'x': it is gone. Bring it back\n")
    monkeypatch.setattr(interp.training, "fit_all", interrupted)
    assert main(words) == 130
    assert "finished runs are kept" in capsys.readouterr().err


def test_settings_are_shown_with_their_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "data", "data.kind=markov"]) == 0
    shown = capsys.readouterr().out
    assert "data.order = 1\n    how many symbols back" in shown
    assert "train.lr" not in shown
    assert re.search("kinds of data: .*modular_addition", shown)


def test_words_are_files_or_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.yaml").write_text("")
    assert divided(["a=b.yaml", "c=d", "e.yaml"]) == (["a=b.yaml", "e.yaml"], ["c=d"])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.01, "1 s"),
        (12.4, "12 s"),
        (89.0, "89 s"),
        (120.0, "2 min"),
        (3600.0, "60 min"),
        (5400.0, "1 h 30 min"),
        (86400.0, "24 h 0 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize("file", sorted(GRIDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_grids_that_come_along_are_right(file: Path) -> None:
    from interp.training.estimate import check_plans

    plans = read_plans([file], ["train.device=cpu"])
    check_plans(plans)
    assert len(plans) == {"induction": 12, "tasks": 8}[file.stem]
