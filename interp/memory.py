"""How much memory a call takes."""

from collections.abc import Callable
from typing import Any


def allocated_at_peak(call: Callable[[], Any]) -> float:
    """The largest sum of tensor memory on the CPU that is held at once during a call, in MiB, from the allocator's own record.

    What was allocated before the call and is still held does not count. Cost: the call under torch's profiler.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return float(held.max()) / 2**20
