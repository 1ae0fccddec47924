"""Studies end to end train in the test's own process: what starting workers is like is tested where grids are."""

from collections import deque
from collections.abc import Iterator, Sequence

import pytest

from interp.training import executors
from interp.training.executors.work import Work


class InThisProcess:
    """An executor whose works are done one after the other, where `poll` is called."""

    def __init__(self) -> None:
        self.waiting: deque[Work] = deque()

    def submit(self, works: Sequence[Work]) -> None:
        self.waiting.extend(works)

    def poll(self) -> list[tuple[Work, str]]:
        work = self.waiting.popleft()
        work()
        return [(work, "done")]

    def cancel(self) -> None:
        self.waiting.clear()


@pytest.fixture(scope="module", autouse=True)
def no_workers() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setitem(executors._MAKERS, "local", lambda folder, workers: InThisProcess())
    yield
    patch.undo()
