"""What blocks show of themselves in a notebook: a small frame of their own that fits, works offline and cannot reach out."""

import re
from functools import cache
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import torch

from interp.report import (
    AttentionMaps,
    ColoredTokens,
    Figure,
    Grid,
    HeadAtlas,
    NextTokens,
    Prose,
    Row,
    StackedTokens,
    StepSlider,
    Table,
    TokenRow,
    Verdict,
    curves,
    render_document,
)
from interp.report import __all__ as public
from interp.result import Result

from .browser import Browser
from .conftest import TOKENS, every_block, pattern, result
from .test_page import PAYLOADS

LOSS = Result(name="loss", values=torch.linspace(0, 4, len(TOKENS)), axes=("pos",), unit="nats")
STEPS = {"step": ("0", "10", "100")}


@cache
def blocks(text: str = "plain") -> dict[str, object]:
    """One of every kind, in which `text` stands where a caller's text can."""
    tokens = [text, *TOKENS[1:]]
    atlas = Result(name=text, values=torch.stack([pattern(3).values] * 2), axes=("layer", "head", "query", "key"))
    ranks = Result(name="p", values=torch.full((len(tokens), 2), 0.5), axes=("pos", "rank"))
    frame = pd.DataFrame({text: ["b", "c", "a"], "number": [10.0, -9.5, float("nan")]})
    return {
        "Prose": Prose(text),
        "Verdict": Verdict(text, text, "refuted", text),
        "Table": Table(frame, text),
        "Figure": Figure(curves({text: result(3, axes=("step",), labels=STEPS)}, "x", "y"), text, text),
        "AttentionMaps": AttentionMaps([(text, pattern(1)), ("two", pattern(2))], tokens, text),
        "ColoredTokens": ColoredTokens(tokens, LOSS, text, -1, 4),
        "Row": Row([ColoredTokens(tokens, LOSS, text, 0, 4), Prose(text)]),
        "Grid": Grid(result(2, 3, axes=("layer", "head"), labels={"head": (text, "b", "c")}), text),
        "HeadAtlas": HeadAtlas(atlas, tokens, text),
        "StepSlider": StepSlider({text: result(3, 2, 4, axes=("step", "layer", "head"), labels=STEPS)}, text),
        "StackedTokens": StackedTokens(tokens, [TokenRow(text, LOSS, 0, 4)], text),
        "NextTokens": NextTokens(tokens, [[text, "b"]] * len(tokens), ranks, text),
    }


def inside(html: str) -> str:
    return unescape(re.findall(r'srcdoc="([^"]*)"', html)[0])


def test_every_kind_of_block_is_here() -> None:
    import interp.report

    made = {name for name in public if hasattr(getattr(interp.report, name), "render")} - {"Block"}
    assert made == set(blocks())


@pytest.mark.parametrize("name", blocks())
def test_a_block_is_a_small_frame_that_holds_just_its_document(name: str) -> None:
    block = blocks()[name]
    html = block._repr_html_()
    assert html == block._repr_html_() and len(html) < 150_000
    assert html.count("<iframe") == html.count("</iframe>") == 1
    sandbox = re.findall(r'sandbox="([^"]*)"', html)[0].split()
    assert "allow-scripts" in sandbox and "allow-same-origin" not in sandbox and "allow-top-navigation" not in sandbox
    document = inside(html)
    assert "Content-Security-Policy" in document and 'id="circuitsvis-bundle"' not in document
    if name not in ("AttentionMaps", "ColoredTokens", "Row"):
        assert document == render_document([block], name)


def test_a_page_shows_itself_whole_without_links_to_files_that_are_not_there() -> None:
    document = inside(every_block(figures=False)._repr_html_())
    assert "results.json" not in re.findall(r'href="([^"]*)"', document) and 'id="circuitsvis-bundle"' not in document
    assert document.count("<h1>") == 1 and len(document) < 400_000


def notebook(folder: Path, *outputs: str) -> Path:
    """Outputs one below the other, as a notebook shows them."""
    path = folder / "notebook.html"
    path.write_text("<!doctype html><meta charset=utf-8><title>notebook</title>" + "".join(f"<div>{o}</div>" for o in outputs))
    return path


def test_frames_fit_work_and_hostile_text_in_them_is_inert(browser: Browser, tmp_path: Path) -> None:
    payload = "".join(PAYLOADS)
    kinds = blocks(payload)
    tab = browser.open(notebook(tmp_path, *(block._repr_html_() for block in kinds.values())), 900, 20_000)
    for name, frame in zip(kinds, tab.page.frames[1:], strict=True):
        frame.wait_for_load_state()
        gap = "Math.abs(innerHeight - document.body.getBoundingClientRect().height)"
        tries = (tab.page.wait_for_timeout(50) for _ in range(200))
        assert any(frame.evaluate(gap) < 2 for _ in tries), f"{name} does not fit its frame: {frame.evaluate(gap)} pixels"
        assert frame.evaluate("document.title") == name and frame.evaluate("origin") == "null"
        assert frame.evaluate("document.querySelectorAll('[onerror], [onload], main script:not([type])').length") == 0
    assert tab.value("document.title") == "notebook" and tab.dialogs() == []
    assert tab.errors() == [] and [url for url in tab.requests() if not url.startswith("about:")] == []


def test_downloads_and_sorting_work_inside_a_frame(browser: Browser, tmp_path: Path) -> None:
    kinds = blocks("name")
    tab = browser.open(notebook(tmp_path, kinds["Figure"]._repr_html_(), kinds["Table"]._repr_html_()), 900, 2000)
    figure, table = tab.page.frames[1:]
    with tab.page.expect_download() as saved:
        figure.click("a[download='figure-1.csv']")
    values = result(3, axes=("step",), labels=STEPS).values.tolist()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0] == "line,step,value" and [line.split(",")[:2] for line in lines[1:]] == [["name", s] for s in STEPS["step"]]
    assert [torch.tensor(float(line.split(",")[2])).item() for line in lines[1:]] == values
    names = "[...document.querySelectorAll('tbody th')].map(cell => cell.textContent).join('')"
    assert table.evaluate(names) == "bca"
    for heading, orders in (("number", ["bca", "cba"]), ("name", ["abc", "cba"])):
        for order in orders:
            table.click(f"thead button:has-text('{heading}')")
            assert table.evaluate(names) == order, "what is missing comes last both ways"
    assert table.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
