"""A page from results alone: one HTML file that needs nothing else, and the same numbers as data beside it."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from interp.errors import ReportError
from interp.files import write_whole
from interp.report import circuitsvis
from interp.report.blocks import Row, Verdict
from interp.report.rendering import FOLDER, Block, Drawing, environment
from interp.report.text import number
from interp.result import Provenance, Result

FORMAT = "interp.report/1"


@dataclass(frozen=True, eq=False)
class Section:
    """A heading with blocks below it; `lead` says in a sentence or two what the section shows."""

    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True, eq=False)
class Page:
    """A whole report. `results` are the numbers behind it, all written to `results.json`; groups may be nested once.

    `command` rebuilds the report, `facts` are shown below the title (preset, seeds, time, …).
    """

    title: str
    question: str
    sections: Sequence[Section]
    results: Mapping[str, Result | Mapping[str, Result]]
    command: str
    provenance: Provenance
    facts: Mapping[str, str] = field(default_factory=dict)


def write_page(page: Page, folder: str | Path) -> Path:
    """Write `index.html` and `results.json` into `folder` and return the path of the page.

    Both are made and checked before either is written, and each appears whole or not at all. The same page gives the
    same bytes. Raises `ReportError` when something in it cannot be shown.
    """
    try:
        html, data = render_page(page).encode("utf-8"), _data(page).encode("utf-8")
    except UnicodeEncodeError as error:
        truth = f"it holds half a character ({error.object[error.start : error.end]!r})"
        raise ReportError(f"page {page.title!r}", truth, "Decode its text with errors='replace'") from None
    folder = Path(folder)
    write_whole(folder / "results.json", data)
    return write_whole(folder / "index.html", html)


def render_page(page: Page) -> str:
    """The HTML of the page. Raises `ReportError` when something in it cannot be shown."""
    drawing = Drawing()
    sections = [
        {"name": drawing.name("section"), "title": s.title, "lead": s.lead, "blocks": _render(s.blocks, drawing)}
        for s in page.sections
    ]
    runtime = (FOLDER / "runtime.js").read_text(encoding="utf-8")
    bundle = circuitsvis.bundle() if drawing.has_panels else ""
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            sections=sections,
            policy=_policy(runtime, bundle),
            style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
            runtime=Markup(runtime),
            bundle=circuitsvis.packed(bundle) if bundle else "",
            circuitsvis_version=circuitsvis.VERSION,
            provenance=_described(page.provenance),
            contents=_contents(page.results),
        )
    )


def _render(blocks: Sequence[Block], drawing: Drawing) -> Markup:
    """Blocks in order; verdicts that follow each other form one grid of cards."""
    html = Markup("")
    for are_verdicts, group in groupby(blocks, lambda block: isinstance(block, Verdict)):
        rendered = [block.render(drawing) for block in group]
        html += drawing.fill("verdicts", cards=rendered) if are_verdicts else Markup("").join(rendered)
    return html


def _policy(*scripts: str) -> str:
    """A content-security policy under which only these very scripts run, and nothing is loaded from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode("utf-8")).digest()).decode("ascii") for s in scripts if s]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    # styles may be inline: React sets them, and without images or fonts from outside they cannot call home
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _data(page: Page) -> str:
    try:
        return json.dumps(
            {
                "format": FORMAT,
                "title": page.title,
                "question": page.question,
                "command": page.command,
                "facts": dict(page.facts),
                "provenance": asdict(page.provenance),
                "verdicts": [{"section": s.title, **asdict(v)} for s in page.sections for v in _verdicts(s.blocks)],
                "results": {name: _plain(entry) for name, entry in page.results.items()},
            },
            allow_nan=False,
            separators=(",", ":"),
        )
    except (ValueError, TypeError) as error:
        raise ReportError("results.json", f"not everything is JSON ({error})", "Give facts and provenance as text") from None


def _plain(entry: Result | Mapping[str, Result]) -> dict[str, Any]:
    return entry.to_json() if isinstance(entry, Result) else {name: result.to_json() for name, result in entry.items()}


def _verdicts(blocks: Sequence[Block]) -> Iterator[Verdict]:
    for block in blocks:
        if isinstance(block, Verdict):
            yield block
        elif isinstance(block, Row):
            yield from _verdicts(block.blocks)


def _contents(results: Mapping[str, Result | Mapping[str, Result]]) -> list[tuple[str, str, str, str]]:
    """Name, shape, unit and description of everything in `results.json`."""
    flat: list[tuple[str, Result]] = []
    for name, entry in results.items():
        flat += [(name, entry)] if isinstance(entry, Result) else [(f"{name} / {inner}", r) for inner, r in entry.items()]
    return [
        (name, " × ".join(f"{n} {axis}" for n, axis in zip(r.values.shape, r.axes, strict=True)) or "1", r.unit, r.description)
        for name, r in flat
    ]


def _described(provenance: Provenance) -> list[tuple[str, str]]:
    """The known parts of a provenance, one line each."""
    facts = asdict(provenance)
    versions = ", ".join(f"{name} {version}" for name, version in facts.pop("versions").items())
    seconds = facts.pop("seconds")
    shown = {**facts, "versions": versions, "seconds": number(seconds) if seconds else ""}
    return [(name, str(value)) for name, value in shown.items() if value not in ("", None)]
