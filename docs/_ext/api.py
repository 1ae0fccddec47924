"""The API reference: docstrings in the project's plain form, signatures as they are written, settings as tables.

`.. api:: interp.probes` with names below it documents each of them through autodoc. A docstring is paragraphs, lists ("* " or
"- ") and indented code, with `code` between backticks; a name that is documented somewhere becomes a link.
"""

import inspect
import re
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from signatures import is_settings, write_signature

PAGES = Path(__file__).parents[1] / "api"


def listed() -> Iterator[tuple[str, str]]:
    """Every (module, name) that the pages under api/ document."""
    for page in sorted(PAGES.glob("*.rst")):
        text = page.read_text(encoding="utf-8")
        for module, names in re.findall(r"^\.\. api:: (\S+)\n\n((?:   .+\n)+)", text, flags=re.M):
            yield from ((module, name) for name in names.split())
        for path in re.findall(r"^\.\. py:(?:data|module):: (\S+)", text, flags=re.M):
            module, _, name = path.rpartition(".")
            yield module, name


MODULES = {"interp.errors", "interp.metrics"}  # a word that a docstring may use otherwise
TARGETS = {name: f"{module}.{name}" for module, name in listed() if f"{module}.{name}" not in MODULES}


class Api(SphinxDirective):
    """Documents the names below it, members of the module that is its argument."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        lines: list[str] = []
        for name in " ".join(self.content).split():
            value = getattr(import_module(module), name)
            kind = "class" if inspect.isclass(value) else "function"
            lines += [
                f".. auto{kind}:: {module}.{name}",
                *(["   :members:"] if kind == "class" else []),
                "",
            ]
        holder = nodes.container()
        holder.document = self.state.document
        self.state.nested_parse(StringList(lines, source=self.env.docname), 0, holder)
        return holder.children


def as_rst(docstring: list[str], own: Collection[str] = ()) -> list[str]:
    """A docstring of this project as reStructuredText; `own` are names that mean something else there, such as parameters."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(docstring).strip("\n")):
        if block.startswith("    "):
            out += ["::", "", *block.splitlines(), ""]
        else:
            out += [*marked(block, own).splitlines(), ""]
    return out


def marked(text: str, own: Collection[str] = ()) -> str:
    """Text with `code` as literals or links and **bold**, and everything else that reStructuredText would read escaped."""
    out = ""
    for part in re.split(r"(``[^`]+``|`[^`]+`|\*\*[^*]+\*\*)", text):
        is_marked = part.startswith(("`", "**"))
        piece = code(part.strip("`"), own) if part.startswith("`") else part if is_marked else escaped(part)
        touching = bool(out and piece) and (out[-1].isalnum() if is_marked else part[0].isalnum() and out[-1] in "`*")
        out += ("\\ " if touching else "") + piece  # marks must not touch letters
    return out


def code(text: str, own: Collection[str]) -> str:
    """A link where the text names something that is documented, else a literal."""
    target = TARGETS.get(text.rpartition(".")[2], "")
    if target and text not in own and text in (target, target.rpartition(".")[2], f"interp.{target.rpartition('.')[2]}"):
        return f":py:obj:`{text} <{target}>`"
    return f"``{text}``"


def escaped(text: str) -> str:
    """Plain text; list items keep their mark."""
    text = re.sub(r"([\\*_|])", r"\\\1", text)
    return re.sub(r"^(\s*)(?:\\\*|-) ", r"\1* ", text, flags=re.M)


def write_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """autodoc-process-docstring: convert, and add the settings of a settings class."""
    try:
        own = set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        own = set()
    lines[:] = as_rst(lines, own)
    if what == "class" and is_settings(obj):
        lines += settings_table(obj)


def settings_table(cls: Any) -> list[str]:
    """What can be set: name, default, sentence."""
    from interp.config import describe_fields

    try:
        rows = describe_fields(cls())
    except Exception:  # a class whose settings have no default
        return []
    out = [".. list-table::", "   :header-rows: 1", "", "   * - setting", "     - default", "     - what it is"]
    for name, value, sentence in rows:
        out += [f"   * - ``{name}``", f"     - ``{value}``", f"     - {marked(sentence)}"]
    return [*out, ""]


def setup(app: Any) -> dict[str, bool]:
    """Add the directive and the two hooks of autodoc."""
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", write_docstring)
    app.connect("autodoc-process-signature", write_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
