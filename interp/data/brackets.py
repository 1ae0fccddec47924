"""Balanced brackets: a string of brackets, then whether it is balanced."""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from interp.config import setting
from interp.data.tasks import DrawnTask, task

_PAIRS = ("()", "[]", "{}", "<>")
Brackets = Int[Tensor, "sequence length"]  # type k opens as 2 k and closes as 2 k + 1


@task
class BracketsConfig(DrawnTask):
    """A string of brackets, then whether it is balanced: each bracket closed by one of its type, inner ones first.

    About half are balanced, uniform among all nestings. The others were so before one bracket was replaced, or two changed places
    (then every type still opens as often as it closes, and counting does not tell).
    """

    kind: Literal["brackets"] = setting("brackets", "which data this is")
    n_types: Annotated[int, Field(ge=1, le=len(_PAIRS))] = setting(2, "types of brackets, out of () [] {} <>")
    length: Annotated[int, Field(ge=2)] = setting(20, "brackets in the string, an even number; a sequence has two tokens more")

    def __post_init__(self) -> None:
        if self.length % 2:
            raise ValueError(f"length must be even, not {self.length}: half of the brackets close the other half")

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("BOS", *"".join(_PAIRS[: self.n_types]), "unbalanced", "balanced")

    def draw(self, n_sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        string = self._balanced(n_sequences, generator)
        fate = torch.randint(4, (n_sequences, 1), generator=generator)  # 0, 1: left alone; 2: one replaced; 3: two swapped
        string = torch.where(fate == 2, self._replaced(string, generator), string)
        string = torch.where(fate == 3, self._swapped(string, generator), string)
        verdict = 2 * self.n_types + is_balanced(string).long()
        tokens = 1 + torch.cat([string, verdict[:, None]], dim=1)
        return tokens, torch.arange(self.length + 1) == self.length

    def _balanced(self, n_sequences: int, generator: torch.Generator) -> Brackets:
        """Uniform nestings, by the cycle lemma: one turn of n openings and n + 1 closings is balanced up to its last step."""
        n_steps = self.length + 1
        order = torch.rand(n_sequences, n_steps, generator=generator, dtype=torch.float64).argsort(dim=1)
        step = torch.where(order < self.length // 2, 1, -1)
        lowest = step.cumsum(dim=1).argmin(dim=1, keepdim=True)  # the first lowest place is where that turn ends
        step = step.gather(1, (torch.arange(n_steps) + lowest + 1) % n_steps)[:, : self.length]
        types = torch.randint(self.n_types, (n_sequences, self.length), generator=generator)
        return _typed(step, types)

    def _replaced(self, string: Brackets, generator: torch.Generator) -> Brackets:
        place = torch.randint(self.length, (len(string), 1), generator=generator)
        shift = torch.randint(1, 2 * self.n_types, (len(string), 1), generator=generator)
        return string.scatter(1, place, (string.gather(1, place) + shift) % (2 * self.n_types))

    def _swapped(self, string: Brackets, generator: torch.Generator) -> Brackets:
        first = torch.randint(self.length, (len(string), 1), generator=generator)
        keys = torch.rand(string.shape, generator=generator, dtype=torch.float64)
        second = keys.masked_fill(string == string.gather(1, first), -1).argmax(dim=1, keepdim=True)  # another bracket
        places = torch.cat([first, second], dim=1)
        return string.scatter(1, places, string.gather(1, places.flip(1)))


def is_balanced(string: Brackets) -> Bool[Tensor, " sequence"]:
    """Whether each row is balanced: every closing bracket meets an open one of its type, and none is left open."""
    n_rows, length = string.shape
    stack = torch.full((n_rows, length + 2), -1)  # the types that are open, from place 1 up; place 0 is never a type
    depth = torch.zeros(n_rows, 1, dtype=torch.long)
    right = torch.ones(n_rows, 1, dtype=torch.bool)
    for bracket in string.split(1, dim=1):
        opens, kind = bracket % 2 == 0, bracket // 2
        right &= opens | (stack.gather(1, depth) == kind)
        depth = (depth + torch.where(opens, 1, -1)).clamp(min=0)
        stack = torch.where(opens, stack.scatter(1, depth, kind), stack)
    return (right & (depth == 0))[:, 0]


def _typed(step: Int[Tensor, "sequence length"], types: Int[Tensor, "sequence length"]) -> Brackets:
    """Brackets for steps +1 and -1: an opening has the type drawn for it, a closing that of the opening it belongs to."""
    stack = torch.zeros(len(step), step.shape[1] + 2, dtype=torch.long)
    depth = step.cumsum(dim=1)
    brackets = []
    for place in range(step.shape[1]):
        opens = step[:, place : place + 1] == 1
        level = depth[:, place : place + 1] + torch.where(opens, 0, 1)  # of this bracket and of its partner
        stack = torch.where(opens, stack.scatter(1, level, types[:, place : place + 1]), stack)
        brackets.append(2 * stack.gather(1, level) + torch.where(opens, 0, 1))
    return torch.cat(brackets, dim=1)
