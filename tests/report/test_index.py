"""The index of reports: every report once, the damaged ones said to be so, the same bytes each time, and no dead link."""

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

from interp.errors import ReportError
from interp.report import Page, Prose, Row, Section, Verdict, refresh_index, write_index, write_page
from interp.result import Provenance

from .browser import Browser
from .test_page import PAYLOADS, small_page


def verdict(outcome, question: str = "Does it?") -> Verdict:
    return Verdict(question, "So it is.", outcome, "1.0", "0.0")


def study(title: str, *outcomes: str) -> Page:
    sections = [Section("s", [Prose("p"), Row([verdict(outcome) for outcome in outcomes])])]
    provenance = Provenance(code="abc123+", versions={"interp": "9.8.7"})
    return Page(title, f"What {title} found.", sections, {}, "make", provenance, {"preset": "quick"})


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    write_page(study("Beta", "supported", "refuted", "refuted"), tmp_path / "b & <c>")
    write_page(study("alpha", "mixed"), tmp_path / "z")
    write_page(study("Gamma"), tmp_path / "a")
    return tmp_path


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", html, flags=re.S)))


def test_every_report_is_listed_with_its_verdicts_and_its_link_leads_there(reports: Path) -> None:
    path = write_index(reports)
    html = path.read_text(encoding="utf-8")
    text = text_of(html)
    assert path == reports / "index.html" and "3 reports." in text
    assert [text.index(f"What {name} found.") for name in ("alpha", "Beta", "Gamma")] == sorted(
        text.index(f"What {name} found.") for name in ("alpha", "Beta", "Gamma")
    )
    assert "✓ 1 supported ✗ 2 refuted ≈ 1 mixed What" not in text and text.index("✗ 2 refuted ≈ 1 mixed") < text.index("alpha")
    assert "What Beta found. ✓ 1 supported ✗ 2 refuted What was predicted" in text and "Gamma found. no predictions" in text
    assert "abc123+" in text and "9.8.7" in text and "quick" in text
    links = re.findall(r'<h2[^>]*><a href="([^"]*)"', html)
    assert len(links) == 3 and all((reports / unquote(link)).is_file() for link in links)


def test_the_same_reports_give_the_same_bytes_and_the_index_does_not_list_itself(reports: Path) -> None:
    first = write_index(reports).read_bytes()
    assert write_index(reports).read_bytes() == first and write_index(str(reports)) == reports / "index.html"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"format": "other"}',
        '{"format": "interp.report/1"}',
        "\udcff",
        "[" * 100_000,
        json.dumps({"format": "interp.report/1", "title": 3, "question": "", "verdicts": [], "facts": {}, "provenance": {}}),
        json.dumps({"format": "interp.report/1", "title": "t", "question": "q", "verdicts": [{"outcome": "won"}]}),
        json.dumps({"format": "interp.report/1", "title": "t", "question": "q", "verdicts": [3]}),
    ],
)
def test_a_damaged_report_is_listed_as_such_and_costs_no_other(reports: Path, content: str) -> None:
    (reports / "z/results.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    text = text_of(write_index(reports).read_text(encoding="utf-8"))
    assert "Its results.json cannot be read:" in text and "What Beta found." in text and "What alpha found." not in text
    assert text.index("cannot be read") > text.index("What Gamma found."), "damaged ones come last"


def test_data_without_a_page_has_no_link(reports: Path) -> None:
    (reports / "z/index.html").unlink()
    html = write_index(reports).read_text(encoding="utf-8")
    assert 'href="z/index.html"' not in html and "There is no page, only z/results.json" in text_of(html)


def test_a_page_that_is_no_index_is_never_overwritten(reports: Path) -> None:
    with pytest.raises(ReportError, match="no folder in it has a results.json"):
        write_index(reports / "z")
    before = (reports / "index.html").write_text("<title>mine</title>")
    with pytest.raises(ReportError, match="another page"):
        write_index(reports)
    assert (reports / "index.html").stat().st_size == before and refresh_index(reports) is None


def test_only_an_index_that_is_there_is_refreshed(reports: Path) -> None:
    assert refresh_index(reports) is None and not (reports / "index.html").exists()
    write_index(reports)
    write_page(study("Delta", "supported"), reports / "d")
    assert refresh_index(reports) == reports / "index.html"
    assert "What Delta found." in (reports / "index.html").read_text(encoding="utf-8")


def test_hostile_reports_in_a_browser(browser: Browser, reports: Path) -> None:
    for number, payload in enumerate(PAYLOADS):
        page = small_page(Prose("p"), verdict("refuted", payload), title=payload)
        write_page(page, reports / f"{number} <b>'\"&")
    damaged = json.loads((reports / "z/results.json").read_text())
    (reports / "z/results.json").write_text(json.dumps(damaged | {"title": "\ud800 half", "question": PAYLOADS[0]}))
    for width, dark in ((1280, False), (390, True)):
        tab = browser.open(write_index(reports), width, 900, dark)
        assert tab.value("document.title") == "Reports" and tab.dialogs() == []
        assert tab.value("document.querySelectorAll('article.report').length") == len(PAYLOADS) + 3
        assert tab.value("document.querySelectorAll('main img, main svg, main script').length") == 0
        assert tab.value("document.documentElement.scrollWidth") == width
        assert tab.errors() == [] and tab.requests() == []
