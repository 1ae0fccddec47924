"""Training that is interrupted or killed: it ends soon, in words, with no process left, and what it left can be gone on from."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from interp.data import RepeatedConfig, load_data
from interp.errors import InterpError
from interp.models import ConvAttnConfig
from interp.training import RunConfig, TrainConfig, fit, fit_all, read_metrics, run_id

TINY = RunConfig(
    model=ConvAttnConfig(d_model=12),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, device="cpu"),
)
LONG = """
import signal
import sys
from dataclasses import replace
from interp.training import RunConfig, TrainConfig, fit_all

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as under a terminal; a shell's background jobs ignore it
    runs = {f"{n}": RunConfig(train=TrainConfig(epochs=1000, seed=n, device="cpu")) for n in range(6)}
    fit_all(runs, sys.argv[1], workers=2, progress=False)
"""


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(child) for child, parent, state in rows if int(parent) == pid and not state.startswith("Z")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def wait_until(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(LONG)
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "runs")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]) as process:
        try:
            assert wait_until(lambda: list(tmp_path.glob("runs/*/metrics.jsonl")), 100), "training began"
            workers = children(process.pid)
            assert len(workers) >= 2
            process.send_signal(how)
            assert process.wait(30) != 0, "it does not train the other runs first"
            assert wait_until(lambda: not any(map(alive, workers)), 30)
        finally:
            process.kill()


def test_a_killed_worker_is_told_in_words(tmp_path: Path) -> None:
    def kill_one() -> None:
        assert wait_until(multiprocessing.active_children, 60)
        os.kill(int(multiprocessing.active_children()[0].pid or 0), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(InterpError, match="(?s)its worker died 1 times.*killed by SIGKILL.*The same command goes on from there"):
        fit_all({"a": TINY}, tmp_path, workers=1, retries=0, progress=False)
    killer.join()
    assert list(fit_all({"a": TINY}, tmp_path, workers=1, progress=False)) == ["a"]


def test_metrics_are_whole_when_two_runs_write_one_folder(tmp_path: Path) -> None:
    def other_run(model: object) -> float:
        (tmp_path / "metrics.jsonl").write_text("\0\0{half a ")
        return 1.0

    run = fit(TINY, tmp_path, watch={"other": other_run}, progress=False)
    assert read_metrics(tmp_path) == run.metrics


def measured(model: object, tokens: torch.Tensor, period: int) -> float:
    return float(period)


def test_run_ids_follow_what_is_watched() -> None:
    data, tokens = load_data(TINY.data), torch.arange(4)
    watch = {"measured": partial(measured, tokens=tokens, period=3)}
    again = {"measured": partial(measured, tokens=tokens.clone(), period=3)}
    assert run_id(TINY, data, watch) == run_id(TINY, data, again)
    others = [
        None,
        {"measured": partial(measured, tokens=tokens, period=4)},
        {"measured": partial(measured, tokens=tokens + 1, period=3)},
        {"named": watch["measured"]},
    ]
    assert len({run_id(TINY, data, other) for other in (watch, *others)}) == 5, "readings of another kind must not pass for these"
