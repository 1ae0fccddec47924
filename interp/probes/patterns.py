"""One pass over the patterns: every attention score at once, reduced inside the hook.

A score is mostly a weighted sum of the pattern over a few marked cells. The cells that any score marks are gathered once per
layer and multiplied by all scores' weights in one batched product; sums, entropies and the checks of the rows are taken in
pieces that fit the processor's cache. Beside the pattern itself nothing of its size is held, whatever the depth.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from einops import einsum, rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import ConfigError, ModelError
from interp.probes.padding import valid_positions
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings
from interp.sites import HookedModel, Site, sites_of

Marks = Bool[Tensor, "batch query key"]
PIECE = 2**19  # entries of a pattern looked at together: 2 MB in float32
MASS = 1e-6  # attention above the diagonal that still counts as none; causal masks give exactly 0


@dataclass(frozen=True)
class HeadScore(Probe):
    """Base of all attention scores; alone a probe of its own, together read by `HeadScores`.

    `presumes_causal`: the definition speaks of earlier tokens, so it means nothing where attention looks ahead.
    `needs_content`: it claims something about tokens, so that a head moved by positions alone is a false positive.
    """

    description: ClassVar[str]
    unit: ClassVar[str] = "share of attention"
    presumes_causal: ClassVar[bool] = True
    needs_content: ClassVar[bool] = False

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return sites_of(model, "pattern")

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        return HeadScores((self,)).prepare(tokens)

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return HeadScores((self,)).read(activation, site, prepared)

    def result(self, readings: Readings) -> Result:
        only = HeadScores((self,)).result(readings).at(score=0)
        return replace(only, name=self.name, unit=self.unit, description=self.description)


@dataclass(frozen=True)
class PatternScore(HeadScore):
    """A score that is a share of attention: a subclass marks the keys that count, and all else is shared.

    The score of a sequence is the attention on marked keys, summed over keys and averaged over the rows that have any; a
    sequence without such rows has no score (NaN) and does not count.
    """

    @abstractmethod
    def marks(self, tokens: Int[Tensor, "batch pos"]) -> Marks:
        """True where attention counts for the score; never above the diagonal."""


@dataclass(frozen=True)
class RowScore(HeadScore):
    """A score of whole rows: the mean over rows i ≥ 1 (row 0 sees one key) of something of the row's shares."""

    @abstractmethod
    def of_rows(self, pattern: Float[Tensor, "*rows key"]) -> Float[Tensor, "*rows"]:
        """The statistic of each row."""

    @abstractmethod
    def of_uniform(self, keys: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """The statistic of a row that attends equally to that many keys."""


@dataclass(frozen=True)
class _Prepared:
    cells: Int[Tensor, "batch cell"]  # where any score looks, as query * n_keys + key
    weights: Float[Tensor, "batch cell marked"]  # 1 where the pattern score counts the cell
    rows: Int[Tensor, "batch marked"]  # how many rows each pattern score averages
    counted: Bool[Tensor, "batch query"]  # the rows that row scores average
    uniform: Float[Tensor, "batch score"]  # what a uniform head would get: first the pattern scores, then the row scores
    above: Float[Tensor, " square"]  # 1 above the diagonal of the flattened pattern


@dataclass(frozen=True)
class HeadScores(Probe):
    """Several attention scores from one reading of each pattern; the `Result` has axes (score, layer, head).

    `pad_id`: the run of this id at the end of a row is padding: its rows and keys count for nothing. `bidirectional`: states
    that attention looks ahead; baselines are then those of a head uniform over all keys. Attention above the diagonal without it,
    none with it, and activations that are not shares of attention (NaN, negative, rows that do not sum to 1) raise `ModelError`.
    """

    scores: tuple[HeadScore, ...]
    pad_id: int | None = None
    bidirectional: bool = False
    name: ClassVar[str] = "head_scores"

    def __post_init__(self) -> None:
        presuming = [score.name for score in self.scores if score.presumes_causal]
        if self.bidirectional and (presuming or self.pad_id is not None):
            why = f"{', '.join(presuming)} speak of earlier tokens" if presuming else "padding would be attended to"
            raise ConfigError("scores of bidirectional attention", why, "Leave them out, and give whole sequences")

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return sites_of(model, "pattern")

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        n, valid = tokens.shape[1], valid_positions(tokens, self.pad_id)
        pairs = valid.unsqueeze(1) & valid.unsqueeze(2)
        places = torch.arange(n, device=tokens.device)
        reach = torch.full_like(places, n) if self.bidirectional else places + 1
        counted = valid & (places > 0)
        empty = torch.zeros(len(tokens), 0, n, n, dtype=torch.bool, device=tokens.device)
        marks = torch.cat([empty, *((score.marks(tokens) & pairs).unsqueeze(1) for score in self._pattern_scores)], dim=1)
        rows = reduce(marks.any(-1), "batch score query -> batch score", "sum")
        shares = reduce(marks, "batch score query key -> batch score query", "sum").double() / reach
        uniform = [shares.sum(-1) / rows]
        for score in self._row_scores:
            uniform.append(_mean_where(score.of_uniform(reach).expand(len(tokens), 1, n), counted))
        cells, weights = _gather_marks(marks)
        above = torch.ones(n, n, device=tokens.device).triu(1).flatten()
        return _Prepared(cells, weights, rows, counted, torch.cat(uniform, dim=1), above)

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        _check_shape(activation, prepared, site)
        flat = rearrange(activation, "batch head query key -> batch head (query key)")
        cells = repeat(prepared.cells, "batch cell -> batch head cell", head=flat.shape[1])
        shares = _exact(flat.gather(2, cells))
        found = einsum(shares, prepared.weights.to(shares.dtype), "batch head cell, batch cell score -> batch head score")
        found = found / prepared.rows.unsqueeze(1)  # 0 / 0 = NaN: no row counts, so this sequence has no score
        sums, lowest, ahead, statistics = self._by_rows(activation, prepared)
        self._check(site, activation.dtype, sums, lowest, ahead)
        found = torch.cat([found, *(_mean_where(part, prepared.counted).unsqueeze(-1) for part in statistics)], dim=-1)
        uniform = repeat(prepared.uniform.to(found), "batch score -> batch head score", head=found.shape[1])
        return torch.stack([found, uniform], dim=-1)

    def result(self, readings: Readings) -> Result:
        stacked = rearrange(list(readings.values()), "layer batch head score part -> batch score layer head part")
        order = [(*self._pattern_scores, *self._row_scores).index(score) for score in self.scores]
        values, uniform = stacked[:, order].unbind(-1)
        mean, stderr = mean_over_examples(values)
        names = tuple(score.name for score in self.scores)
        return Result(
            name=self.name,
            values=mean,
            stderr=stderr,
            axes=("score", "layer", "head"),
            labels={"score": names, "layer": tuple(str(site.layer) for site in readings)},
            baseline=mean_over_examples(uniform)[0],
            count=int((~values.isnan()).flatten(1).any(1).sum()),
            unit="; ".join(dict.fromkeys(score.unit for score in self.scores)),
            description="; ".join(f"{score.name}: {score.description}" for score in self.scores),
        )

    @property
    def _pattern_scores(self) -> list[PatternScore]:
        return [score for score in self.scores if isinstance(score, PatternScore)]

    @property
    def _row_scores(self) -> list[RowScore]:
        return [score for score in self.scores if isinstance(score, RowScore)]

    def _by_rows(self, pattern: Tensor, prepared: _Prepared) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Row sums, the smallest entry, attention above the diagonal per head, and the rows' statistics, piece by piece."""
        sums, lowest, ahead = [], [], []
        statistics: list[list[Tensor]] = [[] for _ in self._row_scores]
        heads = rearrange(pattern, "batch head query key -> (batch head) query key")
        for piece in heads.split(max(1, PIECE // heads[0].numel())):
            exact = _exact(piece)
            sums.append(exact.sum(-1))
            lowest.append(exact.amin())
            ahead.append(exact.flatten(1) @ prepared.above.to(exact.dtype))
            for kept, score in zip(statistics, self._row_scores, strict=True):
                kept.append(score.of_rows(exact))
        whole = {"head": pattern.shape[1]}
        rows = [rearrange(torch.cat(kept), "(batch head) query -> batch head query", **whole) for kept in statistics]
        return torch.cat(sums), torch.stack(lowest).amin(), torch.cat(ahead), rows

    def _check(self, site: Site, dtype: torch.dtype, sums: Tensor, lowest: Tensor, ahead: Tensor) -> None:
        error, least, most_ahead = torch.stack([(sums - 1).abs().amax(), lowest, ahead.amax()]).tolist()  # one wait for a GPU
        asked, truth = f"attention scores from {site}", None
        if math.isnan(error):
            truth = "it holds NaN"
        elif error > (1e-3 if dtype in (torch.float32, torch.float64) else 3e-2):
            truth = f"its rows do not sum to 1 (one is {error:.3g} away)"
        elif least < 0:
            truth = f"it holds negative shares (down to {least:.3g})"
        if truth:
            raise ModelError(asked, f"{truth}, so it is not attention", "Score patterns that are a softmax over keys")
        if most_ahead > MASS and not self.bidirectional:
            raise ModelError(
                asked,
                f"a head attends to later tokens ({most_ahead:.3g}, summed over rows), and causal attention is presumed",
                "If the model is bidirectional, say so: bidirectional=True (previous, current, first and entropy remain)",
            )


def _check_shape(pattern: Tensor, prepared: _Prepared, site: Site) -> None:
    batch, n = prepared.counted.shape
    if pattern.ndim != 4 or pattern.shape[0] != batch or tuple(pattern.shape[2:]) != (n, n):
        raise ModelError(
            f"attention scores from {site}",
            f"it has shape {tuple(pattern.shape)} for {batch} sequences of {n} tokens",
            "The pattern must be [batch head query key]",
        )


def _gather_marks(marks: Bool[Tensor, "batch score query key"]) -> tuple[Tensor, Tensor]:
    """The cells that any score marks, padded to the same number per example, and each score's weights there."""
    flat = rearrange(marks, "batch score query key -> batch score (query key)")
    example, cell = flat.any(1).nonzero(as_tuple=True)
    counts = example.bincount(minlength=len(marks))
    place = torch.arange(len(example), device=marks.device) - (counts.cumsum(0) - counts)[example]
    cells = torch.zeros(len(marks), max(1, int(counts.max())), dtype=torch.long, device=marks.device)
    weights = torch.zeros(*cells.shape, marks.shape[1], device=marks.device)
    cells[example, place] = cell
    weights[example, place] = flat[example, :, cell].float()
    return cells, weights


def _mean_where(rows: Tensor, counted: Bool[Tensor, "batch query"]) -> Tensor:
    """Mean over counted queries of [batch head query]; NaN where none counts."""
    counted = counted.unsqueeze(1)
    return torch.where(counted, rows, 0.0).sum(-1) / counted.sum(-1)


def _exact(shares: Tensor) -> Tensor:
    """In float32 at least: sums over many keys in half precision lose what is being measured."""
    return shares if shares.dtype == torch.float64 else shares.float()
