"""Worker processes of this machine; one that dies is replaced, and the others do not notice."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from tqdm.std import tqdm

from interp.errors import ConfigError
from interp.training.executors.work import PAUSE, Work, errors_kept

SECONDS_TO_LEAVE = 5.0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    work: Work | None = None


class LocalExecutor:
    """Up to `workers` processes (default: one per core), each doing one work after the other.

    They are started when needed, ignore Ctrl-C (one process decides what stops), and end with this process even when it is
    killed. Works must be picklable: watched functions stand at the top of a module, and a script that trains has
    `if __name__ == "__main__":`.
    """

    def __init__(self, workers: int | None = None):
        self.n_workers = workers or os.cpu_count() or 1
        self._waiting: deque[tuple[Work, bytes]] = deque()
        self._workers: list[_Worker] = []

    def submit(self, works: Sequence[Work]) -> None:
        """Take up works. Raises `ConfigError` for one that cannot be sent to another process."""
        self._waiting.extend((work, _pickled(work)) for work in works)
        self._fill()

    def poll(self) -> list[tuple[Work, str]]:
        """The works that ended, each with how its worker did; waits half a second at most."""
        self._fill()
        wait([worker.pipe for worker in self._workers], timeout=PAUSE)
        return [ended for worker in list(self._workers) if (ended := self._ended(worker))]

    def cancel(self) -> None:
        """End all workers, asking first: a run under way closes what it has open."""
        self._waiting.clear()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(SECONDS_TO_LEAVE)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _fill(self) -> None:
        """Give waiting works to idle workers, or to new ones."""
        while self._waiting:
            worker = next((worker for worker in self._workers if worker.work is None), None)
            if worker is None:
                if len(self._workers) >= self.n_workers:
                    return
                worker = _start()
                self._workers.append(worker)
            work, pickled = self._waiting[0]
            try:
                worker.pipe.send((work.folder, work.attempt, pickled))
            except OSError:  # it died idle
                self._drop(worker)
                continue
            worker.work = work
            self._waiting.popleft()

    def _ended(self, worker: _Worker) -> tuple[Work, str] | None:
        if not worker.pipe.poll():
            return None
        work, how = worker.work, "done"
        try:
            worker.pipe.recv()
            worker.work = None
        except (EOFError, OSError):
            how = self._drop(worker)
        return None if work is None else (work, how)

    def _drop(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        return _how(worker.process.exitcode)


def _pickled(work: Work) -> bytes:
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"sending run {work.folder.name} to a worker",
            f"it cannot be pickled ({error})",
            "Watch functions that stand at the top of a module, or a functools.partial of one",
        ) from None


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=False)
    with _interrupts_ignored():
        process.start()
    theirs.close()  # so that our end closes when the worker dies
    return _Worker(process, ours)


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process started inside ignores Ctrl-C from the beginning; a terminal sends it to all of them."""
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection) -> None:
    """What a worker process does: one work after the other, until it is told to leave or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and a kill would leave it over
    try:
        while True:
            folder, attempt, pickled = pipe.recv()
            with errors_kept(folder, attempt):  # also when what it needs cannot be imported here
                pickle.loads(pickled)()
            pipe.send(None)
    except (SystemExit, EOFError):
        os._exit(1)  # at once: taking down an interpreter with torch in it takes seconds


def _leave_with_parent() -> None:
    """A process that is killed cannot stop its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
