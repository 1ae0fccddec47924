"""List run folders: what varies among them, and their last metrics.

  interp runs                                          all in the folder runs
  interp runs data.kind=copy "train.lr<1e-3"           by settings; also !=, <=, >, >=, and * in texts
  interp runs grid-a "validation_loss<0.1" --sort lr   by a part of the name, or of the time of the start, and by a metric

A key may be shortened to its last part where that is unique.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from interp.cli.common import print_table, without

if TYPE_CHECKING:
    from interp.cli.main import Work
    from interp.training.catalog import Runs


DEFAULT = "runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp runs` understands."""
    parser.add_argument("words", nargs="*", metavar="FOLDER|FILTER", help="where to look (default: runs), and conditions")
    parser.add_argument("--columns", metavar="A,B,…", help="columns to show (default: what differs, and losses)")
    parser.add_argument("--sort", metavar="KEY", help="sort by a column; --sort=-KEY for the largest first (default: by start)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the table as JSON")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")


def prepare(arguments: argparse.Namespace) -> "Work":
    """Find the runs; the work is to print them."""
    folders = [word for word in arguments.words if Path(word).is_dir()]
    filters = [word for word in arguments.words if word not in folders]
    from interp.errors import ConfigError, nearest
    from interp.training.catalog import Runs, find_runs

    if not folders and not Path(DEFAULT).is_dir():
        here = [entry.name for entry in Path().iterdir() if entry.is_dir()]
        words = [word for word in filters if not any(sign in word for sign in "=<>")]  # could be folders
        hint = next(filter(None, (nearest(word, here) for word in (*words, DEFAULT))), "")
        if not words:
            truth = f"there is no folder {DEFAULT!r} here yet; interp train writes it"
            raise ConfigError("run folders", truth, f"{hint}Train first, or give the folder that training wrote to")
        filters = words
        given = f" and neither is {' or '.join(map(repr, filters))}" if filters else ""
        raise ConfigError("run folders", f"{DEFAULT!r} is not a folder{given}", f"{hint}Give the folder that training wrote to")
    everything = Runs([run for folder in folders or [DEFAULT] for run in find_runs(folder)])
    found = everything.where(*filters)
    if not found:
        _check_no_column(everything, filters)
    if arguments.sort:
        found = found.sorted_by(arguments.sort)
    columns = arguments.columns.split(",") if arguments.columns else None
    rows = found.to_rows(columns)

    def work() -> None:
        if arguments.csv:
            sys.stdout.write(found.to_frame(columns).to_csv(index=False))
        else:
            hidden = set() if arguments.json or columns else {"folder"}  # it ends in the name
            print_table(without(rows, hidden), as_json=arguments.json)
        if not arguments.json and not arguments.csv:
            print(f"{len(found)} of {len(everything)} runs")  # noqa: T201

    return work


def _check_no_column(everything: "Runs", filters: list[str]) -> None:
    """Raise `ConfigError` for the name of a column that stands where a part of a run's name is meant, if no run has it."""
    from interp.errors import ConfigError

    columns = {short for key in everything.keys for short in (key, key.rpartition(".")[2])}
    for word in filters:
        if word in columns and not everything.where(word):
            remedy = f"Write a comparison such as {word}=… or '{word}<…', or --sort={word}"
            raise ConfigError(f"runs named {word!r}", f"no run's name holds it, and {word} is a column", remedy)
