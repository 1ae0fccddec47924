"""Probes: what a model does, read off as it runs, and what its weights look like."""

from interp.probes.attention import (
    AttentionPattern,
    DuplicateToken,
    Induction,
    PatternScore,
    PreviousToken,
    attention_patterns,
    duplicate_token_scores,
    induction_scores,
    previous_token_scores,
)
from interp.probes.loss import NextTokenAccuracy, RepeatLoss, TokenLoss, cross_entropy, repeat_loss
from interp.probes.repeats import repeated_tokens
from interp.probes.smear import KeySmear, key_smear
from interp.probes.weights import filter_norms, kernel_maps, kernel_stats

__all__ = [
    "AttentionPattern",
    "DuplicateToken",
    "Induction",
    "KeySmear",
    "NextTokenAccuracy",
    "PatternScore",
    "PreviousToken",
    "RepeatLoss",
    "TokenLoss",
    "attention_patterns",
    "cross_entropy",
    "duplicate_token_scores",
    "filter_norms",
    "induction_scores",
    "kernel_maps",
    "kernel_stats",
    "key_smear",
    "previous_token_scores",
    "repeat_loss",
    "repeated_tokens",
]
