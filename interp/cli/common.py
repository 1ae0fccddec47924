"""What several subcommands share."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


def add_import(parser: argparse.ArgumentParser) -> None:
    """`--import MODULE`, for kinds of data and models that are not part of the library."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module, found from here, that registers tasks or architectures of your own",
    )


def import_modules(names: Sequence[str]) -> None:
    """Import modules, those in the current folder included. Raises `ConfigError` for one that is not there or fails."""
    from interp.errors import ConfigError

    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # worker processes get this list too
    for name in names:
        try:
            import_module(name)
        except ConfigError:
            raise
        except Exception as error:  # whatever the module does when it is loaded
            truth = f"it cannot be imported ({type(error).__name__}: {error})"
            raise ConfigError(f"--import {name}", truth, "Name a module as Python's import does, such as my_tasks") from error


def check_folder(option: str, folder: Path) -> None:
    """Raise `ConfigError` unless files can be written into `folder`, which need not exist yet."""
    from interp.errors import ConfigError

    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"{option} {folder}", f"{existing} is not a folder that can be written to", "Name another")


def print_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows under the names of their columns, or as JSON. What a row lacks is left empty, as is NaN (null in JSON)."""
    if as_json:
        print(json.dumps(list(map(_defined, rows)), indent=1, allow_nan=False))  # noqa: T201
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    is_number = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in names]
    for line in cells:
        padded = (
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, is_number, strict=True)
        )
        print("  ".join(padded).rstrip())  # noqa: T201


def without(rows: Sequence[Mapping[str, Any]], columns: Collection[str]) -> list[dict[str, Any]]:
    """The rows without some columns."""
    return [{name: value for name, value in row.items() if name not in columns} for row in rows]


def say(text: str) -> None:
    """A remark, on stderr: stdout is for what was asked for."""
    print(text, file=sys.stderr)  # noqa: T201


def whole_number(least: int) -> Callable[[str], int]:
    """A type of argument: a whole number, `least` or more."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return parse


def listed(text: str) -> list[str]:
    """A type of argument: words parted by commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(words) or len(set(words)) != len(words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list A,B,… of different names")
    return words


def numbers(text: str) -> list[int]:
    """A type of argument: whole numbers parted by commas."""
    words = listed(text)
    if not all(word.lstrip("-").isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers, such as 0,1")
    return [int(word) for word in words]


def _defined(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}


def _text(value: Any) -> str:
    if value is None or isinstance(value, (list, dict)):
        return "" if value is None else json.dumps(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)
