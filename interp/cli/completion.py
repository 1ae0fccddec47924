"""Print a script that completes commands, options and model names in your shell.

eval "$(interp completion bash)"                     in ~/.bashrc
eval "$(interp completion zsh)"                      in ~/.zshrc, after compinit
interp completion fish > ~/.config/fish/completions/interp.fish
"""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.cli.main import Work

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp completion` understands."""
    parser.add_argument("shell", choices=SHELLS, help="which shell the script is for")


def prepare(arguments: argparse.Namespace) -> "Work":
    """The work is to print the script."""
    import argcomplete

    script = argcomplete.shellcode(["interp"], shell=arguments.shell)
    return lambda: print(script)  # noqa: T201


def complete() -> None:
    """Answer the shell's question, which it asks through the environment, and end the process."""
    import argcomplete

    from interp.cli.main import COMMANDS, module_of

    parser = argparse.ArgumentParser(prog="interp")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        module_of(name).add_arguments(commands.add_parser(name, help=summary))
    argcomplete.autocomplete(parser)
    sys.exit(0)  # only where the question was not a whole one
