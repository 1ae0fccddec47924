"""The metrics the field uses, and the recovery between a corrupted and a clean run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import DataError, kind_of
from interp.metrics.base import (
    Logits,
    Metric,
    MetricLike,
    PerExample,
    Position,
    Read,
    Reads,
    Rows,
    Tokens,
    as_metric,
    at_least_float32,
    gather,
)

Ids = int | Sequence[int] | Int[Tensor, " batch"] | Int[Tensor, "batch _"]

SMALLEST_GAP = 1e-150  # no finite metric divided by more than this is infinite


@dataclass(frozen=True)
class Loss(Metric):
    """See `loss`."""

    targets: tuple[int, ...] | None = None
    name: ClassVar[str] = "loss"
    unit: ClassVar[str] = "nats"

    @property
    def reads(self) -> Reads:
        return _before(self.targets)

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        predicted, targets = _predictions(read, tokens, self.targets)
        classes = rearrange(predicted, "batch target id -> batch id target")
        return nn.functional.cross_entropy(classes, targets, reduction="none").mean(-1)


@dataclass(frozen=True)
class Accuracy(Metric):
    """See `accuracy`."""

    targets: tuple[int, ...] | None = None
    name: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "share"

    @property
    def reads(self) -> Reads:
        return _before(self.targets)

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        predicted, targets = _predictions(read, tokens, self.targets)
        return hits(predicted, targets).to(read.dtype).mean(-1)


@dataclass(frozen=True, eq=False)
class LogitDiff(Metric):
    """See `logit_diff`."""

    answers: Int[Tensor, "... answer"]
    wrong: Int[Tensor, "... other"]
    position: Position = -1
    name: ClassVar[str] = "logit difference"
    unit: ClassVar[str] = "logits"

    def __post_init__(self) -> None:
        _same_rank(self.answers, self.wrong)

    @property
    def reads(self) -> Reads:
        answers, wrong = _same_rank(self.answers, self.wrong)
        return Reads(positions(self.position), torch.cat([answers, wrong], dim=-1))

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        count = self.answers.shape[-1]
        return read[:, 0, :count].mean(-1) - read[:, 0, count:].mean(-1)

    def per_example(self) -> Mapping[str, Tensor]:
        return per_example_fields(answers=self.answers, wrong=self.wrong, position=self.position)


@dataclass(frozen=True, eq=False)
class Prob(Metric):
    """See `prob`."""

    answers: Int[Tensor, "... answer"]
    position: Position = -1
    name: ClassVar[str] = "probability"
    unit: ClassVar[str] = "probability"

    @property
    def reads(self) -> Reads:
        return Reads(positions(self.position))

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        return gather(read.softmax(-1), self.answers, 2, "token id")[:, 0].sum(-1)

    def per_example(self) -> Mapping[str, Tensor]:
        return per_example_fields(answers=self.answers, position=self.position)


@dataclass(frozen=True, eq=False)
class KL(Metric):
    """See `kl`. `reference` holds log probabilities at the positions read."""

    reference: Float[Tensor, "batch read d_vocab"]
    position: Position | None = None
    name: ClassVar[str] = "KL divergence"
    unit: ClassVar[str] = "nats"

    @property
    def reads(self) -> Reads:
        return Reads(positions(self.position))

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        if read.shape != self.reference.shape:
            shapes = f"the reference is {tuple(self.reference.shape)} and the logits read are {tuple(read.shape)}"
            raise DataError("KL divergence from a reference run", shapes, "Run the reference on the same tokens and model")
        reference, here = self.reference.to(read), read.log_softmax(-1)
        terms = reference.exp() * (reference - here)  # p = 0 contributes nothing, whatever the other run says
        return torch.where(reference > -torch.inf, terms, 0.0).sum(-1).mean(-1)

    def per_example(self) -> Mapping[str, Tensor]:
        return {"reference": self.reference} | per_example_fields(position=self.position)


@dataclass(frozen=True, eq=False)
class Normalized(Metric):
    """See `normalized`."""

    metric: Metric
    clean: PerExample
    corrupted: PerExample
    name: ClassVar[str] = "normalised recovery"
    unit: ClassVar[str] = "share of the gap from corrupted to clean"

    @property
    def reads(self) -> Reads:
        return self.metric.reads

    @property
    def undefined(self) -> int:
        """How many pairs have no gap to recover; their value is NaN."""
        return int(self.gap.isnan().sum())

    def score(self, read: Read, tokens: Tokens) -> PerExample:
        value = self.metric.score(read, tokens).to(torch.float64)
        return (value - self.corrupted.to(value)) / self.gap.to(value.device)

    def per_example(self) -> Mapping[str, Tensor]:
        return {"clean": self.clean, "corrupted": self.corrupted}

    def select(self, rows: Rows) -> "Metric":
        clean, corrupted = (values[rows.to(values.device)] for values in (self.clean, self.corrupted))
        return Normalized(self.metric.select(rows), clean, corrupted)

    def check_examples(self, n_examples: int) -> None:
        super().check_examples(n_examples)
        self.metric.check_examples(n_examples)

    @property
    def gap(self) -> PerExample:
        """clean − corrupted of each pair, in float64; NaN where it is no larger than rounding."""
        clean, corrupted = self.clean.to(torch.float64), self.corrupted.to(torch.float64)
        rounding = 4 * torch.finfo(self.clean.dtype).eps * torch.maximum(clean.abs(), corrupted.abs())
        gap = clean - corrupted
        smallest = rounding.clamp(min=SMALLEST_GAP)
        return gap.masked_fill(~(gap.abs() > smallest), torch.nan)


def loss(targets: Sequence[int] | None = None) -> Metric:
    """Mean next-token loss in nats of each example; lower is better.

    `targets` are the positions of the tokens to be predicted, each at least 1 and read one position earlier, e.g.
    `range(S + 2, 2 * S + 1)` for the second copy in BOS + r + r without its first token; None: every token but the first.
    """
    return Loss(_targets("loss", targets))


def accuracy(targets: Sequence[int] | None = None) -> Metric:
    """Share of the target tokens (as in `loss`) that the largest logit names; higher is better. NaN where a logit read is NaN."""
    return Accuracy(_targets("accuracy", targets))


def hits(logits: Float[Tensor, "*places d_vocab"], targets: Int[Tensor, "*places"]) -> Float[Tensor, "*places"]:
    """1 where the largest logit names the target, 0 where another is larger, NaN where any logit is NaN."""
    right = (logits.argmax(-1) == targets).double()
    return right.masked_fill(logits.amax(-1).isnan(), torch.nan)


def logit_diff(answers: Ids, wrong: Ids, position: Position = -1) -> Metric:
    """Logit of the answer minus logit of the wrong answer at `position`; larger is better. Softmax would not change it.

    Token ids: one for every example, one per example, or several per example ([batch answer]: their mean logit). `position` is
    one for all or one per example. Reads that position and the ids named, nothing else. `model.to_single_token(" is")` makes an
    answer in words into its id; `model.to_tokens(" is")` puts BOS before it, which would be averaged in. Raises `DataError` for
    ids that cannot be used, and where all answers and all wrong ones begin with the same id, as those do.
    """
    right, other = token_ids("answers", answers), token_ids("wrong", wrong)
    _check_no_bos(right, other)
    return LogitDiff(right, other, position_of(position))


def prob(answers: Ids, position: Position = -1) -> Metric:
    """Probability at `position` of the answer, or of any of several (their sum). Arguments as in `logit_diff`.

    Ids made by `model.to_tokens` would add the probability of BOS; take `model.to_single_token`.
    """
    return Prob(token_ids("answers", answers), position_of(position))


def kl(reference: Logits, position: Position | None = None) -> Metric:
    """KL(reference ‖ run) in nats at `position` or (None) its mean over all positions; 0 when the run equals the reference.

    `reference` are the logits of another run on the same examples (`kl_from_run` makes them); only what is read is kept.
    """
    position = None if position is None else position_of(position)
    return KL(at_least_float32(Reads(positions(position)).pick(reference)).log_softmax(-1), position)


def normalized(metric: MetricLike, clean: PerExample, corrupted: PerExample) -> Normalized:
    """(metric − corrupted) / (clean − corrupted) of each example: 0 as corrupted, 1 as clean.

    `clean` and `corrupted` are the metric's values in the two runs, one per example (`metric_values(…).values`). A pair
    whose gap is within four rounding steps of its larger value has nothing to recover: it is NaN, never infinite, and
    `.undefined` counts it. Computed in float64. Raises `DataError` when the two differ in length.
    """
    for name, values in {"clean": clean, "corrupted": corrupted}.items():
        if not isinstance(values, Tensor) or values.ndim != 1:
            told = f"{name!r} is {kind_of(values)}, not a tensor [batch]"
            raise DataError("normalized", told, "Give one value per example, e.g. metric_values(…).values")
    if len(clean) != len(corrupted):
        raise DataError("normalized", f"there are {len(clean)} clean and {len(corrupted)} corrupted values", "Give pairs")
    clean, corrupted = (values if values.is_floating_point() else values.double() for values in (clean, corrupted))
    return Normalized(as_metric(metric), clean, corrupted)


def _targets(name: str, targets: Sequence[int] | None) -> tuple[int, ...] | None:
    if targets is None:
        return None
    if isinstance(targets, int) or not len(targets) or min(targets) < 1:
        told = "targets are a list of positions, each predicted from the one before it"
        raise DataError(f"{name}(targets={targets})", told, "Give positions ≥ 1, e.g. [5]")
    return tuple(targets)


def _before(targets: tuple[int, ...] | None) -> Reads:
    return Reads() if targets is None else Reads(torch.tensor(targets) - 1)


def _predictions(read: Tensor, tokens: Tensor, targets: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    """The logits that predict, and the tokens predicted."""
    tokens = tokens.to(read.device, torch.int64)
    if targets is None:
        if tokens.shape[1] < 2:
            told = "rows of a single token have none that is predicted"
            raise DataError("a metric of the predicted tokens", told, "Give rows of two tokens or more")
        return read[:, :-1], tokens[:, 1:]
    return read, gather(tokens, torch.tensor(targets), 1, "target")


def token_ids(name: str, ids: Ids) -> Int[Tensor, "... answer"]:
    """Ids for all examples [answer], or for each [batch answer]. Raises `DataError`, naming `name`, for anything else."""
    _check_no_words(name, ids)
    found = _integers(ids)
    if found is None or found.ndim > 2 or found.numel() == 0 or int(found.min()) < 0:
        raise DataError(f"token ids {name}", f"they are {ids!r}", "Give ids of the model's vocabulary, at least one")
    if found.ndim == 0:
        return found.reshape(1)
    return found if found.ndim == 2 else rearrange(found, "batch -> batch 1")


def _check_no_words(name: str, ids: Any) -> None:
    given = ids if isinstance(ids, list | tuple) else [ids]
    words = [one for one in given if isinstance(one, str)]
    if words:
        told = f"there is text among them ({words[0]!r}), and a metric knows no tokenizer"
        raise DataError(f"token ids {name}", told, f"Give the id of each: model.to_single_token({words[0]!r})")


def _check_no_bos(right: Tensor, other: Tensor) -> None:
    """Raise `DataError` for ids as `model.to_tokens` makes them of words: with BOS on both sides, which halves the difference."""
    if min(right.ndim, other.ndim) < 2 or min(right.shape[1], other.shape[1]) < 2:
        return
    first = torch.cat([right[:, 0], other[:, 0].to(right.device)])
    if bool((first == first[0]).all()):
        raise DataError(
            "logit difference of several answers",
            f"all answers and all wrong ones begin with id {int(first[0])}, as ids made by model.to_tokens begin with BOS",
            "Give the id of each word: model.to_single_token(word), or model.to_tokens(words, prepend_bos=False)",
        )


def _integers(values: Any) -> Tensor | None:
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return None
    return None if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool else found.long()


def position_of(position: Any) -> Position:
    """A position for all (any kind of integer), or one per example (a tensor or a list). Raises `DataError` for all else."""
    found = _integers(position)
    if found is None or found.ndim > 1:
        told = "it is neither an integer nor one per example"
        raise DataError(f"position {position!r}", told, "Give an int or a [batch] tensor")
    return int(found) if found.ndim == 0 else found


def positions(position: Position | None) -> Int[Tensor, "... read"] | None:
    if position is None:
        return None
    return torch.tensor([position]) if isinstance(position, int) else rearrange(position, "batch -> batch 1")


def _same_rank(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    n_examples = max(len(ids) if ids.ndim == 2 else 1 for ids in (left, right))
    if left.ndim == right.ndim == 1:
        return left, right
    left, right = (ids if ids.ndim == 2 else ids.expand(n_examples, -1) for ids in (left, right))
    if len(left) != len(right):
        raise DataError("logit difference", f"{len(left)} answers are set against {len(right)} wrong ones", "Give pairs")
    return left, right


def per_example_fields(**fields: Tensor | int | None) -> dict[str, Tensor]:
    """Those of a metric's fields that hold a row, or a position, for each example."""

    def has_examples(name: str, value: Tensor | int | None) -> bool:
        return isinstance(value, Tensor) and (name == "position" or value.ndim == 2)

    return {name: value for name, value in fields.items() if isinstance(value, Tensor) and has_examples(name, value)}
