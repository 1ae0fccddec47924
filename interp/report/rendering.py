"""How blocks become HTML: templates that escape everything, and what the blocks of one page share."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Assets:
    """What a document carries so that its blocks work: a policy under which only these scripts run, and nothing is loaded.

    `bundle` is CircuitsVis, compressed, and empty where no block draws a panel with it.
    """

    policy: str
    style: Markup
    scripts: tuple[Markup, ...]
    bundle: str


class Drawing:
    """What the blocks of one page share while it is rendered. Names are counted, so the same page has the same names."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._files: dict[str, str] = {}  # in the order in which they were asked for
        self.has_panels = False
        self.use("style.css", "runtime.js")

    def use(self, *names: str) -> None:
        """Have these style sheets and scripts of this folder in the page, once each, however many blocks ask for them."""
        for name in names:
            if name not in self._files:
                self._files[name] = (FOLDER / name).read_text(encoding="utf-8")

    def assets(self) -> Assets:
        """What the blocks drawn so far need. Raises `ReportError` when CircuitsVis is needed and is not as it should be."""
        scripts = tuple(text for name, text in self._files.items() if name.endswith(".js"))
        style = "\n".join(text for name, text in self._files.items() if name.endswith(".css"))
        bundle = circuitsvis.bundle() if self.has_panels else ""
        return Assets(
            policy=_policy(*scripts, bundle),
            style=Markup(style),
            scripts=tuple(map(Markup, scripts)),
            bundle=circuitsvis.packed(bundle) if bundle else "",
        )

    def name(self, kind: str) -> str:
        """A name no other element of the page has: `figure-1`, `figure-2`, …"""
        self._counts[kind] += 1
        return f"{kind}-{self._counts[kind]}"

    def fill(self, macro: str, template: str = "blocks.html.jinja", **values: Any) -> Markup:
        """The macro of that template with that name, filled in."""
        return getattr(environment().get_template(template).module, macro)(**values)

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


def _policy(*scripts: str) -> str:
    """A content-security policy under which only these very scripts run, and nothing is loaded from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode("utf-8")).digest()).decode("ascii") for s in scripts if s]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    # styles may be inline: React sets them, and without images or fonts from outside they cannot call home
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
