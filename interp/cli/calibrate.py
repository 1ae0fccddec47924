"""Every probe on models that were wired by hand, whose answers are known on paper: expected and measured.

  interp calibrate                                     all of them, a few seconds
  interp calibrate induction_circuit smeared_induction only those whose names begin so
  interp calibrate --json

Rows of controls are models that must not show an effect, or must show it only under the wrong probe.
The exit code is 1 when a row is not within its tolerance.
"""

import argparse
from typing import TYPE_CHECKING

from interp.cli.results import print_rows, rows_of

if TYPE_CHECKING:
    from interp.cli.main import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp calibrate` understands."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="models wired by hand (default: all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the table as JSON")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")


def prepare(arguments: argparse.Namespace) -> "Work":
    """Build the models that were named; the work is to measure them."""
    from interp.errors import ConfigError, InterpError, nearest
    from interp.models.constructed import all_constructed

    made = all_constructed()
    names = [one.name for one in made]
    for word in arguments.names:
        if not any(name.startswith(word) for name in names):
            stems = [name.partition("(")[0] for name in names]
            raise ConfigError(
                f"calibrating {word!r}", f"the models are {', '.join(names)}", f"{nearest(word, stems)}Name one of them"
            )
    chosen = [one for one in made if not arguments.names or one.name.startswith(tuple(arguments.names))]

    def work() -> None:
        from interp.calibration import calibrate

        found = calibrate(chosen)
        if arguments.json or arguments.csv:
            print_rows(arguments, rows_of(found.to_frame()))
        else:
            print(found)  # noqa: T201
        if not found.passed:
            failed = [f"{row.probe} on {row.model}" for row in found.rows if not row.passed]
            told = f"{len(failed)} of {len(found.rows)} rows are not within their tolerance: {', '.join(failed)}"
            raise InterpError("calibration", told, "Look at the probe before you trust it")

    return work
