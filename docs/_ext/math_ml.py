"""Formulas as MathML, which browsers show by themselves: nothing is fetched, nothing is run."""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def inline(translator: Any, node: nodes.Element) -> None:
    """A formula within a line."""
    translator.body.append(as_mathml(node, block=False))
    raise nodes.SkipNode


def display(translator: Any, node: nodes.Element) -> None:
    """A formula of its own."""
    translator.body.append(f'<div class="formula">{as_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def as_mathml(node: nodes.Element, *, block: bool) -> str:
    """The formula of a node; one that cannot be read is a warning, which `make docs` takes for an error."""
    try:
        return tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        LOGGER.warning("formula %r: %s", node.astext(), error, location=node)
        return ""


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
