"""The command `interp`: finds the subcommand, and turns what goes wrong into one message and an exit code.

A subcommand is a module of this package with `add_arguments(parser)` and `prepare(arguments)`, named in `COMMANDS`. `prepare`
checks what it was given and returns the work as a function; it imports what is heavy when it is called. `arguments.command` is
the whole command line, for provenance.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

COMMANDS = {
    "score": "attention scores of every head: induction, previous token, …",
    "ablate": "what each head, layer, MLP or tap is worth, or a few of them together",
    "patch": "activation patching between prompts that call for different answers",
    "smear": "how much of each head's key comes from the token before",
    "sample": "continue a prompt",
    "audit": "which sites of a model can be read and written, each tried",
    "report": "everything above about one model, as a page",
    "calibrate": "every probe on models whose answers are known on paper",
    "train": "train the runs that configuration files stand for",
    "runs": "list, filter and sort run folders",
    "settings": "show every setting of a run, with its default and what it means",
    "completion": "print a script that completes commands, options and models in your shell",
}
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
WHOLE = "every file that was written is whole"
Work = Callable[[], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `interp COMMAND …`; returns the exit code.

    0: done. 1: something failed while working. 2: a mistake in the arguments or in a configuration, found before any work.
    130: interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what could stand here
        from interp.cli.completion import complete

        complete()
    parser = _parser()
    if not words or words[0].startswith("-"):
        parser.parse_args(words)  # ends the program for --help, --version and unknown options
        parser.print_help(sys.stderr)
        return WRONG_USE
    command, *rest = words
    if command not in COMMANDS:
        from interp.errors import nearest

        parser.error(f"there is no command {command!r}. {nearest(command, COMMANDS)}Commands: {', '.join(COMMANDS)}")
    module = module_of(command)
    own = argparse.ArgumentParser(
        prog=f"{parser.prog} {command}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(own)
    arguments = own.parse_intermixed_args(rest)
    arguments.command = shlex.join([parser.prog, *words])
    return _run(lambda: module.prepare(arguments), own.prog, getattr(module, "IF_INTERRUPTED", WHOLE))


def module_of(command: str) -> ModuleType:
    """The module of a subcommand."""
    return import_module(f"interp.cli.{command}")


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="interp",
        usage="interp COMMAND [options]",
        description="Which head does what, and is it really the cause?",
        epilog=f"commands:\n{commands}\n\ninterp COMMAND --help explains each of them, with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and stop")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        parser.exit(0, f"interp {version('interp')}\n")


def _run(prepare: Callable[[], Work], prog: str, if_interrupted: str) -> int:
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
        _say(f"{prog}: interrupted; {if_interrupted}")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
