"""Settings of every test: one thread, as small tensors on shared cores are slower with more."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Types are not checked, as for users: what arguments of a wrong type then meet is what is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
