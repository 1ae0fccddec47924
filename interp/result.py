"""What every measurement returns: numbers with axis names, labels, an uncertainty, a baseline and their provenance.

A `Result` is a frozen value. Reports, tables and plots are functions of results alone and never touch a model.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import describe_result, lines_of_result, whole
from interp.errors import ResultError, nearest
from interp.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = "interp.result/1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a number comes from: enough to make it again. Unknown parts are empty, never invented."""

    model: str = ""
    weights: str = ""  # hash of every parameter and buffer
    data: str = ""
    tokens: str = ""  # hash of the token ids that were run
    seed: int | None = None
    dtype: str = ""
    device: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    code: str = ""  # commit of the source tree, with "+" when it had uncommitted changes
    command: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A named tensor of measurements.

    `values` has one named axis per dimension (`axes`), and `labels` may name the entries of an axis (default: 0, 1, …).
    `stderr` is the standard error of each value over examples (same shape), `count` how many examples there were.
    `baseline` is what the quantity would be without the effect (a number, or a tensor that broadcasts against `values`).
    `unit` and `description` say what the numbers mean, with their sign. NaN marks an undefined value.
    Raises `ResultError` when the parts do not fit together.
    """

    name: str
    values: Tensor
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    stderr: Tensor | None = None
    baseline: float | Tensor | None = None
    count: int | None = None
    unit: str = ""
    description: str = ""
    provenance: Provenance = Provenance()

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        if len(self.axes) != len(shape) or len(set(self.axes)) != len(self.axes):
            raise ResultError(
                f"result {self.name!r}", f"axes {self.axes} do not name the {len(shape)} dimensions of {shape}", "Name each once"
            )
        for part in (self.values, self.stderr, self.baseline):
            if part is not None and bool(torch.as_tensor(part).isinf().any()):
                raise ResultError(
                    f"result {self.name!r}",
                    "it holds an infinite value",
                    "Mark undefined values NaN and look for a division by zero",
                )
        for axis, names in self.labels.items():
            if axis not in self.axes or len(names) != shape[self.axes.index(axis)]:
                raise ResultError(
                    f"result {self.name!r}",
                    f"{len(names)} labels for axis {axis!r} do not fit axes {self.axes} of shape {shape}",
                    "Label every entry",
                )
        if self.stderr is not None and self.stderr.shape != self.values.shape:
            raise ResultError(
                f"result {self.name!r}",
                f"stderr has shape {tuple(self.stderr.shape)} and values {shape}",
                "Give one standard error per value",
            )

        if isinstance(self.baseline, Tensor) and not _broadcasts(self.baseline, shape):
            raise ResultError(
                f"result {self.name!r}",
                f"its baseline has shape {tuple(self.baseline.shape)} and values {shape}",
                "Give a baseline that broadcasts against the values",
            )

    def labels_of(self, axis: str) -> tuple[str, ...]:
        """The names of the entries along `axis` (their indices where none were given)."""
        self._check_axis(axis)
        return self.labels.get(axis) or tuple(str(i) for i in range(self.values.shape[self.axes.index(axis)]))

    def top(self, k: int = 5) -> "pd.DataFrame":
        """The `k` largest defined values as a table, largest first."""
        values = self.values.detach().cpu().to(torch.float64).flatten()
        order = values.nan_to_num(nan=-math.inf).argsort(descending=True, stable=True)
        return self._rows([place for place in order[: max(k, 0)].tolist() if not values[place].isnan()])

    def at(self, **where: int | str) -> "Result":
        """The part of this result at fixed places, e.g. `scores.at(score="induction", layer=1)`; those axes disappear.

        A place is an index, or a label of that axis as text. Raises `ResultError` for an axis or a place that is not there.
        """
        places = {axis: self._place(axis, place) for axis, place in where.items()}
        index = tuple(places.get(axis, slice(None)) for axis in self.axes)
        rest = tuple(axis for axis in self.axes if axis not in where)
        baseline = self.baseline
        if isinstance(baseline, Tensor):
            baseline = baseline.expand_as(self.values)[index]
        return dataclasses.replace(
            self,
            values=self.values[index],
            axes=rest,
            labels={axis: names for axis, names in self.labels.items() if axis in rest},
            stderr=None if self.stderr is None else self.stderr[index],
            baseline=baseline,
        )

    def item(self) -> float:
        """The only value of a result with a single entry."""
        if self.values.numel() != 1:
            raise ResultError(
                f"{self.name}.item()", f"it has {self.values.numel()} values", f"Fix the axes {self.axes} first with .at(…)"
            )
        return float(self.values.detach())

    def to_frame(self) -> "pd.DataFrame":
        """One row per value: a column per axis, then `value`, and `stderr` and `baseline` where known."""
        return self._rows(range(self.values.numel()))

    def _rows(self, places: Sequence[int]) -> "pd.DataFrame":
        """The rows of `to_frame` at these places of the flattened values."""
        import numpy as np
        import pandas as pd

        shape, chosen = tuple(self.values.shape), np.asarray(places, dtype=np.int64)
        indices = np.unravel_index(chosen, shape) if shape else ()
        names = {axis: np.asarray(self.labels_of(axis), dtype=object) for axis in self.axes}
        frame = pd.DataFrame({axis: _numbers(names[axis][index]) for axis, index in zip(self.axes, indices, strict=True)})
        frame["value"] = _flat(self.values)[chosen]
        if self.stderr is not None:
            frame["stderr"] = _flat(self.stderr)[chosen]
        if self.baseline is not None:
            frame["baseline"] = _flat(torch.as_tensor(self.baseline, dtype=torch.float64).expand(self.values.shape))[chosen]
        return frame

    def plot(self) -> "Figure":
        """The report's figure of this result: bars for one axis, a heat map for two (more axes: fix some with `.at` first).

        Raises `ResultError` for other numbers of axes, `ReportError` when no value is defined.
        """
        from interp.report import bar_chart, heat_map  # late: the report is made of results

        if not 1 <= len(self.axes) <= 2:
            raise ResultError(f"{self.name}.plot()", f"it has axes {self.axes}", "Fix axes with .at(…) until one or two are left")
        draw = bar_chart if len(self.axes) == 1 else heat_map
        return draw(self, title=self.name).figure

    def with_provenance(self, provenance: Provenance) -> "Result":
        """The same result, with another provenance."""
        return dataclasses.replace(self, provenance=provenance)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN is written as null. `Result.from_json` reads it back (values as float64)."""
        baseline = None if self.baseline is None else _nested(torch.as_tensor(self.baseline, dtype=torch.float64))
        return {
            "format": FORMAT,
            "name": self.name,
            "axes": list(self.axes),
            "labels": {axis: list(names) for axis, names in self.labels.items()},
            "values": _nested(self.values),
            "stderr": None if self.stderr is None else _nested(self.stderr),
            "baseline": baseline,
            "count": self.count,
            "unit": self.unit,
            "description": self.description,
            "provenance": dataclasses.asdict(self.provenance),
        }

    @staticmethod
    def from_json(data: Any) -> "Result":
        """The result that `to_json` wrote. Raises `ResultError` for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ResultError("reading a result", f"this is not in the format {FORMAT!r}", "Give a file written by Result.save")
        try:
            baseline = data["baseline"]
            return Result(
                name=data["name"],
                values=_tensor(data["values"]),
                axes=tuple(data["axes"]),
                labels={axis: tuple(names) for axis, names in data["labels"].items()},
                stderr=None if data["stderr"] is None else _tensor(data["stderr"]),
                baseline=_tensor(baseline) if isinstance(baseline, list) else baseline,
                count=data["count"],
                unit=data["unit"],
                description=data["description"],
                provenance=Provenance(**data["provenance"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultError(
                "reading a result", f"it is damaged ({type(error).__name__}: {error})", "Give a file written by Result.save"
            ) from None

    def save(self, path: str | Path) -> Path:
        """Write the result as JSON, whole or not at all."""
        return write_whole(Path(path), json.dumps(self.to_json(), indent=1, allow_nan=False))

    @staticmethod
    def load(path: str | Path) -> "Result":
        """Read what `save` wrote. Raises `ResultError` when the file is missing or is not a result."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResultError(
                f"result file {str(path)!r}", f"it cannot be read ({error})", "Give a file written by Result.save"
            ) from None
        return Result.from_json(data)

    def _check_axis(self, axis: str) -> None:
        if axis not in self.axes:
            raise ResultError(
                f"axis {axis!r} of {self.name}", f"it has axes {self.axes}", f"{nearest(axis, self.axes)}Choose one of those"
            )

    def _place(self, axis: str, place: int | str) -> int:
        """The index along `axis` of an index or a label."""
        names, asked = self.labels_of(axis), f"{self.name}.at({axis}={place!r})"
        if isinstance(place, str):
            if names.count(place) == 1:
                return names.index(place)
            if place in names:
                truth = f"{names.count(place)} of the {len(names)} labels of axis {axis!r} are that"
                raise ResultError(asked, truth, "Give an index")
            truth = f"none of the {len(names)} labels of axis {axis!r} is that"
            some = f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
            raise ResultError(asked, truth, f"{nearest(place, names)}Give an index, or one of {some}")
        if not hasattr(place, "__index__") or not -len(names) <= place < len(names):
            truth = f"axis {axis!r} has {len(names)} entries"
            raise ResultError(asked, truth, f"Give an index, 0 to {len(names) - 1}, or a label as text")
        return int(place)

    def __repr__(self) -> str:
        return f"<Result {lines_of_result(self)[0]}>"

    def __str__(self) -> str:
        return "\n".join(lines_of_result(self))

    def _repr_html_(self) -> str:
        return describe_result(self)


def mean_over_examples(readings: Float[Tensor, "example *shape"]) -> tuple[Tensor, Tensor | None]:
    """Mean and standard error over the first axis, in float64; undefined (NaN) examples are left out of both.

    The standard error is s / sqrt(n) with the n - 1 variance, and None when no value has at least two examples.
    """
    readings = readings.to(torch.float64)
    defined = ~readings.isnan()
    n = defined.sum(0)
    mean = readings.nansum(0) / n  # 0 / 0 = NaN: undefined, not zero
    squares = torch.where(defined, readings - mean, 0.0).square().sum(0)
    stderr = (squares / (n - 1)).sqrt() / n.double().sqrt()  # of integers it would be float32
    return mean, None if bool((n < 2).all()) else stderr.masked_fill(n < 2, torch.nan)


def left_out(undefined: int, n: int, whats: str, lacking: str) -> str:
    """What a description says of undefined examples: "; 1 of 4 examples have no defined metric and are left out", or nothing."""
    return f"; {undefined} of {n} {whats} have no defined {lacking} and are left out" if undefined else ""


def _broadcasts(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    try:
        return torch.broadcast_shapes(tensor.shape, shape) == shape
    except RuntimeError:
        return False


def _numbers(column: Any) -> list[Any]:
    return [int(entry) if entry.isdecimal() else whole(entry) for entry in column]


def _flat(tensor: Tensor) -> Any:
    return tensor.detach().cpu().to(torch.float64).flatten().numpy()


def _nested(tensor: Tensor) -> Any:
    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(entry) for entry in value]
        return None if math.isnan(value) else value

    return clean(tensor.detach().cpu().to(torch.float64).tolist())


def _tensor(nested: Any) -> Tensor:
    def restore(value: Any) -> Any:
        if isinstance(value, list):
            return [restore(entry) for entry in value]
        return float("nan") if value is None else value

    return torch.tensor(restore(nested), dtype=torch.float64)
