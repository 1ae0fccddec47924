"""A page about one model: what can be read, what each head attends to, what it is worth, and whether that is the cause.

  interp report conv-attn                              writes reports/conv-attn/index.html
  interp report gpt2 --text essay.txt --out pages/gpt2
  interp report --index reports                        a page that lists all the reports in a folder

The page opens offline, and is the same to the byte when it is made again from the same model. What a
model cannot do is said on it. It is the page that interp.overview returns.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.common import check_folder
from interp.cli.inputs import add_batch_size, add_model, add_period, open_model, shown_name, usual_period
from interp.cli.texts import encode, read_text

if TYPE_CHECKING:
    from interp.cli.main import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp report` understands."""
    add_model(parser, optional=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--text", metavar="FILE", help="a text to show token by token, or - for standard input")
    which.add_argument(
        "--prompt", metavar="TEXT", help="the same from the command line (token ids for a model without a tokenizer)"
    )
    which.add_argument("--index", type=Path, metavar="FOLDER", help="instead, write a page that lists all reports in a folder")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the page goes (default: reports/NAME)")
    add_period(parser)
    add_batch_size(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model; the work is to measure and to write the page."""
    from interp.errors import ConfigError

    if (arguments.index is None) == (arguments.model is None):
        raise ConfigError("interp report", "it takes a model, or --index and a folder", "Give one of the two")
    if arguments.index is not None:
        return _index(arguments.index)
    out = arguments.out or Path("reports") / slug(shown_name(arguments.model))
    check_folder("--out", out)
    model: Any = open_model(arguments)
    text = arguments.prompt if arguments.text is None else read_text(arguments.text)
    example = None if text is None else encode(model, text)
    period = arguments.period or usual_period(arguments.model, model)

    def work() -> None:
        from interp.pages.overview import overview
        from interp.report import write_page

        page = overview(
            model,
            example,
            period=period,
            seed=arguments.seed or 0,
            name=shown_name(arguments.model),
            command=arguments.command,
            batch_size=arguments.batch_size,
        )
        print(write_page(page, out))  # noqa: T201

    return work


def _index(folder: Path) -> "Work":
    from interp.errors import ConfigError

    if not folder.is_dir():
        raise ConfigError(f"--index {folder}", "it is not a folder", "Name the folder that holds the reports")
    check_folder("--index", folder)
    from interp.report import write_index

    return lambda: print(write_index(folder))  # noqa: T201


def slug(name: str) -> str:
    """A name without what paths cannot hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
