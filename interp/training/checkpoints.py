"""Checkpoints: what a killed run goes on from, and copies of the model kept for later.

`checkpoint.pt` holds the whole state of a run under way, is replaced as a whole, and is gone when the run is finished.
`checkpoints/step-N/` are run folders of their own, without a tokenizer: `open_checkpoint(folder, N)` opens one.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from interp.errors import RunFolderError, nearest
from interp.files import write_whole
from interp.models.opening import bundled_folder, bundled_models
from interp.models.saved import TOKENIZER, is_saved, open_saved, save_model
from interp.training.config import TrainConfig

CHECKPOINT, KEPT = "checkpoint.pt", "checkpoints"


class Checkpoints:
    """Writes `checkpoint.pt` when it is due: every so many steps, every so many seconds, or both."""

    def __init__(self, folder: Path, config: TrainConfig, identity: Mapping[str, str]):
        self.path, self.config, self.identity = folder / CHECKPOINT, config, dict(identity)
        self.last = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to save after this step."""
        every, seconds = self.config.checkpoint_steps, self.config.checkpoint_seconds
        return bool(step and every and step % every == 0) or bool(seconds and time.monotonic() - self.last >= seconds)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint: after a kill at any moment there is the old one or all of the new."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "state": state}, buffer)
        write_whole(self.path, buffer.getvalue())
        self.last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None. Raises `RunFolderError` for one that is damaged or of another run.

        What a kill left half-written is removed.
        """
        for leftover in self.path.parent.glob(f".{CHECKPOINT}.*.tmp"):
            leftover.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, state = saved["identity"], saved["state"]
        except Exception as error:  # zip, pickle and key errors of a dozen types
            said = " ".join(str(error).split())[:200]
            raise RunFolderError(
                f"going on from {self.path}",
                f"it cannot be read ({type(error).__name__}: {said})",
                f"Delete {CHECKPOINT} to train from the start",
            ) from None
        check_identity(self.path.parent, identity, self.identity)
        return dict(state)

    def remove(self) -> None:
        """The run is finished: nothing goes on from here."""
        self.path.unlink(missing_ok=True)


def check_identity(folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise `RunFolderError`, saying what differs, when the run in `folder` is another than the one asked for."""
    differing = [part for part in wanted if found.get(part) != wanted[part]]
    if differing:
        raise RunFolderError(
            f"training into {folder}",
            f"it holds a run that differs in its {' and '.join(differing)}",
            "Choose another folder, or delete this one to train again",
        )


def keep_model(model: Any, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
    """Keep a copy of the model as it is after `step`, in `checkpoints/step-N`."""
    tokenizer, model.tokenizer = model.tokenizer, None  # once per run is enough
    try:
        save_model(model, folder / KEPT / f"step-{step}", settings=settings)
    finally:
        model.tokenizer = tokenizer


def kept_checkpoints(folder: str | Path) -> tuple[int, ...]:
    """The steps of which a run folder, or the bundled model of that name, has a copy of the model, in order.

    Raises `RunFolderError` when there is no such folder or bundled model.
    """
    places = (_run_folder(folder) / KEPT).glob("step-*")
    return tuple(sorted(int(place.name.removeprefix("step-")) for place in places if is_saved(place)))


def open_checkpoint(folder: str | Path, step: int) -> Any:
    """The model as it was after `step`, in eval mode, with the run's tokenizer if it has one (a run under way has none yet).

    `folder` is a run folder, or the name of a bundled model ("./name" for a folder of that name). Raises `RunFolderError` when
    no copy of that step was kept (`train.keep_checkpoints` keeps them), naming the steps there are.
    """
    steps, place = kept_checkpoints(folder), _run_folder(folder)
    if step not in steps:
        known = f"the steps kept are {', '.join(map(str, steps))}" if steps else "no copies were kept"
        numbers = steps if isinstance(step, int) else ()
        closest = f"Did you mean {min(numbers, key=lambda kept: abs(kept - step))}? " if numbers else ""
        raise RunFolderError(f"step {step} of {folder}", known, f"{closest}Set train.keep_checkpoints to keep more")
    model = open_saved(place / KEPT / f"step-{step}")
    if (place / TOKENIZER).is_dir():
        from transformers import AutoTokenizer

        model.tokenizer = AutoTokenizer.from_pretrained(place / TOKENIZER, local_files_only=True)
    return model


def _run_folder(spec: str | Path) -> Path:
    place = bundled_folder(spec) or Path(spec)
    if not place.is_dir():
        raise RunFolderError(
            f"checkpoints of {str(spec)!r}",
            "no copies were kept there: it is neither a folder nor a bundled model",
            f"{nearest(str(spec), bundled_models())}Give a run folder, or one of {', '.join(bundled_models())}",
        )
    return place
