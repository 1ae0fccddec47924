"""Worked example: the largest parameter every N steps.

largest = LargestParameter(every=10)
interp.fit(config, callbacks=[largest])
largest.seen        # [(10, 1.93), (20, 1.95), …]
"""

from typing import Any

from interp.training import Callback, Training


class LargestParameter(Callback):
    """Notes (step, largest absolute weight) every `every` steps."""

    def __init__(self, every: int = 10):
        self.every = every
        self.seen: list[tuple[int, float]] = []

    def after_step(self, training: Training) -> None:
        if training.step % self.every == 0:
            self.seen.append((training.step, max(float(weight.detach().abs().max()) for weight in training.model.parameters())))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = [(step, value) for step, value in state["seen"]]
