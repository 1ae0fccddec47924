"""What a metric is, what it reads, and how any callable becomes one."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError, InterpError, nearest

Logits = Float[Tensor, "batch pos d_vocab"]
Read = Float[Tensor, "batch read id"]
Tokens = Int[Tensor, "batch pos"]
PerExample = Float[Tensor, " batch"]
Rows = Int[Tensor, " row"]
Position = int | Int[Tensor, " batch"]  # negative ones count from the end


@dataclass(frozen=True, eq=False)
class Reads:
    """The part of the logits a metric looks at; None means all of an axis.

    `positions` is [read], the same for every example, or [batch read]; negative ones count from the end. `ids` is [id] or
    [batch id]. What is read keeps the order given here.
    """

    positions: Int[Tensor, "... read"] | None = None
    ids: Int[Tensor, "... id"] | None = None

    def pick(self, logits: Logits) -> Read:
        """The logits that are read, [batch read id]. Raises `DataError` when the logits lack a position, id or example."""
        return gather(gather(logits, self.positions, 1, "position"), self.ids, 2, "token id")

    def select(self, rows: Rows) -> "Reads":
        """The same for the examples `rows`."""

        def cut(index: Tensor | None) -> Tensor | None:
            return index[rows.to(index.device)] if index is not None and index.ndim == 2 else index

        return Reads(cut(self.positions), cut(self.ids))


class Metric(ABC):
    """One number per example, computed from the logits that `reads` names.

    A sweep that computes only those logits calls `score` on them; calling the metric itself picks them from full logits.
    """

    name: ClassVar[str]
    unit: ClassVar[str]

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """Which logits `score` needs."""

    @abstractmethod
    def score(self, read: Read, tokens: Tokens) -> PerExample:
        """The metric of each example, from the logits that `reads` picks and the (whole) tokens."""

    def per_example(self) -> Mapping[str, Tensor]:
        """The fields that hold one entry per example (none for a metric that treats all examples alike)."""
        return {}

    def select(self, rows: Rows) -> "Metric":
        """The same metric for the examples `rows`, in that order; its other examples are left out."""
        chosen: dict[str, Any] = {name: values[rows.to(values.device)] for name, values in self.per_example().items()}
        return dataclasses.replace(self, **chosen) if chosen else self  # type: ignore[type-var]

    def check_examples(self, n_examples: int) -> None:
        """Raise `DataError` unless everything held per example is there for `n_examples` examples."""
        for name, values in self.per_example().items():
            if len(values) != n_examples:
                raise DataError(
                    f"{self.name} of {n_examples} examples",
                    f"its {name!r} has {len(values)} entries",
                    "Give one per example, or metric.select(rows) for a part of them",
                )

    def __call__(self, logits: Logits, tokens: Tokens) -> PerExample:
        self.check_examples(len(tokens))
        return self.score(at_least_float32(self.reads.pick(logits)), tokens)


MetricLike = Metric | Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Opaque(Metric):
    """A callable as a metric: it reads all logits, and its `data` is cut to the examples of the batch."""

    function: Callable[..., Tensor]
    data: Mapping[str, Tensor] = field(default_factory=dict)
    name: ClassVar[str] = "metric"
    unit: ClassVar[str] = ""

    @property
    def reads(self) -> Reads:
        return Reads()

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        value = self.function(read, tokens, **self.data)
        if not isinstance(value, Tensor) or value.shape != tokens.shape[:1]:
            shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise DataError(
                f"metric {getattr(self.function, '__name__', 'function')}",
                f"it returned {shape} for {len(tokens)} examples",
                "Return one number per example, [batch]",
            )
        return value if value.is_floating_point() else value.to(read.dtype)

    def per_example(self) -> Mapping[str, Tensor]:
        return self.data

    def select(self, rows: Rows) -> "Metric":
        return Opaque(self.function, {name: values[rows.to(values.device)] for name, values in self.data.items()})


def from_callable(function: Callable[..., Tensor], **per_example: Tensor) -> Metric:
    """`function(logits, tokens, **per_example) -> [batch]` as a metric that can be run in batches.

    Each tensor of `per_example` has one entry per example and reaches the function cut to the examples of the batch. A bare
    function with answers in its closure would see all of them whatever the batch. Raises `DataError` for what is no such
    tensor or has a name that the function does not take.
    """
    asked = f"{getattr(function, '__name__', 'a function')} as a metric"
    for name, values in per_example.items():
        if not isinstance(values, Tensor) or not values.ndim:
            told = f"{name} is {'a single number' if isinstance(values, Tensor) else f'a {type(values).__name__}'}"
            raise DataError(asked, told, "Give a tensor with one entry per example")
    _check_takes(function, per_example, asked)
    return Opaque(function, per_example)


def _check_takes(function: Callable[..., Tensor], names: Iterable[str], asked: str) -> None:
    """Raise `DataError` for a name that `function` has no parameter for, with the nearest it has."""
    try:
        parameters = list(signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions do not say
        return
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes = [p.name for p in by_place[2:]]  # behind the logits and the tokens
    takes += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in names:
        if name not in takes and not open_ended:
            told = f"beside logits and tokens it takes {', '.join(takes) or 'nothing'}, not {name!r}"
            raise DataError(asked, told, f"{nearest(name, takes)}Name what you give as the function names it")


def as_metric(metric: MetricLike) -> Metric:
    """`metric` itself, or a plain callable wrapped as one. Raises `InterpError` for anything else."""
    if isinstance(metric, Metric):
        return metric
    if (getattr(metric, "__module__", None) or "").startswith("interp.metrics"):
        name = getattr(metric, "__name__", "")
        raise InterpError(f"metric {name}", "this makes a metric and is not one itself", f"Write {name}(…)")
    if not callable(metric):
        told = f"a {type(metric).__name__} is neither a Metric nor a function"
        raise InterpError(f"metric {metric!r}", told, "Give one of interp.metrics, or a function (logits, tokens) -> [batch]")
    return Opaque(metric)


def gather(values: Tensor, index: Int[Tensor, "... entry"] | None, axis: int, what: str) -> Tensor:
    """`values` [batch, …] at `index` along `axis`: [entry] for all examples or [batch entry], each its own."""
    if index is None:
        return values
    size, index = values.shape[axis], index.to(values.device)
    if bool(((index < -size) | (index >= size)).any()):
        wrong = sorted({int(i) for i in index.flatten() if not -size <= i < size})
        raise DataError(f"reading {what} {wrong[0]}", f"there are {size} of them", f"Choose from {-size} to {size - 1}")
    if index.ndim == 1:
        return values.index_select(axis, index % size)
    if len(index) != len(values):
        raise DataError(f"reading a {what} per example", f"{len(index)} are given for {len(values)} examples", "Give one each")
    aligned = rearrange(index % size, "batch entry -> batch entry 1" if axis == 1 else "batch entry -> batch 1 entry")
    shape = list(values.shape)
    shape[axis] = index.shape[1]
    return values.gather(axis, aligned.expand(shape))


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision values as float32: a softmax or a difference in bfloat16 has two digits."""
    return values if torch.finfo(values.dtype).bits >= 32 else values.to(torch.float32)
