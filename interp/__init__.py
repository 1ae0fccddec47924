"""interp: which head does what, and is it really the cause?

Names are imported when first used, so that `import interp` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Provenance": "interp.result",
    "Result": "interp.result",
    "Site": "interp.sites",
    "Intervention": "interp.running",
    "Probe": "interp.running",
    "edited": "interp.running",
    "run": "interp.running",
    "audit": "interp.models",
    "bundled_models": "interp.models",
    "hooked": "interp.models",
    "load_model": "interp.models",
    "attention_patterns": "interp.probes",
    "composition_scores": "interp.probes",
    "copying_scores": "interp.probes",
    "duplicate_token_scores": "interp.probes",
    "head_scores": "interp.probes",
    "in_context_learning": "interp.probes",
    "induction_scores": "interp.probes",
    "kernel_stats": "interp.probes",
    "key_smear": "interp.probes",
    "null_scores": "interp.probes",
    "perplexity": "interp.probes",
    "prefix_matching_scores": "interp.probes",
    "previous_token_scores": "interp.probes",
    "qk_trace_scores": "interp.probes",
    "repeat_loss": "interp.probes",
    "repeated_tokens": "interp.probes",
    "shuffled_tokens": "interp.probes",
    "token_losses": "interp.probes",
    "ablate_together": "interp.interventions",
    "ablated": "interp.interventions",
    "ablation_effects": "interp.interventions",
    "ablation_sweep": "interp.interventions",
    "cumulative_ablation": "interp.interventions",
    "calibrate": "interp.calibration",
    "fit": "interp.training",
}
_MODULES = ("errors", "metrics")
__all__ = [*_HOME, *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from interp import errors, metrics
    from interp.calibration import calibrate
    from interp.interventions import ablate_together, ablated, ablation_effects, ablation_sweep, cumulative_ablation
    from interp.models import audit, bundled_models, hooked, load_model
    from interp.probes import (
        attention_patterns,
        composition_scores,
        copying_scores,
        duplicate_token_scores,
        head_scores,
        in_context_learning,
        induction_scores,
        kernel_stats,
        key_smear,
        null_scores,
        perplexity,
        prefix_matching_scores,
        previous_token_scores,
        qk_trace_scores,
        repeat_loss,
        repeated_tokens,
        shuffled_tokens,
        token_losses,
    )
    from interp.result import Provenance, Result
    from interp.running import Intervention, Probe, edited, run
    from interp.sites import Site
    from interp.training import fit


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"interp.{name}")
    if name not in _HOME:
        from interp.errors import nearest

        raise AttributeError(f"module 'interp' has no {name!r}. {nearest(name, _HOME)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
