"""The loss of every training step, kept beside the readings."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import RunFolderError
from interp.files import write_whole
from interp.training.callbacks import Callback

if TYPE_CHECKING:
    from interp.training.loop import Training

STEP_LOSSES = "step_losses.csv"


class StepLosses(Callback):
    """Writes `step_losses.csv` into the run folder when the run ends: the training loss (nats) of each step from 1 on.

    A killed run that goes on writes them all. With several processes a step's loss is the main process's share.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def after_step(self, training: "Training") -> None:
        self.losses.append(training.losses[-1])

    def on_end(self, training: "Training") -> None:
        if training.is_main and training.folder is not None:
            rows = [f"{step},{loss!r}\n" for step, loss in enumerate(map(float, self.losses), start=1)]
            write_whole(training.folder / STEP_LOSSES, "step,loss\n" + "".join(rows))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"].unbind())


def read_step_losses(folder: str | Path) -> Float[Tensor, " step"]:
    """The loss of each step of the run in `folder`, trained with `StepLosses`. Raises `RunFolderError` when there are none."""
    path = Path(folder) / STEP_LOSSES
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        return torch.tensor([float(line.split(",")[1]) for line in lines], dtype=torch.float64)
    except (OSError, ValueError, IndexError) as error:
        raise RunFolderError(f"step losses of {folder}", f"they cannot be read ({error})", "Train with StepLosses()") from None
