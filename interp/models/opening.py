"""Opening a model from whatever names it: a folder, a name on the Hugging Face Hub, or the model itself."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from interp.errors import ModelError, kind_of, nearest
from interp.models.saved import CONFIG, is_saved, open_saved
from interp.sites import HookedModel

HUB_TIMEOUT = 5.0  # seconds for the one question that is asked before anything is downloaded
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
WEIGHT_FILES = ("*.safetensors", "*.bin")
_SHOWN = 8  # names in a message
BUNDLED = Path(__file__).parent / "bundled"
SPECS = (
    "a bundled name (interp.bundled_models() lists them), a run folder, "
    "a local Hugging Face folder (written by save_pretrained), a name on the Hub such as 'gpt2', or a live model"
)


def bundled_models() -> tuple[str, ...]:
    """The names of the small trained models that come with `interp`; `load_model` opens each without a network."""
    return tuple(sorted(folder.name for folder in BUNDLED.glob("*") if is_saved(folder)))


def bundled_folder(spec: Any) -> Path | None:
    """The folder of the bundled model that `spec` names (its run folder, checkpoints included), or None when it names none."""
    return BUNDLED / spec if isinstance(spec, str) and spec in bundled_models() else None


def load_model(spec: Any) -> HookedModel:
    """The model that `spec` names, ready for `interp`, in eval mode.

    - a bundled name (see `bundled_models`): a small model trained by this project (write "./name" for a folder of that name);
    - a run folder that training wrote: the toy in it;
    - a local Hugging Face folder: through TransformerLens' bridge, with eager attention, and its tokenizer when it has one;
    - a name on the Hub (`"gpt2"`, `"EleutherAI/pythia-70m"`): the same, from the local cache when it is there (then without
      touching the network), else downloaded;
    - a live `HookedTransformer`, `TransformerBridge` or `HookedRootModule`: itself, unchanged.

    Weights are as published: nothing is folded or centred. Raises `ModelError` saying what was tried and what can be given
    instead (without a network within seconds), and `RunFolderError` for a damaged run folder.
    """
    if isinstance(spec, HookedModel):
        return spec
    if isinstance(spec, nn.Module):
        raise _not_hooked(spec)
    if not isinstance(spec, (str, Path)):
        raise ModelError(f"loading {spec!r}", f"{kind_of(spec)} does not name a model", f"Give {SPECS}")
    bundled = bundled_folder(spec)
    if bundled is not None:
        return open_saved(bundled)
    if Path(spec).exists():
        return _open_folder(Path(spec))
    if isinstance(spec, Path):
        raise ModelError(f"loading {str(spec)!r}", "there is no such folder", f"Give {SPECS}")
    return _open_hub_name(spec)


def _not_hooked(module: nn.Module) -> ModelError:
    kind = type(module).__name__
    if hasattr(module, "save_pretrained"):
        remedy = (
            "Save it with model.save_pretrained(folder) and give the folder (TransformerLens then opens it), "
            "or name the sites you need with interp.hooked(model, sites)"
        )
    else:
        remedy = "Give it some with interp.hooked(module, {site: submodule path, …}); its source is not touched"
    return ModelError(f"loading a live {kind}", "it has no hook points", remedy)


def _open_folder(folder: Path) -> HookedModel:
    if is_hugging_face(folder):
        return _boot(str(folder), folder, f"the Hugging Face folder {str(folder)!r}")
    if is_saved(folder):
        return open_saved(folder)
    models = _model_folders(folder)
    if models:
        holds = "one model folder is" if len(models) == 1 else f"{len(models)} model folders are"
        raise ModelError(
            f"loading {str(folder)!r}",
            f"it is no model folder itself; {holds} in it",
            f"Give {'that one' if len(models) == 1 else 'one of them'}: {_listed([repr(str(found)) for found in models])}",
        )
    inside = _listed(sorted(path.name for path in folder.iterdir())) or "nothing" if folder.is_dir() else "it is a file"
    truth = f"it is no model folder: that holds {CONFIG} and weights, this one holds: {inside}"
    raise ModelError(f"loading {str(folder)!r}", truth, f"Give {SPECS}")


def _model_folders(folder: Path) -> list[Path]:
    """The run folders and Hugging Face folders right below `folder`, or where there is none, one step further down."""
    for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}"):
        found = sorted(path.parent for path in folder.glob(pattern) if is_saved(path.parent) or is_hugging_face(path.parent))
        if found:
            return found
    return []


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def is_hugging_face(folder: Path) -> bool:
    """Whether `config.json` is a Hugging Face model's (a run folder's has other entries)."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool({"architectures", "model_type"} & set(config))


def _open_hub_name(name: str) -> HookedModel:
    name = official_name(name)
    cached = cached_folder(name)
    if cached is not None:
        return _boot(str(cached), cached, f"{name!r} from the local cache", name=name)
    _check_on_hub(name)
    return _boot(name, None, f"{name!r} from the Hub")


def official_name(name: str) -> str:
    """The Hub name for a short name that TransformerLens knows ("pythia-70m"), else the name as given."""
    from transformer_lens.supported_models import MODEL_ALIASES

    return next((official for official, short in MODEL_ALIASES.items() if name in short), name)


def cached_folder(name: str) -> Path | None:
    """The folder of the local Hub cache that holds `name` whole (configuration and weights), or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except HFValidationError:
        raise ModelError(
            f"loading {name!r}", "there is no such folder, and it cannot be a name on the Hub either", f"Give {SPECS}"
        ) from None
    except OSError:
        return None
    whole = (folder / CONFIG).is_file() and any(path for pattern in WEIGHT_FILES for path in folder.glob(pattern))
    return folder if whole else None


def _check_on_hub(name: str) -> None:
    """Ask the Hub once, with a short timeout, whether `name` exists: the loaders themselves retry for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    tried = f"there is no folder {name!r} and no such model in the local Hub cache"
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

        raise ModelError(
            f"loading {name!r}",
            f"{tried}, and the Hub has no such model (or it is private)",
            f"{nearest(name, [*bundled_models(), *OFFICIAL_MODEL_NAMES])}Give {SPECS}",
        ) from None
    except Exception as error:
        raise ModelError(
            f"loading {name!r}",
            f"{tried}, and the Hub cannot be reached ({_first_line(error)})",
            f"{nearest(name, bundled_models())}Connect and try again, or give a folder, "
            f"a bundled model ({', '.join(bundled_models()) or 'none'}) or one of the cached ones ({_cached_names()})",
        ) from None


def _cached_names() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    found = sorted(path.name.removeprefix("models--").replace("--", "/") for path in Path(HF_HUB_CACHE).glob("models--*"))
    return ", ".join(found[:10]) or "none here"


def _boot(source: str, folder: Path | None, described: str, name: str | None = None) -> HookedModel:
    from transformer_lens.model_bridge import TransformerBridge

    bare = folder is not None and not any((folder / file).exists() for file in TOKENIZER_FILES)
    try:
        with _weights_missing() as missing:
            bridge: Any = TransformerBridge.boot_transformers(source, tokenizer=placeholder_tokenizer(source) if bare else None)
    except Exception as error:
        raise ModelError(
            f"loading {described}",
            f"TransformerLens cannot open it ({_first_line(error)})",
            "See that the folder is whole; if it is, give a model of an architecture that TransformerLens supports, or load it "
            "with transformers and name its sites with interp.hooked(model, sites)",
        ) from error
    if missing:
        shown = ", ".join(sorted(missing)[:4]) + (", …" if len(missing) > 4 else "")
        raise ModelError(
            f"loading {described}",
            f"its weights lack {len(missing)} that its configuration asks for and that would be random: {shown}",
            "Give a whole checkpoint, of the architecture that its configuration names",
        )
    broken = [name for name, weight in bridge.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise ModelError(
            f"loading {described}",
            f"{len(broken)} of its weights hold NaN or infinite numbers: "
            + ", ".join(name.replace("_original_component.", "") for name in broken[:3]),  # the bridge's own wrapping
            "Give a checkpoint that was saved whole; every number from this one would be NaN",
        )
    if bare:
        bridge.tokenizer = None
    if name is not None:
        bridge.cfg.model_name = name
    return bridge.eval()


@contextmanager
def _weights_missing() -> Iterator[list[str]]:
    """Collects the names of the weights that a checkpoint loaded in the block did not have.

    transformers fills them at random and says so in its log only, which TransformerLens turns off.
    """
    missing: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage())
            missing.extend(re.findall(r"^(\S+) +\| +MISSING\b", text, flags=re.MULTILINE))

    logger, listener = logging.getLogger("transformers.modeling_utils"), Listener()
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers
    try:
        logger.handlers, logger.propagate = [listener], False
        logger.setLevel(logging.WARNING)
        yield missing
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def placeholder_tokenizer(source: str) -> Any:
    """For folders without one: TransformerLens insists on a tokenizer, and would look for one on the Hub."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokens = {"bos_token": "<s>", "eos_token": "<s>", "pad_token": "<s>", "unk_token": "<s>"}
    backend = Tokenizer(WordLevel({"<s>": 0}, unk_token="<s>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, name_or_path=source, add_bos_token=True, **tokens)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
