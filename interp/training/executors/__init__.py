"""Where the runs of a grid are carried out: worker processes of this machine, Ray, or SLURM.

fit_all(runs, "runs", on="ray")
fit_all(runs, "runs", on=SlurmExecutor("runs/.slurm", workers=20, slurm_partition="gpu"))
"""

from collections.abc import Callable
from pathlib import Path

from interp.errors import ConfigError, nearest
from interp.training.executors.local import LocalExecutor
from interp.training.executors.on_ray import RayExecutor
from interp.training.executors.on_slurm import SlurmExecutor
from interp.training.executors.work import Executor, Work

_MAKERS: dict[str, Callable[[Path, int | None], Executor]] = {
    "local": lambda folder, workers: LocalExecutor(workers),
    "ray": lambda folder, workers: RayExecutor(workers),
    "slurm": lambda folder, workers: SlurmExecutor(folder / ".slurm", workers),
}
EXECUTORS = tuple(_MAKERS)


def make_executor(on: str | Executor, folder: Path, workers: int | None) -> Executor:
    """An executor by its name, or the one that was made already.

    Raises `ConfigError` for an unknown name, for fewer than one worker, when what it needs is not installed, and when `workers`
    is given as well as an executor, which has its own.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}", "at least one run is trained at a time", "Give 1 or more")
    if not isinstance(on, str):
        if isinstance(on, type) or not isinstance(on, Executor):
            raise ConfigError(
                f"on={on!r}", "it has not the methods of an executor", f"Make one, or give one of {', '.join(EXECUTORS)}"
            )
        if workers is not None:
            raise ConfigError(f"workers={workers}", "the executor was made with its own number", "Give it to the executor only")
        return on
    if on not in _MAKERS:
        raise ConfigError(
            f"on={on!r}", "there is no such executor", f"{nearest(on, EXECUTORS)}Choose from {', '.join(EXECUTORS)}"
        )
    return _MAKERS[on](folder, workers)


__all__ = ["EXECUTORS", "Executor", "LocalExecutor", "RayExecutor", "SlurmExecutor", "Work", "make_executor"]
