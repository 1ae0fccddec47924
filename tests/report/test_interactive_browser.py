"""The interactive blocks in a real Chromium: what is pointed at, chosen or stepped to says the number that was given."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from interp.report import Grid, HeadAtlas, StackedTokens, TokenRow, write_page
from interp.report.text import number
from interp.report.values import scale_of

from .browser import Browser, Tab
from .test_interactive import NAN, all_blocks, page_of, patterns, random, result, texts
from .test_page import PAYLOADS

STATES = "[...document.querySelectorAll('[data-block]')].map(block => block.dataset.state)"


def drawn(tab: Tab) -> Tab:
    """The tab, once every block was scrolled to and drawn."""
    tab.value("document.querySelectorAll('[data-block]').forEach(block => block.scrollIntoView({behavior: 'instant'}))")
    tab.wait_until(f"{STATES}.every(state => state)")
    assert set(tab.value(STATES)) == {"drawn"}
    return tab


def text(tab: Tab, query: str) -> str:
    return tab.page.locator(query).first.text_content()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(page_of(*all_blocks("a text")), tmp_path_factory.mktemp("interactive"))


@pytest.fixture(scope="module")
def tab(browser: Browser, page: Path) -> Tab:
    return drawn(browser.open(page, 1360, 900))


@pytest.mark.parametrize("width, dark", [(1360, False), (1360, True), (390, False), (390, True)])
def test_blocks_draw_fit_and_ask_for_nothing(browser: Browser, page: Path, width: int, dark: bool, tmp_path: Path):
    tab = drawn(browser.open(page, width, 900, dark))
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value("[...document.querySelectorAll('.thumbnails [role=gridcell]')].every(cell => cell.clientWidth >= 20)")
    colours = """[...document.querySelectorAll('.thumbnails canvas')].map(c => new Set(
        new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)"""
    assert min(tab.value(colours)) >= 5  # every small picture holds one
    full = tab.value("getComputedStyle(document.querySelector('.scale .bar i:last-of-type')).backgroundColor")
    light = tab.value("interpReport.shades(document.querySelector('.block'), '--heat-full')[255].reduce((a, b) => a + b)")
    assert full and (light > 450) == dark
    assert tab.screenshot(tmp_path / "page.png").stat().st_size > 50_000
    assert tab.errors() == [] and tab.requests() == []


def hover(tab: Tab, atlas: str, size: int, query: int, key: int) -> str:
    """What the large pattern says when the mouse is in the middle of a cell."""
    image = tab.page.locator(f"{atlas} .pattern image")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    tab.page.mouse.move(box["x"] + (key + 0.5) * box["width"] / size, box["y"] + (query + 0.5) * box["height"] / size)
    return text(tab, f"{atlas} .large .readout")


def test_atlas_says_the_weight_under_the_mouse(tab: Tab):
    atlas = all_blocks("a text")[0]
    thumbs = tab.page.locator("#atlas-1 [role=gridcell]")
    for layer, head in ((1, 2), (0, 1)):
        thumbs.nth(3 * layer + head).click()
        assert f"Layer {layer} head {('a text', 'b', 'c')[head]}" in text(tab, "#atlas-1 .large .chosen")
        for query, key in ((6, 0), (3, 2), (5, 5)):
            said = hover(tab, "#atlas-1", 7, query, key)
            token = atlas.tokens[key].replace(" ", "·")
            assert said.startswith(f"query {query} “") and f"→ key {key} “{token}”: weight " in said
            assert abs(float(said.split()[-1]) - atlas.patterns.values[layer, head, query, key].item()) < 1 / 510 + 0.0006
    assert "hidden by the causal mask" in hover(tab, "#atlas-1", 7, 2, 5)
    free = all_blocks()[1].patterns.values[0, 1]
    assert abs(float(hover(tab, "#atlas-2", 4, 1, 3).split()[-1]) - free[1, 3].item()) < 1 / 510 + 0.0006


def test_atlas_goes_by_keys_scores_and_map(tab: Tab):
    atlas = all_blocks("a text")[0]
    first, other = (score.values for score in atlas.scores.values())
    tab.page.locator("#atlas-1 [role=gridcell]").nth(0).click()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowDown")
    assert text(tab, "#atlas-1 .large .chosen").startswith(f"Layer 1 head b, a text {number(first[1, 1].item(), 4)} a text")
    focus = "document.activeElement.getAttribute('aria-label') + document.activeElement.getAttribute('aria-selected')"
    assert tab.value(focus).startswith("layer 1 head b, a text") and tab.value(focus).endswith("true")
    assert tab.value("document.querySelectorAll('#atlas-1 .thumbnails [tabindex]').length") == 1
    tab.page.keyboard.press("Home")
    tab.page.keyboard.press("ArrowUp")
    tab.page.keyboard.press("ArrowUp")  # stays at the edge
    assert text(tab, "#atlas-1 .large .chosen").startswith("Layer 0 head a text")

    tab.page.locator("#atlas-1 select").select_option("other")
    scale = scale_of("x", other)
    cells = tab.page.locator("#atlas-1 td")
    assert cells.all_text_contents() == [scale.short(value) for value in other.flatten().tolist()]
    cells.nth(5).click()
    assert text(tab, "#atlas-1 .large .chosen") == f"Layer 1 head c, other {number(other[1, 2].item(), 4)}"
    cells.nth(1).hover()
    assert text(tab, "#atlas-1 .map .readout") == f"layer 0 head b, other {number(other[0, 1].item(), 4)}"
    assert tab.value("document.querySelector('#atlas-1 [aria-selected=true]').ariaLabel").startswith("layer 1 head c, other")

    tab.page.locator("#atlas-1 .pattern").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowRight"):
        tab.page.keyboard.press(key)  # from the last query and the first key
    said = text(tab, "#atlas-1 .large .readout")
    assert said.startswith("query 4 “") and "key 1 “" in said
    assert abs(float(said.split()[-1]) - atlas.patterns.values[1, 2, 4, 1].item()) < 1 / 510 + 0.0006


def test_grid_says_value_error_and_baseline(tab: Tab):
    given = all_blocks("a text")[2].result
    cell = tab.page.locator("#grid-1 td").nth(9)
    cell.hover()
    value, error = given.values[1, 2].item(), given.stderr[1, 2].item()
    wanted = f"a text a text, pos 2 “·word2”: {number(value, 4)} ± {number(error, 2)} a text, baseline 0.500"
    assert text(tab, "#grid-1 .readout") == wanted
    cell.click()
    tab.page.keyboard.press("ArrowUp")
    tab.page.keyboard.press("ArrowRight")
    assert number(given.values[0, 3].item(), 4) in text(tab, "#grid-1 .readout")
    names = tab.page.locator("#grid-1 th.hot").all_text_contents()
    assert sorted(names) == ["a", "·word3"]


def test_grid_can_be_saved(tab: Tab, browser: Browser):
    for kind in ("svg", "csv"):
        with tab.page.expect_download() as caught:
            tab.page.locator(f"#grid-1 .download:text('{kind.upper()}')").click()
        assert caught.value.suggested_filename == f"grid-1.{kind}"
        content = Path(caught.value.path()).read_text(encoding="utf-8")
        if kind == "svg":
            picture = ElementTree.fromstring(content)
            fills = [part.get("fill") for part in picture.iter("{http://www.w3.org/2000/svg}rect")]
            assert len(fills) == 1 + 14 + 21 and all(re.fullmatch("#[0-9a-f]{6}", fill) for fill in fills)
            assert "·word3" in [part.text for part in picture.iter("{http://www.w3.org/2000/svg}text")]
        else:
            frame = all_blocks("a text")[2].result.to_frame()
            assert content.splitlines()[0] == ",".join(frame.columns) and len(content.splitlines()) == 15


def test_chosen_head_can_be_saved(tab: Tab):
    atlas = all_blocks("a text")[1]
    saved = {}
    for kind in ("svg", "csv"):
        with tab.page.expect_download() as caught:
            tab.page.locator(f"#atlas-2 [data-save={kind}]").click()
        saved[caught.value.suggested_filename] = Path(caught.value.path()).read_text(encoding="utf-8")
    assert sorted(saved) == ["atlas-2-0-1.csv", "atlas-2-0-1.svg"]
    lines = saved["atlas-2-0-1.csv"].splitlines()
    assert lines[0] == "query,query token,key,key token,weight" and lines[2].startswith('0,"a·text",1,"·word1",')
    weights = torch.tensor([float(line.split(",")[-1]) for line in lines[1:]])
    assert (weights - atlas.patterns.values[0, 1].flatten()).abs().max() < 1 / 510 + 1e-4
    assert ElementTree.fromstring(saved["atlas-2-0-1.svg"]).tag.endswith("svg")


def test_slider_shows_each_step_on_one_scale(tab: Tab):
    frames = all_blocks("a text")[3].frames
    slider = tab.page.locator("#steps-1 input[type=range]")
    cells = tab.page.locator("#steps-1 td")
    for frame, (name, given) in enumerate(frames.items()):
        tab.page.locator("#steps-1 select").select_option(index=frame)
        scale = scale_of(name, given.values)
        for step in (4, 0, 2):
            slider.fill(str(step))
            assert cells.all_text_contents() == [scale.short(value) for value in given.values[step].flatten().tolist()]
            shares = [f"{scale.percent(value)}%" for value in given.values[step].flatten().tolist()]
            assert cells.evaluate_all("cells => cells.map(cell => cell.style.getPropertyValue('--v'))") == shares
            assert slider.get_attribute("aria-valuetext") == f"step {step}"
    slider.focus()
    tab.page.keyboard.press("ArrowRight")
    assert text(tab, "#steps-1 output") == "3"
    cells.nth(5).click()
    assert number(frames["f"].values[3, 1, 2].item(), 4) in text(tab, "#steps-1 .readout")
    assert "f: layer 1, a text c" in text(tab, "#steps-1 .lines svg") and tab.page.locator("#steps-1 .lines svg").count() == 2
    assert tab.page.locator("#steps-1 .lines svg").first.locator("circle").count() == 5


def test_token_of_a_stack_says_its_value_in_every_row(tab: Tab):
    rows = all_blocks("a text")[4].rows
    tab.page.locator("#stack-1 .flow").nth(1).locator("li").nth(3).hover()
    first, second = (number(row.result.values[3].item(), 4) for row in rows)
    assert text(tab, "#stack-1 .readout") == f"3 “·word3”: a text {first} a text; loss {second}"
    assert tab.page.locator("#stack-1 li.hot").count() == 2


def test_position_shows_what_was_expected_and_what_came(tab: Tab):
    tokens = tab.page.locator("#next-1 .flow li")
    tokens.nth(2).click()
    assert tab.page.locator("#next-1 .bars .percent").all_text_contents() == ["50.0 %", "25.0 %", "12.5 %", "6.3 %"]
    assert text(tab, "#next-1 .bars .right .guess") == "·word3" and "6.3 %" in text(tab, "#next-1 .remark")
    tab.page.keyboard.press("End")
    assert "no guess after the last token" in text(tab, "#next-1 .guesses")
    assert tab.page.locator("#next-1 [aria-selected=true]").count() == 1


def test_numbers_in_scripts_are_written_as_in_python(tab: Tab):
    values = [0.0204, 1.0, 0.99996, 999.6, 12345.6, -0.5, 0.0, 1.2e-7, 3e12, -3.0, 123.0, 0.00012345, 1e-5, 99999.9]
    for digits in (2, 3, 4):
        assert tab.value(f"{values}.map(value => interpReport.number(value, {digits}))") == [number(v, digits) for v in values]


def test_hostile_text_is_inert_in_every_interactive_block(browser: Browser, tmp_path: Path):
    tab = drawn(browser.open(write_page(page_of(*(b for payload in PAYLOADS for b in all_blocks(payload))), tmp_path)))
    everything = "[...document.querySelectorAll('td, [role=gridcell], .flow li')]"
    over = "new PointerEvent('pointerover', {bubbles: true, pointerType: 'mouse'})"
    tab.value(f"{everything}.forEach(cell => cell.dispatchEvent({over}))")
    tab.value(f"{everything}.forEach((cell, i) => i % 7 || cell.click())")
    tab.value("document.querySelectorAll('.pattern').forEach(place => place.click())")
    assert tab.value("document.title") == "A title" and tab.dialogs() == []
    made = "document.querySelectorAll('img, iframe, main script:not([type]), [onerror], [onload]').length"
    assert tab.value(made) == 0 and tab.value("document.querySelectorAll('footer').length") == 1
    assert "pwned" in text(tab, "#atlas-1 .large .chosen")
    assert tab.errors() == [] and tab.requests() == []


def test_undefined_cells_say_so_and_damage_is_told(browser: Browser, tmp_path: Path):
    grid = Grid(result([[NAN, 1.0]], ("layer", "head")), "c")
    stack = StackedTokens(["a", "b"], [TokenRow("n", result([NAN, 1.0], ("pos",)), 0, 1)], "c")
    atlas = HeadAtlas(patterns(2, 3, 4), texts(4), "c", {"s": result(random(2, 3), ("layer", "head"))})
    path = write_page(page_of(grid, stack, atlas), tmp_path)
    html = path.read_text(encoding="utf-8")
    path.write_text(re.sub('(class="packed">)[^<]+', r"\1H4sIAAAAAAACAwMAAAAAAAAAAAA=", html), encoding="utf-8")
    tab = browser.open(path)
    tab.page.locator("#grid-1 td").nth(0).hover()
    assert text(tab, "#grid-1 .readout") == "layer 0, head 0: undefined"
    tab.page.locator("#stack-1 li").nth(0).hover()
    assert text(tab, "#stack-1 .readout") == "0 “a”: n undefined"
    tab.value("document.querySelector('#atlas-1').scrollIntoView()")
    tab.wait_until("document.querySelector('#atlas-1').dataset.state")
    assert text(tab, "#atlas-1 .large .readout") == "This could not be drawn: the packed weights are damaged."


def test_atlas_waits_until_it_comes_near_and_follows_the_scheme(browser: Browser, tmp_path: Path):
    atlas = HeadAtlas(patterns(2, 3, 4), texts(4), "c")
    tab = browser.open(write_page(page_of(*[all_blocks()[2]] * 6, atlas), tmp_path), 390, 500)
    assert tab.value("document.querySelector('#atlas-1').dataset.state") is None
    drawn(tab)
    first = tab.value("document.querySelector('#atlas-1 canvas').toDataURL()")
    tab.page.emulate_media(color_scheme="dark")
    tab.wait_until(f"document.querySelector('#atlas-1 canvas').toDataURL() !== {first!r}")
    tab.value("window.dispatchEvent(new Event('beforeprint'))")  # paper is light again
    assert tab.value("document.querySelector('#atlas-1 canvas').toDataURL()") == first
