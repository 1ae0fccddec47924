"""What the README says is true: its code runs, its files exist."""

import re
from pathlib import Path

import pytest

import interp
from tests.docs.blocks import count_blocks, run_blocks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_notebook_cells_run() -> None:
    assert count_blocks(ROOT / "README.md")
    model = run_blocks(ROOT / "README.md")["run"].model
    assert 0.5 < interp.key_smear(model).item() < 0.95, "about 0.7"
    assert interp.key_smear(model, offset=-2).item() == 0.0
    assert interp.induction_scores(model, period=6).item() > 0.9


@pytest.mark.parametrize("path", re.findall(r"!\[.*?\]\((.*?)\)", README) + re.findall(r"^\| `([a-z/]+)` \|", README, flags=re.M))
def test_files_that_are_named_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_commands_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^    )make ([a-z0-9-]+)", README, flags=re.M)):
        assert f"\n{target}:" in makefile
