"""Training a grid of runs: side by side, whatever happens to the processes that train them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from interp.data import TokenData, load_data
from interp.errors import ConfigError, InterpError
from interp.files import write_whole
from interp.training.callbacks import Callback, Watch
from interp.training.catalog import find_runs
from interp.training.config import RunConfig
from interp.training.executors import Executor, Work, make_executor
from interp.training.executors.work import FAILURES, PROGRESS, checkpoint_step, keep_failure, read_failures, reported_step
from interp.training.fit import FinishedRun
from interp.training.folder import is_finished, open_run, run_id
from interp.training.objectives import model_for
from interp.training.steps import total_steps

RESULTS = "runs.csv"


class GridError(InterpError):
    """Some runs of a grid failed; the others are finished, and their folders are in `finished`, by name.

    `diverged` names the failed runs whose loss was no longer finite: of a learning rate that is tried, an answer like any other.
    """

    def __init__(self, asked: str, truth: str, remedy: str, finished: Mapping[str, Path] = {}, diverged: Sequence[str] = ()):  # noqa: B006
        super().__init__(asked, truth, remedy)
        self.finished, self.diverged = dict(finished), tuple(diverged)


def fit_all(
    runs: Mapping[str, RunConfig],
    folder: str | Path,
    *,
    watch: Mapping[str, Watch] | None = None,
    callbacks: Mapping[str, Sequence[Callback]] | None = None,
    workers: int | None = None,
    on: str | Executor = "local",
    retries: int = 2,
    progress: bool = True,
) -> dict[str, FinishedRun]:
    """Train every run into `folder/<name>-<id>`, one process of one thread each, and write the table `folder/runs.csv`.

    `on` says where: `local` (up to `workers` processes, default one per core; none outlives this one), `ray`, `slurm`, or an
    executor made for this call. `watch` and `callbacks` give, by run name, what is read and what acts while that run trains; both
    must be picklable (functions and classes at the top of a module), and callbacks are copied, so what they learn stays in the
    worker. A run that finished before, with the same settings, data, watch, callbacks and training code, under whatever name, is
    opened instead of trained.

    A run whose worker dies goes on from its checkpoint in another one, up to `retries` times; each death is a warning, and is
    kept in the run's `failures.jsonl`. A run that raises is not tried again. In both cases the other runs go on. Ctrl-C stops
    all; what was begun goes on when called again.

    Returns the runs by name, in the given order. Raises before anything is trained when a model does not fit its data, and
    `GridError`, after all others are finished, naming each run that failed and why.
    """
    if retries < 0:
        raise ConfigError(f"retries={retries}", "a run is tried at least once", "Give 0 or more")
    # loaded here as well: it fills the caches once, and fails before anything is trained
    data = {described: load_data(described) for described in dict.fromkeys(config.data for config in runs.values())}
    for config in runs.values():
        model_for(config, data[config.data])
    folder, watch, callbacks = Path(folder), watch or {}, callbacks or {}
    places = _places(runs, folder, data, watch, callbacks)
    works = [
        *{
            place: _work(runs[name], place, watch.get(name), callbacks.get(name, ()))
            for name, place in places.items()
            if not is_finished(place)
        }.values()
    ]
    if works:
        steps = {work.folder: total_steps(work.config.train, len(data[work.config.data].train)) for work in works}
        failed = _carry_out(works, make_executor(on, folder, workers), retries, _Bar(steps, progress))
        write_results(folder)
        if failed:
            raise _grid_error(failed, len(works), places)
    return {name: open_run(config, places[name]) for name, config in runs.items()}


def write_results(folder: str | Path) -> Path:
    """Write `runs.csv`, a row for every run in `folder`: what differs, all last metrics, watched numbers included. Its path.

    `restarts` is how often a run's worker died; the column is there when one did.
    """
    runs = find_runs(folder)
    table = runs.to_frame()
    deaths = [sum(not failure["traceback"] for failure in read_failures(run.folder)) for run in runs]
    if any(deaths):
        table.insert(3, "restarts", deaths)
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        column = "last_lr" if name == "lr" else name  # `lr` is the setting
        if column not in table:
            table[column] = [run.metrics.get(name) for run in runs]
    return write_whole(Path(folder) / RESULTS, table.to_csv(index=False))


def _places(
    runs: Mapping[str, RunConfig],
    folder: Path,
    data: Mapping[Any, TokenData],
    watch: Mapping[str, Watch],
    callbacks: Mapping[str, Sequence[Callback]],
) -> dict[str, Path]:
    """Each run's folder: one of its id where it finished already, under any name; runs with the same id share the first's."""
    places: dict[str, Path] = {}
    of_id: dict[str, Path] = {}
    for name, config in runs.items():
        identity = run_id(config, data[config.data], watch.get(name), callbacks.get(name, ()))
        if identity not in of_id:
            own = folder / f"{name}-{identity}"
            others = sorted(folder.glob(f"*-{identity}")) if folder.is_dir() else []
            of_id[identity] = next(filter(is_finished, [own, *others]), own)
        places[name] = of_id[identity]
    return places


def _work(config: RunConfig, place: Path, watch: Watch | None, callbacks: Sequence[Callback]) -> Work:
    attempts = [failure["attempt"] for failure in read_failures(place)]
    return Work(config, place.absolute(), watch, tuple(callbacks), attempt=1 + max(attempts, default=0))


def _carry_out(works: Sequence[Work], executor: Executor, retries: int, bar: "_Bar") -> dict[str, str]:
    """Bring all works to their end; returns why the failed ones did, by the name of the run folder."""
    last = {work.folder: work.attempt + retries for work in works}
    failed: dict[str, str] = {}
    _forget_progress(works)  # what a killed call left behind
    try:
        executor.submit(works)
        while bar.pending:
            for work, how in executor.poll():
                follows = _after(work, how, retries, is_last=work.attempt == last[work.folder])
                if isinstance(follows, Work):
                    executor.submit([follows])
                    bar.restarts += 1
                    continue
                bar.pending.remove(work.folder)
                if follows is not None:
                    failed[work.folder.name] = follows
            bar.show(len(failed))
    finally:
        executor.cancel()
        bar.close()
        _forget_progress(works)
    return failed


def _forget_progress(works: Sequence[Work]) -> None:
    for work in works:
        (work.folder / PROGRESS).unlink(missing_ok=True)


def _after(work: Work, how: str, retries: int, *, is_last: bool) -> Work | str | None:
    """What follows when a work's process ended: nothing (the run is finished), another attempt, or why it failed."""
    if is_finished(work.folder):
        return None
    raised = [row["reason"] for row in read_failures(work.folder) if row["attempt"] == work.attempt and row["traceback"]]
    if raised:
        return str(raised[-1])
    step = keep_failure(work.folder, work.attempt, how)
    _forget_progress([work])
    if is_last:
        return f"its worker died {retries + 1} times, at last near step {step} ({how})"
    warnings.warn(
        f"{work.folder.name}: its worker died near step {step} ({how}); the run goes on from step "
        f"{checkpoint_step(work.folder)}, attempt {work.attempt + 1}",
        RuntimeWarning,
        stacklevel=2,
    )
    return replace(work, attempt=work.attempt + 1)


def _grid_error(failed: Mapping[str, str], n_runs: int, places: Mapping[str, Path]) -> GridError:
    finished = {name: place for name, place in places.items() if is_finished(place)}
    last = {name: read_failures(place)[-1:] for name, place in places.items() if name not in finished}
    diverged = [name for name, rows in last.items() if rows and rows[0].get("diverged")]
    shown = "\n  ".join(f"{name}: {why}" for name, why in failed.items())
    return GridError(
        f"training {n_runs} runs",
        f"{len(failed)} failed, and the others are finished\n  {shown}\n{FAILURES} in their folders says more",
        "The same command goes on from there",
        finished,
        diverged,
    )


class _Bar:
    """Steps of all runs, those of earlier calls included, and of which runs some are left."""

    def __init__(self, steps: Mapping[Path, int], progress: bool):
        self.steps, self.pending, self.restarts = steps, set(steps), 0
        self.reached = {folder: checkpoint_step(folder) for folder in steps}
        self.bar = tqdm(
            total=sum(steps.values()),
            initial=sum(self.reached.values()),
            desc=f"training {len(steps)} models",
            unit="step",
            disable=not progress,
        )

    def show(self, n_failed: int) -> None:
        """Look at how far the runs are. A run that goes on from its checkpoint goes back for a moment."""
        for folder in self.pending:
            self.reached[folder] = reported_step(folder) or self.reached[folder]
        ended = sum(self.steps[folder] for folder in self.steps if folder not in self.pending)
        notes = {"done": len(self.steps) - len(self.pending) - n_failed, "restarted": self.restarts, "failed": n_failed}
        self.bar.set_postfix({name: count for name, count in notes.items() if count}, refresh=False)
        self.bar.update(ended + sum(self.reached[folder] for folder in self.pending) - self.bar.n)
        self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
