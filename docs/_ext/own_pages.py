"""Pages whose text stands elsewhere in the repository: CONTRIBUTING.md is a page of the site too."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def insert(app: Any, name: str, source: list[str]) -> None:
    """Put the file that a page names in its front matter in place of the page."""
    if name == "contributing":
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        source[0] = text.replace("](docs/", "](")


def setup(app: Any) -> dict[str, bool]:
    """Replace sources as they are read."""
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
