"""Running a model for a metric's values."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import DataError, InterpError
from interp.metrics.base import Metric, MetricLike, Opaque, PerExample, Position, Reads, as_metric, at_least_float32
from interp.metrics.standard import KL, position_of, positions
from interp.models.calling import check_tokens
from interp.provenance import provenance_of
from interp.result import Result
from interp.running import Intervention, Probe, Readings, measure
from interp.sites import OUTPUT, HookedModel, Site


@dataclass(frozen=True, eq=False)
class MetricValues(Probe):
    """Keeps one number per example of the logits: the result's axis is "example"."""

    metric: Metric
    name: ClassVar[str] = "metric"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return self.metric(activation, prepared)

    def result(self, readings: Readings) -> Result:
        values = readings[OUTPUT]
        return Result(name=self.metric.name, values=values, axes=("example",), count=len(values), unit=self.metric.unit)


@dataclass(frozen=True, eq=False)
class LogitsRead(Probe):
    """Keeps the logits that a metric would read."""

    reads: Reads
    name: ClassVar[str] = "logits read"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return self.reads.pick(activation)

    def result(self, readings: Readings) -> Result:
        return Result(name=self.name, values=readings[OUTPUT], axes=("example", "read", "id"))


def metric_values(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    metric: MetricLike,
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: int | None = None,
) -> Result:
    """The metric of each example, axis "example", under `interventions`. Cost: one forward pass.

    The same for every `batch_size` (None: all at once), beyond rounding, when the interventions treat each example alone.
    Raises `DataError` when what the metric holds per example does not fit the tokens.
    """
    started = time.perf_counter()
    metric = as_metric(metric)
    check_tokens(model, tokens)
    metric.check_examples(len(tokens))
    check_treats_rows_alone(model, tokens, metric, batch_size)
    values = torch.cat(
        [measured_values(model, tokens[rows], metric.select(rows), interventions) for rows in row_chunks(len(tokens), batch_size)]
    )
    result = MetricValues(metric).result({OUTPUT: values})
    return result.with_provenance(provenance_of(cast(nn.Module, model), tokens, time.perf_counter() - started))


def measured_values(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], metric: Metric, interventions: Sequence[Intervention] = ()
) -> PerExample:
    """The values alone, in one forward pass: what a sweep calls for each of its cells."""
    return measure(model, tokens, [MetricValues(metric)], interventions)[MetricValues.name].values


def treats_rows_alone(metric: Metric, logits: Tensor, tokens: Int[Tensor, "batch pos"], values: PerExample) -> bool:
    """Whether the metric of these examples is what it was (`values`) before, in another order and twice, or of some alone.

    Some are the first half (beside each other, the largest or the mean of all would be missed), the first and the last.
    """
    n = len(values)
    rows = torch.arange(n)
    others = [rows.flip(0).repeat_interleave(2), rows[: (n + 1) // 2], rows[:1], rows[-1:]]
    return all(_as_before(metric, logits, tokens, values, part) for part in others)


def _as_before(metric: Metric, logits: Tensor, tokens: Int[Tensor, "batch pos"], values: PerExample, rows: Tensor) -> bool:
    try:
        again = metric.select(rows).score(at_least_float32(logits[rows]), tokens[rows].to(logits.device))
    except (RuntimeError, ValueError, IndexError, InterpError):
        return False
    return torch.allclose(again.to(values), values[rows], rtol=1e-5, atol=1e-6, equal_nan=True)


def check_treats_rows_alone(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], metric: Metric, batch_size: int | None = 0
) -> None:
    """Raise `DataError` for a bare function that needs the examples all at once, in order, where batches would part them.

    Nothing is looked at when all fit into one batch (0: never). Our own metrics are known to be right. Cost for a function: one
    forward pass over at most 64 examples, with all logits.
    """
    if not isinstance(metric, Opaque) or batch_size is None or len(tokens) <= batch_size:
        return
    rows = torch.arange(min(64, len(tokens)))
    part = metric.select(rows)
    logits = measure(model, tokens[rows], [LogitsRead(Reads())])[LogitsRead.name].values
    try:
        values = part.score(at_least_float32(logits), tokens[rows].to(logits.device))
        alone = treats_rows_alone(part, logits, tokens[rows], values)
    except (RuntimeError, ValueError, IndexError) as error:
        raise _not_alone(f"it fails on the first {len(rows)} of {len(tokens)} examples ({error})") from error
    if not alone:
        raise _not_alone("its values change, or it fails, when the examples come in another order or fewer at a time")


def _not_alone(truth: str) -> DataError:
    remedy = (
        "Give answers as metrics.from_callable(function, answers=answers), which cuts them to the batch, and make each "
        "example's value of its own logits alone"
    )
    return DataError("a function as the metric of batches", truth, remedy)


def kl_from_run(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    position: Position | None = None,
    *,
    batch_size: int | None = None,
) -> Metric:
    """`kl` from what `model`, untouched, says on `tokens`. Cost: one forward pass; memory: the logits at the positions read."""
    position = None if position is None else position_of(position)
    reads = Reads(positions(position))
    parts = [
        measure(model, tokens[rows], [LogitsRead(reads.select(rows))])[LogitsRead.name].values
        for rows in row_chunks(len(tokens), batch_size)
    ]
    return KL(at_least_float32(torch.cat(parts)).log_softmax(-1), position)


def row_chunks(n_examples: int, batch_size: int | None) -> Sequence[Int[Tensor, " row"]]:
    """The examples 0 … n − 1 in batches of `batch_size` (None: one batch)."""
    size = n_examples if batch_size is None else batch_size
    if size < 1:
        raise DataError(f"batches of {size} examples", "a batch holds at least one example", "Give a positive number")
    return torch.arange(n_examples).split(size)
