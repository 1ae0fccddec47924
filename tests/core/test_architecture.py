"""The shape of the library: imports run one way, the library prints nothing, files stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "interp"
LAYERS = [
    {"errors", "config", "display", "registry", "files", "memory", "seeds", "sites", "result", "provenance", "identity"},
    {"models", "data"},
    {"running", "metrics", "generation"},
    {"probes", "interventions"},
    {"training", "calibration"},
    {"report"},
    {"pages"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MOST_LINES = 400


def files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of interp that a file imports when it is loaded (imports inside functions are for heavy or late things)."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interp."):
            names.add((node.module or "").split(".")[1])
    return names


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    own = part(path)
    later = {name for name in imported(path) if LEVEL[name] > LEVEL[own]}
    assert not later, f"{own} must not import {later}"


def test_the_report_knows_only_results() -> None:
    for path in files():
        if part(path) == "report":
            assert imported(path) <= {"report", "result", "errors", "files", "display"}, path


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_the_library_knows_no_study() -> None:
    for path in files():
        assert "experiments" not in {getattr(node, "module", None) for node in ast.walk(ast.parse(path.read_text()))}


def test_every_public_name_exists() -> None:
    import interp

    for name in interp.__all__:
        assert getattr(interp, name) is not None
    with pytest.raises(AttributeError, match="Did you mean 'key_smear'"):
        interp.key_smea  # noqa: B018
