"""interp: which head does what, and is it really the cause?

Names are imported when first used, so that `import interp` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Result": "interp.result",
    "Provenance": "interp.result",
    "Site": "interp.sites",
    "Probe": "interp.running",
    "Intervention": "interp.running",
    "run": "interp.running",
    "load_model": "interp.models",
    "repeated_tokens": "interp.probes",
    "induction_scores": "interp.probes",
    "previous_token_scores": "interp.probes",
    "duplicate_token_scores": "interp.probes",
    "attention_patterns": "interp.probes",
    "repeat_loss": "interp.probes",
    "key_smear": "interp.probes",
    "kernel_stats": "interp.probes",
    "fit": "interp.training",
}
__all__ = list(_HOME)  # noqa: PLE0605

if TYPE_CHECKING:
    from interp.models import load_model
    from interp.probes import (
        attention_patterns,
        duplicate_token_scores,
        induction_scores,
        kernel_stats,
        key_smear,
        previous_token_scores,
        repeat_loss,
        repeated_tokens,
    )
    from interp.result import Provenance, Result
    from interp.running import Intervention, Probe, run
    from interp.sites import Site
    from interp.training import fit


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        from interp.errors import nearest

        raise AttributeError(f"module 'interp' has no {name!r}. {nearest(name, _HOME)}")
    module = import_module(_HOME[name])
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
