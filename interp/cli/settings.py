"""Show every setting of a run: its name, its default and what it means.

interp settings                                      all, of the default kinds of model and data
interp settings model.kind=transformer               those of another kind
interp settings train                                only one group
"""

import argparse
from typing import TYPE_CHECKING

from interp.cli.common import add_import, import_modules
from interp.cli.train import divided

if TYPE_CHECKING:
    from interp.cli.main import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp settings` understands."""
    parser.add_argument("words", nargs="*", metavar="GROUP|key=value", help="show only this group, or other kinds")
    add_import(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Build the settings asked for; the work is to print them."""
    groups, overrides = divided(arguments.words)
    import_modules(arguments.modules)

    from interp.config import describe_fields, override
    from interp.data import DATA
    from interp.errors import ConfigError, nearest
    from interp.models import ARCHITECTURES
    from interp.training import RunConfig

    rows = describe_fields(override(RunConfig(), overrides))
    names = {name.split(".")[0] for name, _, _ in rows}
    wrong = [group for group in groups if group not in names]
    if wrong:
        raise ConfigError(
            f"group {wrong[0]!r}", f"the groups are {', '.join(sorted(names))}", f"{nearest(wrong[0], names)}Name one"
        )

    def work() -> None:
        for name, default, sentence in rows:
            if not groups or name.split(".")[0] in groups:
                print(f"{name} = {default}\n    {sentence or 'which of the kinds below'}")  # noqa: T201
        print(f"\nkinds of model: {', '.join(ARCHITECTURES)}\nkinds of data: {', '.join(DATA)}")  # noqa: T201

    return work
