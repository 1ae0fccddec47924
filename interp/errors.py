"""Every error a user of `interp` can meet. All share one base class and one form.

The form is: *what was asked: what is true. What to do.* The constructor takes the three parts, so no error can be raised
without saying how to mend it.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class InterpError(Exception):
    """Base class of all errors raised on purpose by `interp`.

    `asked` is what the caller wanted, `truth` what is the case, `remedy` what to do about it.
    """

    def __init__(self, asked: str, truth: str, remedy: str):
        super().__init__(f"{asked}: {truth}. {remedy}")
        self.asked, self.truth, self.remedy = asked, truth, remedy

    def __reduce__(self) -> tuple:  # the default would rebuild it from the joined message and lose the parts
        return type(self), (self.asked, self.truth, self.remedy)


class ConfigError(InterpError):
    """A setting has an unknown name or an impossible value."""


class DataError(InterpError):
    """A corpus, tokenizer, task or batch of tokens cannot be used."""


class ModelError(InterpError):
    """A model cannot be opened, or lacks what was asked of it."""


class RunFolderError(InterpError):
    """A run folder is missing, unfinished or damaged."""


class ReportError(InterpError):
    """A report cannot be built from what was given."""


class ResultError(InterpError):
    """A result's parts do not fit together, or a file is not a result."""


class SiteError(InterpError):
    """A site does not exist in this model, never fires, or cannot be written."""


def nearest(name: str, options: Iterable[str]) -> str:
    """'Did you mean …? ' for the closest option, or '' when none is close."""
    close = get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}? " if close else ""
