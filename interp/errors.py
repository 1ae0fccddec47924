"""Every error a user of `interp` can meet. All share one base class and one form.

The form is: *what was asked: what is true. What to do.* The constructor takes the three parts, so no error can be raised
without saying how to mend it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


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


def with_article(name: str) -> str:
    """The name of a type behind its article, as it is spoken: an AttnAttn, a Conv1D, an MLP."""
    spelt_out = (len(name) > 1 and name[:2].isupper()) or name[:2] == "nd"  # letter by letter, in front at least
    return f"{'an' if name[:1].upper() in tuple('AEFHILMNORSX' if spelt_out else 'AEIO') else 'a'} {name}"


def kind_of(value: object) -> str:
    """What a value is, for a message: an ndarray, a str; None is None."""
    return "None" if value is None else with_article(type(value).__name__)


def nearest(name: str, options: Iterable[str]) -> str:
    """'Did you mean …? ' for the closest option, or '' when none is close, capitals being told apart or not."""
    options = list(options)
    folded = {option.casefold(): option for option in options}
    close = get_close_matches(name, options, n=1, cutoff=0.6)
    close = close or [folded[found] for found in get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)]
    return f"Did you mean {close[0]!r}? " if close else ""


def each_a(kind: type[T], given: object, asked: str, remedy: str, error: type[InterpError] = InterpError) -> list[T]:
    """`given`, a list or the like whose every entry is a `kind`, as a list. Raises `error` for a single one or other entries."""
    if isinstance(given, str | bytes | type | kind) or not isinstance(given, Iterable):
        raise error(asked, f"a list of {kind.__name__} objects was expected, not {_shown(given)}", remedy)
    entries = list(given)
    for entry in entries:
        if not isinstance(entry, kind):
            raise error(asked, f"{_shown(entry)} is in the list and is no {kind.__name__}", remedy)
    return entries


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return repr(value) if isinstance(value, str | bytes | int | float) else kind_of(value)
