"""Command lines: that of the studies, and the command `interp`, one file per subcommand.

Nothing here imports torch before a command has work to do: help, and a mistake in an argument, are answered at once.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["StudyCommand", "end_study", "run_study", "study_command"]

if TYPE_CHECKING:
    from interp.cli.study import StudyCommand, end_study, run_study, study_command


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'interp.cli' has no {name!r}")
    from interp.cli import study

    return getattr(study, name)
