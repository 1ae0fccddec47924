"""Ray: a cluster, or workers of this machine. Needs `pip install interp[ray]`."""

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from interp.errors import ConfigError
from interp.training.executors.work import PAUSE, Work


class RayExecutor:
    """Runs as Ray tasks of one CPU each, at most `workers` at once (default: as many as the cluster has room for).

    Joins the cluster that `RAY_ADDRESS` names, or the one this process has joined already; without either, Ray is started on
    this machine with `workers` CPUs (default: all) and stopped at the end. All machines need the same Python packages, and the
    run folders and data under the same paths. A run whose `train.device` is not cpu gets one GPU where the cluster has any: it
    sees no other, so use `auto` or `cuda:0`. Ray's own retries are off: what happened is told by the run folder.

    Raises `ConfigError` when Ray is not installed or cannot be reached.
    """

    def __init__(self, workers: int | None = None):
        self._ray = _import_ray()
        self._limit = workers
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._join(workers)
        self._waiting: deque[Work] = deque()
        self._running: dict[Any, Work] = {}
        self._remote = self._ray.remote(_carry_out)

    def submit(self, works: Sequence[Work]) -> None:
        """Take up works."""
        self._waiting.extend(works)
        self._fill()

    def poll(self) -> list[tuple[Work, str]]:
        """The works that ended, each with what Ray says of it; waits half a second at most."""
        self._fill()
        if not self._running:
            time.sleep(PAUSE)
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=PAUSE)
        return [(self._running.pop(reference), self._how(reference)) for reference in done]

    def cancel(self) -> None:
        """End all tasks at once; stops Ray when it was started here."""
        self._waiting.clear()
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._is_ours:
            self._ray.shutdown()

    def _join(self, workers: int | None) -> None:
        address = os.environ.get("RAY_ADDRESS")
        own = {"address": address} if address else {"address": "local", "num_cpus": workers, "include_dashboard": False}
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # modules of one's own are found in the workers too
        try:
            self._ray.init(**own, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": path}})
        except (ConnectionError, RuntimeError, ValueError, OSError, self._ray.exceptions.RayError) as error:
            said = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"Ray at {address or 'this machine'}", f"it cannot be reached ({said})", "Set RAY_ADDRESS to a running cluster"
            ) from None

    def _fill(self) -> None:
        while self._waiting and (self._limit is None or len(self._running) < self._limit):
            work = self._waiting.popleft()
            task = self._remote.options(num_cpus=1, num_gpus=self._gpus(work), max_retries=0, name=work.folder.name)
            self._running[task.remote(work)] = work

    def _gpus(self, work: Work) -> int:
        wanted = work.config.train.device
        return int(wanted.startswith("cuda") or (wanted == "auto" and self._ray.cluster_resources().get("GPU", 0) >= 1))

    def _how(self, reference: Any) -> str:
        try:
            self._ray.get(reference)
        except Exception as error:  # a dozen kinds, all of them about the worker
            return f"Ray says {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return "done"


def _carry_out(work: Work) -> None:
    work()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("training on Ray", f"it is not installed ({error})", "pip install 'interp[ray]'") from None
    return ray
