"""How blocks become HTML: templates that escape everything, and what the blocks of one page share."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from interp.report import circuitsvis
from interp.report.text import inline, paragraphs

FOLDER = Path(__file__).parent


@cache
def environment() -> Environment:
    """The templates of this folder, escaping everything that is not `Markup`."""
    found = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters.update(inline=inline, paragraphs=paragraphs)
    return found


class Drawing:
    """What the blocks of one page share while it is rendered. Names are counted, so the same page has the same names."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.has_panels = False

    def name(self, kind: str) -> str:
        """A name no other element of the page has: `figure-1`, `figure-2`, …"""
        self._counts[kind] += 1
        return f"{kind}-{self._counts[kind]}"

    def fill(self, macro: str, **values: Any) -> Markup:
        """The macro of `blocks.html.jinja` with that name, filled in."""
        return getattr(environment().get_template("blocks.html.jinja").module, macro)(**values)

    def panel(self, component: str, properties: dict[str, Any], label: str) -> Markup:
        """A place where `runtime.js` draws a CircuitsVis component."""
        self.has_panels = True
        return self.fill(
            "panel", name=self.name("panel"), component=component, label=label, properties=circuitsvis.properties(properties)
        )


@runtime_checkable
class Block(Protocol):
    """Part of a page."""

    def render(self, drawing: Drawing) -> Markup:
        """Safe HTML of this block. Raises `ReportError` when its data cannot be shown."""
        ...
