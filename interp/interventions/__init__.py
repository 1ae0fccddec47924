"""Interventions: rewriting activations as they flow past, to see what depends on them."""

from interp.interventions.ablation import ablated
from interp.interventions.edits import Freeze, Replace, Rewrite, Zero
from interp.interventions.modes import MODES, Capture, capture
from interp.interventions.patterns import SetPattern
from interp.interventions.sweeps import (
    ablate_together,
    ablation_effects,
    ablation_sweep,
    against_random,
    cumulative_ablation,
    ranked_heads,
)

__all__ = [
    "MODES",
    "Capture",
    "Freeze",
    "Replace",
    "Rewrite",
    "SetPattern",
    "Zero",
    "ablate_together",
    "ablated",
    "ablation_effects",
    "ablation_sweep",
    "against_random",
    "capture",
    "cumulative_ablation",
    "ranked_heads",
]
