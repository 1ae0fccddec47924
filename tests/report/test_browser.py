"""The page in a real Chromium: it draws, asks for nothing, says no errors, fits a phone, and hostile text stays inert."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.report import write_page

from .browser import Browser, Tab
from .conftest import every_block
from .test_page import PAYLOADS

STATES = "[...document.querySelectorAll('[data-component]')].map(panel => panel.dataset.state)"
DONE = f"{STATES}.every(state => ['drawn', 'failed'].includes(state))"


def draw_all(tab: Tab) -> list[str]:
    for i in range(tab.value(f"{STATES}.length")):
        tab.value(f"document.querySelectorAll('[data-component]')[{i}].scrollIntoView({{behavior: 'instant'}})")
        tab.wait_until(f"{STATES}[{i}]")
    tab.wait_until(DONE)
    return tab.value(STATES)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(every_block(), tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("width, dark", [(1360, False), (1360, True), (390, False), (390, True)])
def test_page_draws_fits_and_asks_for_nothing(browser: Browser, page: Path, width: int, dark: bool, tmp_path: Path):
    tab = browser.open(page, width, 900, dark)
    assert draw_all(tab) == ["drawn"] * 3
    assert tab.value("document.querySelectorAll('.panel canvas').length") >= 4  # one map; two thumbnails and the chosen head
    assert tab.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.errors() == [] and tab.requests() == []
    red, green, blue = map(int, re.findall(r"\d+", tab.value("getComputedStyle(document.body).backgroundColor"))[:3])
    assert (red + green + blue < 150) == dark
    picture = tab.screenshot(tmp_path / "page.png")
    assert picture.stat().st_size > 50_000


REFERENCE = Path(__file__).with_name("reference.png")


def test_it_still_looks_like_the_picture_that_was_looked_at(browser: Browser, page: Path, tmp_path: Path):
    """Loosely: another font gives 0.95, cards one below the other 0.68. Delete the reference to have a new one written."""

    def seen(dark: bool = False, style: str = "") -> Image.Image:
        tab = browser.open(page, 1360, 1000, dark)
        tab.value(f"document.body.insertAdjacentHTML('beforeend', {style!r})")
        return Image.open(tab.screenshot(tmp_path / "seen.png", whole=False)).convert("L").resize((340, 250))

    def likeness(picture: Image.Image) -> tuple[float, float]:
        pair = [np.asarray(each.resize((68, 50)), dtype=float) for each in (picture, Image.open(REFERENCE))]
        return np.abs(pair[0] - pair[1]).mean() / 255, np.corrcoef(pair[0].flat, pair[1].flat)[0, 1]

    if not REFERENCE.exists():
        seen().save(REFERENCE, optimize=True)
        pytest.fail(f"{REFERENCE} is new: look at it, then run this again")
    difference, correlation = likeness(seen())
    assert difference < 0.05 and correlation > 0.8, (difference, correlation)
    assert likeness(seen(dark=True))[0] > 0.5 and likeness(seen(style="<style>.verdicts { display: block }</style>"))[1] < 0.8


def test_canvas_holds_a_picture(browser: Browser, page: Path):
    tab = browser.open(page)
    draw_all(tab)
    colours = """(() => { const c = document.querySelector('#panel-1 canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(Array.from({length: d.length / 4}, (_, i) => d.slice(4 * i, 4 * i + 4).join())).size; })()"""
    tab.wait_until(f"{colours} > 10")


def test_panels_wait_until_they_come_near(browser: Browser, page: Path):
    tab = browser.open(page, 390, 500)
    assert tab.value(STATES) == [None] * 3 and tab.value("typeof CircuitsVis") == "undefined"


def test_hostile_text_is_inert(browser: Browser, tmp_path: Path):
    pages = [every_block(payload, figures=False) for payload in PAYLOADS]  # one below the other: each costs the browser seconds
    whole = replace(pages[0], sections=[section for page in pages for section in page.sections])
    tab = browser.open(write_page(whole, tmp_path))
    title = tab.value("document.title")
    assert draw_all(tab) == ["drawn"] * 3 * len(PAYLOADS)
    assert tab.value("document.title") == title != "pwned" and tab.dialogs() == []
    # no handler, image or script beyond our own came into being, and the page below is whole
    assert (
        tab.value("document.querySelectorAll('img:not([id^=figure]), [onerror], [onload], main script:not([type])').length") == 0
    )
    assert tab.value("document.querySelectorAll('footer').length") == 1
    assert tab.errors() == [] and tab.requests() == []


INJECTED = (
    """<script>document.title='pwned'</script><img src=x onerror="document.title='pwned'"><img src="https://example.com/a.png">"""
)


def test_policy_stops_what_a_bug_in_escaping_would_let_through(browser: Browser, page: Path, tmp_path: Path):
    html = page.read_text(encoding="utf-8")
    guarded, open_ = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(html.replace("<main", INJECTED + "<main"), encoding="utf-8")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    open_.write_text(bare.replace("<main", INJECTED + "<main"), encoding="utf-8")
    tab = browser.open(guarded)
    assert tab.value("document.title") == "plain" and len(tab.errors()) >= 3 and draw_all(tab) == ["drawn"] * 3
    control = browser.open(open_)
    assert control.value("document.title") == "pwned"  # so the test above can fail


def test_tables_and_figures_can_be_downloaded(browser: Browser, page: Path):
    tab = browser.open(page)
    for link in ("a[download='table-1.csv']", "a[download='figure-1.svg']"):
        tab.value(f'document.querySelector("{link}").click()')
    wait_for(tab, lambda: len(list(browser.downloads.glob("*.[cs]?[vg]"))) == 2)
    assert (browser.downloads / "table-1.csv").read_text() == "name,plain,count\nplain,0.123456,12345\nb,,7\n"
    assert (browser.downloads / "figure-1.svg").read_text().startswith("<svg")
    assert tab.errors() == []


def wait_for(tab: Tab, condition) -> None:
    for _ in range(100):
        if condition():
            return
        tab.page.wait_for_timeout(50)
    raise TimeoutError


def test_panel_that_cannot_be_drawn_says_so(browser: Browser, page: Path, tmp_path: Path):
    broken = tmp_path / "broken.html"
    html = page.read_text(encoding="utf-8")
    broken.write_text(html.replace('data-component="ColoredTokens"', 'data-component="Nothing"'), encoding="utf-8")
    tab = browser.open(broken)
    assert draw_all(tab) == ["drawn", "drawn", "failed"]
    assert "could not be drawn: CircuitsVis has no Nothing" in tab.value("document.querySelectorAll('.panel')[2].textContent")


def test_headings_are_in_order_and_everything_has_a_name(browser: Browser, page: Path):
    tab = browser.open(page)
    levels = tab.value("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert tab.value("[...document.images].every(image => image.alt)") and tab.value("document.documentElement.lang") == "en"
    assert tab.value(
        "[...document.querySelectorAll('[role=region],[role=group],nav')].every(e => e.getAttribute('aria-label') || "
        "document.getElementById(e.getAttribute('aria-labelledby')))"
    )
    assert tab.value(
        "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length"
    )


def test_printing_opens_details_and_draws_panels(browser: Browser, page: Path):
    tab = browser.open(page)
    tab.value("window.dispatchEvent(new Event('beforeprint'))")
    tab.wait_until(DONE)
    assert tab.value(STATES) == ["drawn"] * 3
    assert tab.value("[...document.querySelectorAll('details')].every(details => details.open !== 'long' in details.dataset)")
