"""What the documentation says is true: its code runs and prints what stands there, its reference lists every public name."""

import importlib
import re
from pathlib import Path

import pytest

import interp
from tests.core.test_architecture import LAYERS
from tests.docs.blocks import check_printed, count_blocks, run_blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in [*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md"]
    if not {"_build", "notebooks"} & set(path.relative_to(ROOT).parts) and count_blocks(path)
)
MODULES = ["data", "models", "probes", "interventions", "metrics", "training", "training.executors", "report", "cli"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what a page writes goes there
    run_blocks(page)


def listed() -> dict[str, int]:
    """How often the reference lists each name, by its full name."""
    found: dict[str, int] = {}
    for page in (DOCS / "api").glob("*.rst"):
        text = page.read_text(encoding="utf-8")
        names = [
            f"{module}.{name}"
            for module, lines in re.findall(r"^\.\. api:: (\S+)\n\n((?:   .+\n)+)", text, flags=re.M)
            for name in lines.split()
        ]
        for name in [*names, *re.findall(r"^\.\. py:(?:data|module):: (\S+)", text, flags=re.M)]:
            found[name] = found.get(name, 0) + 1
    return found


def test_the_reference_lists_every_public_name_once() -> None:
    found = listed()
    assert not [name for name, count in found.items() if count > 1]
    documented = {id(getattr(importlib.import_module(module), name)) for module, _, name in map(last_dot, found)}
    missing = [f"interp.{name}" for name in interp.__all__ if f"interp.{name}" not in found]
    for module in MODULES:
        home = importlib.import_module(f"interp.{module}")
        missing += [f"interp.{module}.{name}" for name in home.__all__ if id(getattr(home, name)) not in documented]
    assert not missing, f"add them to docs/api: {missing}"


def last_dot(path: str) -> tuple[str, str, str]:
    return path.rpartition(".")


def test_the_reference_lists_nothing_that_is_not_there() -> None:
    for path in listed():
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def test_signatures_say_shapes_and_spell_aliases_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    signatures = importlib.import_module("signatures")
    arguments, returned = signatures.write_signature(None, "function", "", interp.activation_patching, None, "()", "")
    assert (
        "clean: Int[Tensor, 'pair pos']" in arguments and "direction: Literal['denoising', 'noising'] = 'denoising'" in arguments
    )
    assert ", *, over: " in arguments and returned == "Result"
    assert signatures.write_signature(None, "class", "", interp.Edge, None, "()", "") == ("(sender: Site, receiver: Site)", None)


def test_the_table_of_layers_is_the_one_that_is_checked() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+` ?)+)\|", text, flags=re.M)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == LAYERS


def test_every_page_is_in_the_contents_and_every_link_leads_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md"]:
        if {"_build", "notebooks"} & set(page.relative_to(ROOT).parts):
            continue
        text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)  # code has no links
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_what_a_page_says_is_printed_is_compared() -> None:
    check_printed("L1H0  0.937\n", "L1H0 0.938\n", "here")
    for wrong in ("L1H0 0.940\n", "L1H1 0.937\n", "L1H0 0.937\nmore\n", "L1H0 -0.937\n", "L1H0 1.937\n"):
        with pytest.raises(AssertionError):
            check_printed("L1H0 0.937\n", wrong, "here")
