"""Filling in a `Provenance`: what was run, with which weights, on what, by which code."""

import shlex
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from interp.result import Provenance

PACKAGES = ("interp", "torch", "transformer-lens", "transformers")


def provenance_of(model: nn.Module, tokens: Tensor, seconds: float) -> Provenance:
    """The provenance of a measurement on `model` and `tokens`. Cost: one pass over the weights at memory speed."""
    parameter = next(iter(model.parameters()), torch.empty(0))
    return Provenance(
        model=_model_name(model),
        weights=weights_hash(model),
        tokens=tensor_hash(tokens if tokens.is_floating_point() else tokens.long()),  # ids, whatever the type that holds them
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=str(parameter.device),
        versions=versions(),
        code=code_version(),
        command=command_line(),
        seconds=round(seconds, 3),
    )


def tensor_hash(tensor: Tensor) -> str:
    """128-bit hash of a tensor's type, shape and bytes (not cryptographic: it detects change, not malice)."""
    digest = xxhash.xxh3_128(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(_bytes(tensor))
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """128-bit hash of every named parameter and buffer; equal weights give equal hashes whatever the device."""
    digest = xxhash.xxh3_128()
    buffers = dict(model.named_buffers())  # also those that are not saved, such as the mask over a kernel's taps
    for name, tensor in sorted({**buffers, **model.state_dict()}.items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _model_name(model: nn.Module) -> str:
    """The class, and the name that the model's configuration gives it, if it does."""
    name = getattr(getattr(model, "cfg", None), "model_name", None)
    shown = Path(name).name if isinstance(name, str) else ""  # a local folder's name, not where it lies on this machine
    return f"{type(model).__name__} {shown}".strip()


@lru_cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def code_version() -> str:
    """Commit of the source tree `interp` runs from ("+" appended when files differ from it); "" outside git."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", "interp", "experiments") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def command_line() -> str:
    """The command that started this process, without folders of this machine; "notebook" under Jupyter.

    In a worker process it is the script and the arguments of the process that started it.
    """
    words = sys.orig_argv
    if any("multiprocessing" in word for word in words):
        words = ["python", *sys.argv]
    if any("ipykernel" in word for word in words):
        return "notebook"
    return shlex.join(_without_folders(word) for word in words)


def _without_folders(word: str) -> str:
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) and path.suffix == ".py" else path.name


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")  # type: ignore[arg-type]
