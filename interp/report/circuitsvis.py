"""CircuitsVis panels that work offline and cannot run what a token says.

CircuitsVis' own HTML loads a script from the network, breaks the page around it and puts tokens into the page unescaped.
So a page carries the bundle from the installed wheel once, compressed, and `runtime.js` calls it with properties made here.
Two guards stand between a token and the page: the JSON is escaped, and no `<` or `&` in it can begin a tag or an entity.
The page's content-security policy is the third.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from markupsafe import Markup
from torch import Tensor

from interp.errors import ReportError
from interp.report.text import visible_token

VERSION = "1.43.3"
SHA256 = "1ea7bcd5dcd28ffdb23f4dea9c60db3606dac627fddce1a3b5141b7dfb490763"  # of iife.js in that version's wheel
_WORD_JOINER = "\u2060"  # has no width: the token looks the same


def bundle() -> str:
    """The script of the installed CircuitsVis. Raises `ReportError` unless it is the one this code was written for."""
    try:
        path = metadata.distribution("circuitsvis").locate_file("circuitsvis/dist/cdn/iife.js")
        content = path.read_bytes()  # type: ignore[attr-defined]  # SimplePath lacks it, the real Path has it
    except (metadata.PackageNotFoundError, OSError) as error:
        raise ReportError("CircuitsVis panels", f"its bundle is missing ({error})", _INSTALL) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ReportError("CircuitsVis panels", f"the installed bundle is not that of version {VERSION}", _INSTALL)
    return re.sub(r"\n?//# sourceMappingURL=.*\s*$", "", content.decode("utf-8"))


_INSTALL = f"Run: pip install circuitsvis=={VERSION}"


def packed(script: str) -> str:
    """The script compressed, as text without `<`; the same bytes each time."""
    return base64.b64encode(gzip.compress(script.encode("utf-8"), compresslevel=9, mtime=0)).decode("ascii")


def label(text: str, longest: int = 12) -> str:
    """A token or head name that CircuitsVis shows as it is, whatever it contains."""
    return re.sub("([&<])", rf"\1{_WORD_JOINER}", visible_token(text, longest))


def properties(values: Mapping[str, Any]) -> Markup:
    """JSON that is safe inside a script element. Raises `ValueError` for NaN."""
    text = json.dumps(values, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(re.sub("[&<>\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text))


def attention(maps: Tensor, names: Sequence[str], tokens: Sequence[str], maximum: float | int) -> tuple[str, dict[str, Any]]:
    """Component and properties for attention maps `head query key`; one head is drawn without a selector."""
    shared = {
        "tokens": [label(token) for token in tokens],
        "minValue": -maximum,  # CircuitsVis divides by it; no value is negative
        "maxValue": maximum,
        "positiveColor": "#0b4f8a",
        "maskUpperTri": bool((maps.triu(1) == 0).all()),
    }
    if len(names) == 1:
        return "AttentionPattern", {"attention": _rounded(maps[0]), "zoomed": True, "upperTriColor": "#ececea", **shared}
    return "AttentionHeads", {"attention": _rounded(maps), "attentionHeadNames": [label(n, 24) for n in names], **shared}


def coloured_tokens(
    values: Tensor, tokens: Sequence[str], minimum: float | int, maximum: float | int
) -> tuple[str, dict[str, Any]]:
    """Component and properties for tokens on a background that shows one value each; zero is white."""
    return "ColoredTokens", {
        "tokens": [label(token, 24) for token in tokens],
        "values": _rounded(values),
        "minValue": minimum,
        "maxValue": maximum,
        "negativeColor": "#0072b2",
        "positiveColor": "#e06c1f",
    }


def _rounded(values: Tensor) -> Any:
    def cut(value: Any) -> Any:
        return [cut(entry) for entry in value] if isinstance(value, list) else (round(value, 3) or 0)

    return cut(values.detach().cpu().double().tolist())
