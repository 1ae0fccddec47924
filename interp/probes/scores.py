"""The definitions of the attention scores: which keys count, over which rows.

A[i, j] is the attention from query i to key j, x the tokens, S the period of a repeat. Every share lies in [0, 1]; the baseline
is what a head gets that attends equally to all keys it can see. That is also exactly the mean over all shufflings of the keys
within each row, so a score is above it only where attention is put on the marked keys on purpose.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, DataError, nearest
from interp.probes.patterns import HeadScore, Marks, PatternScore, RowScore
from interp.probes.repeats import check_repeats


@dataclass(frozen=True)
class Induction(PatternScore):
    """Attention to the token that followed an earlier copy of the current token.

    With `period` S, exact rows on BOS + r + r (+ r …): the mean of A[i, i − S + 1] over i = S + 1 … 2S, the rows of the second
    copy (the diagonal of the whole pattern has more entries, which are not induction rows). Without, by token match: A[i, j]
    summed over all j ≤ i with x[j − 1] = x[i] and j − 1 < i, the mean over rows that have one; equal to the exact form when
    there are two copies and the tokens of r are distinct. Source: Olsson et al. 2022 (in-context learning and induction heads),
    offset +1 after the earlier copy as its erratum of 2022-09-20 states.
    """

    period: int | None = None
    name: ClassVar[str] = "induction"
    description: ClassVar[str] = "attention to what followed the earlier copy of the current token"
    needs_content: ClassVar[bool] = True

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        if self.period is None:
            return _followers(_same_token_before(tokens))
        check_repeats(tokens, self.period)
        return _diagonal(tokens, offset=1 - self.period, rows=range(self.period + 1, 2 * self.period + 1))


@dataclass(frozen=True)
class PrefixMatching(PatternScore):
    """Attention to the tokens that followed *any* earlier copy of the current one, summed over the copies.

    With `period` S, on BOS + r repeated: the mean over rows i > S of the sum over k = 1 … ⌊(i − 1) / S⌋ of A[i, i − kS + 1].
    Without, the token-match form of `Induction`, with which it then coincides. Olsson et al. 2022 (appendix, head activation
    evaluators) average over copies "the attention entries": summed, as here, the score is a share of attention in [0, 1]; a mean
    over k copies could not exceed 1 / k. Their text says tokens that "preceded" the copies; the erratum says followed.
    """

    period: int | None = None
    name: ClassVar[str] = "prefix_matching"
    description: ClassVar[str] = "attention to what followed any earlier copy of the current token, summed over copies"
    needs_content: ClassVar[bool] = True

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        if self.period is None:
            return _followers(_same_token_before(tokens))
        copies = check_repeats(tokens, self.period)
        marks = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device)
        for k in range(1, copies):
            marks |= _diagonal(tokens, offset=1 - k * self.period, rows=range(k * self.period + 1, tokens.shape[1]))
        return marks


@dataclass(frozen=True)
class PreviousToken(PatternScore):
    """Attention to the position before: the mean of A[i, i − 1] over rows i ≥ 2.

    Row 0 has no previous token, and in row 1 it is the first token, where heads rest for other reasons.
    """

    name: ClassVar[str] = "previous_token"
    description: ClassVar[str] = "attention to the position before"
    presumes_causal: ClassVar[bool] = False

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        return _diagonal(tokens, offset=-1, rows=range(2, tokens.shape[1]))


@dataclass(frozen=True)
class DuplicateToken(PatternScore):
    """Attention to earlier copies of the current token, itself excluded, summed; over rows that have such a copy.

    A head that shares its attention equally among all copies up to itself gets k / (k + 1) in a row with k earlier ones.
    """

    name: ClassVar[str] = "duplicate_token"
    description: ClassVar[str] = "attention to earlier copies of the current token (itself excluded)"
    needs_content: ClassVar[bool] = True

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        return _same_token_before(tokens)


@dataclass(frozen=True)
class CurrentToken(PatternScore):
    """Attention to the current position itself: the mean of A[i, i] over rows i ≥ 1."""

    name: ClassVar[str] = "current_token"
    description: ClassVar[str] = "attention to the current position"
    presumes_causal: ClassVar[bool] = False

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        return _diagonal(tokens, offset=0, rows=range(1, tokens.shape[1]))


@dataclass(frozen=True)
class FirstToken(PatternScore):
    """Attention to position 0, the usual attention sink: the mean of A[i, 0] over rows i ≥ 1."""

    name: ClassVar[str] = "first_token"
    description: ClassVar[str] = "attention to the first position"
    presumes_causal: ClassVar[bool] = False

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        marks = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device)
        marks[:, 1:, 0] = True
        return marks


@dataclass(frozen=True)
class Entropy(RowScore):
    """How spread out attention is: the mean over rows i ≥ 1 of −Σ_j A[i, j] ln A[i, j], in nats.

    0 for a head that attends to one key, ln(i + 1) in row i for a uniform one (the baseline): low means focused.
    """

    name: ClassVar[str] = "entropy"
    unit: ClassVar[str] = "nats (entropy)"
    description: ClassVar[str] = "entropy of attention in nats; low means focused"
    presumes_causal: ClassVar[bool] = False
    needs_content: ClassVar[bool] = True

    def of_rows(self, pattern: Float[Tensor, "*rows key"]) -> Float[Tensor, "*rows"]:
        return torch.special.entr(pattern).sum(-1)

    def of_uniform(self, keys: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        return keys.double().log()


def all_scores(period: int | None) -> tuple[HeadScore, ...]:
    """Every attention score, for repeats of `period` tokens or (None) for any tokens."""
    content = (Induction(period), PrefixMatching(period), DuplicateToken())
    return (*content, PreviousToken(), CurrentToken(), FirstToken(), Entropy())


def chosen_scores(names: Sequence[str] | None, period: int | None, bidirectional: bool) -> tuple[HeadScore, ...]:
    """The scores of these names, in their order; None: all that the kind of attention allows.

    Raises `ConfigError` for names that are unknown, given twice or in no list.
    """
    known = {score.name: score for score in all_scores(period)}
    if names is None:
        return tuple(score for score in known.values() if not (bidirectional and score.presumes_causal))
    if isinstance(names, str) or not isinstance(names, Iterable):
        hint = nearest(names, known) if isinstance(names, str) and names not in known else ""
        one = names if names in known else "induction"
        raise ConfigError(f"head scores {names!r}", "a list of names was expected", f'{hint}Write scores=["{one}"]')
    names = tuple(names)
    wrong = [str(name) for name in names if name not in known]
    if wrong or not names or len(set(names)) != len(names):
        hint = nearest(wrong[0], known) if wrong else ""
        raise ConfigError(
            f"head scores {list(names)}", "each must be a known score, once", f"{hint}Choose from {', '.join(known)}"
        )
    return tuple(known[name] for name in names)


def _followers(same: Marks) -> Marks:
    followed = torch.zeros_like(same)
    followed[:, :, 1:] = same[:, :, :-1]
    return followed


def _same_token_before(tokens: Int[Tensor, "batch pos"]) -> Marks:
    same = rearrange(tokens, "batch query -> batch query 1") == rearrange(tokens, "batch key -> batch 1 key")
    return same.tril(-1)


def _diagonal(tokens: Int[Tensor, "batch pos"], *, offset: int, rows: range) -> Marks:
    n = tokens.shape[1]
    if not rows:
        raise DataError(
            "an attention score", f"sequences of {n} tokens have no row that counts", f"Give more than {rows.start} tokens"
        )
    queries = torch.tensor(rows, device=tokens.device)
    marks = torch.zeros(n, n, dtype=torch.bool, device=tokens.device)
    marks[queries, queries + offset] = True
    return repeat(marks, "query key -> batch query key", batch=len(tokens))
