"""The embedded corpus of code: the running Python's standard library without its docstrings, read without importing any of it."""

import ast
import io
import json
import sys
import sysconfig
import tokenize
from pathlib import Path

from interp.data.cache import cache_folder, cached_text, stable_hash
from interp.data.documents import without_blank_lines
from interp.data.python_docs import python_modules
from interp.errors import DataError


def python_source(cache_dir: str | Path | None = None) -> list[tuple[str, str]]:
    """`(name, text)` of every standard-library module's code; about 7 MB.

    The modules are those of `python_docs`, and docstrings are cut out, so that no document of that corpus stands in this one;
    comments stay, blank lines go. The order is fixed. No module is imported or run. Costs about 4 s the first time for a given
    Python; then it comes from the cache. Raises `DataError` when this Python ships no sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(python_modules(root))
    stamps = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in sources]
    key = stable_hash("1", sys.version, str(root), json.dumps(stamps))
    path = cache_folder(cache_dir) / "corpora" / f"python-source-{key}.json"
    kept = cached_text(path, lambda: json.dumps([(name, text) for name, file in sources if (text := _code(file))]))
    documents = [(name, text) for name, text in json.loads(kept)]
    if not documents:
        raise DataError(
            "corpus 'python-source'",
            f"this Python keeps no readable standard library in {root}",
            "Use a Python installed with its sources, or give a text file, a folder, or 'owner/name' on the Hugging Face Hub",
        )
    return documents


def _code(path: Path) -> str:
    """A file's code, '' where it cannot be read as Python."""
    try:
        with tokenize.open(path) as file:
            return without_docstrings(file.read())
    except (SyntaxError, UnicodeDecodeError):
        return ""


def without_docstrings(source: str) -> str:
    """Python code without the docstrings of its module, classes and functions, and without blank lines.

    Other strings stay. Raises `SyntaxError` for what is no Python.
    """
    lines = [line.rstrip("\r\n").encode() for line in io.StringIO(source)]  # the parser counts in bytes of UTF-8
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        doc = node.body[0]
        assert doc.end_lineno is not None
        before, after = lines[doc.lineno - 1][: doc.col_offset], lines[doc.end_lineno - 1][doc.end_col_offset :]
        lines[doc.lineno - 1 : doc.end_lineno] = [b""] * (doc.end_lineno - doc.lineno + 1)
        lines[doc.lineno - 1] = (before + after).rstrip()
    return without_blank_lines("\n".join(line.decode("utf-8", "replace") for line in lines))
