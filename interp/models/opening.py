"""Opening a model from whatever names it."""

from pathlib import Path
from typing import Any

from interp.errors import ModelError
from interp.models.saved import is_saved, open_saved
from interp.sites import HookedModel


def load_model(spec: Any) -> HookedModel:
    """The model that `spec` names: a run folder, or a live hooked model, which is returned as it is.

    Raises `ModelError` when it names neither, and `RunFolderError` for a damaged run folder.
    """
    if isinstance(spec, HookedModel):
        return spec
    if isinstance(spec, (str, Path)) and is_saved(spec):
        return open_saved(spec)
    raise ModelError(f"loading {spec!r}", "it is neither a hooked model nor a run folder", "Give a folder that training wrote")
