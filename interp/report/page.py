"""A page from results alone: one HTML file that needs nothing else, and the same numbers as data beside it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from interp.display import known_facts
from interp.errors import ReportError
from interp.files import write_whole
from interp.report import circuitsvis
from interp.report.blocks import Row, Verdict
from interp.report.contents import check_blocks, shown_results
from interp.report.notebook import for_notebook, framed
from interp.report.rendering import Block, Drawing, environment
from interp.result import Provenance, Result

FORMAT = "interp.report/1"
DATA = "results.json"


@dataclass(frozen=True, eq=False)
class Section:
    """A heading with blocks below it; `lead` says in a sentence or two what the section shows.

    Raises `ReportError` for what is no block, and says what to wrap it in.
    """

    title: str
    blocks: Sequence[Block]
    lead: str = ""

    def __post_init__(self) -> None:
        check_blocks(f"section {self.title!r}", self.blocks)


class _FromBlocks(dict[str, Result]):
    """Stands where no results were given, until those that the blocks hold are known."""


@dataclass(frozen=True, eq=False)
class Page:
    """A whole report. `results` are the numbers behind it, all written to `results.json`; groups may be nested once.

    Without `results`, those that the blocks hold are taken, by their names. `command` rebuilds the report, `facts` are shown
    below the title (preset, seeds, time, …). What is empty or unknown is left out. Raises `ReportError` for what is no section.
    """

    title: str
    question: str
    sections: Sequence[Section]
    results: Mapping[str, Result | Mapping[str, Result]] = field(default_factory=_FromBlocks)
    command: str = ""
    provenance: Provenance = field(default_factory=Provenance)
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_sections(self.title, self.sections)
        if isinstance(self.results, _FromBlocks):
            blocks = [block for section in self.sections for block in section.blocks]
            object.__setattr__(self, "results", shown_results(blocks))

    def _repr_html_(self) -> str:
        sections = [replace(section, blocks=[for_notebook(block) for block in section.blocks]) for section in self.sections]
        return framed(_html(replace(self, sections=sections), data=""), height=640, fixed=True)


def write_page(page: Page, folder: str | Path) -> Path:
    """Write `index.html` and `results.json` into `folder` and return the path of the page.

    Both are made and checked before either is written, and each appears whole or not at all. The same page gives the
    same bytes. Raises `ReportError` when something in it cannot be shown.
    """
    _check_page(page)
    try:
        html, data = render_page(page).encode("utf-8"), _data(page).encode("utf-8")
    except UnicodeEncodeError as error:
        truth = f"it holds half a character ({error.object[error.start : error.end]!r})"
        raise ReportError(f"page {page.title!r}", truth, "Decode its text with errors='replace'") from None
    folder = Path(folder)
    write_whole(folder / DATA, data)
    return write_whole(folder / "index.html", html)


def render_page(page: Page) -> str:
    """The HTML of the page. Raises `ReportError` when something in it cannot be shown."""
    _check_page(page)
    return _html(page, data=DATA)


def _check_sections(title: str, sections: object) -> None:
    is_list = isinstance(sections, list | tuple)
    wrong = [each for each in sections if not isinstance(each, Section)] if isinstance(sections, list | tuple) else [sections]
    if wrong:
        truth = f"its sections {'hold' if is_list else 'are'} a {type(wrong[0]).__name__}"
        raise ReportError(f"page {title!r}", truth, "Give a list of sections: [Section(title, [block, …]), …]")


def _check_page(page: object) -> None:
    if not isinstance(page, Page):
        remedy = "Make one: Page(title, question, [Section(title, [block, …])])"
        raise ReportError("writing a page", f"a {type(page).__name__} is no page", remedy)


def _html(page: Page, data: str) -> str:
    """The page with links to the file `data`, or without where there is none beside it."""
    drawing = Drawing()
    sections = [
        {"name": drawing.name("section"), "title": s.title, "lead": s.lead, "blocks": _render(s.blocks, drawing)}
        for s in page.sections
    ]
    provenance, contents = known_facts(page.provenance), _contents(page.results)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            title=page.title,
            page=page,
            sections=sections,
            assets=drawing.assets(),
            circuitsvis_version=circuitsvis.VERSION,
            data=data,
            provenance=provenance,
            contents=contents,
            origin=bool(page.command or provenance or contents),  # whether anything is known of where it comes from
        )
    )


def render_document(blocks: Sequence[Block], title: str) -> str:
    """A small HTML document with just these blocks, as self-contained and as safe as a page."""
    check_blocks(f"document {title!r}", blocks)
    drawing = Drawing()
    html = _render(blocks, drawing)
    return environment().get_template("document.html.jinja").render(title=title, html=html, assets=drawing.assets())


def _render(blocks: Sequence[Block], drawing: Drawing) -> Markup:
    """Blocks in order; verdicts that follow each other form one grid of cards."""
    html = Markup("")
    for are_verdicts, group in groupby(blocks, lambda block: isinstance(block, Verdict)):
        rendered = [block.render(drawing) for block in group]
        html += drawing.fill("verdicts", cards=rendered) if are_verdicts else Markup("").join(rendered)
    return html


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
