"""Execute the notebooks of this folder, each in a fresh kernel.

    python -m experiments.notebooks            # all of them, in place: what is committed holds its outputs
    python -m experiments.notebooks tour       # one of them
    python -m experiments.notebooks --check    # copies, nothing is written; 1 is the exit code when a cell fails

A notebook whose cell fails is left as it was. Outputs are kept without what changes from run to run.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from interp.errors import ConfigError, nearest
from interp.files import write_whole

FOLDER = Path(__file__).parent
SECONDS_PER_CELL = 600
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
QUIET = {
    "PYTHONWARNINGS": "ignore:IProgress not found"
}  # tqdm, where the notebook's own progress bars are not installed
_SECONDS = re.compile(
    r"<div><b>seconds</b> [^<]*</div>"
)  # of a result's provenance: differs from run to run


class NotebookError(Exception):
    """A notebook that did not run to its end; says which cell failed, and how."""


def main(argv: Sequence[str] | None = None) -> int:
    """Execute the notebooks that were named, or all. 0: all ran; 1: a cell of one failed; 2: there is none of that name."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.notebooks", description="Execute the notebooks."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    parser.add_argument("--check", action="store_true", help="execute copies and write nothing")
    arguments = parser.parse_args(argv)
    try:
        paths = chosen(arguments.names)
    except ConfigError as error:
        parser.error(str(error))
    failures = [problem for path in paths if (problem := _run(path, arguments.check))]
    for problem in failures:
        print(problem, file=sys.stderr)
    return 1 if failures else 0


def chosen(names: Sequence[str]) -> list[Path]:
    """The notebooks of these names, or all of the folder. Raises `ConfigError` for a name that is none of them."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"notebook {name!r}",
                f"there are {', '.join(known)}",
                f"{nearest(name, known)}Name one of those",
            )
    return [known[name] for name in names or known]


def executed(notebook: NotebookNode, name: str) -> NotebookNode:
    """A copy of `notebook`, run in a new kernel, with its outputs. Raises `NotebookError` at the first cell that fails."""
    copy = deepcopy(notebook)
    for cell in copy.cells:  # nothing of the last time: a cell that fails is found by its count
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        copy,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute(env=os.environ | QUIET)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(f"{name}, {_failed_cell(copy)}: {_told(error)}") from error
    return tidied(copy)


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the metadata it needs and no more, and of each output what a reader sees."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data.pop("text/plain", None)  # the same as text: for results pages of digits
                data["text/html"] = _SECONDS.sub("", data["text/html"])
    return notebook


def _run(path: Path, check: bool) -> str:
    """Execute one notebook, and keep it unless only asked to check. The problem in words, or ''."""
    started = time.perf_counter()
    try:
        done = executed(nbformat.read(path, as_version=4), path.name)
    except NotebookError as problem:
        print(f"{path.name}: failed")
        return str(problem)
    nbformat.validate(done)
    text = nbformat.writes(done) + "\n"
    if not check:
        write_whole(path, text)
    what = "runs" if check else "executed and written"
    print(
        f"{path.name}: {what}, {time.perf_counter() - started:.0f} s, {len(text.encode()) / 1000:.0f} kB",
        flush=True,
    )
    return ""


def _failed_cell(notebook: NotebookNode) -> str:
    """The cell that was run last: its number, id and first line."""
    done = [
        (place, cell) for place, cell in enumerate(notebook.cells, 1) if cell.get("execution_count")
    ]
    place, cell = done[-1] if done else (1, notebook.cells[0])
    return f"cell {place} ({cell.id}, {cell.source.splitlines()[0][:80]!r})"


def _told(error: Exception) -> str:
    return (
        f"{error.ename}: {error.evalue}"
        if isinstance(error, CellExecutionError)
        else str(error).strip().splitlines()[0]
    )


if __name__ == "__main__":
    sys.exit(main())
