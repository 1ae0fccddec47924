"""Small pictures of the reports for the gallery: `python docs/previews.py` after reports were made anew. Needs Chromium."""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "_static" / "gallery"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, LARGEST = 640, 60_000


def main() -> int:
    """Write docs/_static/gallery/<report>.png for every report; returns 1 when there is no browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.stderr.write(
            f"There is none of {', '.join(BROWSERS)} here: the pictures stay as they are.\n"
        )
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    for page in sorted((ROOT / "reports").glob("*/index.html")):
        (OUT / f"{page.parent.name}.png").write_bytes(small(picture(browser, page)))
    return 0


def picture(browser: str, page: Path) -> Image.Image:
    """The beginning of a page, as a window of 1200 × 900 shows it."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1200,900",
        ]
        subprocess.run(
            [browser, *options, f"--screenshot={shot}", page.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return Image.open(shot).convert("RGB")


def small(image: Image.Image) -> bytes:
    """A PNG of at most 60 kB: narrower, with as many colours as fit."""
    image = image.resize(
        (WIDTH, image.height * WIDTH // image.width), Image.Resampling.LANCZOS
    )
    for colours in (128, 64, 32, 16):
        out = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(
            out, format="PNG", optimize=True
        )
        if out.tell() <= LARGEST:
            break
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
