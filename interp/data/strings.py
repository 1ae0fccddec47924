"""Tasks on random strings: copy, reverse, sort, histogram. A row is BOS, the string, SEP, and what is asked for."""

from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.config import setting, settings
from interp.data.tasks import DrawnTask, Positive, numbers, task

Strings = Int[Tensor, "sequence length"]


@settings
class StringTask(DrawnTask):
    """A random string (symbols uniform, with repetition), SEP, and a string of the same length that follows from it."""

    n_symbols: Positive = setting(26, "number of different symbols in the string")
    length: Positive = setting(16, "symbols in the string; a sequence has 2 * length + 2 tokens")

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("BOS", "SEP", *numbers(self.n_symbols))

    @abstractmethod
    def answer(self, string: Strings) -> Strings:
        """The answer, for strings of symbols 0, 1, …, in the same numbers."""

    def draw(self, n_sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        string = torch.randint(self.n_symbols, (n_sequences, self.length), generator=generator)
        separator = torch.full((n_sequences, 1), -1)
        tokens = torch.cat([string, separator, self.answer(string)], dim=1) + 2
        return tokens, torch.arange(2 * self.length + 1) > self.length


@task
class CopyConfig(StringTask):
    """A random string, SEP, the same string."""

    kind: Literal["copy"] = setting("copy", "which data this is")

    def answer(self, string: Strings) -> Strings:
        return string


@task
class ReverseConfig(StringTask):
    """A random string, SEP, the same string from its end to its beginning."""

    kind: Literal["reverse"] = setting("reverse", "which data this is")

    def answer(self, string: Strings) -> Strings:
        return string.flip(1)


@task
class SortConfig(StringTask):
    """A random string of numbers, SEP, the same numbers in ascending order."""

    kind: Literal["sort"] = setting("sort", "which data this is")

    def answer(self, string: Strings) -> Strings:
        return string.sort(dim=1).values


@task
class HistogramConfig(StringTask):
    """A random string, SEP, and for each of its symbols in turn how often that occurs in the string."""

    kind: Literal["histogram"] = setting("histogram", "which data this is")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*super().symbols, *(f"x{count}" for count in range(1, self.length + 1)))

    def answer(self, string: Strings) -> Strings:
        counts = torch.zeros(len(string), self.n_symbols, dtype=torch.long).scatter_add(1, string, torch.ones_like(string))
        return self.n_symbols + counts.gather(1, string) - 1
