"""The part of a run folder that holds a model: `config.json`, `model.safetensors` and, for text, `tokenizer/`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from interp.config import as_dict, build
from interp.errors import ConfigError, RunFolderError
from interp.files import write_whole
from interp.models.architectures import ARCHITECTURES, build_model

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer"
WRAPPING = "_original_component."  # a bridge's own, in the names of the weights it wraps


def is_saved(folder: str | Path) -> bool:
    """Whether `folder` looks like a run folder (it has the configuration and the weights)."""
    return (Path(folder) / CONFIG).is_file() and (Path(folder) / WEIGHTS).is_file()


def save_model(model: Any, folder: str | Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Write a model into `folder`; `settings` are further entries for `config.json`. Each file appears whole or not at all."""
    folder = Path(folder)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder / TOKENIZER)
    keep = getattr(model.config, "save_architecture", None)
    if keep is not None:  # of a published model: its settings do not say what it is made of
        keep(model, folder)
    weights = {name: tensor.cpu().contiguous() for name, tensor in stored_weights(model).items()}
    write_whole(folder / WEIGHTS, save(weights))
    config = {**(settings or {}), "model": as_dict(model.config)}
    write_whole(folder / CONFIG, json.dumps(config, indent=1, sort_keys=True))
    return folder


def stored_weights(model: Any) -> dict[str, Tensor]:
    """The state of a model by name, without gradients; `load_weights` puts it back.

    A weight that goes by several names (tied embeddings) has its first alone, and views into another weight (a bridge's queries,
    keys and values in what the wrapped model keeps as one) are left out. A bridge's weights have the wrapped model's names.
    """
    wrapped = getattr(model, "original_model", model)  # a bridge's own state lacks what it has no name for
    first: dict[int, str] = {}
    named = {name.replace(WRAPPING, ""): tensor for name, tensor in wrapped.state_dict(keep_vars=True).items()}
    state = {name: tensor for name, tensor in named.items() if first.setdefault(id(tensor), name) == name}
    whole = {_storage(tensor): name for name, tensor in state.items() if _is_whole(tensor)}
    return {name: tensor.detach() for name, tensor in state.items() if whole.get(_storage(tensor), name) == name}


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put what `stored_weights` gave into a model of the same architecture."""
    model.load_state_dict(dict(weights), strict=False)  # what is left out is a second name of a weight, or a view into one


def count_parameters(model: Any) -> int:
    """How many numbers are trained or could be: every weight once, under however many names the model has it."""
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    return sum(tensor.numel() for tensor in stored_weights(model).values() if tensor.data_ptr() in parameters)


def open_saved(folder: str | Path) -> Any:
    """The model that `save_model` wrote, in eval mode, with its tokenizer if it has one; its logits are bit-equal.

    Raises `RunFolderError` when the folder is unfinished, damaged or of a kind this version does not know.
    """
    folder = Path(folder)
    described = _read_config(folder).get("model", {})
    config_class = ARCHITECTURES.get(described.get("kind")) if isinstance(described, dict) else None
    if config_class is None:
        raise RunFolderError(
            f"opening {folder}",
            f"its model is of kind {_kind(described)}, and the kinds are {', '.join(ARCHITECTURES)}",
            "Import the module that registers that kind first",
        )
    try:
        config: Any = build(config_class, described, source=str(folder / CONFIG))
    except ConfigError as error:
        raise RunFolderError(
            f"opening {folder}", f"its settings are not valid ({error.truth})", "Train it again, or mend config.json"
        ) from None
    reopen = getattr(config, "open_architecture", None)
    model = build_model(config) if reopen is None else reopen(folder)
    _load_weights(model, folder / WEIGHTS)
    if (folder / TOKENIZER).is_dir() and model.tokenizer is None:
        model.tokenizer = _read_tokenizer(folder / TOKENIZER)
    return model.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"opening {folder}", f"its {CONFIG} cannot be read ({error})", "Give a folder written by training"
        ) from None
    return config if isinstance(config, dict) else {}


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a dozen types, by what is missing or damaged
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise RunFolderError(
            f"opening {folder}", f"the tokenizer cannot be read ({said})", "Delete the folder and train the run again"
        ) from error


def _load_weights(model: Any, path: Path) -> None:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"opening {path}", f"the weights cannot be read ({error})", "Delete the folder and train the run again"
        ) from None
    wanted = {name: tensor.shape for name, tensor in stored_weights(model).items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if wrong:
        raise RunFolderError(
            f"opening {path}",
            f"these weights do not fit its config: {', '.join(wrong)}",
            "Delete the folder and train the run again",
        )
    bad = sorted(name for name, tensor in weights.items() if _not_finite(tensor))
    if bad:
        raise RunFolderError(
            f"opening {path}", f"these weights are not finite: {', '.join(bad)}", "Delete the folder and train the run again"
        )
    load_weights(model, weights)


def _storage(tensor: Tensor) -> tuple[Any, int]:
    """Equal for tensors that share memory; an empty one shares none."""
    return (tensor.device, tensor.untyped_storage().data_ptr() or id(tensor))


def _is_whole(tensor: Tensor) -> bool:
    """Whether no other tensor of its memory holds anything besides."""
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _not_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def _kind(described: Any) -> str:
    return repr(described.get("kind")) if isinstance(described, dict) else "unknown"
