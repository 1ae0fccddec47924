"""Checking that a run folder still says what it said: the model that is loaded reproduces what was recorded."""

import json
from pathlib import Path

import torch

from interp.config import build
from interp.data import TokenData, load_data
from interp.errors import ConfigError, RunFolderError
from interp.models.calling import eval_mode, logits_of
from interp.models.saved import CONFIG, open_saved
from interp.result import Result
from interp.training.config import RunConfig
from interp.training.folder import read_metrics, read_provenance
from interp.training.readings import validation_numbers


def verify_run(path: str | Path, *, data: TokenData | None = None, tolerance: float = 1e-4) -> Result:
    """Load the run in `path` and compare: its validation loss with the recorded one, and two forward passes with each other.

    Returns axes (loss): `recorded`, `measured`, `difference` (all nats). `data` replaces what `config.json` describes when it is
    loaded already. Equal bit for bit on the machine that trained on a CPU; kernels of other machines round differently.
    Raises `RunFolderError` when the data is not what the run was trained on, when the loss differs by more than `tolerance`
    nats, or when two forward passes on the same tokens differ at all. Cost: one validation reading and two batches.
    """
    folder = Path(path)
    config = read_config(folder)
    recorded = float(read_metrics(folder)[-1]["validation_loss"])
    data = data or load_data(config.data)
    trained_on = read_provenance(folder).data.rsplit(" ", 1)[-1]
    if trained_on != data.fingerprint:
        raise RunFolderError(
            f"verifying {folder}",
            f"the data ({data.description}) has the fingerprint {data.fingerprint}, and the run was trained on {trained_on}",
            "Give the data it was trained on",
        )
    model = open_saved(folder)
    measured = validation_numbers(model, data, config.train)["validation_loss"]
    difference = measured - recorded
    if not abs(difference) <= tolerance:  # NaN too
        raise RunFolderError(
            f"verifying {folder}",
            f"the model's validation loss is {measured:.6f} and {recorded:.6f} was recorded",
            f"The weights or the code changed since; a difference up to {tolerance} would pass",
        )
    tokens = data.validation[: config.train.batch_size]
    with eval_mode(model), torch.no_grad():
        first, second = logits_of(model, tokens), logits_of(model, tokens)
    if not torch.equal(first, second):
        raise RunFolderError(
            f"verifying {folder}",
            f"two forward passes on the same tokens differ, by up to {float((first - second).abs().max()):.3g}",
            "The model draws random numbers in eval mode: find out where",
        )
    return Result(
        name="verify_run",
        values=torch.tensor([recorded, measured, difference], dtype=torch.float64),
        axes=("loss",),
        labels={"loss": ("recorded", "measured", "difference")},
        count=len(data.validation[: config.train.eval_sequences]),
        unit="nats",
        description=f"validation loss of the run {folder.name}: deterministic, and within {tolerance} of what was recorded",
        provenance=read_provenance(folder),
    )


def read_config(folder: str | Path) -> RunConfig:
    """The settings of the run in `folder`. Raises `RunFolderError` when they cannot be read or are not those of a run."""
    path = Path(folder) / CONFIG
    try:
        return build(RunConfig, json.loads(path.read_text(encoding="utf-8")), source=str(path))
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise RunFolderError(
            f"settings of {folder}", f"they cannot be read ({error})", "Give a folder that interp.fit wrote"
        ) from None
