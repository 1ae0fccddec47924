"""Text for pages: numbers a reader can compare, prose with code spans, and tokens whose white space can be seen."""

import math
import re
from numbers import Integral

from markupsafe import Markup, escape

MISSING = "–"
_VISIBLE = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}


def number(value: float | int, digits: int = 3) -> str:
    """`value` with `digits` significant digits; NaN is a dash, integers keep all digits, a true minus sign."""
    if isinstance(value, Integral):
        return f"{int(value):,}".replace("-", "−")
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10**digits:
        text = f"{value:,.0f}" if abs(rounded) < 1e9 else f"{value:.{digits - 1}e}"
    else:
        text = "0" if rounded == 0 else f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", "−")


def visible_token(token: str, longest: int = 12) -> str:
    """`token` as a label: white space as marks, control and direction characters as escapes, long ones cut short."""
    shown = "".join(_VISIBLE.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


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
