"""The page as text: safe, whole, the same each time, and refused when its data cannot be shown."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure as MatplotlibFigure

import interp.report.circuitsvis as cv
from interp.errors import InterpError, ReportError
from interp.report import (
    AttentionMaps,
    ColoredTokens,
    Drawn,
    Figure,
    Grid,
    Page,
    Prose,
    Row,
    Section,
    Table,
    Verdict,
    render_page,
    write_page,
)
from interp.report.page import _check_page
from interp.report.text import number, visible_token
from interp.result import Provenance, Result

from .conftest import TOKENS, every_block, pattern

PAYLOADS = [
    "</script><script>document.title='pwned';alert(1)</script>",
    "<!--<script>",
    """<img src=x onerror="document.title='pwned';alert(1)">""",
    """<img/src="x"/onerror="document.title='pwned';alert(1)">""",
    """ <img src=x onerror="document.title='pwned';alert(1)">""",
    """"><svg/onload="document.title='pwned';alert(1)">'""",
    "{{ 7 * 7 }} {% raw %} $\\foo$ ${x} \u2028 \u2029 \u202e \x00 \x1b[31m",
    "&lt;script&gt; &#60;b&#62;",
]


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(every_block())


def small_page(*blocks: object, title: str = "A title") -> Page:
    return Page(title, "A question?", [Section("Part", list(blocks))], {}, "make report", Provenance())


def scripts_in(html: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", html, flags=re.S)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_stays_text_in_every_block(payload):
    html = render_page(every_block(payload, figures=False))
    kinds = [attributes for attributes, _ in scripts_in(html)]
    data = [f' type="application/json" id="panel-{i}-properties"' for i in (1, 2, 3)]
    assert kinds == [*data, ' type="text/plain" id="circuitsvis-bundle"', ""]
    assert html.lower().count("<script") == len(kinds) and html.count("<!--") == 0
    assert not re.search(r"<(img|svg)(?! id=\"figure)", html)
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", html)[0]


def test_properties_give_back_the_tokens_with_guards():
    tokens = ["</script>", "&amp;", "a\u2028b"]
    component, props = cv.attention(torch.eye(3)[None], ["<h>"], tokens, 1.0)
    text = str(cv.properties(props))
    assert component == "AttentionPattern" and not set("<>&\u2028") & set(text)
    assert json.loads(text)["tokens"] == ["<\u2060/script>", "&\u2060amp;", "a\\u2028b"]


LOADING = {"src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction", "background", "ping"}


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_nothing_is_loaded_from_anywhere(html: str):
    elements = Elements(html).found
    addresses = [value for _, attributes in elements for name, value in attributes if name in LOADING]
    assert len(addresses) > 10 and "results.json" in addresses
    assert all(address == "results.json" or address.startswith(("data:", "#")) for address in addresses)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in elements}
    style = re.findall(r"<style>(.*?)</style>", html, flags=re.S)[0]
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_policy_names_exactly_the_scripts_that_run(html: str):
    runtime = next(text for attributes, text in scripts_in(html) if not attributes)
    wanted = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in (runtime, cv.bundle())]
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)[0].replace("&#39;", "'")
    assert f"default-src 'none'; script-src {' '.join(wanted)};" in policy and "unsafe-eval" not in policy
    assert html.index("Content-Security-Policy") < html.index("<script")


def test_page_without_panels_does_not_carry_the_bundle():
    html = render_page(small_page(Prose("text")))
    assert len(html) < 40_000 and "circuitsvis-bundle" not in html.replace("getElementById", "").split("<script>")[0]


def test_same_page_gives_the_same_bytes(tmp_path: Path):
    first, second = (write_page(every_block(), tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a/results.json").read_bytes() == (tmp_path / "b/results.json").read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["index.html", "results.json"]


def test_size_budget(html: str):
    assert len(html.encode()) < 1_000_000
    maps = AttentionMaps([(name, pattern(4, 64)) for name in ("a", "b", "c")], ["tok"] * 64, "caption")
    assert len(render_page(small_page(maps)).encode()) < 1_000_000


def test_results_json_gives_back_results_and_verdicts(tmp_path: Path):
    undefined = Result(name="n", values=torch.tensor([1.0, torch.nan]), axes=("pos",))
    sections = [Section("s", [Prose("p"), Row([Verdict("q", "a", "refuted", "e", "c")])])]
    page = Page("t", "q", sections, {"nan": undefined}, "c", Provenance(seed=4), {"f": "v"})
    data = json.loads((write_page(page, tmp_path).parent / "results.json").read_text())
    assert data["format"] == "interp.report/1" and data["facts"] == {"f": "v"} and data["provenance"]["seed"] == 4
    verdict = {"section": "s", "question": "q", "answer": "a", "outcome": "refuted", "evidence": "e", "control": "c"}
    assert data["verdicts"] == [verdict]
    back = Result.from_json(data["results"]["nan"])
    assert back.axes == ("pos",) and back.values[0] == 1 and back.values[1].isnan()


def test_results_may_be_grouped(tmp_path: Path):
    page = every_block(figures=False)
    data = json.loads((write_page(page, tmp_path).parent / "results.json").read_text())
    for name, result in page.results["curves"].items():
        back = Result.from_json(data["results"]["curves"][name])
        assert torch.equal(back.values, result.values.double()) and back.labels == result.labels


def edited(result: Result, edit) -> Result:
    values = result.values.clone()
    edit(values)
    return replace(result, values=values)


LOSS = Result(name="loss", values=torch.ones(len(TOKENS)), axes=("pos",))
BROKEN = {
    "NaN in attention": lambda: AttentionMaps([("m", edited(pattern(2), lambda v: v[1, 4, 2].fill_(torch.nan)))], TOKENS, "c"),
    "logits as attention": lambda: AttentionMaps([("m", edited(pattern(2), lambda v: v.mul_(5)))], TOKENS, "c"),
    "attention and tokens differ": lambda: AttentionMaps([("m", pattern(2))], TOKENS[:-1], "c"),
    "wrong axes": lambda: AttentionMaps([("m", replace(pattern(2), axes=("key", "query", "head")))], TOKENS, "c"),
    "no head": lambda: AttentionMaps([("m", replace(pattern(2), values=torch.zeros(0, 8, 8)))], TOKENS, "c"),
    "colour scale without room": lambda: AttentionMaps([("m", pattern(2))], TOKENS, "c", max_value=0.0),
    "NaN in colours": lambda: ColoredTokens(TOKENS, edited(LOSS, lambda v: v[3].fill_(torch.nan)), "c", 0.0, 4.0),
    "colours and tokens differ": lambda: ColoredTokens(TOKENS[1:], LOSS, "c", 0.0, 4.0),
    "colour scale without zero": lambda: ColoredTokens(TOKENS, LOSS, "c", 1.0, 4.0),
    # past the type checker of the tests, which would see it first
    "unknown outcome": lambda: Verdict.__post_init__(SimpleNamespace(outcome="suported")),
    "figure without words": lambda: Figure(Drawn(MatplotlibFigure(), pd.DataFrame()), " ", "c"),
    "formula that is none": lambda: Figure(Drawn(dollar_figure(), pd.DataFrame()), "alt", "c"),
    "figure without numbers": lambda: Figure.__post_init__(SimpleNamespace(drawn=MatplotlibFigure(), alt="alt")),
    "half a character": lambda: Prose("\ud800"),
}


def dollar_figure() -> MatplotlibFigure:
    figure = MatplotlibFigure()
    figure.subplots().set_title(r"$\foo$")
    return figure


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_shown_is_refused_before_a_file_is_written(kind, tmp_path: Path):
    with pytest.raises(ReportError) as caught:
        write_page(small_page(Prose("fine"), BROKEN[kind]()), tmp_path / "report")
    assert isinstance(caught.value, InterpError) and caught.value.remedy and not (tmp_path / "report").exists()


def test_failed_rebuild_leaves_the_old_report(tmp_path: Path):
    old = write_page(small_page(Prose("old")), tmp_path).read_bytes()
    with pytest.raises(ReportError):
        write_page(small_page(Prose("new \ud800")), tmp_path)
    assert (tmp_path / "index.html").read_bytes() == old


def test_bundle_is_the_one_the_recipe_was_tried_with(monkeypatch):
    assert cv.bundle().startswith('"use strict";var CircuitsVis') and "sourceMappingURL" not in cv.bundle()
    monkeypatch.setattr(cv, "SHA256", "0" * 64)
    with pytest.raises(ReportError, match="pip install circuitsvis==1.43.3"):
        cv.bundle()


def test_failed_prediction_is_said_in_words():
    html = render_page(small_page(Verdict("q", "a", "refuted", "e")))
    assert "Refuted: the prediction failed" in html and 'class="verdict refuted"' in html and "Control" not in html


def test_table_shows_three_digits_and_gives_all_in_csv():
    frame = pd.DataFrame({"x": [0.123456789, None], "n": [1234567, -8], "s": ["a,b", None], "b": [True, False]})
    html = render_page(small_page(Table(frame, "caption")))
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", html)
    assert cells[4:8] == ["0.123", "1,234,567", "a,b", "yes"] and cells[8:12] == ["–", "−8", "–", "no"]
    csv = base64.b64decode(re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)[0]).decode()
    assert csv == 'x,n,s,b\n0.123456789,1234567,"a,b",True\n,-8,,False\n'


@pytest.mark.parametrize(
    "value, shown",
    [
        (0.0204, "0.0204"),
        (1.0, "1.00"),
        (0.99996, "1.00"),
        (999.6, "1,000"),
        (12345.6, "12,346"),
        (-0.5, "−0.500"),
        (0.0, "0"),
        (1.2e-7, "1.20e−07"),
        (3e12, "3.00e+12"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
        (-3, "−3"),
        (123.0, "123"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_tokens_can_be_seen():
    assert [visible_token(t) for t in (" the", "\n\t\r", "a\x00", "\u202e")] == ["·the", "⏎⇥␍", "a\\x00", "\\u202e"]
    assert visible_token("x" * 40) == "x" * 11 + "…" and visible_token("\ud800") == "\\ud800"


SCORES = Result(name="scores", values=torch.ones(2, 3), axes=("layer", "head"))


def section_of(blocks: object) -> None:
    """What `Section("x", blocks)` checks, past the type checker of the tests, which would see it first."""
    Section.__post_init__(SimpleNamespace(title="x", blocks=blocks))


UNWRAPPED = {
    "a result over two axes": (
        lambda: section_of([SCORES]),
        r"'scores' with axes .*Grid\(result, caption\); .*HeadAtlas",
    ),
    "a result over one axis": (lambda: section_of([LOSS]), r"Wrap it: Figure\(bar_chart\(result\)"),
    "patterns of all heads": (
        lambda: section_of([Result(name="p", values=torch.ones(1, 2, 3, 3), axes=("layer", "head", "query", "key"))]),
        r"Wrap it: HeadAtlas\(result, tokens",
    ),
    "a data frame": (lambda: section_of([Prose("p"), pd.DataFrame()]), r"number 1 .*Table\(frame, caption\)"),
    "a text": (lambda: section_of(["text"]), r"Prose\(text\)"),
    "a text as the list": (lambda: section_of("text"), r"should be a list.*Prose\(text\)"),
    "a matplotlib figure": (lambda: section_of([MatplotlibFigure()]), r"Figure\(Drawn\(figure, data\), alt, caption\)"),
    "what curves give": (lambda: section_of([Drawn(MatplotlibFigure(), pd.DataFrame())]), r"Figure\(drawn, alt, caption\)"),
    "a block as the list": (lambda: section_of(Grid(SCORES, "c")), r"should be a list. Give \[Grid\(…\)\]"),
    "a class": (lambda: section_of([Prose]), r"the class Prose.*Prose\(…\)"),
    "a result in a row": (lambda: Row.__post_init__(SimpleNamespace(blocks=[SCORES])), "a row: .*Grid"),
    "a text as a page": (lambda: _check_page("hello"), r"a str is no page.*Page\(title"),
    "a block as a section": (
        lambda: Page.__post_init__(SimpleNamespace(title="t", sections=[Prose("p")])),
        r"page 't': its sections hold a Prose",
    ),
    "a section as the list": (
        lambda: Page.__post_init__(SimpleNamespace(title="t", sections=Section("s", []))),
        "its sections are a Section",
    ),
}


@pytest.mark.parametrize("what", UNWRAPPED)
def test_what_is_no_block_is_refused_at_once_with_what_to_wrap_it_in(what: str):
    make, said = UNWRAPPED[what]
    with pytest.raises(ReportError, match=said):
        make()


def test_a_page_from_a_notebook_needs_no_results_command_or_provenance(tmp_path: Path):
    blocks = [Row([Grid(SCORES, "c")]), Grid(replace(SCORES), "c"), ColoredTokens(TOKENS, LOSS, "c", 0, 4)]
    page = Page("t", "", [Section("s", blocks)])
    assert list(page.results) == ["scores", "scores 2", "loss"]
    path = write_page(page, tmp_path)
    assert list(json.loads(path.with_name("results.json").read_text())["results"]) == ["scores", "scores 2", "loss"]
    html = path.read_text()
    assert "Numbers behind this page: 3 results" in html
    for absent in ('class="command"', "The command below", "Model, data and versions", 'class="question"'):
        assert absent not in html
    bare = render_page(Page("t", "q", [Section("s", [Prose("p")])]))
    assert 'id="provenance"' not in bare and "#provenance" not in bare and 'class="question"' in bare
    assert not Page("t", "q", [Section("s", [Grid(SCORES, "c")])], {}).results, "none was asked for"


def test_wide_tables_are_set_closer_and_short_words_do_not_wrap() -> None:
    frame = pd.DataFrame({"model": ["m"], "sweep": ["(layer, position)"], "note": ["a sentence that is longer than a label"]})
    html = render_page(small_page(Table(frame, "c"), Table(pd.concat([frame] * 3, axis=1), "c")))
    assert '<td class="short">(layer, position)</td><td>a sentence that' in html
    assert 'class="table" id="table-1"' in html and 'class="table many" id="table-2"' in html
