"""Every page must open from a disk without a network: a page that would fetch something is a warning, which the build refuses."""

import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
FETCHES = re.compile(
    r"<(?:script|img|iframe|source|audio|video|embed|object)\b[^>]*?\b(?:src|srcset|data)\s*=\s*[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|license))[^>]*?\bhref\s*=\s*[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|(?:@import\s+|url\()\s*[\"']?(?:https?:)?//[^\s\"')]+",
    flags=re.I,
)


def check(app: Any, error: Exception | None) -> None:
    """Look for addresses that a browser would fetch by itself; links to click are none."""
    if error is not None or app.builder.format != "html":
        return
    for path in sorted(Path(app.outdir).rglob("*")):
        if path.suffix in {".html", ".css"} and "reports" not in path.relative_to(app.outdir).parts:
            for found in FETCHES.finditer(path.read_text(encoding="utf-8")):
                LOGGER.warning(
                    "%s fetches something: %s",
                    path.relative_to(app.outdir),
                    found[0][:200],
                )


def setup(app: Any) -> dict[str, bool]:
    """Check when the pages are written."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
