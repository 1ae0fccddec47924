"""The gallery: every report under reports/, with its findings read from its results.json when the site is built."""

import json
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"
PREVIEWS = ROOT / "docs" / "_static" / "gallery"
OUTCOMES = {
    "supported": "as predicted",
    "refuted": "not as predicted",
    "mixed": "partly as predicted",
    "not tested": "not run",
}


class Gallery(SphinxDirective):
    """One section per report: a preview, the question, the answers with their outcomes, the page and its data."""

    def run(self) -> list[nodes.Node]:
        folders = sorted(path.parent for path in REPORTS.glob("*/results.json"))
        if not folders:
            raise self.error("There are no reports under reports/: run `make report` first.")
        up = "../" * self.env.docname.count("/")
        sections: list[nodes.Node] = [self.section(folder, up) for folder in folders]
        if (REPORTS / "index.html").exists():
            sections.insert(
                0,
                nodes.paragraph(
                    "",
                    "",
                    self.link(f"{up}reports/index.html", nodes.Text("All reports on one page")),
                ),
            )
        return sections

    def section(self, folder: Path, up: str) -> nodes.Node:
        page = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        section = nodes.section(ids=[folder.name])
        section += nodes.title(text=page["title"])
        preview = PREVIEWS / f"{folder.name}.png"
        if preview.exists():
            image = nodes.image(
                uri=f"{up}_static/gallery/{preview.name}",
                alt=f"The beginning of the report “{page['title']}”",
            )
            image["classes"] = ["preview"]
            section += self.link(f"{up}reports/{folder.name}/index.html", image)
        section += nodes.paragraph("", "", *words(page["question"]))
        answers = nodes.bullet_list()
        for verdict in page["verdicts"]:
            item = nodes.paragraph()
            item += nodes.strong("", "", *words(verdict["question"]))
            item += words(f" {verdict['answer']} ")
            item += nodes.emphasis(text=f"({OUTCOMES.get(verdict['outcome'], verdict['outcome'])})")
            answers += nodes.list_item("", item)
        section += answers
        links = nodes.paragraph()
        links += self.link(f"{up}reports/{folder.name}/index.html", nodes.Text("The report"))
        links += nodes.Text(" · ")
        links += self.link(f"{up}reports/{folder.name}/results.json", nodes.Text("its numbers"))
        links += nodes.Text(" · made by ")
        links += nodes.literal(text=page["command"])
        section += links
        self.env.note_dependency(str(folder / "results.json"))
        return section

    def link(self, address: str, inside: nodes.Node) -> nodes.Node:
        reference = nodes.reference(refuri=address, internal=False)
        reference += inside
        return reference


def words(text: str) -> list[nodes.Node]:
    """Plain text with `code` between backticks, as reports have it."""
    parts = text.split("`")
    return [nodes.literal(text=part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


class SpeedTable(SphinxDirective):
    """How many times faster than TransformerLens' loop, from reports/sweep_speed/results.json."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(REPORTS / "sweep_speed" / "results.json"))
        time = measured("sweep_speed", "time")
        rows = [["model", "sweep", "times faster", "with part of the prompt shared"]]
        for model in time.labels_of("model"):
            for sweep in time.labels_of("sweep"):
                ours, shared, theirs = (
                    time.values[
                        time.labels_of("model").index(model),
                        time.labels_of("sweep").index(sweep),
                        time.labels_of("tool").index(tool),
                    ]
                    for tool in (
                        "interp",
                        "interp, prompt partly shared",
                        "TransformerLens patching",
                    )
                )
                cells = [
                    f"{float(ratio):.1f}" if not ratio.isnan() else "–"
                    for ratio in (middle(theirs / ours), middle(theirs / shared))
                ]
                if cells != ["–", "–"]:
                    rows.append([model, sweep, *cells])
        return [table(rows)]


def score_cost(name: str, raw: str, text: str, line: int, inliner: Any, *_: Any) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """What all attention scores cost, in bare forward passes, from reports/score_speed/results.json."""
    time = measured("score_speed", "time")
    tools = time.labels_of("tool")
    bare, ours = (time.values[next(i for i, tool in enumerate(tools) if tool.startswith(word))] for word in ("bare", "interp"))
    return [nodes.Text(f"{float(middle(ours / bare)):.2f}")], []


def middle(ratios: Any) -> Any:
    """The median over rounds; NaN where a round is missing everywhere."""
    return ratios.nanquantile(0.5)


def measured(study: str, name: str) -> Any:
    """A result that a study measured."""
    from interp import Result

    page = json.loads((REPORTS / study / "results.json").read_text(encoding="utf-8"))
    return Result.from_json(page["results"][name])


def table(rows: list[list[str]]) -> nodes.Node:
    """A plain table; the first row is its head."""
    group = nodes.tgroup(cols=len(rows[0]))
    group.extend(nodes.colspec(colwidth=1) for _ in rows[0])
    parts = [("thead", rows[:1]), ("tbody", rows[1:])]
    for kind, some in parts:
        part = getattr(nodes, kind)()
        for cells in some:
            row = nodes.row()
            row.extend(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells)
            part += row
        group += part
    return nodes.table("", group)


def copy_reports(app: Any, error: Exception | None) -> None:
    """Put the reports beside the pages, so that the site can be moved as one folder."""
    if error is None and app.builder.format == "html":
        shutil.copytree(REPORTS, Path(app.outdir) / "reports", dirs_exist_ok=True)


def setup(app: Any) -> dict[str, bool]:
    """Add the directive, and copy the reports when the pages are written."""
    app.add_directive("gallery", Gallery)
    app.add_directive("speed-table", SpeedTable)
    app.add_role("score-cost", score_cost)
    app.connect("build-finished", copy_reports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
