"""Where training begins: with fresh weights, or with those of a model trained before."""

from pathlib import Path
from typing import Any

import torch

from interp.config import as_dict
from interp.errors import ConfigError, nearest
from interp.models import ModelConfig, PretrainedConfig, build_model, bundled_models
from interp.models.calling import device_of
from interp.models.opening import BUNDLED
from interp.models.saved import is_saved, open_saved
from interp.provenance import weights_hash
from interp.training.config import RunConfig, TrainConfig


def starting_model(described: ModelConfig, train: TrainConfig, tokenizer: Any) -> Any:
    """The model that training begins with, in eval mode: drawn by `train.seed`, published, or opened from `train.start_from`.

    It has the data's `tokenizer`; a published model has its own, which `PretrainedConfig.check_data` found to be the same.
    Raises `ConfigError` when there is no such model, when its settings are not `described`, or when its tokenizer gives other
    ids than `tokenizer` (None: the data has no text, and ids alone must fit); `RunFolderError` for a damaged folder.
    """
    if train.start_from is None:
        return _with_tokenizer(build_model(described, seed=train.seed), tokenizer)
    asked, model = f"train.start_from={train.start_from!r}", open_saved(start_folder(train.start_from))
    found, wanted = as_dict(model.config), as_dict(described)
    differing = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if differing:
        told = ", ".join(f"{name} is {found.get(name)} there and {wanted.get(name)} here" for name in differing)
        raise ConfigError(asked, told, "Give the model settings of the run to start from")
    if tokenizer is not None and model.tokenizer is not None and tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise ConfigError(
            asked, "its tokenizer gives other ids than the data's", "Set data.tokenizer to the folder tokenizer/ of that run"
        )
    return _with_tokenizer(model, tokenizer)


def on_device(model: Any, device: torch.device) -> Any:
    """The model on a device. TransformerLens' bridge would print that it moves."""
    if device_of(model) == device:
        return model
    return model.to(device, print_details=False) if hasattr(model, "original_model") else model.to(device)


def _with_tokenizer(model: Any, tokenizer: Any) -> Any:
    if not isinstance(model.config, PretrainedConfig):  # TransformerLens prepared that one's for the model
        model.tokenizer = tokenizer
    return model


def start_folder(spec: str) -> Path:
    """The folder of a bundled model or a run. Raises `ConfigError` when there is none."""
    if spec in bundled_models():
        return BUNDLED / spec
    if is_saved(spec):
        return Path(spec)
    raise ConfigError(
        f"train.start_from={spec!r}",
        "there is no finished run folder and no bundled model of that name",
        f"{nearest(spec, bundled_models())}Give a run folder, or one of {', '.join(bundled_models())}",
    )


def start_identity(config: RunConfig) -> dict[str, str]:
    """What a run's results depend on besides its settings: the weights it starts from, by content; nothing for fresh ones."""
    if config.train.start_from is not None:
        return {"starting weights": weights_hash(open_saved(start_folder(config.train.start_from)))}
    return {"published weights": config.model.identity()} if isinstance(config.model, PretrainedConfig) else {}
