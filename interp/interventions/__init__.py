"""Interventions: rewriting activations as they flow past, to see what depends on them."""

from interp.interventions.ablation import ablated
from interp.interventions.attribution import attribution_patching, edge_attribution
from interp.interventions.attribution_agreement import attribution_agreement
from interp.interventions.circuit import circuit_curve, circuit_values, top_edges
from interp.interventions.edges import Edge, wiring
from interp.interventions.edits import Freeze, Replace, Rewrite, Zero
from interp.interventions.finetune import constrained_finetune
from interp.interventions.finetune_requests import EditRequest, TokenRequest, requests_from_batch
from interp.interventions.finetune_scores import EditCase, edit_scores, ngram_entropy, overall_score, read_edit_cases
from interp.interventions.finetune_weights import WeightEdit
from interp.interventions.modes import MODES, Capture, capture
from interp.interventions.patching import activation_patching, patching_effects
from interp.interventions.paths import edge_patching, path_patching
from interp.interventions.patterns import SetPattern
from interp.interventions.sweeps import (
    ablate_together,
    ablation_effects,
    ablation_sweep,
    against_random,
    cumulative_ablation,
    ranked_heads,
)
from interp.interventions.training_ablation import ATTENTION_MODES, AttentionAblation, ablate_attention

__all__ = [
    "ATTENTION_MODES",
    "AttentionAblation",
    "ablate_attention",
    "EditCase",
    "EditRequest",
    "TokenRequest",
    "WeightEdit",
    "constrained_finetune",
    "edit_scores",
    "ngram_entropy",
    "overall_score",
    "read_edit_cases",
    "requests_from_batch",
    "MODES",
    "Capture",
    "Edge",
    "Freeze",
    "Replace",
    "Rewrite",
    "SetPattern",
    "Zero",
    "ablate_together",
    "ablated",
    "ablation_effects",
    "ablation_sweep",
    "activation_patching",
    "against_random",
    "attribution_agreement",
    "attribution_patching",
    "capture",
    "circuit_curve",
    "circuit_values",
    "cumulative_ablation",
    "edge_attribution",
    "edge_patching",
    "patching_effects",
    "path_patching",
    "ranked_heads",
    "top_edges",
    "wiring",
]
