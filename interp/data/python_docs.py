"""The embedded corpus: the documentation inside every Python, read from its source without importing any of it."""

import ast
import json
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from interp.data.cache import cache_folder, cached_text, stable_hash
from interp.data.documents import without_blank_lines
from interp.errors import DataError

# tests, demonstrations, bundled wheels, a hundred near-equal code pages, and pydoc's own data
_LEFT_OUT = frozenset({"test", "tests", "idle_test", "idlelib", "tkinter", "turtle", "turtledemo", "lib2to3", "ensurepip"}) | {
    *(
        "encodings",
        "antigravity",
        "this",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "__pycache__",
        "__hello__",
        "__phello__",
    )
}
_SHORT = 40  # paragraphs below this many characters may stand in several documents: "Return True if …", headings, calls
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def python_docs(cache_dir: str | Path | None = None) -> list[tuple[str, str]]:
    """`(name, text)` of every language-reference topic and every standard-library module with docstrings; about 2 MB.

    The order is fixed, and a paragraph that stands in several places is kept only in the first, so that splits made of whole
    documents share none. No module is imported or run: the sources are parsed. Costs about 3 s the first time for a given
    Python; then it comes from the cache in a few hundredths of a second. Raises `DataError` when this Python ships no sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(python_modules(root))
    stamps = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in sources]
    key = stable_hash("1", sys.version, str(root), json.dumps(stamps))
    kept = cached_text(cache_folder(cache_dir) / "corpora" / f"python-docs-{key}.json", lambda: json.dumps(_build(root, sources)))
    documents = [(name, text) for name, text in json.loads(kept)]
    if not documents:
        raise DataError(
            "corpus 'python-docs'",
            f"this Python keeps no readable standard library in {root}",
            "Use a Python installed with its sources, or give a text file, a folder, or 'owner/name' on the Hugging Face Hub",
        )
    return documents


def python_modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of every module of the standard library in `root` that a corpus is made from, in no order."""
    for top in sys.stdlib_module_names - _LEFT_OUT:
        for path in (root / f"{top}.py", *(root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if path.is_file() and not _LEFT_OUT.intersection(parts):
                yield ".".join(part for part in parts if part != "__init__"), path


def _build(root: Path, sources: list[tuple[str, Path]]) -> list[tuple[str, str]]:
    seen: set[str] = set()
    topics = [(f"topic {name}", [text]) for name, text in sorted(_topics(root / "pydoc_data" / "topics.py").items())]
    modules = ((name, list(_docstrings(name, path))) for name, path in sources)
    documents = ((name, _unseen(sections, seen)) for name, sections in (*topics, *modules))
    return [(name, text) for name, text in documents if text]


def _topics(path: Path) -> dict[str, str]:
    if not path.is_file():  # some distributions package it apart
        return {}
    with tokenize.open(path) as file:
        tree = ast.parse(file.read())
    return next((ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)), {})


def _docstrings(name: str, path: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and its functions, each headed by what it documents."""
    try:
        with tokenize.open(path) as file:
            module = ast.parse(file.read())
    except (SyntaxError, UnicodeDecodeError):
        return
    if doc := ast.get_docstring(module):
        yield f"module {name}\n\n{doc}"
    yield from _below(module, "")


def _below(parent: ast.Module | _Definition, prefix: str) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, _Definition):
            continue
        if doc := ast.get_docstring(node):
            head = f"class {prefix}{node.name}" if isinstance(node, ast.ClassDef) else _call(prefix, node)
            yield f"{head}\n\n{doc}"
        if isinstance(node, ast.ClassDef):
            yield from _below(node, f"{prefix}{node.name}.")


def _call(prefix: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return f"{prefix}{node.name}({ast.unparse(node.args)})"


def _unseen(sections: list[str], seen: set[str]) -> str:
    """The sections joined, without paragraphs met before; a section left with nothing but its heading goes altogether."""
    kept = []
    for section in sections:
        head, *paragraphs = (
            section.encode("utf-8", "replace").decode("utf-8").split("\n\n")
        )  # docstrings may hold lone surrogates
        fresh = [paragraph for paragraph in paragraphs if _note(paragraph, seen)]
        if fresh:
            kept += [head, *fresh]
    return without_blank_lines("\n".join(kept))


def _note(paragraph: str, seen: set[str]) -> bool:
    """Whether `paragraph` is new or too short to matter; remembers it. Line breaks and indentation do not count."""
    words = " ".join(paragraph.split())
    fresh = len(words) < _SHORT or words not in seen
    seen.add(words)
    return fresh
