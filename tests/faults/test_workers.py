"""A worker process that is killed (a real SIGKILL, in mid-run): the run goes on in another and ends as if nothing had been."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.data import RepeatedConfig
from interp.models import ConvAttnConfig
from interp.provenance import weights_hash
from interp.training import RunConfig, TrainConfig, fit, fit_all, read_metrics
from interp.training.executors import Executor, LocalExecutor, RayExecutor, SlurmExecutor, Work
from interp.training.executors.work import read_failures
from interp.training.grid import GridError

CONFIG = RunConfig(
    model=ConvAttnConfig(d_model=12),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(
        epochs=100,
        batch_size=16,
        lr=1e-2,
        n_evals=5,
        device="cpu",
        checkpoint_steps=40,
        checkpoint_seconds=None,
        sample_tokens=0,
    ),
)
SHORT = replace(CONFIG, train=replace(CONFIG.train, epochs=2, seed=2))
TIMES = {"seconds", "seconds_per_step"}


def wait_for(condition: Callable[[], Any], seconds: float = 150) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise TimeoutError


def kill_in_mid_run(folder: Path, killed: list[int]) -> None:
    """Wait for the run's first checkpoint, and kill the process that says it trains it."""
    wait_for(lambda: list(folder.glob("killed-*/checkpoint.pt")))
    place = next(folder.glob("killed-*"))
    pid = int(json.loads((place / "progress.json").read_text())["pid"])
    assert pid != os.getpid()
    assert not (place / "provenance.json").exists()
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


def make_local(folder: Path) -> Executor:
    return LocalExecutor(2)


def make_ray(folder: Path) -> Executor:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'interp[ray]'")
    return RayExecutor(2)


def make_submitit(folder: Path) -> Executor:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'interp[slurm]'")
    return SlurmExecutor(folder / ".slurm", cluster="local")


def rows_without_times(folder: Path) -> list[dict[str, float | int]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("whole")
    return weights_hash(fit(CONFIG, folder, progress=False).model), rows_without_times(folder)


@pytest.mark.parametrize("make", [make_local, make_ray, make_submitit])
def test_a_killed_worker_changes_nothing(make: Callable[[Path], Executor], whole: tuple, tmp_path: Path) -> None:
    executor, killed = make(tmp_path), list[int]()
    killer = threading.Thread(target=kill_in_mid_run, args=(tmp_path, killed), daemon=True)
    killer.start()
    runs = {"killed": CONFIG, "other": replace(CONFIG, train=replace(CONFIG.train, seed=1)), "short": SHORT}
    with pytest.warns(RuntimeWarning, match=r"killed-\w{10}: its worker died near step \d+ \(.+\); the run goes on") as warned:
        done = fit_all(runs, tmp_path, on=executor, progress=False)
    killer.join()
    assert len(killed) == 1
    folders = {name: run.folder for name, run in done.items() if run.folder is not None}
    assert (weights_hash(done["killed"].model), rows_without_times(folders["killed"])) == whole
    (failure,) = read_failures(folders["killed"])
    assert 0 < failure["step"] < 400
    assert not failure["traceback"]
    went_on = int(str(warned[0].message).split("goes on from step ")[1].split(",")[0])
    assert went_on >= 40, "it did not begin again"
    assert read_failures(folders["other"]) == read_failures(folders["short"]) == [], "the others did not notice"
    assert not list(tmp_path.glob("*/progress.json"))


def by_main_only(model: object) -> float:
    return 1.0


def raises(model: object) -> float:
    raise ZeroDivisionError("no score")


def test_errors_in_workers_are_told_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One watches a function that raises, and one a function that exists in this process only, as a notebook's do."""
    monkeypatch.setattr(by_main_only, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "by_main_only", by_main_only, raising=False)
    runs = {"raises": SHORT, "notebook": SHORT, "fine": SHORT}
    watch = {"raises": {"one": raises}, "notebook": {"one": by_main_only}}
    with pytest.raises(GridError, match="2 failed, and the others are finished") as raised:
        fit_all(runs, tmp_path, watch=watch, workers=1, progress=False)
    said = str(raised.value)
    assert "ZeroDivisionError: no score" in said
    assert "AttributeError: Can't get attribute 'by_main_only'" in said
    assert "fine-" not in said
    assert len(read_metrics(next(tmp_path.glob("fine-*")))) > 1


def test_a_worker_that_died_idle_is_replaced(tmp_path: Path) -> None:
    executor = LocalExecutor(1)
    try:
        for number in range(2):
            work = Work(SHORT, tmp_path / str(number))
            executor.submit([work])
            assert wait_for(executor.poll) == [(work, "done")]
            assert (work.folder / "provenance.json").exists()
            (worker,) = executor._workers
            worker.process.kill()
            worker.process.join()
    finally:
        executor.cancel()
