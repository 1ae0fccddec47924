"""Run folders: what training leaves behind, and finding out whether it finished.

A run folder holds `config.json`, `model.safetensors`, `tokenizer/` (for text), `metrics.jsonl` (one row per reading) and, written
last, `provenance.json`: its presence means that the run is whole.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

import interp
from interp.config import as_dict
from interp.data import TokenData
from interp.errors import RunFolderError
from interp.files import write_whole
from interp.models.saved import open_saved
from interp.provenance import tensor_hash
from interp.result import Provenance
from interp.training.config import RunConfig

METRICS, PROVENANCE = "metrics.jsonl", "provenance.json"
TRAINING_CODE = ("models", "data", "training", "running.py", "probes", "seeds.py")


def run_id(config: RunConfig, data: TokenData, watch: Mapping[str, Callable] | None = None) -> str:
    """Ten characters that change when a setting, the data, what is watched or the training code does.

    Equal ids mean equal results, readings included.
    """
    described = json.dumps(as_dict(config), sort_keys=True) + data.fingerprint + _code_hash()
    for name, function in (watch or {}).items():
        described += f"\0{name}={_described(function)}"
    return hashlib.sha256(described.encode()).hexdigest()[:10]


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` came to its end."""
    return (folder / PROVENANCE).is_file()


def finish(folder: Path, provenance: dict[str, Any]) -> None:
    """Mark the run as whole, with its provenance."""
    write_whole(folder / PROVENANCE, json.dumps(provenance, indent=1, sort_keys=True))


def read_metrics(folder: Path) -> tuple[dict[str, float | int], ...]:
    """The rows of a run's metrics. Raises `RunFolderError` when they cannot be read."""
    try:
        return tuple(json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"metrics of {folder}", f"they cannot be read ({error})", "Delete the folder and train the run again"
        ) from None


def read_provenance(folder: Path) -> Provenance:
    """Where a finished run comes from. Raises `RunFolderError` when it did not finish or the file cannot be read."""
    try:
        return Provenance(**json.loads((folder / PROVENANCE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"provenance of {folder}", f"it cannot be read ({error})", "Train the run again") from None


def open_run(config: RunConfig, folder: Path) -> Any:
    """The finished run in `folder`, as `fit` returned it."""
    from interp.training.fit import FinishedRun

    return FinishedRun(config, open_saved(folder), read_metrics(folder), folder)


def _described(value: Any) -> str:
    """A text that changes when a function, its source or an argument bound to it does."""
    if isinstance(value, partial):
        bound = [*map(_described, value.args), *(f"{name}={_described(given)}" for name, given in value.keywords.items())]
        return f"{_described(value.func)}({', '.join(bound)})"
    if isinstance(value, Tensor):
        return tensor_hash(value)
    return inspect.getsource(value) if inspect.isfunction(value) else repr(value)


@lru_cache
def _code_hash() -> str:
    root = Path(interp.__file__).parent
    digest = hashlib.sha256()
    for part in TRAINING_CODE:
        files = sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()
