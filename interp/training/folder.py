"""Run folders: what training leaves behind, and finding out whether it finished.

A run folder holds `run.json` and `config.json` (written first), `metrics.jsonl` (one row per reading, as they come) and
`metrics.csv`, `model.safetensors`, `tokenizer/` (for text), `samples.jsonl` (generated after each epoch), `checkpoints/` (copies
of the model, if asked for) and, written last, `provenance.json`: its presence means that the run is whole. Until then
`checkpoint.pt` is what a killed run goes on from; a grid's worker tells there how far it is (`progress.json`) and what went wrong
(`failures.jsonl`).
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import interp
from interp.config import as_dict
from interp.data import TokenData
from interp.errors import RunFolderError
from interp.files import write_whole
from interp.identity import described, source_of
from interp.models.saved import open_saved
from interp.result import Provenance
from interp.training.config import RunConfig
from interp.training.start import start_identity

METRICS, TABLE, RUN, PROVENANCE = "metrics.jsonl", "metrics.csv", "run.json", "provenance.json"
TRAINING_CODE = ("models", "data", "training", "running.py", "probes", "seeds.py")


def run_id(config: RunConfig, data: TokenData, watch: Mapping[str, Callable] | None = None, callbacks: Sequence[Any] = ()) -> str:
    """Ten characters that change when a setting, the data, what is watched, a callback or the training code does.

    Equal ids mean equal results, readings included.
    """
    parts = identity_of(config, data, watch, callbacks)
    return hashlib.sha256("\0".join(parts.values()).encode()).hexdigest()[:10]


def identity_of(
    config: RunConfig, data: TokenData, watch: Mapping[str, Callable] | None = None, callbacks: Sequence[Any] = ()
) -> dict[str, str]:
    """What a run's results depend on: a hash of each part, by the part's name."""
    parts = {
        "settings": json.dumps(as_dict(config), sort_keys=True),
        "data": data.fingerprint,
        "watched functions": "".join(f"\0{name}={described(function)}" for name, function in (watch or {}).items()),
        "callbacks": "\0".join(_described_callback(callback) for callback in callbacks),
        "training code": _code_hash(),
        **start_identity(config),
    }
    return {part: hashlib.sha256(text.encode()).hexdigest()[:16] for part, text in parts.items()}


def read_identity(folder: Path) -> dict[str, str]:
    """The parts of `identity_of` that the run in `folder` was begun with; {} when that is not known."""
    try:
        identity = json.loads((folder / RUN).read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(identity) if isinstance(identity, dict) else {}


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


def table_of(rows: Sequence[Mapping[str, float | int]]) -> str:
    """The rows as CSV; a column that a row lacks is empty there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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


def _described_callback(callback: Any) -> str:
    """By its class and the arguments it was made with: what else it holds changes as it is used."""
    return f"{type(callback).__qualname__}{source_of(callback)}{described(callback.arguments)}"


@lru_cache
def _code_hash() -> str:
    root = Path(interp.__file__).parent
    digest = hashlib.sha256()
    for part in TRAINING_CODE:
        files = sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()
