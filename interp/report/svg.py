"""A matplotlib figure as the address of a picture: the same bytes for the same figure, and nothing in it can run."""

import base64
import re
import warnings
from io import BytesIO, StringIO
from typing import Any
from urllib.parse import quote

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from interp.errors import ReportError

_SAVING: Any = {
    "svg.hashsalt": "interp",  # element ids are random without it
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so the layout is the same on every machine
}
# Laid out in DejaVu, one of the widest faces, the text has room in whichever of these the reader's machine has.
_SHOWN_IN = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_EMBEDDED = re.compile(r"(data:image/png;base64,)([A-Za-z0-9+/=\s]+)")
_PLAIN = " !$()*+,-./:;=?@[]^_`{|}~"  # everything else in ASCII punctuation is escaped, quotes and & < > # % above all


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document. Raises `ReportError` when matplotlib cannot draw it.

    The first drawing settles the layout for good: laid out again from there, it would come out a little different each time.
    """
    out = StringIO()
    try:
        with matplotlib.rc_context(_SAVING), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has the glyph
            figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
            figure.set_layout_engine("none")
    except (ValueError, RuntimeError, TypeError) as error:
        raise ReportError("drawing a figure", f"matplotlib refused ({error})", 'Look for a "$" in a label, or odd data') from None
    svg = _NOT_XML.sub("\ufffd", out.getvalue())
    svg = _EMBEDDED.sub(lambda match: match[1] + _with_palette(match[2]), svg)
    svg = svg[svg.index("<svg") :].replace("'DejaVu Sans', sans-serif", _SHOWN_IN)
    return re.sub(r"\n\s*", "\n", svg)


def data_address(svg: str) -> str:
    """The document as a `data:` address. Percent escapes: shorter than base64, above all around embedded images."""
    return "data:image/svg+xml;charset=utf-8," + quote(svg, safe=_PLAIN)


def size_in_pixels(figure: Figure) -> tuple[int, int]:
    """Width and height at which the figure's text has its nominal size (96 pixels to the inch)."""
    width, height = figure.get_size_inches()
    return round(width * 96), round(height * 96)


def _with_palette(encoded: str) -> str:
    """An embedded PNG with the same pixels, much smaller where it has at most 256 opaque colours.

    Matplotlib writes four bytes per pixel; a colour map has 256 colours.
    """
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(encoded))).convert("RGBA"))
    packed, indices = np.unique(np.ascontiguousarray(pixels).view(np.uint32), return_inverse=True)  # a pixel as one number
    colours = packed.view(np.uint8).reshape(-1, 4)
    if len(colours) > 256 or (colours[:, 3] < 255).any():
        return encoded
    small = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
    small.putpalette(colours[:, :3].tobytes())
    out = BytesIO()
    small.save(out, format="png", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")
