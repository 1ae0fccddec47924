"""Finished cells on disk, so that an interrupted sweep goes on where it was."""

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from interp.errors import ResultError
from interp.files import write_whole
from interp.identity import described

SECONDS_BETWEEN = 10.0


class SavedCells:
    """Values [pair cell] with what is not known yet marked, written every few seconds to a file (or nowhere)."""

    def __init__(self, path: str | Path | None, described: str, shape: tuple[int, int]):
        """Takes up the cells that `path` holds. Raises `ResultError` when they belong to another sweep, or it is damaged."""
        self.path, self.described = None if path is None else Path(path), described
        self.values = torch.full(shape, torch.nan, dtype=torch.float64)
        self.known = torch.zeros(shape, dtype=torch.bool)
        self._written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._take_up(self.path)

    def add(self, cells: Tensor, pairs: Tensor, values: Tensor) -> None:
        self.values[pairs, cells] = values.detach().cpu().to(torch.float64)
        self.known[pairs, cells] = True
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            self.write()

    def write(self) -> None:
        """Write everything known so far, whole or not at all."""
        if self.path is not None:
            write_whole(self.path, save({"values": self.values, "known": self.known}, {"sweep": self.described}))
        self._written = time.monotonic()

    def _take_up(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                described = (file.metadata() or {}).get("sweep")
                values, known = file.get_tensor("values"), file.get_tensor("known")
        except (OSError, SafetensorError) as error:
            raise ResultError(
                f"going on from {path}", f"it cannot be read ({error})", "Delete it, or name another file"
            ) from None
        if described != self.described or values.shape != self.values.shape:
            told = "it holds the cells of another sweep (another model, prompts, metric or arguments)"
            raise ResultError(f"going on from {path}", told, "Delete it, or name another file")
        self.values, self.known = values, known


def describe(**parts: Any) -> str:
    """A hash that changes when any part of a sweep's arguments does, in content: also what a metric's function closes over."""
    text = "\0".join(f"{name}={described(part, depth=5)}" for name, part in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()
