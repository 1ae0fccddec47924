"""Finding run folders by name, time of start, or any setting or final metric, and seeing them as a table.

runs = find_runs("runs", "data.kind=copy", "train.lr<1e-3")
runs.to_frame()                # one row per run: what varies among them, and their last metrics
runs.one().open().model        # the model of the only one that is left
"""

import json
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, overload

import pandas as pd

from interp.config import build, flat, read_yaml
from interp.display import card, table
from interp.errors import ConfigError, RunFolderError, nearest
from interp.models.saved import CONFIG
from interp.training.config import RunConfig
from interp.training.fit import FinishedRun
from interp.training.folder import METRICS, RUN, is_finished, open_run

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"(?P<key>[\w.]+)\s*(?P<sign>!=|<=|>=|=|<|>)(?P<value>.*)", re.DOTALL)
_ALWAYS = ("name", "started", "state")
_OWN = (*_ALWAYS, "folder")
_LOSSES = ("step", "train_loss", "validation_loss", "validation_accuracy", "answer_loss", "answer_accuracy", "loss_above_floor")


@dataclass(frozen=True)
class FoundRun:
    """A run folder: its name, when it was started (UTC, ISO; None where not recorded), its settings and last metrics by name.

    `state` is finished, unfinished (still training, or killed: the same command goes on with it) or damaged.
    """

    folder: Path
    started: str | None
    state: str
    settings: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    @property
    def values(self) -> dict[str, Any]:
        """Everything that a filter or a column can name. The rate of the last step is `last_lr`, so that `lr` is the setting."""
        metrics = {"last_lr" if name == "lr" else name: value for name, value in self.metrics.items()}
        own = {"name": self.name, "started": self.started, "state": self.state, "folder": str(self.folder)}
        return {**flat(self.settings), **metrics, **own}

    def open(self) -> FinishedRun:
        """The run as `fit` returned it. Raises `RunFolderError` when it did not finish or cannot be read."""
        if self.state != "finished":
            raise RunFolderError(f"opening {self.folder}", f"the run is {self.state}", "Train it to its end first")
        return open_run(build(RunConfig, self.settings, source=str(self.folder / CONFIG)), self.folder)


class Runs(Sequence[FoundRun]):
    """Run folders that were found, in the order of their start."""

    def __init__(self, runs: Sequence[FoundRun]):
        self._runs = tuple(runs)

    @overload
    def __getitem__(self, index: int) -> FoundRun: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | slice) -> "FoundRun | Runs":
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"{len(self)} runs\n{self.to_frame().to_string(index=False)}" if self._runs else "0 runs"

    def _repr_html_(self) -> str:
        return card(f"{len(self)} runs", table(self.to_frame(), most=50))

    @property
    def keys(self) -> list[str]:
        """What filters, columns and sorting can name: settings, last metrics, and name, started, state, folder."""
        return list(dict.fromkeys(key for run in self for key in run.values))

    def where(self, *filters: str) -> "Runs":
        """The runs that meet every filter.

        A filter is `key=value` or the same with `!=`, `<`, `<=`, `>`, `>=`; the key may be shortened to its last part where that
        is unique, the value is YAML, and `*` in a text matches anything. Any other text must occur in the run's name or in the
        time of its start. A run without the setting meets no condition on it. Raises `ConfigError` for a key that no run has.
        """
        kept = self._runs
        for text in filters:
            kept = tuple(filter(self._test(text), kept))
        return Runs(kept)

    def sorted_by(self, key: str) -> "Runs":
        """In ascending order of a setting or metric, or descending with `-key`; runs without it come last."""
        name = self._key(key.removeprefix("-"))
        having = [run for run in self if run.values.get(name) is not None]
        is_number = all(_is_number(run.values[name]) for run in having)
        having.sort(key=lambda run: run.values[name] if is_number else str(run.values[name]), reverse=key.startswith("-"))
        return Runs([*having, *(run for run in self if run.values.get(name) is None)])

    def to_rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One row per run: name, start, state, the settings that differ among the runs that have them, last losses, folder.

        `columns` chooses others, by any of `keys`. What a run lacks is None.
        """
        chosen = self._usual_columns() if columns is None else [self._key(column) for column in columns]
        return [{name: run.values.get(name) for name in chosen} for run in self]

    def to_frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """`to_rows` as a table; lists are shown as JSON."""
        rows = self.to_rows(columns)
        cells = [{name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()} for row in rows]
        columns = list(rows[0]) if rows else []
        table = pd.DataFrame(cells, columns=columns)
        whole = [name for name in columns if all(isinstance(row[name], int) or row[name] is None for row in rows)]
        return table.astype({name: "Int64" for name in whole if not any(isinstance(row[name], bool) for row in rows)})

    def one(self) -> FoundRun:
        """The only run. Raises `RunFolderError` when there is none, or more than one."""
        if len(self) != 1:
            shown = ", ".join(run.name for run in self[:5]) + (" …" if len(self) > 5 else "")
            raise RunFolderError("one run", f"{len(self)} were found" + (f": {shown}" if shown else ""), "Change the filters")
        return self[0]

    def _usual_columns(self) -> list[str]:
        settings = [flat(run.settings) for run in self]
        differing = []
        for key in dict.fromkeys(key for values in settings for key in values):
            given = {json.dumps(values[key]) for values in settings if key in values}
            if len(given) > 1:
                differing.append(key)
        losses = [name for name in _LOSSES if any(name in run.metrics for run in self)]
        return [*_ALWAYS, *differing, *losses, "folder"]

    def _test(self, given: str) -> Callable[[FoundRun], bool]:
        condition = _CONDITION.fullmatch(given.strip())
        if condition is None:
            return lambda run: given in run.name or given in (run.started or "")
        key = self._key(condition["key"])
        wanted = read_yaml(condition["value"], f"filter {given!r}")
        compare = _COMPARISONS[condition["sign"]]
        text = wanted if isinstance(wanted, str) else condition["value"].strip()  # as it is to be compared with texts
        return lambda run: key in run.values and _compared(run.values[key], wanted, text, compare)

    def _key(self, key: str) -> str:
        keys = self.keys
        found = [key] if key in _OWN else [name for name in keys if name == key or name.endswith(f".{key}")]
        if len(found) == 1 or not keys:
            return found[0] if found else key
        if found:
            raise ConfigError(f"{key!r} of a run", f"it may be {' or '.join(found)}", "Write it in full")
        last_parts = {name.rsplit(".", 1)[-1]: name for name in keys}
        hint = nearest(key, keys) or nearest(key, last_parts)
        raise ConfigError(
            f"{key!r} of a run", "no run has a setting or metric of that name", f"{hint}There are {', '.join(keys)}"
        )


def find_runs(folder: str | Path = "runs", *filters: str) -> Runs:
    """All run folders in `folder` (at any depth, or the folder itself) that meet every filter; see `Runs.where`.

    They come in the order of their start. Damaged ones are found too. Raises `RunFolderError` when there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        hint = nearest(folder.name, [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else [])
        raise RunFolderError(
            f"runs in {str(folder)!r}", "there is no such folder", f"{hint}Give the folder that training wrote to"
        )
    found = [_read(place) for place in _places(folder)]
    return Runs(sorted(found, key=lambda run: (run.started is None, run.started or "", run.name))).where(*filters)


def _places(folder: Path) -> Iterator[Path]:
    """Run folders; what lies inside of one (copies of its model) is not looked at."""
    for place, inner, files in os.walk(folder):
        if CONFIG in files and (RUN in files or METRICS in files):
            inner.clear()
            yield Path(place)
        inner.sort()


def _read(folder: Path) -> FoundRun:
    settings = _json(folder / CONFIG)
    begun = _json(folder / RUN) or {}
    state = "damaged" if settings is None else "finished" if is_finished(folder) else "unfinished"
    started = begun.get("started")
    return FoundRun(folder, started if isinstance(started, str) else None, state, settings or {}, _last_metrics(folder))


def _json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _last_metrics(folder: Path) -> dict[str, Any]:
    """The last whole row: that of a run which is being written may be cut."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        return row if isinstance(row, dict) else {}
    return {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compared(value: Any, wanted: Any, text: str, compare: Callable[[Any, Any], bool]) -> bool:
    if compare in (operator.eq, operator.ne):
        as_text = isinstance(value, str)
        same = fnmatchcase(value, text) if as_text else value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
        return same == (compare is operator.eq)
    if isinstance(value, str):
        return compare(value, text)
    return _is_number(value) and _is_number(wanted) and compare(value, wanted)
