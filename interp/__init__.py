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
    "Edge": "interp.interventions",
    "edited": "interp.running",
    "run": "interp.running",
    "generate": "interp.generation",
    "architecture": "interp.models",
    "audit": "interp.models",
    "build_model": "interp.models",
    "bundled_models": "interp.models",
    "hooked": "interp.models",
    "load_model": "interp.models",
    "attention_patterns": "interp.probes",
    "composition_scores": "interp.probes",
    "copying_scores": "interp.probes",
    "direct_logit_attribution": "interp.probes",
    "diagnose": "interp.probes",
    "duplicate_token_scores": "interp.probes",
    "head_scores": "interp.probes",
    "in_context_learning": "interp.probes",
    "induction_scores": "interp.probes",
    "kernel_stats": "interp.probes",
    "key_smear": "interp.probes",
    "logit_lens": "interp.probes",
    "logit_lens_tokens": "interp.probes",
    "mean_pooled": "interp.probes",
    "ngram_floors": "interp.probes",
    "null_scores": "interp.probes",
    "perplexity": "interp.probes",
    "prefix_matching_scores": "interp.probes",
    "previous_token_scores": "interp.probes",
    "qk_trace_scores": "interp.probes",
    "repeat_loss": "interp.probes",
    "residual_embeddings": "interp.probes",
    "repeated_tokens": "interp.probes",
    "shuffled_tokens": "interp.probes",
    "token_losses": "interp.probes",
    "ablate_attention": "interp.interventions",
    "ablate_together": "interp.interventions",
    "ablated": "interp.interventions",
    "ablation_effects": "interp.interventions",
    "ablation_sweep": "interp.interventions",
    "activation_patching": "interp.interventions",
    "attribution_agreement": "interp.interventions",
    "attribution_patching": "interp.interventions",
    "circuit_curve": "interp.interventions",
    "circuit_values": "interp.interventions",
    "constrained_finetune": "interp.interventions",
    "cumulative_ablation": "interp.interventions",
    "edit_scores": "interp.interventions",
    "edge_attribution": "interp.interventions",
    "edge_patching": "interp.interventions",
    "path_patching": "interp.interventions",
    "top_edges": "interp.interventions",
    "wiring": "interp.interventions",
    "patching_effects": "interp.interventions",
    "calibrate": "interp.calibration",
    "find_runs": "interp.training",
    "fit": "interp.training",
    "kept_checkpoints": "interp.training",
    "open_checkpoint": "interp.training",
    "phase_change": "interp.training",
    "plot_metrics": "interp.training",
    "pull_run": "interp.training",
    "push_run": "interp.training",
    "verify_run": "interp.training",
    "overview": "interp.pages.overview",
}
_MODULES = ("errors", "metrics")
_PACKAGES = ("data", "interventions", "models", "probes", "report", "training")  # open as attributes, but no names of their own
__all__ = [*_HOME, *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from interp import errors, metrics
    from interp.calibration import calibrate
    from interp.generation import generate
    from interp.interventions import (
        Edge,
        ablate_attention,
        ablate_together,
        ablated,
        ablation_effects,
        ablation_sweep,
        activation_patching,
        attribution_agreement,
        attribution_patching,
        circuit_curve,
        circuit_values,
        constrained_finetune,
        cumulative_ablation,
        edge_attribution,
        edge_patching,
        edit_scores,
        patching_effects,
        path_patching,
        top_edges,
        wiring,
    )
    from interp.models import architecture, audit, build_model, bundled_models, hooked, load_model
    from interp.pages.overview import overview
    from interp.probes import (
        attention_patterns,
        composition_scores,
        copying_scores,
        diagnose,
        direct_logit_attribution,
        duplicate_token_scores,
        head_scores,
        in_context_learning,
        induction_scores,
        kernel_stats,
        key_smear,
        logit_lens,
        logit_lens_tokens,
        mean_pooled,
        ngram_floors,
        null_scores,
        perplexity,
        prefix_matching_scores,
        previous_token_scores,
        qk_trace_scores,
        repeat_loss,
        repeated_tokens,
        residual_embeddings,
        shuffled_tokens,
        token_losses,
    )
    from interp.result import Provenance, Result
    from interp.running import Intervention, Probe, edited, run
    from interp.sites import Site
    from interp.training import (
        find_runs,
        kept_checkpoints,
        open_checkpoint,
        phase_change,
        plot_metrics,
        pull_run,
        push_run,
        verify_run,
    )
    from interp.training.fit import fit


def __getattr__(name: str) -> Any:
    if name in _MODULES or name in _PACKAGES:
        return import_module(f"interp.{name}")
    if name not in _HOME:
        from interp.errors import nearest

        raise AttributeError(f"module 'interp' has no {name!r}. {nearest(name, _HOME)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
