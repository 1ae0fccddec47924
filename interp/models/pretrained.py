"""Published models as an architecture: a causal language model of Hugging Face's format, to be trained on.

    fit(RunConfig(model=PretrainedConfig(path="gpt2"), data=TextConfig(tokenizer="gpt2"), …))

The model is what `load_model` opens, so hooks, callbacks and probes act on it while it trains. Its run folder opens without what
was published: `architecture/` holds Hugging Face's configuration, `model.safetensors` the weights by the wrapped model's names.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from interp.config import setting, settings
from interp.errors import ConfigError, ModelError, RunFolderError
from interp.models.architectures import ARCHITECTURES
from interp.models.calling import device_of, eval_mode, logits_of
from interp.models.opening import WEIGHT_FILES, cached_folder, is_hugging_face, load_model, official_name, placeholder_tokenizer

ARCHITECTURE, TOKENIZER = "architecture", "tokenizer"


@ARCHITECTURES.register
@settings
class PretrainedConfig:
    """A causal language model with the weights that it was published with."""

    kind: Literal["pretrained"] = setting("pretrained", "which architecture this is")
    path: str = setting(
        "gpt2", "a name on the Hugging Face Hub, or a folder that save_pretrained wrote; the tokenizer is its own"
    )

    def build(self) -> Any:
        """The model as published, in eval mode, with its own tokenizer.

        Raises `ModelError` where `load_model` does, and for what is no causal language model of Hugging Face's.
        """
        model: Any = load_model(str(self.folder()))
        if not hasattr(model, "original_model"):
            raise _no_published_model(self.path)
        _check_causal(model, self.path)
        _without_added_bias(model)
        model.config = self
        return model

    def folder(self) -> Path:
        """The folder on this machine that holds the model; a name is downloaded when the local cache lacks it."""
        local = Path(self.path).expanduser()
        if local.is_dir():
            if not is_hugging_face(local):
                raise _no_published_model(self.path)
            return local
        name = official_name(self.path)
        found = cached_folder(name)
        if found is None:
            if not hasattr(load_model(name), "original_model"):  # this fills the cache, or says why it cannot
                raise _no_published_model(self.path)
            found = cached_folder(name)
        if found is None:
            raise ModelError(f"loading {name!r}", "it was downloaded, and the local cache lacks it", "Give a folder")
        return found

    def identity(self) -> str:
        """A hash of the published files: what the path names may change. Cost: reading them, once per process."""
        return _content(self.folder())

    def check_data(self, d_vocab: int, length: int, tokenizer: Any) -> None:
        """Raise `ConfigError` unless the model reads such rows, made by its own tokenizer (None: by no tokenizer)."""
        described = _described(self.folder())
        most, longest = described.vocab_size, getattr(described, "max_position_embeddings", None)
        if tokenizer is not None and tokenizer.get_vocab() != _vocabulary(self.folder()):
            truth = "the data's tokenizer gives other ids than the model's"
            raise ConfigError(f"model.path={self.path!r}", truth, f"Set data.tokenizer={self.path}")
        if d_vocab > most:
            raise ConfigError(f"model.path={self.path!r}", f"it has {most} tokens and the data {d_vocab}", "Choose other data")
        if longest is not None and length > longest:
            truth = f"it reads up to {longest} tokens and sequences have {length}"
            raise ConfigError(f"model.path={self.path!r}", truth, "Set data.length lower")

    def save_architecture(self, model: Any, folder: Path) -> None:
        """Write what `open_architecture` needs."""
        model.original_model.config.save_pretrained(folder / ARCHITECTURE)

    def open_architecture(self, folder: Path) -> Any:
        """The architecture that was saved in `folder`, with its tokenizer and with weights that are yet to be loaded.

        Raises `RunFolderError` for a folder that cannot be read.
        """
        from transformer_lens.model_bridge import TransformerBridge
        from transformers import AutoTokenizer

        source, has_tokenizer = folder / ARCHITECTURE, (folder / TOKENIZER).is_dir()
        try:
            tokenizer = (
                AutoTokenizer.from_pretrained(folder / TOKENIZER, local_files_only=True)
                if has_tokenizer
                else placeholder_tokenizer(str(source))
            )
            bridge: Any = TransformerBridge.boot_transformers(str(source), tokenizer=tokenizer, load_weights=False)
        except Exception as error:  # a dozen types, by what is missing or damaged
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise RunFolderError(
                f"opening {folder}", f"its {ARCHITECTURE} cannot be read ({said})", "Delete the folder and train the run again"
            ) from error
        if not has_tokenizer:
            bridge.tokenizer = None
        _without_added_bias(bridge)
        bridge.cfg.model_name = Path(self.path).name
        bridge.config = self
        return bridge


def _no_published_model(path: str) -> ModelError:
    return ModelError(
        f"model.path={path!r}",
        "it is a model of interp's own, not one of Hugging Face's",
        "Give train.start_from that run folder or name, and the model settings it was trained with",
    )


def _described(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a dozen types, by what is missing or unknown
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(
            f"loading {str(folder)!r}", f"its config.json cannot be read ({said})", "Give a folder that save_pretrained wrote"
        ) from None


def _check_causal(model: Any, path: str) -> None:
    """Raise `ModelError` for a model that sees the token it is to predict."""
    rows = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]])
    with torch.no_grad(), eval_mode(model):
        first, second = logits_of(model, rows.to(device_of(model)))[:, :3]
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-4):
        raise ModelError(f"model.path={path!r}", "its output depends on later tokens", "Give a causal language model")


def _without_added_bias(bridge: Any) -> None:
    """TransformerLens 3.9 gives every unembedding a bias of zeros; what was not published is not to be trained."""
    from transformers import AutoModelForCausalLM

    unembed = bridge.unembed.original_component
    bias = unembed._parameters.get("bias")
    if bias is None:
        return
    with torch.device("meta"):
        published = AutoModelForCausalLM.from_config(bridge.original_model.config).get_output_embeddings()
    if getattr(published, "bias", None) is None:
        del unembed._parameters["bias"]
        unembed.register_buffer("bias", bias.detach())


def _content(folder: Path) -> str:
    files = sorted(file for pattern in ("config.json", *WEIGHT_FILES) for file in folder.glob(pattern))
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(Path(path).name.encode())
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=8)
def _vocabulary(folder: Path) -> dict[str, int]:
    from interp.data.tokenizers import open_tokenizer

    return open_tokenizer(str(folder)).get_vocab()
