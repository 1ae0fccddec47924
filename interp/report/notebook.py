"""Blocks and pages in a notebook: a frame with a document of its own, offline, apart from the notebook's scripts and styles."""

from html import escape

from interp.report.rendering import Block

# Nothing in the frame can reach the notebook; it may only tell its height, save a file and open the page of a link.
_ALLOWED = "allow-scripts allow-downloads allow-popups"
_FIT = """<script>window.interpFrames ??= (addEventListener("message", ({data, source}) => {
  if (data?.interp !== "height" || !(data.height > 0)) return;
  for (const frame of document.querySelectorAll("iframe.interp:not([data-fixed])"))
    if (frame.contentWindow === source) frame.style.height = Math.min(Math.ceil(data.height), 4000) + "px";
}), true)</script>"""


class Shown:
    """A block that shows itself in Jupyter, VS Code and Colab."""

    def for_notebook(self) -> Block:
        """What stands for this block in a notebook. One that needs CircuitsVis gives another: half a megabyte per cell."""
        return self  # type: ignore[return-value]  # what inherits this is a block

    def _repr_html_(self) -> str:
        from interp.report.page import render_document  # the page knows the blocks

        return framed(render_document([self.for_notebook()], type(self).__name__), height=420)


def framed(document: str, height: int, fixed: bool = False) -> str:
    """An HTML document inside a frame, `height` pixels high until it says how high it is; for good when `fixed`."""
    style = f"width:100%;height:{height}px;border:0;resize:vertical"
    mark = " data-fixed=1" if fixed else ""
    missing = "An interactive view: open this notebook in Jupyter, VS Code or Colab to see it."
    frame = f'<iframe class="interp"{mark} sandbox="{_ALLOWED}" style="{style}" srcdoc="{escape(document)}">{missing}</iframe>'
    return frame + ("" if fixed else _FIT)


def for_notebook(block: Block) -> Block:
    """What stands for a block in a notebook."""
    return block.for_notebook() if isinstance(block, Shown) else block
