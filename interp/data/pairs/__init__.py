"""Prompt pairs for patching: a clean and a corrupted prompt of one length, and the token that each calls for.

pairs = ioi_pairs(model.tokenizer, n=32)
pairs.clean, pairs.corrupted, pairs.metric()      # what a sweep takes
"""

from interp.data.pairs.files import load_pairs, load_pairs_by_length
from interp.data.pairs.generated import greater_than_metric, greater_than_pairs, induction_pairs, ioi_pairs
from interp.data.pairs.values import PromptPairs

__all__ = [
    "PromptPairs",
    "greater_than_metric",
    "greater_than_pairs",
    "induction_pairs",
    "ioi_pairs",
    "load_pairs",
    "load_pairs_by_length",
]
