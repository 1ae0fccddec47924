"""Probes: what a model does, read off as it runs, and what its weights look like."""

from interp.probes.attention import (
    AttentionPattern,
    attention_patterns,
    duplicate_token_scores,
    head_scores,
    induction_scores,
    prefix_matching_scores,
    previous_token_scores,
)
from interp.probes.circuits import composition_scores, copying_null, copying_scores, head_weights, qk_trace_scores
from interp.probes.direct import direct_logit_attribution
from interp.probes.embeddings import ResidualStream, mean_pooled, residual_embeddings
from interp.probes.floors import ngram_floors
from interp.probes.health import Diagnosis, Watch, diagnose, watched
from interp.probes.health_checks import CHECKS, Check, Finding
from interp.probes.in_context import InContextLearning, RepeatLoss, in_context_learning, repeat_loss
from interp.probes.lens import LogitLens, Readout, logit_lens, logit_lens_tokens, stream_readout
from interp.probes.loss import NextTokenAccuracy, TokenLoss, cross_entropy
from interp.probes.nulls import null_scores
from interp.probes.patterns import HeadScore, HeadScores, PatternScore, RowScore
from interp.probes.perplexity import PerTokenLoss, perplexity, token_losses
from interp.probes.repeats import repeated_tokens, shuffled_tokens
from interp.probes.scores import (
    CurrentToken,
    DuplicateToken,
    Entropy,
    FirstToken,
    Induction,
    PrefixMatching,
    PreviousToken,
)
from interp.probes.smear import KeySmear, key_smear
from interp.probes.weights import filter_norms, kernel_maps, kernel_stats

__all__ = [
    "CHECKS",
    "AttentionPattern",
    "Check",
    "CurrentToken",
    "Diagnosis",
    "DuplicateToken",
    "Entropy",
    "Finding",
    "FirstToken",
    "HeadScore",
    "HeadScores",
    "InContextLearning",
    "Induction",
    "KeySmear",
    "LogitLens",
    "NextTokenAccuracy",
    "PatternScore",
    "PerTokenLoss",
    "PrefixMatching",
    "PreviousToken",
    "Readout",
    "RepeatLoss",
    "ResidualStream",
    "RowScore",
    "TokenLoss",
    "Watch",
    "attention_patterns",
    "composition_scores",
    "copying_null",
    "copying_scores",
    "cross_entropy",
    "diagnose",
    "direct_logit_attribution",
    "duplicate_token_scores",
    "filter_norms",
    "head_scores",
    "head_weights",
    "in_context_learning",
    "induction_scores",
    "kernel_maps",
    "kernel_stats",
    "key_smear",
    "logit_lens",
    "logit_lens_tokens",
    "mean_pooled",
    "ngram_floors",
    "null_scores",
    "perplexity",
    "prefix_matching_scores",
    "previous_token_scores",
    "qk_trace_scores",
    "repeat_loss",
    "repeated_tokens",
    "residual_embeddings",
    "shuffled_tokens",
    "stream_readout",
    "token_losses",
    "watched",
]
