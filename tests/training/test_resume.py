"""A run that is killed (a real SIGKILL, at any moment) and started again ends bit-equal to one that was not."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.worked_examples.training_corrupt_inputs import CorruptInputs
from experiments.worked_examples.training_freeze_layers import FreezeLayers
from experiments.worked_examples.training_largest_parameter import LargestParameter
from interp.data import RepeatedConfig
from interp.errors import ConfigError, RunFolderError
from interp.models import AttnAttnConfig
from interp.provenance import weights_hash
from interp.training import Callback, RunConfig, TrainConfig, Training, fit, is_finished, kept_checkpoints, open_checkpoint

CONFIG = RunConfig(
    model=AttnAttnConfig(d_model=12, n_layers=3, residual=True, positions=True),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(
        epochs=10,
        batch_size=16,
        lr=1e-2,
        n_evals=8,
        device="cpu",
        checkpoint_steps=3,
        keep_checkpoints=4,
        checkpoint_seconds=None,
    ),
)
TIMES = {"seconds", "seconds_per_step"}
N_STEPS = 40


class Dropout(Callback):
    """Dropout on the embedding: the model's forward pass draws random numbers."""

    def on_start(self, training: Training) -> None:
        training.model.add_hook("hook_embed", lambda x, hook: torch.nn.functional.dropout(x, 0.1, training.model.training))


class Slow(Callback):
    """Takes its time, so that a kill falls somewhere inside."""

    def after_step(self, training: Training) -> None:
        time.sleep(0.002)


class KillAtRename(Callback):
    """Kills the process when a checkpoint is written: half of it, all but the rename, or just after."""

    def __init__(self, when: str, step: int):
        self.when, self.step = when, step

    def on_start(self, training: Training) -> None:
        replace_file, marker = os.replace, training.folder / "was-killed"  # type: ignore[operator]

        def killing(source: str, target: Any) -> None:
            if Path(target).name == "checkpoint.pt" and training.step >= self.step and not marker.exists():
                marker.touch()
                if self.when == "half written":
                    os.truncate(source, os.path.getsize(source) // 2)
                if self.when == "after":
                    replace_file(source, target)
                os.kill(os.getpid(), signal.SIGKILL)
            replace_file(source, target)

        os.replace = killing


def seen() -> list[Callback]:
    return [CorruptInputs(0.2), FreezeLayers(0.4), LargestParameter(every=7), Dropout(), Slow()]


def train_here(folder: Path, kill: tuple[str, int] | None) -> None:
    torch.set_num_threads(1)
    killing = [] if kill is None else [KillAtRename(*kill)]
    fit(CONFIG, folder, callbacks=[*seen(), *killing], progress=False)


def in_process(target: Callable, *arguments: Any) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interp.training.fit", "interp.models", "torch._dynamo"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def end_of(folder: Path) -> tuple[str, list[dict[str, Any]], dict[int, str]]:
    from interp import load_model

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = {step: weights_hash(open_checkpoint(folder, step)) for step in kept_checkpoints(folder)}
    return weights_hash(load_model(folder)), [{k: v for k, v in row.items() if k not in TIMES} for row in rows], kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """How the run ends when nothing happens to it."""
    folder = tmp_path_factory.mktemp("whole")
    fit(CONFIG, folder, callbacks=seen(), progress=False)
    assert not (folder / "checkpoint.pt").exists()
    return end_of(folder)


def written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def test_killed_at_random_moments_it_ends_the_same(whole: tuple, tmp_path: Path) -> None:
    moments, kills, checkpoint = random.Random(0), 0, tmp_path / "run" / "checkpoint.pt"
    for _ in range(40):
        before, process = written(checkpoint), in_process(train_here, tmp_path / "run", None)
        if kills < 4:
            while process.is_alive() and written(checkpoint) in (before, None):
                time.sleep(0.002)
            process.join(moments.uniform(0, 0.04))
            process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if is_finished(tmp_path / "run"):
            break
    assert kills >= 3
    assert end_of(tmp_path / "run") == whole


@pytest.mark.parametrize(("when", "step"), [("half written", 3), ("before", 21), ("after", 18)])
def test_killed_while_a_checkpoint_is_written(whole: tuple, when: str, step: int, tmp_path: Path) -> None:
    first = in_process(train_here, tmp_path, (when, step))
    first.join()
    assert first.exitcode == -signal.SIGKILL
    assert not is_finished(tmp_path)
    again = in_process(train_here, tmp_path, (when, step))
    again.join()
    assert again.exitcode == 0
    assert end_of(tmp_path) == whole
    assert not list(tmp_path.glob(".*.tmp")), "what was half-written is gone"


class StopAt(Callback):
    """Leaves the loop by an error, as Ctrl-C does."""

    def __init__(self, step: int):
        self.at = step

    def on_start(self, training: Training) -> None:
        self.begun_at = training.step

    def after_step(self, training: Training) -> None:
        if training.step == self.at and self.begun_at == 0:
            raise KeyboardInterrupt


SMALL = replace(CONFIG, train=replace(CONFIG.train, epochs=3, checkpoint_steps=4))


def test_it_goes_on_from_the_checkpoint_and_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    stop, largest = StopAt(7), LargestParameter(every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(SMALL, tmp_path, callbacks=[stop, LargestParameter(every=1)], progress=False)
    steps: list[int] = []
    fit(SMALL, tmp_path, callbacks=[stop, largest], on_step=lambda: steps.append(stop.begun_at), progress=False)
    assert steps == [4] * 8, "steps 5 to 12"
    assert [step for step, _ in largest.seen] == list(range(1, 13)), "a callback's state goes on too"
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    again = fit(SMALL, tmp_path, callbacks=[stop, largest], on_step=lambda: steps.append(0), progress=False)
    assert len(steps) == 8
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert [row["step"] for row in again.metrics] == [row["step"] for row in fit(SMALL, progress=False).metrics]


def test_another_run_does_not_go_on_from_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(SMALL, tmp_path, callbacks=[StopAt(7)], progress=False)
    other = replace(SMALL, train=replace(SMALL.train, lr=2e-2))
    with pytest.raises(RunFolderError, match="differs in its settings and callbacks. Choose another folder"):
        fit(other, tmp_path, progress=False)
    (tmp_path / "checkpoint.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(RunFolderError, match="cannot be read.*Delete checkpoint.pt"):
        fit(SMALL, tmp_path, callbacks=[StopAt(7)], progress=False)
    (tmp_path / "checkpoint.pt").unlink()
    fit(other, tmp_path, progress=False)
    with pytest.raises(RunFolderError, match="differs in its watched functions"):
        fit(other, tmp_path, watch={"one": lambda model: 1.0}, progress=False)


def test_a_state_that_cannot_be_kept_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"inner": [1, {"f": print}]}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    with pytest.raises(ConfigError, match=r"Odd\['inner'\]\[1\]\['f'\]: it is a builtin_function_or_method"):
        fit(SMALL, tmp_path, callbacks=[Odd()], progress=False)
