"""Prompt pairs under patching: which run is patched, which one is patched in, and the metric on both."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ConfigError, DataError, nearest
from interp.metrics.base import MetricLike, as_metric
from interp.metrics.standard import Normalized
from interp.metrics.values import check_treats_rows_alone, measured_values, row_chunks
from interp.models.calling import check_tokens
from interp.probes.padding import check_reads_unpadded
from interp.provenance import provenance_of
from interp.result import Result, mean_over_examples
from interp.sites import HookedModel, check_model

Tokens = Int[Tensor, "pair pos"]
Direction = Literal["denoising", "noising"]
Values = Literal["metric", "effect", "recovery"]
DIRECTIONS, VALUES = ("denoising", "noising"), ("metric", "effect", "recovery")
TOLD = {
    "metric": "",
    "effect": "effect: metric(patched) − metric(unpatched); ",
    "recovery": "recovery: 0 as corrupted, 1 as clean; ",
}
ROWS = 64  # of a forward pass, unless told otherwise


class Pairs:
    """Pairs of prompts: the `base` run is patched, the `source` run patched in; and the metric on both.

    Raises `DataError` unless they pair up, and when the metric reads what looks like padding; `ConfigError` for another
    direction.
    """

    def __init__(self, model: HookedModel, clean: Tokens, corrupted: Tokens, metric: MetricLike, direction: str):
        self.started = time.perf_counter()
        check_model(model)
        one_of("direction", direction, DIRECTIONS)
        for tokens in (clean, corrupted):
            check_tokens(model, tokens)
        if clean.shape != corrupted.shape:
            told = f"the clean tokens are {tuple(clean.shape)}, the corrupted {tuple(corrupted.shape)}"
            raise DataError("patching pairs", told, "Give pairs of equal length, one corrupted prompt per clean one")
        clean, corrupted = clean.long(), corrupted.long()
        self.model, self.metric, self.direction = model, as_metric(metric), direction
        self.metric.check_examples(len(clean))
        for tokens in (clean, corrupted):
            check_reads_unpadded(model, tokens, self.metric)
        self.base, self.source = (corrupted, clean) if direction == "denoising" else (clean, corrupted)

    @property
    def both(self) -> Int[Tensor, "two pos"]:
        """One row of each run: enough to look at a model's structure."""
        return torch.cat([self.base[:1], self.source[:1]])

    @cached_property
    def base_values(self) -> Float[Tensor, " pair"]:
        """The metric of each pair in the untouched base run. Cost: one forward pass, once."""
        return self._values(self.base)

    @cached_property
    def source_values(self) -> Float[Tensor, " pair"]:
        """The metric of each pair in the run that is patched in. Cost: one forward pass, once."""
        return self._values(self.source)

    def _values(self, tokens: Tokens) -> Tensor:
        check_treats_rows_alone(self.model, tokens, self.metric, ROWS)
        parts = [measured_values(self.model, tokens[rows], self.metric.select(rows)) for rows in row_chunks(len(tokens), ROWS)]
        return torch.cat(parts).to("cpu", torch.float64)

    def check_values(self, values: str) -> None:
        """Raise `ConfigError` for an unknown word, `DataError` for the recovery of a gap that no pair has.

        Cost: for "recovery" both runs of the metric, which are kept.
        """
        one_of("values", values, VALUES)
        if values != "recovery" or not bool(self._gap().isnan().all()):
            return
        n, undefined = len(self.base), int((self.base_values.isnan() | self.source_values.isnan()).sum())
        same = f"is the same on the clean and the corrupted prompt of {'each' if not undefined else f'the other {n - undefined}'}"
        told = "is NaN on each of them" if undefined == n else f"is NaN on {undefined} of them and {same}" if undefined else same
        raise DataError(
            f"the recovery of {n} pairs",
            f"the metric {told}, so there is no gap to give a share of",
            'Give values="effect" (or "metric"), other prompts, or a metric that tells clean from corrupted',
        )

    def _gap(self) -> Float[Tensor, " pair"]:
        """clean − corrupted of each pair; NaN where there is none."""
        return Normalized(self.metric, *self._in_order(self.source_values, self.base_values)).gap

    def result(
        self,
        readings: Float[Tensor, "pair *shape"],
        name: str,
        *,
        axes: tuple[str, ...],
        labels: Mapping[str, tuple[str, ...]],
        values: Values,
        told: str,
    ) -> Result:
        """`per_pair`, as the mean over pairs with its standard error."""
        return averaged(self.per_pair(readings, name, axes=axes, labels=labels, values=values, told=told))

    def per_pair(
        self,
        readings: Float[Tensor, "pair *shape"],
        name: str,
        *,
        axes: tuple[str, ...],
        labels: Mapping[str, tuple[str, ...]],
        values: Values,
        told: str,
    ) -> Result:
        """Readings (the metric of each pair) as `values` asks for them, first axis "pair"; baseline: that of the base run.

        Raises as `check_values` does.
        """
        self.check_values(values)
        base, unit, undefined = self.base_values, self.metric.unit, self.base_values.isnan()
        if values != "metric":
            readings = readings - _wide(base, readings)
        if values == "recovery":
            gap = self._gap()
            undefined = undefined | gap.isnan()
            start = float(self.direction == "noising")
            readings, unit = readings / _wide(gap, readings) + start, Normalized.unit
        baseline = {"metric": float(base.nanmean()), "effect": 0.0, "recovery": float(self.direction == "noising")}[values]
        left_out = f"; {int(undefined.sum())} of {len(base)} pairs are undefined and left out" if bool(undefined.any()) else ""
        clean, corrupted = (float(run.nanmean()) for run in self._in_order(self.source_values, base))
        result = Result(
            name=name,
            values=readings,
            axes=("pair", *axes),
            labels=labels,
            baseline=None if math.isnan(baseline) else baseline,
            count=int((~readings.isnan()).reshape(len(base), -1).any(1).sum()),
            unit=unit,
            description=f"{TOLD[values]}clean {clean:.4g}, corrupted {corrupted:.4g}{left_out}; {told}",
        )
        both = torch.cat(self._in_order(self.source, self.base))
        provenance = provenance_of(cast(nn.Module, self.model), both, time.perf_counter() - self.started)
        return result.with_provenance(provenance)

    def _in_order(self, source: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """The clean one and the corrupted one."""
        return (source, base) if self.direction == "denoising" else (base, source)


def averaged(per_pair: Result) -> Result:
    """The mean over the first axis, with its standard error."""
    mean, stderr = mean_over_examples(per_pair.values)
    labels = {axis: names for axis, names in per_pair.labels.items() if axis != per_pair.axes[0]}
    return dataclasses.replace(per_pair, values=mean, stderr=stderr, axes=per_pair.axes[1:], labels=labels)


def _wide(per_pair: Tensor, like: Tensor) -> Tensor:
    return per_pair.reshape(-1, *[1] * (like.ndim - 1))


def one_of(what: str, given: str, options: Sequence[str]) -> None:
    """Raise `ConfigError`, with the nearest name, unless `given` is one of `options`."""
    if given not in options:
        raise ConfigError(f"{what} {given!r}", f"it is one of {', '.join(options)}", f"{nearest(str(given), options)}Choose one")
