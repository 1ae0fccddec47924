"""Running the Python blocks of a page in order, and comparing what they print with what the page says they print."""

import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

from interp.cli.main import main

BLOCK = re.compile(r"^```(python|text|console)\n(.*?)^```$", flags=re.S | re.M)
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+\.\d+(?:e[-+]\d+)?(?![\w.])")


def run_blocks(page: Path) -> dict[str, Any]:
    """Run every ```python block of `page` in one namespace, which is returned; and each `$ interp …` of its ```console blocks.

    What stands below a command is what it prints. A ```text block with nothing but blank lines between it and the block before
    is what that block prints: equal letter by letter but for numbers with a decimal point, which may differ by two in their last
    digit (machines round differently).
    """
    names: dict[str, Any] = {"__name__": "page"}
    text = page.read_text(encoding="utf-8")
    printed, end = "", -1
    for found in BLOCK.finditer(text):
        kind, body = found.groups()
        line = text.count("\n", 0, found.start()) + 1
        if kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * line + body, str(page), "exec"), names)
            printed, end = out.getvalue(), found.end()
        elif kind == "console":
            for command, expected in commands(body):
                out = io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                    assert main(shlex.split(command)[1:]) == 0, f"{page}:{line} {command}"
                if expected.strip():
                    check_printed(out.getvalue(), expected, f"{page}:{line} {command}")
        elif kind == "text" and end >= 0 and not text[end : found.start()].strip():
            check_printed(printed, body, f"{page}:{line}")
    return names


def commands(body: str) -> list[tuple[str, str]]:
    """Each command that begins with `interp`, and what stands below it; other commands are for reading."""
    parts = re.split(r"^\$ ", body, flags=re.M)[1:]
    found = [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]
    return [(command, expected) for command, expected in found if shlex.split(command, comments=True)[0] == "interp"]


def check_printed(printed: str, expected: str, where: str) -> None:
    """Raise `AssertionError` when the two differ by more than the last digits of numbers."""
    got, want = tidy(printed), tidy(expected)
    assert NUMBER.sub("#", got) == NUMBER.sub("#", want), f"{where} says\n{want}\nand is\n{got}"
    for one, other in zip(NUMBER.findall(got), NUMBER.findall(want), strict=True):
        decimals = len(other.partition(".")[2].partition("e")[0])
        assert abs(number(one) - number(other)) <= 2.001 * 10.0**-decimals, f"{where} says {other} and is {one}:\n{got}"


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def tidy(text: str) -> str:
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines())


def count_blocks(page: Path) -> int:
    """How many blocks of a page are run."""
    return sum(found[1] != "text" for found in BLOCK.finditer(page.read_text(encoding="utf-8")))
