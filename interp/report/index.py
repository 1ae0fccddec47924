"""A page over all the reports in a folder, made from their `results.json` alone."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from interp.errors import ReportError
from interp.files import write_whole
from interp.report.blocks import SIGNS, Outcome
from interp.report.page import DATA, FORMAT
from interp.report.rendering import Drawing, environment

NAME = "index.html"
_MARK = '<meta name="generator" content="interp: index of reports">'  # tells an index from any other page


@dataclass(frozen=True)
class Listed:
    """One report as the index shows it. `damage` says why its data cannot be read; the rest is then empty."""

    folder: str
    link: str = ""  # "" where there is data but no page
    size: str = ""
    title: str = ""
    finding: str = ""
    verdicts: tuple[Mapping[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    damage: str = ""

    @property
    def tally(self) -> dict[str, int]:
        """How many verdicts of each outcome there are, in the order of the outcomes."""
        return _tally(self.verdicts)


def write_index(folder: str | Path) -> Path:
    """Write `index.html` into `folder`, over every report in the folders right below it, and return its path.

    A report is a folder with a `results.json` as `write_page` makes it. One that is damaged is listed as such. Reports are in the
    order of their titles; the same reports give the same bytes. Reports do not link back: they stay whole when moved alone.
    Raises `ReportError` when `folder` holds no report, or has an `index.html` that is something else.
    """
    folder = Path(folder)
    reports = sorted(
        (_read(path) for path in folder.glob(f"*/{DATA}")), key=lambda r: (bool(r.damage), r.title.casefold(), r.folder)
    )
    if not reports:
        raise ReportError(f"an index of {str(folder)!r}", f"no folder in it has a {DATA}", "Write a report there first")
    if (folder / NAME).exists() and not _is_index(folder / NAME):
        truth = f"its {NAME} is another page"
        raise ReportError(f"an index of {str(folder)!r}", truth, "Give the folder above the reports, or move that page away")
    html = (
        environment()
        .get_template("index.html.jinja")
        .render(
            title="Reports",
            mark=_MARK,
            reports=reports,
            tally=_tally([verdict for report in reports for verdict in report.verdicts]),
            signs=SIGNS,
            assets=Drawing().assets(),
        )
    )
    return write_whole(folder / NAME, html.encode("utf-8", "backslashreplace"))


def refresh_index(folder: str | Path) -> Path | None:
    """Write the index of `folder` again if it has one; else do nothing. What ends with a new report calls it."""
    return write_index(folder) if _is_index(Path(folder) / NAME) else None


def _is_index(path: Path) -> bool:
    try:
        return _MARK in path.read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError:
        return False


def _read(path: Path) -> Listed:
    name = path.parent.name
    page = path.with_name(NAME)
    link = f"{quote(name)}/{NAME}" if page.is_file() else ""
    try:
        size = _bytes(path.stat().st_size + (page.stat().st_size if link else 0))
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, not {FORMAT!r}")
        return Listed(name, link, size, _text(data["title"]), _text(data["question"]), _verdicts(data), _facts(data))
    except KeyError as error:
        return Listed(name, link, damage=f"it has no {error}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return Listed(name, link, damage=str(error) or type(error).__name__)


def _verdicts(data: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    known = get_args(Outcome)
    for verdict in data["verdicts"]:
        if verdict["outcome"] not in known:
            raise ValueError(f"an outcome is {verdict['outcome']!r}, not one of {known}")
    return tuple({name: _text(verdict[name]) for name in ("question", "answer", "outcome")} for verdict in data["verdicts"])


def _facts(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The report's own facts, then the versions it was made with."""
    provenance = data["provenance"]
    versions = {"interp": provenance["versions"].get("interp", ""), "code": provenance["code"]}
    return tuple((str(name), str(value)) for name, value in {**data["facts"], **versions}.items() if value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} stands where a text should")
    return value


def _tally(verdicts: Any) -> dict[str, int]:
    counts = Counter(verdict["outcome"] for verdict in verdicts)
    return {outcome: counts[outcome] for outcome in get_args(Outcome) if counts[outcome]}


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
