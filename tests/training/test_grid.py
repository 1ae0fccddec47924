"""What a grid makes of works that end well, raise, or die: told by run folders alone, with engines of one process that lie."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.cli.main import main
from interp.data import RepeatedConfig
from interp.errors import ConfigError
from interp.models import ConvAttnConfig
from interp.provenance import weights_hash
from interp.training import RunConfig, TrainConfig, fit, fit_all, is_finished, open_run
from interp.training.executors import LocalExecutor, RayExecutor, SlurmExecutor, Work
from interp.training.executors.work import checkpoint_step, keep_failure, read_failures, reported_step
from interp.training.grid import GridError

TINY = RunConfig(
    model=ConvAttnConfig(d_model=12),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, device="cpu", checkpoint_steps=2),
)
OTHER = replace(TINY, train=replace(TINY.train, seed=1))


class Here:
    """Does one work at each poll, in this process, and says whatever it was told to say of it."""

    def __init__(self, carry_out: Callable[[Work], str] = lambda work: str(work())):
        self.carry_out = carry_out
        self.waiting: list[Work] = []
        self.attempts: list[tuple[str, int]] = []
        self.cancelled = False

    def submit(self, works: Sequence[Work]) -> None:
        self.waiting.extend(works)

    def poll(self) -> list[tuple[Work, str]]:
        work = self.waiting.pop(0)
        self.attempts.append((work.folder.name.split("-")[0], work.attempt))
        return [(work, self.carry_out(work))]

    def cancel(self) -> None:
        self.cancelled = True


class Died(BaseException):
    """Takes a worker with it: no `except Exception` on the way sees it."""


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open() as file:
        return {row["name"].split("-")[0]: row for row in csv.DictReader(file)}


def one(model: object) -> float:
    return 1.0


def raises(model: object) -> float:
    raise ZeroDivisionError("no score")


def test_an_engine_is_not_believed(tmp_path: Path) -> None:
    def lies(work: Work) -> str:
        if work.attempt == 1 and work.config is TINY:
            return "FINISHED"  # and nothing was done
        work()
        return "FAILED"

    engine = Here(lies)
    with pytest.warns(RuntimeWarning, match=r"dies-\w{10}: its worker died near step 0 \(FINISHED\); .* from step 0, attempt 2"):
        done = fit_all({"dies": TINY, "fine": OTHER}, tmp_path, on=engine, watch={"fine": {"one": one}}, progress=False)
    assert engine.attempts == [("dies", 1), ("fine", 1), ("dies", 2)]
    assert engine.cancelled
    assert weights_hash(done["dies"].model) == weights_hash(fit(TINY, progress=False).model)
    assert done["fine"].folder is not None
    assert read_failures(done["fine"].folder) == []
    rows = rows_of(tmp_path / "runs.csv")
    assert {name: (row["state"], row["restarts"], row["one"], row["step"]) for name, row in rows.items()} == {
        "dies": ("finished", "1", "", "8"),
        "fine": ("finished", "0", "1.0", "8"),
    }
    assert float(rows["fine"]["validation_loss"]) == done["fine"].metrics[-1]["validation_loss"]


def test_what_died_in_the_middle_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    steps: list[int] = []

    def dies_in_the_middle(work: Work) -> str:
        import interp.training.executors.work as module

        def stop(reporter: Any) -> None:
            reporter.step += 1
            steps.append(reporter.step)
            if work.attempt == 1 and reporter.step == 5:
                raise Died

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module._Reporter, "__call__", stop)
            try:
                work()
            except Died:
                return "gone"
        return "done"

    with pytest.warns(RuntimeWarning, match=r"near step 4 \(gone\); the run goes on from step 4, attempt 2"):
        done = fit_all({"a": TINY}, tmp_path, on=Here(dies_in_the_middle), progress=False)
    assert steps == [1, 2, 3, 4, 5, 5, 6, 7, 8], "its count goes on, too"
    assert weights_hash(done["a"].model) == weights_hash(fit(TINY, progress=False).model)


def test_a_run_that_dies_too_often_fails_and_the_others_finish(tmp_path: Path) -> None:
    def always_dies(work: Work) -> str:
        return "killed" if work.config is TINY else str(work())

    runs = {"dies": TINY, "fine": OTHER}
    engine = Here(always_dies)
    with (
        pytest.warns(RuntimeWarning) as warned,
        pytest.raises(GridError, match=r"(?s)2 runs: 1 failed.*dies-\w{10}: its worker died 3 times, at last .*\(killed\)"),
    ):
        fit_all(runs, tmp_path, on=engine, progress=False)
    assert len(warned) == 2
    assert engine.attempts == [("dies", 1), ("fine", 1), ("dies", 2), ("dies", 3)]
    assert rows_of(tmp_path / "runs.csv")["fine"]["state"] == "finished"
    again = Here()
    assert list(fit_all(runs, tmp_path, on=again, retries=0, progress=False)) == ["dies", "fine"]
    assert again.attempts == [("dies", 4)], "a new call tries again, and only what is left"


def test_a_run_that_raises_is_not_tried_again_and_the_others_finish(tmp_path: Path) -> None:
    engine = Here()
    told = r"(?s)2 runs: 1 failed.*wrong-\w{10}: ZeroDivisionError: no score.*failures.jsonl"
    with pytest.raises(GridError, match=told) as raised:
        fit_all({"wrong": TINY, "fine": OTHER}, tmp_path, on=engine, watch={"wrong": {"x": raises}}, progress=False)
    assert "fine-" not in str(raised.value)
    assert engine.attempts == [("wrong", 1), ("fine", 1)]
    rows = rows_of(tmp_path / "runs.csv")
    assert (rows["wrong"]["state"], rows["fine"]["state"]) == ("unfinished", "finished")
    assert "restarts" not in rows["fine"]
    (failure,) = read_failures(next(tmp_path.glob("wrong-*")))
    assert "Traceback" in failure["traceback"]
    assert "in raises" in failure["traceback"]


def test_a_run_that_diverged_is_told_from_others_that_failed(tmp_path: Path) -> None:
    wild = replace(OTHER, train=replace(OTHER.train, lr=1e12, optimizer="sgd", grad_clip=0))
    runs = {"wrong": TINY, "wild": wild, "fine": OTHER}
    with pytest.raises(GridError, match="wild-.*the loss is not finite at step") as raised:
        fit_all(runs, tmp_path, on=Here(), watch={"wrong": {"x": raises}}, progress=False)
    assert raised.value.diverged == ("wild",)
    assert {name: folder.name.split("-")[0] for name, folder in raised.value.finished.items()} == {"fine": "fine"}
    assert open_run(OTHER, raised.value.finished["fine"]).metrics


def test_an_earlier_error_is_not_taken_for_this_attempt(tmp_path: Path) -> None:
    watch = {"a": {"x": raises}}
    with pytest.raises(GridError, match="no score"):
        fit_all({"a": TINY}, tmp_path, on=Here(), watch=watch, progress=False)
    with pytest.raises(GridError, match="its worker died 1 times"):
        fit_all({"a": TINY}, tmp_path, on=Here(lambda work: "killed"), watch=watch, retries=0, progress=False)


def test_a_finished_run_is_found_under_any_name(tmp_path: Path) -> None:
    first = fit_all({"first": TINY}, tmp_path, on=Here(), progress=False)["first"]
    nothing = Here(lambda work: pytest.fail(f"{work.folder} was trained again"))
    renamed = fit_all({"other": TINY}, tmp_path, on=nothing, progress=False)["other"]
    assert renamed.folder == first.folder
    with pytest.raises(pytest.fail.Exception, match="first-.*trained again"):
        fit_all({"first": TINY}, tmp_path, on=nothing, watch={"first": {"one": one}}, progress=False)
    twins = Here()
    both = fit_all({"a": OTHER, "b": OTHER}, tmp_path, on=twins, progress=False)
    assert twins.attempts == [("a", 1)], "equal runs are trained once"
    assert both["a"].folder == both["b"].folder


def test_an_engine_that_fails_is_let_go(tmp_path: Path) -> None:
    def breaks(work: Work) -> str:
        raise OSError("the cluster is gone")

    engine = Here(breaks)
    with pytest.raises(OSError, match="the cluster is gone"):
        fit_all({"a": TINY}, tmp_path, on=engine, progress=False)
    assert engine.cancelled


def test_mistakes_are_found_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(message: str, **given: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            fit_all({"a": TINY}, tmp_path, progress=False, **given)

    mistake("there is no such executor. Did you mean 'slurm'", on="slrum")
    mistake("workers=0: at least one", workers=0)
    mistake("workers=2: the executor was made with its own", workers=2, on=LocalExecutor(2))
    mistake("retries=-1: a run is tried at least once", retries=-1)
    mistake("(?s)sending run a-.* cannot be pickled .*top of a module", watch={"a": {"x": lambda model: 1.0}})
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    mistake(r"training on Ray: it is not installed .*pip install 'interp\[ray\]'", on="ray")
    mistake(r"submitit is not installed .*pip install 'interp\[slurm\]'", on="slurm")
    assert not list(tmp_path.iterdir())
    wide = replace(TINY, model=replace(TINY.model, n_ctx=4))
    with pytest.raises(ConfigError, match="n_ctx"):
        fit_all({"a": OTHER, "b": wide}, tmp_path, on=Here(lambda work: pytest.fail("began")), progress=False)
    assert fit_all({}, tmp_path, progress=False) == {}


def test_slurm_is_asked_for_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'interp[slurm]'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="submitit refuses .*srun.*a machine with sbatch"):
        SlurmExecutor(tmp_path)
    with pytest.raises(ConfigError, match="submitit refuses .*partitoin"):
        SlurmExecutor(tmp_path, cluster="local", slurm_partitoin="gpu")


def test_ray_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'interp[ray]'")
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(ConfigError, match="Ray at nonsense: it cannot be reached"):
        RayExecutor()


def test_damaged_records_do_not_stop_a_run(tmp_path: Path) -> None:
    assert (reported_step(tmp_path), checkpoint_step(tmp_path), read_failures(tmp_path)) == (None, 0, [])
    for content in ("", "{half a", "[]", '{"step": null}', "\0"):
        (tmp_path / "progress.json").write_text(content)
        (tmp_path / "failures.jsonl").write_text(content)
        (tmp_path / "checkpoint.pt").write_text(content)
        assert (reported_step(tmp_path), checkpoint_step(tmp_path), read_failures(tmp_path)) == (None, 0, [])
    assert keep_failure(tmp_path, 1, "killed\n\0 \u2028") == 0
    (failure,) = read_failures(tmp_path)
    assert failure["reason"] == "killed\n\0 \u2028"
    json.dumps(failure)


GRID = "model: {d_model: 12}\ndata: {d_vocab: 23, period: 5, n_train: 50, n_validation: 9}\n" + (
    "train: {epochs: 1, device: cpu, n_evals: 1}\n"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--retries", "-1"], "--retries -1: a run is tried at least once"),
        (["--slurm", "timeout_min=3"], "--slurm timeout_min=3: it does nothing with --on local"),
        (["--on", "slurm", "--slurm", "timeout_min"], "--slurm timeout_min: it has no value"),
    ],
)
def test_the_command_line_refuses(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID)
    assert main(["train", "grid.yaml", *words]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert os.listdir(".") == ["grid.yaml"]


def test_the_command_line_chooses_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import interp.training.grid

    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID)
    asked = []

    def here(on: str, folder: Path, workers: int | None) -> Here:
        asked.append((on, workers))
        return Here(lambda work: "lost" if work.attempt == 1 else str(work()))

    monkeypatch.setattr(interp.training.grid, "make_executor", here)
    assert main(["train", "grid.yaml", "--on", "ray", "--workers", "3", "--retries", "0"]) == 1
    assert "its worker died 1 times, at last near step 0 (lost)" in capsys.readouterr().err
    assert main(["train", "grid.yaml", "--on", "ray"]) == 0
    assert asked == [("ray", 3), ("ray", None)]
    assert is_finished(next(Path("runs").glob("grid-*")))
