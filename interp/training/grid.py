"""Training several runs side by side in worker processes."""

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from interp.data import RepeatedConfig, TextConfig, TokenData, load_data
from interp.training.config import RunConfig
from interp.training.fit import FinishedRun, Watch, fit
from interp.training.folder import is_finished, open_run, run_id
from interp.training.steps import total_steps

_steps_done: Any = None  # set once in each worker: the counter that all workers share


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
    that finished before, with the same settings, data and training code, is opened instead of trained. The first error stops the
    runs that have not begun and is raised; finished runs stay on disk. Returns the runs by name, in the given order.
    """
    # loaded here as well: it fills the caches once, and fails before anything is trained
    data = {described: load_data(described) for described in dict.fromkeys(config.data for config in runs.values())}
    places = {name: Path(folder) / f"{name}-{run_id(config, data[config.data])}" for name, config in runs.items()}
    waiting = {name: config for name, config in runs.items() if not is_finished(places[name])}
    if waiting:
        total = sum(total_steps(config.train, len(data[config.data].train)) for config in waiting.values())
        with tqdm(total=total, desc=f"training {len(waiting)} models", unit="step", disable=not progress) as bar:
            _fit_in_workers(waiting, places, watch or {}, min(workers or os.cpu_count() or 1, len(waiting)), bar)
    return {name: open_run(config, places[name]) for name, config in runs.items()}


def _fit_in_workers(
    waiting: Mapping[str, RunConfig], places: Mapping[str, Path], watch: Mapping[str, Watch], workers: int, bar: Any
) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(counter,)) as pool:
        futures = [pool.submit(_fit_one, config, places[name], watch.get(name)) for name, config in waiting.items()]
        _follow(futures, counter, bar)


def _follow(futures: list[Future], counter: Any, bar: Any) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5)
        bar.update(counter.value - bar.n)
        failed = next((future for future in done if future.exception()), None)
        if failed is not None:
            for future in pending:
                future.cancel()
            raise failed.exception()  # type: ignore[misc]


def _begin(counter: Any) -> None:
    global _steps_done  # noqa: PLW0603
    _steps_done = counter
    torch.set_num_threads(1)


def _fit_one(config: RunConfig, folder: Path, watch: Watch | None) -> None:
    def count() -> None:
        with _steps_done.get_lock():
            _steps_done.value += 1

    fit(config, folder, watch=watch, data=_load_once(config.data), on_step=count, progress=False)


@lru_cache(maxsize=8)
def _load_once(config: TextConfig | RepeatedConfig) -> TokenData:
    return load_data(config)
