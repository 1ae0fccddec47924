"""Finished cells on disk, so that an interrupted sweep goes on where it was."""

import hashlib
import time
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from interp.errors import ResultError
from interp.files import write_whole
from interp.identity import described
from interp.models.calling import standing_hooks
from interp.provenance import weights_hash
from interp.sites import HookedModel

SECONDS_BETWEEN = 10.0


class SavedCells:
    """Values [pair cell] with what is not known yet marked, written every few seconds to a file (or nowhere)."""

    def __init__(self, path: str | Path | None, described: str, shape: tuple[int, int]):
        """Takes up the cells that `path` holds. Raises `ResultError` when they belong to another sweep, or it is damaged."""
        self.path, self.described = None if path is None else Path(path), described
        self.values = torch.full(shape, torch.nan, dtype=torch.float64)
        self.runs = torch.full((2, shape[0]), torch.nan, dtype=torch.float64)  # the metric of each pair, in both untouched runs
        self.read = torch.zeros(shape[0], dtype=torch.bool)
        self.known = torch.zeros(shape, dtype=torch.bool)
        self._written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._take_up(self.path)

    def check_runs(self, pairs: Tensor, base: Tensor, other: Tensor, tolerance: float) -> None:
        """Note the metric of some pairs in both untouched runs. Raises `ResultError` when they are not those of the saved cells.

        `tolerance`: what rounding may change, relative to the largest.
        """
        fresh = torch.stack([base, other]).detach().cpu().to(torch.float64)
        before, read = self.runs[:, pairs], self.read[pairs]
        largest = float(before[:, read].nan_to_num().abs().max()) if bool(read.any()) else 0.0
        if not torch.allclose(fresh[:, read], before[:, read], rtol=0.0, atol=tolerance * largest, equal_nan=True):
            raise self._another()
        self.runs[:, pairs[~read]] = fresh[:, ~read]
        self.read[pairs] = True

    def add(self, cells: Tensor, pairs: Tensor, values: Tensor) -> None:
        self.values[pairs, cells] = values.detach().cpu().to(torch.float64)
        self.known[pairs, cells] = True
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            self.write()

    def write(self) -> None:
        """Write everything known so far, whole or not at all."""
        if self.path is not None:
            tensors = {"values": self.values, "known": self.known, "runs": self.runs, "read": self.read}
            write_whole(self.path, save(tensors, {"sweep": self.described}))
        self._written = time.monotonic()

    def _take_up(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                described = (file.metadata() or {}).get("sweep")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        except (OSError, SafetensorError) as error:
            raise ResultError(
                f"going on from {path}", f"it cannot be read ({error})", "Delete it, or name another file"
            ) from None
        if described != self.described or tensors["values"].shape != self.values.shape:
            raise self._another()
        self.values, self.known, self.runs, self.read = (tensors[name] for name in ("values", "known", "runs", "read"))

    def _another(self) -> ResultError:
        told = "it holds the cells of another sweep (another model, hooks on it, prompts, metric or arguments)"
        return ResultError(f"going on from {self.path}", told, "Delete it, or name another file")


def describe(model: HookedModel, **parts: Any) -> str:
    """A hash that changes when the model's weights, the hooks that stand on it or any part of a sweep's arguments do."""
    roots = [root for root in (model, getattr(model, "original_model", None)) if isinstance(root, nn.Module)]
    told = [module for root in roots for module in root.modules()]
    parts |= {"weights": weights_hash(cast(nn.Module, model)), "hooks": standing_hooks(model)}
    text = "\0".join(f"{name}={described(part, told)}" for name, part in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()
