"""Training with attention ablated, as a callback."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.interventions.training_ablation import AttentionAblation, ablate_attention
from interp.training.callbacks import Callback

if TYPE_CHECKING:
    from interp.training.loop import Training


class AblatedAttention(Callback):
    """Attention ablated in every step and reading of a run; the model that the run leaves behind has its attention back.

    Arguments as of `ablate_attention`. Nothing is remembered from step to step: a killed run goes on as it would have.
    """

    def __init__(self, mode: str = "zero", layers: Sequence[int] | None = None, seed: int = 0):
        self.mode, self.layers, self.seed = mode, layers, seed
        self.handle: AttentionAblation | None = None

    def on_start(self, training: "Training") -> None:
        self.handle = ablate_attention(training.model, self.mode, self.layers, seed=self.seed)

    def on_end(self, training: "Training") -> None:
        if self.handle is not None:
            self.handle.remove()
