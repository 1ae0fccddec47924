"""Training several runs side by side in worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from interp.data import RepeatedConfig, TextConfig, TokenData, load_data
from interp.errors import InterpError
from interp.training.config import RunConfig
from interp.training.fit import FinishedRun, Watch, fit
from interp.training.folder import is_finished, open_run, run_id
from interp.training.steps import total_steps

_steps_done: Any = None  # set once in each worker, and shared by all: the counter of steps
_stop: Any = None  # and the event that tells them to leave off


def fit_all(
    runs: Mapping[str, RunConfig],
    folder: str | Path,
    *,
    watch: Mapping[str, Watch] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, FinishedRun]:
    """Train every run into `folder/<name>-<id>`, in `workers` processes of one thread each (default: one per core).

    `watch` gives, by run name, what is read while that run trains; it must be picklable (functions at the top of a module). A run
    that finished before, with the same settings, data, watch and training code, is opened instead of trained. The first error
    stops all other runs and is raised, and so does Ctrl-C; finished runs stay on disk. No worker outlives this process.
    Returns the runs by name, in the given order. Raises `InterpError` when a worker is killed from outside.
    """
    # loaded here as well: it fills the caches once, and fails before anything is trained
    data = {described: load_data(described) for described in dict.fromkeys(config.data for config in runs.values())}
    watch = watch or {}
    places = {
        name: Path(folder) / f"{name}-{run_id(config, data[config.data], watch.get(name))}" for name, config in runs.items()
    }
    waiting = {name: config for name, config in runs.items() if not is_finished(places[name])}
    if waiting:
        total = sum(total_steps(config.train, len(data[config.data].train)) for config in waiting.values())
        with tqdm(total=total, desc=f"training {len(waiting)} models", unit="step", disable=not progress) as bar:
            _fit_in_workers(waiting, places, watch, min(workers or os.cpu_count() or 1, len(waiting)), bar)
    return {name: open_run(config, places[name]) for name, config in runs.items()}


def _fit_in_workers(
    waiting: Mapping[str, RunConfig], places: Mapping[str, Path], watch: Mapping[str, Watch], workers: int, bar: Any
) -> None:
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(counter, stop)) as pool:
        try:
            with _interrupts_ignored():
                futures = [pool.submit(_fit_one, config, places[name], watch.get(name)) for name, config in waiting.items()]
            _follow(futures, counter, bar)
        except BaseException as error:  # KeyboardInterrupt too
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise InterpError(
                    f"training in {workers} worker processes",
                    "one of them was killed, perhaps for want of memory",
                    "Finished runs are kept: the same command goes on from there; fewer workers need less memory",
                ) from None
            raise


def _follow(futures: list[Future], counter: Any, bar: Any) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5)
        bar.update(counter.value - bar.n)
        for future in done:
            future.result()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which a terminal sends to all of them: one process decides what stops."""
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(counter: Any, stop: Any) -> None:
    global _steps_done, _stop  # noqa: PLW0603
    _steps_done, _stop = counter, stop
    torch.set_num_threads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A process that is killed cannot stop its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _fit_one(config: RunConfig, folder: Path, watch: Watch | None) -> None:
    def count() -> None:
        if _stop.is_set():
            raise InterpError(f"training {folder.name}", "another run failed, or was interrupted", "See the first error")
        with _steps_done.get_lock():
            _steps_done.value += 1

    fit(config, folder, watch=watch, data=_load_once(config.data), on_step=count, progress=False)


@lru_cache(maxsize=8)
def _load_once(config: TextConfig | RepeatedConfig) -> TokenData:
    return load_data(config)
