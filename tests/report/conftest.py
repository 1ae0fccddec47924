"""Small results with pairwise different sizes, a page that uses every block, and a browser to look at it."""

import os
from collections.abc import Iterator

import pandas as pd
import pytest
import torch

from interp.report import (
    AttentionMaps,
    ColoredTokens,
    Figure,
    Page,
    Prose,
    Row,
    Section,
    Table,
    Verdict,
    curves,
    filter_distributions,
    heat_map,
    kernel_maps,
    score_bars,
)
from interp.result import Provenance, Result

from .browser import INSTALL, Browser, NoBrowser

TOKENS = ["<bos>", " the", " cat", "\n", "\t", " sat", " &amp", "."]


def result(*shape: int, axes: tuple[str, ...], seed: int = 0, **more: object) -> Result:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return Result(name="a result", values=values, axes=axes, **more)


def pattern(heads: int, tokens: int = len(TOKENS), **more: object) -> Result:
    scores = torch.randn(heads, tokens, tokens, generator=torch.Generator().manual_seed(heads))
    hidden = torch.ones(tokens, tokens).triu(1).bool()
    values = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return Result(name="pattern", values=values, axes=("head", "query", "key"), **more)


def every_block(text: str = "plain", figures: bool = True) -> Page:
    """A page with every kind of block, in which `text` stands wherever a caller's text can stand.

    Without `figures` it holds one only, which is much quicker to make.
    """
    tokens = [text, *TOKENS[1:]]
    steps = {"step": ("0", "10", "100", "1000", "2000")}
    curve = {text: result(3, 5, axes=("seed", "step"), labels=steps), "other": result(5, axes=("step",), labels=steps)}
    loss = Result(name=text, values=torch.linspace(0, 4, len(tokens)), axes=("pos",), unit=text)
    kernel = result(3, 6, 7, axes=("tap", "out", "in"), labels={"tap": (text, "current", "next")}, unit=text)
    grid = result(2, 4, axes=("layer", "head"), labels={"head": (text, "b", "c", "d")}, description=text)
    names = {"head": (text, "L1H2")}
    verdicts = [Verdict(text, text, outcome, text, text) for outcome in ("supported", "refuted", "mixed", "not tested")]
    frame = pd.DataFrame({"name": [text, "b"], text: [0.123456, float("nan")], "count": [12345, 7]})
    drawn = [Figure(curves(curve, text, text, title=text, log_x=True, baseline=0.5, baseline_label=text), text, text)]
    drawn += (
        []
        if not figures
        else [
            Figure(score_bars({text: result(4, axes=("seed",)), "b": result(4, axes=("seed",))}, text, baseline=0.1), text, text),
            Figure(filter_distributions(result(3, 40, axes=("tap", "filter"), labels={"tap": (text, "b", "c")})), text, text),
            Figure(heat_map(grid, title=text), text, text),
            Figure(kernel_maps(kernel), text, text),
        ]
    )
    shown = [
        Prose(text + "\n\n- `" + text + "`\n- b"),
        AttentionMaps([(text, pattern(1)), ("several", pattern(2, labels=names))], tokens, text),
        ColoredTokens(tokens, loss, text, -1, 4),
    ]
    sections = [
        Section(text, verdicts, lead=text),
        Section("Figures", [Row(drawn)]),
        Section("Rest", [Table(frame, text), *shown]),
    ]
    provenance = Provenance(model=text, seed=3, versions={"torch": text}, command=text, seconds=1.5)
    return Page(text, text, sections, {text: grid, "curves": curve}, text, provenance, {"fact": text, text: "value"})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser to look at pages with. Without one the test is skipped, or fails where INTERP_NEEDS_BROWSER is set."""
    try:
        running = Browser(tmp_path_factory.mktemp("chromium"))
    except NoBrowser as error:
        reason = f"no Chromium here, so pages are not looked at in a browser ({error}); {INSTALL}"
        pytest.fail(reason) if os.environ.get("INTERP_NEEDS_BROWSER") else pytest.skip(reason)
    with running:
        yield running
