"""Metrics that weigh single logits, or the probabilities of several tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.metrics.base import Metric, PerExample, Position, Read, Reads, Tokens, gather
from interp.metrics.standard import Ids, per_example_fields, position_of, positions, token_ids


@dataclass(frozen=True, eq=False)
class Logit(Metric):
    """See `logit`."""

    answers: Int[Tensor, "... answer"]
    position: Position = -1
    name: ClassVar[str] = "logit"
    unit: ClassVar[str] = "logits"

    @property
    def reads(self) -> Reads:
        return Reads(positions(self.position), self.answers)

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        return read[:, 0].mean(-1)

    def per_example(self) -> Mapping[str, Tensor]:
        return per_example_fields(answers=self.answers, position=self.position)


@dataclass(frozen=True, eq=False)
class WeightedProb(Metric):
    """See `weighted_prob`."""

    ids: Int[Tensor, " id"]
    weights: Float[Tensor, "... id"]
    position: Position = -1
    name: ClassVar[str] = "weighted probability"
    unit: ClassVar[str] = "probability"

    @property
    def reads(self) -> Reads:
        return Reads(positions(self.position))

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        return (gather(read.softmax(-1), self.ids, 2, "token id")[:, 0] * self.weights.to(read)).sum(-1)

    def per_example(self) -> Mapping[str, Tensor]:
        return per_example_fields(weights=self.weights, position=self.position)


def logit(answers: Ids, position: Position = -1) -> Metric:
    """Logit of the answer at `position` (several per example: their mean); larger is better. Arguments as in `logit_diff`.

    A constant added to all logits changes it and changes no probability: prefer `logit_diff` where there is a rival.
    """
    return Logit(token_ids("answers", answers), position_of(position))


def weighted_prob(ids: Int[Tensor, " id"], weights: Float[Tensor, "... id"], position: Position = -1) -> Metric:
    """Σ weight · probability over the tokens `ids` at `position`: with weights +1 and −1, one group's mass minus another's.

    `weights` is [id], or [batch id] with a row for each example. Raises `DataError` when ids and weights do not fit.
    """
    if ids.ndim != 1 or weights.ndim not in (1, 2) or weights.shape[-1] != len(ids) or not bool(torch.isfinite(weights).all()):
        shapes = f"ids are {tuple(ids.shape)} and weights {tuple(weights.shape)}"
        raise DataError("weighted probability", shapes, "Give ids [id] and finite weights [id] or [batch id]")
    return WeightedProb(ids.long(), weights, position_of(position))
