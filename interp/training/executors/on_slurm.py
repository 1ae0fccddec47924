"""SLURM, through submitit. Needs `pip install interp[slurm]`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import ConfigError
from interp.training.executors.work import Work

PAUSE_ON_CLUSTER = 5.0


class SlurmExecutor:
    """Runs as the jobs of one SLURM array, at most `workers` at once (default: no limit of ours).

    `folder` is for submitit's scripts and logs. `parameters` are those of `submitit.AutoExecutor`: timeout_min (default 240; a
    job that runs out of time counts as a death), mem_gb, gpus_per_node, slurm_partition, slurm_account and so on; sbatch's own
    variables, such as SBATCH_PARTITION, act too. All machines need the same Python packages, and the run folders and data under
    the same paths. Jobs go on when this process is killed: wait for them, or cancel them with scancel, before the same command
    is given again. Ctrl-C cancels them.

    Tested with submitit's own engine for one machine (`cluster="local"`), which knows no limit of workers, and not on SLURM
    itself. Raises `ConfigError` when submitit is not installed, there is no SLURM here, or it does not know a parameter.
    """

    def __init__(self, folder: str | Path, workers: int | None = None, *, cluster: str = "slurm", **parameters: Any):
        submitit = _import_submitit()
        self._pause = PAUSE_ON_CLUSTER if cluster == "slurm" else 0.5
        limit = {} if workers is None else {"slurm_array_parallelism": workers}
        try:
            self._engine = submitit.AutoExecutor(folder=Path(folder).absolute(), cluster=cluster)
            self._engine.update_parameters(**{"timeout_min": 240, "cpus_per_task": 1, "name": "interp", **limit, **parameters})
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            said = " ".join(str(error).split())[:300]
            raise ConfigError(
                "training on SLURM", f"submitit refuses ({said})", "Correct the parameters, and start on a machine with sbatch"
            ) from None
        self._running: dict[Any, Work] = {}

    def submit(self, works: Sequence[Work]) -> None:
        """Take up works, as one array."""
        with self._engine.batch():
            jobs = [self._engine.submit(work) for work in works]
        self._running.update(zip(jobs, works, strict=True))

    def poll(self) -> list[tuple[Work, str]]:
        """The works whose jobs ended, each with SLURM's word for it and the last line of its log; waits some seconds."""
        ended = [job for job in self._running if job.done()]
        if not ended:
            time.sleep(self._pause)
        return [(self._running.pop(job), _how(job)) for job in ended]

    def cancel(self) -> None:
        """Cancel all jobs that wait or run."""
        for job in self._running:
            job.cancel()
        self._running.clear()


def _how(job: Any) -> str:
    lines = (job.stderr() or "").strip().splitlines()
    return f"job {job.job_id} is {job.state}" + (f": {lines[-1]}" if lines else "")


def _import_submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("training on SLURM", f"submitit is not installed ({error})", "pip install 'interp[slurm]'") from None
    return submitit
