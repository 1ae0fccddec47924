"""What the commands that measure share: a table, JSON or CSV on stdout, results in a file, and a page."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.common import check_folder, print_table, say, whole_number
from interp.cli.inputs import shown_name

if TYPE_CHECKING:
    from interp.report import Block
    from interp.result import Result

Rows = Sequence[Mapping[str, Any]]


def add_output(parser: argparse.ArgumentParser, *, saves: bool = True) -> None:
    """`--json`, `--csv`, `--page` and, where there is a result to save, `--out`."""
    output = parser.add_argument_group("where it goes (default: a table)")
    form = output.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print every row as JSON, unrounded")
    form.add_argument("--csv", action="store_true", help="print every row as CSV, unrounded")
    if saves:
        output.add_argument(
            "--out", type=Path, metavar="FILE.json", help="save the result too, with its provenance (interp.Result.load opens it)"
        )
    output.add_argument("--page", type=Path, metavar="FOLDER", help="write a page about it too, that opens offline")


def add_top(parser: argparse.ArgumentParser, default: int, of: str) -> None:
    """`--top`."""
    parser.add_argument(
        "--top", type=whole_number(1), metavar="N", help=f"how many rows {of} (default: {default}; all with --json and --csv)"
    )


def shown(arguments: argparse.Namespace, default: int) -> int | None:
    """How many rows to show; None: all."""
    if arguments.top is not None:
        return arguments.top
    return None if arguments.json or arguments.csv else default


def check_output(arguments: argparse.Namespace) -> None:
    """Raise `ConfigError` where a file or page cannot be written: before anything is measured."""
    out: Path | None = getattr(arguments, "out", None)
    if out is not None:
        from interp.errors import ConfigError

        if out.suffix != ".json" or out.is_dir():
            raise ConfigError(f"--out {out}", "a result is saved as a JSON file", "Give a name that ends in .json")
        check_folder("--out", out.parent)
    if arguments.page is not None:
        check_folder("--page", arguments.page)


def deliver(
    arguments: argparse.Namespace, rows: Rows, result: "Result", blocks: Sequence["Block"] = (), *, n_rows: int, top: int
) -> None:
    """Save the result and write the page, if asked for, then print the rows: of `n_rows`, all of which `--top TOP` shows."""
    if arguments.out is not None:
        say(f"saved {result.save(arguments.out)}")
    if arguments.page is not None:
        import pandas as pd

        from interp.report import Table

        write(arguments, [*blocks, Table(pd.DataFrame(rows), "The same as a table.")], result)
    print_rows(arguments, rows)
    if n_rows > len(rows):
        say(f"{len(rows)} of {n_rows} rows; --top {top} shows all")


def write(arguments: argparse.Namespace, blocks: Sequence["Block"], result: "Result | None") -> None:
    """The page of one command: what was asked, and these blocks."""
    from interp.report import Page, Section, write_page
    from interp.result import Provenance

    command = arguments.command.split()[1]
    page = Page(
        title=f"interp {command} {shown_name(arguments.model)}",
        question="" if result is None else result.description,
        sections=[Section("What was found", blocks)],
        results={} if result is None else {result.name: result},
        command=arguments.command,
        provenance=Provenance() if result is None else result.provenance,
    )
    say(f"wrote {write_page(page, arguments.page)}")


def print_rows(arguments: argparse.Namespace, rows: Rows) -> None:
    """Rows on stdout, in the form that was asked for."""
    if arguments.csv:
        import pandas as pd

        sys.stdout.write(pd.DataFrame(rows).to_csv(index=False))
    else:
        print_table(rows, as_json=arguments.json)


def records(result: "Result") -> list[dict[str, Any]]:
    """One row per value: a column per axis, then value, stderr and baseline."""
    return rows_of(result.to_frame())


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """A data frame as rows."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def parse_heads(text: str) -> list[tuple[int, int]]:
    """A type of argument: heads as LAYER.HEAD, parted by commas."""
    heads = []
    for word in text.split(","):
        layer, dot, head = word.strip().partition(".")
        if not dot or not layer.isdecimal() or not head.isdecimal():
            raise argparse.ArgumentTypeError(f"{word.strip()!r} is not a head: write LAYER.HEAD, such as 1.3, parted by commas")
        heads.append((int(layer), int(head)))
    return list(dict.fromkeys(heads))
