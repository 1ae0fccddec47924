"""Attention scores of every head, from one forward pass; definitions in `interp.probes.scores`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from interp.errors import SiteError
from interp.models.calling import check_tokens
from interp.probes.padding import check_unpadded, valid_positions
from interp.probes.patterns import HeadScores
from interp.probes.repeats import check_whole, repeated_tokens
from interp.probes.scores import chosen_scores
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings, run
from interp.sites import HookedModel, Site, check_site, sites_of

DEFAULT_PERIOD, DEFAULT_COPIES = 25, 4  # the sequences of Olsson et al. 2022


def head_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    scores: Sequence[str] | None = None,
    period: int | None = None,
    copies: int = DEFAULT_COPIES,
    n_sequences: int = 32,
    seed: int = 0,
    pad_id: int | None = None,
    bidirectional: bool = False,
    batch_size: int | None = None,
) -> Result:
    """Every attention score of every head from one forward pass: a `Result` with axes (score, layer, head).

    The scores (or those named in `scores`): induction, prefix_matching, duplicate_token, previous_token, current_token,
    first_token, each a share of attention in [0, 1], and entropy in nats; see `interp.probes.scores` for each definition.
    `stderr` is over sequences, `baseline` a head that attends equally to all keys it can see.

    Without `tokens`: `n_sequences` rows BOS + r repeated `copies` times, r of `period` (default 25, or as many as the model's
    context has room for) distinct random tokens. With `tokens`: exact rows if `period` is given and they are such repeats, else
    by token match. `pad_id`: the run of that id at the end of a row is padding and counts for nothing; tokens that look padded
    are refused while it is not given. `bidirectional`: attention looks ahead; only the scores that do not speak of earlier
    tokens are then defined.

    Raises `ModelError` for patterns that are not causal attention (see `HeadScores`), `ConfigError` for unknown or undefined
    scores, `DataError` for unusable tokens. Cost: one forward pass and about a tenth more; memory beyond it: less than one
    layer's pattern, whatever the depth.
    """
    tokens, period = tokens_to_score(model, tokens, period, copies=copies, n_sequences=n_sequences, seed=seed)
    if pad_id is None:
        check_unpadded(model, tokens)
    chosen = chosen_scores(scores, period, bidirectional)
    return run(model, tokens, [HeadScores(chosen, pad_id, bidirectional)], batch_size=batch_size)[HeadScores.name]


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

    Without `tokens`: exact rows on `n_sequences` random repeats BOS + r + r of `period` tokens (default 25, or as many as the
    model's context has room for). With `tokens`: exact rows if `period` is given and they are repeats, else by token match.
    Equals the row "induction" of `head_scores` at the same period, whose further copies come later and change nothing. A head
    that attends at a fixed distance scores too: compare with another period, or with `null_scores`. Cost: one forward pass.
    """
    drawn, period = tokens_to_score(model, tokens, period, copies=2, n_sequences=n_sequences, seed=seed)
    return _one("induction", model, drawn, period, batch_size)


def prefix_matching_scores(
    model: HookedModel,
    *,
    period: int | None = None,
    copies: int = DEFAULT_COPIES,
    n_sequences: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Prefix-matching score per layer and head; see `PrefixMatching`.

    Makes its own tokens: `n_sequences` rows of BOS and `period` distinct random tokens repeated `copies` times (10, 25 and 4 in
    Olsson et al. 2022; special tokens are excluded, the most and least common ones are not, as frequencies are not known here).
    Without `period` it is 25, or as many as the model's context has room for.
    """
    drawn, period = tokens_to_score(model, None, period, copies=copies, n_sequences=n_sequences, seed=seed)
    return _one("prefix_matching", model, drawn, period, batch_size)


def previous_token_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    n_sequences: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Previous-token score per layer and head on `tokens`, or on random repeats; see `PreviousToken`. One forward pass."""
    drawn, _ = tokens_to_score(model, tokens, None, copies=DEFAULT_COPIES, n_sequences=n_sequences, seed=seed)
    return _one("previous_token", model, drawn, None, batch_size)


def duplicate_token_scores(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None = None,
    *,
    n_sequences: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
) -> Result:
    """Duplicate-token score per layer and head on `tokens`, or on random repeats; see `DuplicateToken`. One forward pass."""
    drawn, _ = tokens_to_score(model, tokens, None, copies=DEFAULT_COPIES, n_sequences=n_sequences, seed=seed)
    return _one("duplicate_token", model, drawn, None, batch_size)


@dataclass(frozen=True)
class AttentionPattern(Probe):
    """The attention patterns themselves, averaged over examples: for looking, on one text or a few of equal length.

    `layers` and `heads` choose some of them (None: all). `pad_id`: the run of this id at the end of a row is padding, whose
    queries are left out (NaN where all examples have padding).
    """

    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    pad_id: int | None = None
    name: ClassVar[str] = "attention_pattern"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        if self.layers is None:
            return sites_of(model, "pattern")
        chosen = [Site("pattern", layer) for layer in self.layers]
        for site in chosen:
            check_site(model, site)
        return chosen

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        return valid_positions(tokens, self.pad_id)

    def read(self, activation: Tensor, site: Site, prepared: Tensor) -> Tensor:
        if not bool(prepared.all()):
            activation = activation.masked_fill(~rearrange(prepared, "batch query -> batch 1 query 1"), torch.nan)
        if self.heads is None:
            return activation
        wrong = [head for head in self.heads if not 0 <= head < activation.shape[1]]
        if wrong:
            there = f"there are heads 0 to {activation.shape[1] - 1}"
            raise SiteError(f"the pattern of heads {wrong} at {site}", there, "Choose from those")
        return activation[:, list(self.heads)]

    def result(self, readings: Readings) -> Result:
        mean, _ = mean_over_examples(torch.stack(list(readings.values()), dim=1))
        return Result(
            name=self.name,
            values=mean,
            axes=("layer", "head", "query", "key"),
            labels={"layer": tuple(str(site.layer) for site in readings)}
            | ({} if self.heads is None else {"head": tuple(map(str, self.heads))}),
            count=len(next(iter(readings.values()))),
            unit="share of attention",
            description="attention from each query position to each key position",
        )


def attention_patterns(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    pad_id: int | None = None,
) -> Result:
    """The patterns of the chosen layers and heads (None: all) on `tokens`, averaged over the batch.

    `pad_id`: the run of that id at the end of a row is padding, and its queries do not count (NaN where all rows have padding);
    tokens that look padded are refused with `DataError` while it is not given.
    Axes (layer, head, query, key); `.at(layer=0, head=0).plot()` is a figure of one, `interp.report.AttentionMaps` a panel of
    several. Raises `SiteError` for layers and heads that are not there. Memory: layers × heads × pos² floats per example.
    """
    check_tokens(model, tokens)
    if pad_id is None:
        check_unpadded(model, tokens)
    which, whose = (None if these is None else tuple(dict.fromkeys(these)) for these in (layers, heads))
    return run(model, tokens, [AttentionPattern(which, whose, pad_id)])[AttentionPattern.name]


def tokens_to_score(
    model: HookedModel, tokens: Tensor | None, period: int | None, *, copies: int, n_sequences: int, seed: int
) -> tuple[Tensor, int | None]:
    """The tokens to score, and the period of their repeats if exact rows are meant.

    The default period is 25, or as many tokens as have room, `copies` times, in the model's context; at least 2.
    """
    if tokens is not None:
        return tokens, period
    if period is None:
        check_whole(copies=copies)
        n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
        room = (n_ctx - 1) // max(copies, 1) if isinstance(n_ctx, int) and n_ctx > 0 else DEFAULT_PERIOD
        period = max(2, min(DEFAULT_PERIOD, room))
    return repeated_tokens(model, n_sequences=n_sequences, period=period, copies=copies, seed=seed), period


def _one(name: str, model: HookedModel, tokens: Tensor, period: int | None, batch_size: int | None) -> Result:
    check_unpadded(model, tokens)
    (score,) = chosen_scores((name,), period, bidirectional=False)
    return run(model, tokens, [score], batch_size=batch_size)[name]
