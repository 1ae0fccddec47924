"""Activation patching: put activations of one run into another, cell by cell, and see how much of the answer comes along."""

from interp.interventions.patching.sweep import activation_patching, patching_effects

__all__ = ["activation_patching", "patching_effects"]
