"""One run as a unit of work, and what carries it out.

Whether a work succeeded is told by its run folder alone. `provenance.json`: it is finished. A row with its attempt in
`failures.jsonl`: it raised. Neither: its worker died, whatever the engine says.
"""

import json
import os
import platform
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from interp.data import DataSource, TokenData, load_data
from interp.errors import InterpError
from interp.files import write_whole
from interp.training.callbacks import Callback, Watch
from interp.training.checkpoints import CHECKPOINT
from interp.training.config import RunConfig
from interp.training.fit import fit
from interp.training.loop import DivergedError

PROGRESS, FAILURES = "progress.json", "failures.jsonl"
PAUSE = 0.5
"""Seconds between two reports of a worker, and between two looks at them."""


@dataclass(frozen=True)
class Work:
    """One run to be brought to its end in `folder` (absolute), from wherever it stands. It is pickled, and called in a worker.

    Calling it again does no harm: a killed run goes on from its checkpoint, and a finished one is left alone. Torch uses one
    thread, so that the end is the same wherever it runs. What it raises is kept in `failures.jsonl`, not raised.
    """

    config: RunConfig
    folder: Path
    watch: Watch | None = None
    callbacks: tuple[Callback, ...] = ()
    attempt: int = 1

    def __call__(self) -> None:
        torch.set_num_threads(1)
        with errors_kept(self.folder, self.attempt):
            data = _load_once(self.config.data)
            report = _Reporter(self.folder)
            fit(self.config, self.folder, watch=self.watch, data=data, callbacks=self.callbacks, on_step=report, progress=False)


@runtime_checkable
class Executor(Protocol):
    """Carries out works in processes that may die; it neither retries nor judges."""

    def submit(self, works: Sequence[Work]) -> None:
        """Take up works; each begins when there is room for it."""

    def poll(self) -> list[tuple[Work, str]]:
        """The works whose process ended since the last call, each with how, in the engine's words. Waits a moment for one."""

    def cancel(self) -> None:
        """End what still runs, drop what waits, and let go of all processes. Called once, at the end in any case."""


@contextmanager
def errors_kept(folder: Path, attempt: int) -> Iterator[None]:
    """An exception raised inside becomes a row of the folder's failures."""
    try:
        yield
    except Exception as error:
        said = str(error) if isinstance(error, InterpError) else f"{type(error).__name__}: {error}"
        keep_failure(folder, attempt, " ".join(said.split()), traceback.format_exc(), isinstance(error, DivergedError))


def keep_failure(folder: Path, attempt: int, reason: str, trace: str = "", diverged: bool = False) -> int:
    """Add how an attempt ended to the run's failures; without `trace`, its worker died. Returns the step it had reached."""
    step = reported_step(folder) or checkpoint_step(folder)
    row = {
        "attempt": attempt,
        "step": step,
        "host": platform.node(),
        "reason": reason,
        "diverged": diverged,
        "traceback": trace,
    }
    write_whole(folder / FAILURES, "".join(json.dumps(each) + "\n" for each in (*read_failures(folder), row)))
    return step


def read_failures(folder: Path) -> list[dict[str, Any]]:
    """How earlier attempts of a run ended, the oldest first; what cannot be read is left out."""
    rows = []
    try:
        for line in (folder / FAILURES).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) and {"attempt", "step", "reason", "traceback"} <= row.keys() else []
    except (OSError, ValueError):
        return rows
    return rows


def reported_step(folder: Path) -> int | None:
    """The step that a run under way has reached, as its worker reports twice a second; None where none does."""
    try:
        return int(json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checkpoint_step(folder: Path) -> int:
    """The step that a killed run goes on from; 0 without a checkpoint that can be read. Does not load its tensors."""
    try:
        return int(torch.load(folder / CHECKPOINT, weights_only=True, mmap=True)["state"]["numbers"]["step"])
    except Exception:  # zip, pickle and key errors of a dozen types: `fit` says what is wrong with it
        return 0


class _Reporter:
    """Called after each step; writes now and then how far the run is and which process trains it. Cost: reading a clock."""

    def __init__(self, folder: Path):
        self.path, self.step, self.last = folder / PROGRESS, checkpoint_step(folder), 0.0

    def __call__(self) -> None:
        self.step += 1
        now = time.monotonic()
        if now - self.last >= PAUSE:
            self.last = now
            row = {"step": self.step, "pid": os.getpid(), "host": platform.node()}
            self.path.write_text(json.dumps(row), encoding="utf-8")  # in place: a reader that sees half of it asks again


@lru_cache(maxsize=8)
def _load_once(config: DataSource) -> TokenData:
    return load_data(config)
