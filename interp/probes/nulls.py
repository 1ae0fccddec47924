"""What the attention scores would be if heads did not do what the scores claim: a null for each, of the kind that fits it."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from interp.probes.attention import DEFAULT_COPIES, tokens_to_score
from interp.probes.padding import WHOLE_ROWS, check_unpadded
from interp.probes.patterns import HeadScore, HeadScores, Marks, PatternScore
from interp.probes.repeats import row_generator, shuffled_tokens
from interp.probes.scores import all_scores
from interp.provenance import provenance_of
from interp.result import Result, mean_over_examples
from interp.running import Readings, check_tokens, measure
from interp.sites import HookedModel

NORMAL_95 = 1.6449  # 95 % quantile of the standard normal distribution
STATISTICS = ("mean", "q95")


def null_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    period: int | None = None,
    copies: int = DEFAULT_COPIES,
    n_sequences: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Each attention score of each head under the null that fits it; axes (statistic, score, layer, head).

    * Scores that claim something about *content* (induction, prefix_matching, duplicate_token, entropy): the model is run on the
      same tokens in a random order (the first stays), and attention is scored at the places the score marked before. A head moved
      by positions alone scores as much here as there, one that looks for content does not. For entropy: how focused it is anyway.
    * Scores of *positions* (previous, current, first): the keys of each causal row are shuffled; the mean is the baseline.

    "mean" is the mean under the null, "q95" the 95 % quantile of the mean over that many sequences (normal approximation, from
    the spread between sequences; NaN for a single one): a score above it (entropy: as far below "mean") is unlikely by chance for
    *one* head looked at; of 144 heads about 7 pass. Arguments as in `head_scores`; the shuffles do not depend on the batch size.
    Cost: two forward passes.
    """
    started = time.perf_counter()
    tokens, period = tokens_to_score(model, tokens, period, copies=copies, n_sequences=n_sequences, seed=seed)
    check_tokens(model, tokens)
    check_unpadded(model, tokens, WHOLE_ROWS)
    scores = all_scores(period)
    content = tuple(score for score in scores if score.needs_content)
    keys = tuple(_ShuffledKeys(score, seed) for score in scores if isinstance(score, PatternScore) and not score.needs_content)
    moved = shuffled_tokens(tokens, seed=seed)
    first = _per_sequence(model, moved, tokens, content, batch_size)
    second = _per_sequence(model, tokens, tokens, keys, batch_size)
    values = torch.cat([first.values, second.values], dim=1)
    order = [(*content, *(key.score for key in keys)).index(score) for score in scores]
    mean, stderr = mean_over_examples(values[:, order])
    quantile = mean + NORMAL_95 * (torch.full_like(mean, math.nan) if stderr is None else stderr)
    labels = {"statistic": STATISTICS, "score": tuple(score.name for score in scores), "layer": first.labels["layer"]}
    return Result(
        name="null_scores",
        values=torch.stack([mean, quantile]),
        axes=("statistic", "score", "layer", "head"),
        labels=labels,
        count=len(tokens),
        unit=" or ".join(dict.fromkeys(score.unit for score in scores)),
        description="scores under their null: tokens in random order (content), or keys shuffled within rows (positions)",
        provenance=replace(provenance_of(cast(nn.Module, model), tokens, time.perf_counter() - started), seed=seed),
    )


@dataclass(frozen=True)
class _ShuffledKeys(PatternScore):
    """A score whose marks stand on random keys of their row, as many as before: its null under shuffled keys."""

    score: PatternScore
    seed: int
    name: ClassVar[str] = "shuffled"
    description: ClassVar[str] = "the same number of keys, drawn at random"

    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        marks, n = self.score.marks(tokens), tokens.shape[1]
        future = torch.ones(n, n, dtype=torch.bool, device=tokens.device).triu(1)
        draws = torch.stack([torch.rand(n, n, generator=row_generator(row, self.seed)) for row in tokens]).to(tokens.device)
        ranks = draws.masked_fill(future, 2.0).argsort(-1).argsort(-1)
        return ranks < marks.sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class _PerSequence(HeadScores):
    """Scores of each sequence by itself, at the places that `marked` tokens tell: axes (sequence, score, layer, head)."""

    marked: Tensor | None = None
    name: ClassVar[str] = "per_sequence"

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        return super().prepare(tokens if self.marked is None else self.marked)

    def result(self, readings: Readings) -> Result:
        stacked = torch.stack([reading[..., 0] for reading in readings.values()])
        return Result(
            name=self.name,
            values=rearrange(stacked, "layer batch head score -> batch score layer head").double(),
            axes=("sequence", "score", "layer", "head"),
            labels={"layer": tuple(str(site.layer) for site in readings)},
        )


def _per_sequence(
    model: HookedModel, tokens: Tensor, marked: Tensor, scores: tuple[HeadScore, ...], batch_size: int | None
) -> Result:
    size = batch_size or len(tokens)
    parts = [
        measure(model, chunk, [_PerSequence(scores, marked=places)])[_PerSequence.name]
        for chunk, places in zip(tokens.split(size), marked.split(size), strict=True)
    ]
    return replace(parts[0], values=torch.cat([part.values for part in parts]))
