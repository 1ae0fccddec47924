"""Attention scores: how much of a head's attention lies where a named mechanism would put it.

Each score is a weighted sum of the pattern: the sum over query i and key j of A[i, j] · W[i, j], where row i of W marks the
keys that count and W is divided by the number of rows that have any. A score is therefore a mean share of attention in
[0, 1], and its baseline is the same sum for a head that attends uniformly to the past. Rows without a key to look for are left
out; a sequence without such rows has no score (NaN) and does not count.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import DataError
from interp.probes.repeats import check_repeats, repeated_tokens
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings, run
from interp.sites import HookedModel, Site, sites_of

DEFAULT_PERIOD = 32
Marks = Bool[Tensor, "batch query key"]


@dataclass(frozen=True)
class PatternScore(Probe):
    """Base of the attention scores: a subclass marks the keys that count, and all else is shared."""

    description: ClassVar[str]

    @abstractmethod
    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        """True where attention counts for the score; never above the diagonal."""

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return sites_of(model, "pattern")

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        marks = self.marks(tokens)
        rows = marks.any(-1).sum(-1)  # 0 rows: 0 / 0 = NaN marks the sequence as having no score
        weights = marks / rearrange(rows, "batch -> batch 1 1")
        reachable = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        uniform = (weights.sum(-1) / reachable).sum(-1)
        return weights, uniform

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        weights, uniform = prepared
        score = einsum(activation, weights.to(activation.dtype), "batch head query key, batch query key -> batch head")
        return torch.stack([score, repeat(uniform.to(score), "batch -> batch head", head=score.shape[1])], dim=-1)

    def result(self, readings: Readings) -> Result:
        stacked = torch.stack(list(readings.values()), dim=1)
        scores, uniform = stacked[..., 0], stacked[..., 1]
        mean, stderr = mean_over_examples(scores)
        return Result(
            name=self.name,
            values=mean,
            stderr=stderr,
            axes=("layer", "head"),
            labels={"layer": tuple(str(site.layer) for site in readings)},
            baseline=mean_over_examples(uniform)[0],
            count=int((~scores.isnan()).flatten(1).any(1).sum()),
            unit="share of attention",
            description=self.description,
        )


@dataclass(frozen=True)
class Induction(PatternScore):
    """Attention to the token that followed an earlier copy of the current token.

    With `period` S, exact rows on BOS + r + r: the mean of A[i, i − S + 1] over i = S + 1 … 2S (rows of the second copy only;
    the diagonal of the whole pattern has two more entries, which are not induction rows). Without, by token match: A[i, j]
    summed over all j ≤ i with x[j − 1] = x[i] and j − 1 < i, the mean over rows that have one; equal to the exact form when
    the tokens of r are distinct. Source: Olsson et al. 2022 (in-context learning and induction heads), offset +1 after the
    earlier copy as its erratum of 2022-09-20 states.
    """

    period: int | None = None
    name: ClassVar[str] = "induction"
    description: ClassVar[str] = "attention to what followed the earlier copy of the current token"

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        if self.period is not None:
            check_repeats(tokens, self.period)
            return _diagonal(tokens, offset=1 - self.period, first_row=self.period + 1)
        followed = torch.zeros_like(same := _same_token_before(tokens))
        followed[:, :, 1:] = same[:, :, :-1]
        return followed


@dataclass(frozen=True)
class PreviousToken(PatternScore):
    """Attention to the position before: the mean of A[i, i − 1] over rows i ≥ 2.

    Row 0 has no previous token, and in row 1 it is the first token, where heads rest for other reasons.
    """

    name: ClassVar[str] = "previous_token"
    description: ClassVar[str] = "attention to the position before"

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        return _diagonal(tokens, offset=-1, first_row=2)


@dataclass(frozen=True)
class DuplicateToken(PatternScore):
    """Attention to earlier copies of the current token, itself excluded, over rows that have such a copy."""

    name: ClassVar[str] = "duplicate_token"
    description: ClassVar[str] = "attention to earlier copies of the current token (itself excluded)"

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        return _same_token_before(tokens)


@dataclass(frozen=True)
class AttentionPattern(Probe):
    """The attention patterns themselves, averaged over examples: for looking, on one text or a few of equal length."""

    name: ClassVar[str] = "attention_pattern"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return sites_of(model, "pattern")

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return activation

    def result(self, readings: Readings) -> Result:
        mean, _ = mean_over_examples(torch.stack(list(readings.values()), dim=1))
        return Result(
            name=self.name,
            values=mean,
            axes=("layer", "head", "query", "key"),
            labels={"layer": tuple(str(site.layer) for site in readings)},
            count=len(next(iter(readings.values()))),
            unit="share of attention",
            description="attention from each query position to each key position",
        )


def induction_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    period: int | None = None,
    n_sequences: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Induction score per layer and head; see `Induction`.

    Without `tokens`: exact rows on `n_sequences` random repeats of `period` tokens (default 32). With `tokens`: exact rows if
    `period` is given and they are BOS + r + r, else by token match. Cost: one forward pass.
    """
    if tokens is None:
        period = period or DEFAULT_PERIOD
        tokens = repeated_tokens(model, n_sequences=n_sequences, period=period, seed=seed)
    return run(model, tokens, [Induction(period)], batch_size=batch_size)[Induction.name]


def previous_token_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    n_sequences: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Previous-token score per layer and head on `tokens`, or on random repeats; see `PreviousToken`. One forward pass."""
    if tokens is None:
        tokens = repeated_tokens(model, n_sequences=n_sequences, period=DEFAULT_PERIOD, seed=seed)
    return run(model, tokens, [PreviousToken()], batch_size=batch_size)[PreviousToken.name]


def duplicate_token_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    n_sequences: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Duplicate-token score per layer and head on `tokens`, or on random repeats; see `DuplicateToken`. One forward pass."""
    if tokens is None:
        tokens = repeated_tokens(model, n_sequences=n_sequences, period=DEFAULT_PERIOD, seed=seed)
    return run(model, tokens, [DuplicateToken()], batch_size=batch_size)[DuplicateToken.name]


def attention_patterns(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> Result:
    """The patterns of every head on `tokens`, averaged over the batch. Memory: layers × heads × pos² floats per example."""
    return run(model, tokens, [AttentionPattern()])[AttentionPattern.name]


def _same_token_before(tokens: Int[Tensor, "batch pos"]) -> Marks:
    same = rearrange(tokens, "batch query -> batch query 1") == rearrange(tokens, "batch key -> batch 1 key")
    return same.tril(-1)


def _diagonal(tokens: Int[Tensor, "batch pos"], *, offset: int, first_row: int) -> Marks:
    n = tokens.shape[1]
    if first_row >= n:
        raise DataError(
            "an attention score", f"sequences of {n} tokens have no row that counts", f"Give more than {first_row} tokens"
        )
    rows = torch.arange(first_row, n, device=tokens.device)
    marks = torch.zeros(n, n, dtype=torch.bool, device=tokens.device)
    marks[rows, rows + offset] = True
    return repeat(marks, "query key -> batch query key", batch=len(tokens))
