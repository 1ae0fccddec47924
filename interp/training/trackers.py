"""Trackers: callbacks that send readings elsewhere, besides the run folder. One of your own is a `Callback` with `on_eval`."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError
from interp.training.callbacks import Callback, Row

if TYPE_CHECKING:
    from interp.training.loop import Training


class WandbTracker(Callback):
    """Readings to Weights & Biases: offline, into the run folder, without an account, unless WANDB_MODE says otherwise."""

    def __init__(self, name: str, identity: str, settings: Mapping[str, Any]):
        self.name, self.identity, self.settings = name, identity, dict(settings)
        self._run: Any = None

    def on_start(self, training: "Training") -> None:
        if not training.is_main:
            return
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "interp"),
            name=self.name,
            id=f"{self.identity}",
            dir=training.folder,
            config=self.settings,
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def on_eval(self, training: "Training", row: Row) -> Mapping[str, float]:
        if self._run is not None:
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
        return {}

    def on_end(self, training: "Training") -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


class TensorBoardTracker(Callback):
    """Readings to TensorBoard event files in `tensorboard/` of the run folder."""

    def __init__(self) -> None:
        self._writer: Any = None
        summary_writer()

    def on_start(self, training: "Training") -> None:
        if training.is_main:
            assert training.folder is not None
            self._writer = summary_writer()(str(training.folder / "tensorboard"), purge_step=training.step + 1)

    def on_eval(self, training: "Training", row: Row) -> Mapping[str, float]:
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(row["step"]))
        return {}

    def on_end(self, training: "Training") -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def summary_writer() -> Any:
    """TensorBoard's writer class. Raises `ConfigError` when TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "train.tracker=tensorboard", "TensorBoard is not installed", "Install it with: pip install 'interp[tensorboard]'"
        ) from None
    return SummaryWriter


def make_trackers(tracker: str, name: str | None, identity: str, settings: Mapping[str, Any]) -> list[Callback]:
    """The trackers that the setting asks for. Raises `ConfigError` when one cannot work, or there is no run folder to fill."""
    if tracker == "none":
        return []
    if name is None:
        raise ConfigError(f"train.tracker={tracker}", "it writes into the run folder, and there is none", "Give a folder to fit")
    return [WandbTracker(name, identity, settings)] if tracker == "wandb" else [TensorBoardTracker()]
