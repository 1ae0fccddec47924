"""The command `interp`: finds the subcommand, and turns what goes wrong into one message and an exit code.

A subcommand is a module of this package with `add_arguments(parser)` and `prepare(arguments)`, named in `COMMANDS`. `prepare`
checks what it was given and returns the work as a function; it imports what is heavy when it is called.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

COMMANDS = {
    "train": "train the runs that configuration files stand for",
    "runs": "list, filter and sort run folders",
    "settings": "show every setting of a run, with its default and what it means",
}
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
Work = Callable[[], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `interp COMMAND …`; returns the exit code.

    0: done. 1: something failed while working. 2: a mistake in the arguments or in a configuration, found before any work.
    130: interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not words or words[0].startswith("-"):
        parser.parse_args(words)  # ends the program for --help, --version and unknown options
        parser.print_help(sys.stderr)
        return WRONG_USE
    command, *rest = words
    if command not in COMMANDS:
        from interp.errors import nearest

        parser.error(f"there is no command {command!r}. {nearest(command, COMMANDS)}Commands: {', '.join(COMMANDS)}")
    module = import_module(f"interp.cli.{command}")
    own = argparse.ArgumentParser(
        prog=f"{parser.prog} {command}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(own)
    arguments = own.parse_intermixed_args(rest)
    return _run(lambda: module.prepare(arguments), own.prog)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="interp",
        usage="interp COMMAND [options]",
        description="Which head does what, and is it really the cause?",
        epilog=f"commands:\n{commands}\n\ninterp COMMAND --help explains each of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and stop")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        parser.exit(0, f"interp {version('interp')}\n")


def _run(prepare: Callable[[], Work], prog: str) -> int:
    from interp.errors import InterpError

    code = WRONG_USE
    try:
        work = prepare()
        code = FAILED
        work()
        sys.stdout.flush()
    except InterpError as error:
        _say(f"{prog}: {error}")
        return code
    except KeyboardInterrupt:
        _say(f"{prog}: interrupted; files are whole, and finished runs are kept: the same command goes on from there")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
