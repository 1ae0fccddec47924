"""The notebooks as they are committed: whole, small, apart from the machine they ran on, and laid out for a reader.

That their cells run is checked by `python -m experiments.notebooks --check`.
"""

import re
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from experiments.notebooks import __main__ as runner
from interp.errors import ConfigError

NAMES = ("induction_heads", "tour", "watch_a_phase_change", "your_own_module")
LARGEST = 400_000  # bytes
MOST_LINES = 12
LOADED = re.compile(r"""(?:src|href|@import|url)\s*[=(]?\s*["']?https?://""", re.IGNORECASE)
PLACES = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|work|usr|private|var)/|[A-Z]:\\\\Users")


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest) -> Path:
    return runner.FOLDER / f"{request.param}.ipynb"


@pytest.fixture(scope="module")
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def plain(text: str) -> str:
    """A notebook's text with what stands in frames as the frame has it: documents in attributes, quoted, in JSON."""
    return unescape(unescape(text)).replace('\\"', '"')


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_folder_holds_these_notebooks() -> None:
    assert tuple(path.stem for path in runner.chosen([])) == NAMES


def test_it_was_executed_from_top_to_bottom_without_an_error(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 5  # results are shown, not only printed


def test_it_is_small_and_as_the_runner_writes_it(path: Path, notebook: NotebookNode) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert nbformat.writes(runner.tidied(notebook)) + "\n" == text


def test_it_loads_nothing_and_names_no_place_of_a_machine(path: Path) -> None:
    text = plain(path.read_text(encoding="utf-8"))
    assert not LOADED.findall(text)
    assert not PLACES.findall(text)


def test_the_patterns_find_what_they_are_for() -> None:
    direct = ("href='http://a.b'", "url(https://a.b/c.png)", '@import "https://a.b/c.css"')
    for loading in ('src=\\"https://a.b/c.js\\"', "src=&quot;https://a.b", "src=&amp;quot;http://a.b", *direct):
        assert LOADED.search(plain(loading)), loading
    for place in ('"/home/someone/x', " /tmp/run", "(/root/.cache/)", "C:\\\\Users"):
        assert PLACES.search(place), place
    assert not PLACES.search("a/tmp/b") and not LOADED.search('<svg xmlns="http://www.w3.org/2000/svg">')


def test_it_is_written_for_a_reader(notebook: NotebookNode) -> None:
    """A question first, how to install, predictions before results, short cells, exercises."""
    first, install = notebook.cells[:2]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and first.source.splitlines()[0].endswith("?")
    assert install.cell_type == "code" and "# %pip install ." in install.source.splitlines()
    told = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert told.count("*What do you expect") >= 4
    assert re.search(r"## Exercises\n+1\. .+\n(?:.*\n)*2\. ", told)
    long = [cell.id for cell in code_of(notebook) if len(cell.source.splitlines()) > MOST_LINES]
    assert not long


def test_it_is_quiet_and_needs_no_network_unless_asked(notebook: NotebookNode) -> None:
    for cell in code_of(notebook):
        for call in re.findall(r"interp\.(?:fit|overview|\w+_sweep|\w*patching|ablate_together)\(", cell.source):
            assert "progress=False" in cell.source, (cell.id, call)
    asked = [line for cell in code_of(notebook) for line in cell.source.splitlines() if re.match(r"MODEL = ", line)]
    assert all('"gpt2"' not in line.split("#")[0] for line in asked)


def test_tidying_keeps_what_a_reader_sees_and_drops_what_changes() -> None:
    seconds = "<div><b>model</b> x</div><div><b>seconds</b> 1.23</div>"
    shown = new_output("execute_result", {"text/html": seconds, "text/plain": "Result(…)"}, execution_count=1)
    plain = new_output("execute_result", {"text/plain": "3"}, execution_count=1)
    cell = new_code_cell("1 + 2", outputs=[shown, plain], metadata={"execution": {"iopub.busy": "2020"}}, id="kept")
    done = runner.tidied(new_notebook(cells=[cell], metadata={"vscode": {"x": 1}}))
    assert done.metadata == runner.METADATA and done.cells[0].metadata == {} and done.cells[0].id == "kept"
    assert [output.data for output in done.cells[0].outputs] == [
        {"text/html": "<div><b>model</b> x</div>"},
        {"text/plain": "3"},
    ]


class FailingKernel:
    """What takes a notebook and runs it, until its second code cell."""

    def __init__(self, notebook: NotebookNode, **settings: object):
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]

    def execute(self, **settings: object) -> None:
        for count, cell in enumerate(self.cells[:2], 1):
            cell.execution_count = count
        raise CellExecutionError("a long traceback", "AssertionError", "gain is 0.1")


def test_a_failure_names_notebook_and_cell_and_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran_before = [new_code_cell(f"step({n})", id=f"cell-{n}", execution_count=n + 1) for n in range(3)]
    cells = [new_markdown_cell("# Why?", id="a"), *ran_before]
    for stem in ("one", "two"):
        (tmp_path / f"{stem}.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)))
    before = (tmp_path / "two.ipynb").read_bytes()
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(runner, "NotebookClient", FailingKernel)
    assert runner.main(["two"]) == 1
    said = capsys.readouterr().err
    assert said.strip() == "two.ipynb, cell 3 (cell-1, 'step(1)'): AssertionError: gain is 0.1"
    assert (tmp_path / "two.ipynb").read_bytes() == before
    with pytest.raises(ConfigError, match="Did you mean 'two'"):
        runner.chosen(["tow"])
