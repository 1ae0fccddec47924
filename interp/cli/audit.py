"""Which sites of a model can be read and written, each of them tried.

  interp audit conv-attn
  interp audit ./my-model --json                       one row per site and layer

A site that exists may never fire, hold something else than its name says, or drop what is written
there: then a probe or an ablation would be silently wrong. The findings are those of interp.audit.
"""

import argparse
from typing import TYPE_CHECKING, Any

from interp.cli.inputs import add_model, open_model
from interp.cli.results import add_output, check_output, print_rows, rows_of, write

if TYPE_CHECKING:
    from interp.cli.main import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp audit` understands."""
    add_model(parser)
    add_output(parser, saves=False)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model; the work is to try its sites."""
    check_output(arguments)
    model: Any = open_model(arguments)

    def work() -> None:
        from interp.models import audit

        found = audit(model)
        if arguments.page is not None:
            from interp.report import Table

            write(arguments, [Table(found.to_frame(), "Each site that was tried.")], None)
        if arguments.json or arguments.csv:
            print_rows(arguments, rows_of(found.to_frame()))
        else:
            print(found)  # noqa: T201

    return work
