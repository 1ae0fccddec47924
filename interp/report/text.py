"""Text for pages: numbers a reader can compare, prose with code spans, and tokens whose white space can be seen."""

import re

from markupsafe import Markup, escape

from interp.display import MISSING, number, visible_token

__all__ = ["MISSING", "inline", "number", "paragraphs", "visible_token"]


def inline(text: str) -> Markup:
    """Plain text as safe HTML; `code` between backticks is the only markup."""
    parts = re.split(r"`([^`\n]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def paragraphs(text: str) -> Markup:
    """Plain text as safe HTML: blank lines part paragraphs, and one whose lines all begin with "- " is a list."""
    out = Markup("")
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines()]
        if lines and all(line.startswith("- ") for line in lines):
            out += Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(inline(x[2:])) for x in lines))
        else:
            out += Markup("<p>{}</p>").format(inline(" ".join(lines)))
    return out
