"""A Markov (n-gram) language whose entropy is known exactly."""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from interp.config import setting
from interp.data.tasks import DrawnTask, Positive, numbers, task
from interp.seeds import seed_for

_MOST_CONTEXTS = 1024


@task
class MarkovConfig(DrawnTask):
    """A language in which each symbol depends on the `order` symbols before it, by a fixed random table.

    Rows begin in the stationary distribution, so that every symbol after the first `order` has the same expected surprise: the
    entropy rate, which is `floor`. These are the answers: no model can expect a smaller mean loss over them. Splits are
    independent draws and may share sequences where those are short, since holding some out would bend the probabilities.
    """

    kind: Literal["markov"] = setting("markov", "which data this is")
    n_symbols: Annotated[int, Field(ge=2)] = setting(16, "number of different symbols")
    order: Positive = setting(1, "how many symbols back the next one depends on: 1 is a bigram language, 2 a trigram language")
    sharpness: Annotated[float, Field(ge=0, le=8)] = setting(1.5, "spread of the log-odds: 0 is uniform, larger more predictable")
    length: Positive = setting(63, "symbols in a sequence, to which BOS comes")
    language_seed: int = setting(0, "which language: seed of the table")

    disjoint: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n_symbols**self.order > _MOST_CONTEXTS:
            raise ValueError(f"n_symbols ** order must be at most {_MOST_CONTEXTS}, not {self.n_symbols}**{self.order}")
        if self.length <= self.order:
            raise ValueError(f"length must be more than order = {self.order}, not {self.length}: nothing would be asked")

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("BOS", *numbers(self.n_symbols))

    @property
    def floor(self) -> float:
        table = self.table()
        surprise = torch.special.entr(table).sum(dim=1)
        return float(stationary(table) @ surprise)

    def table(self) -> Float[Tensor, "context symbol"]:
        """P(symbol | context), float64. A context of symbols s_1 … s_k (the last one newest) is row s_1 n^(k-1) + … + s_k."""
        generator = torch.Generator().manual_seed(seed_for("markov language", self.language_seed))
        shape = self.n_symbols**self.order, self.n_symbols
        return (self.sharpness * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(dim=1)

    def draw(self, n_sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        table = self.table()
        limits = table.cumsum(dim=1)[:, :-1].contiguous()  # the last limit is 1 up to rounding: it is not looked at
        first = stationary(table).cumsum(dim=0)[:-1].contiguous()
        uniform = torch.rand(n_sequences, 1 + self.length, generator=generator, dtype=torch.float64)
        context = torch.searchsorted(first, uniform[:, 0].contiguous(), right=True)
        powers = self.n_symbols ** torch.arange(self.order - 1, -1, -1)
        rows = list((context[:, None] // powers % self.n_symbols).unbind(dim=1))
        for place in range(self.order, self.length):
            symbol = (uniform[:, place + 1, None] >= limits[context]).sum(dim=1)
            rows.append(symbol)
            context = (context * self.n_symbols + symbol) % len(table)
        return 1 + torch.stack(rows, dim=1), torch.arange(self.length) >= self.order


def stationary(table: Float[Tensor, "context symbol"]) -> Float[Tensor, " context"]:
    """How often each context occurs in an endless text: the distribution that one more symbol leaves as it is."""
    n_contexts, n_symbols = table.shape
    contexts = torch.arange(n_contexts)[:, None]
    following = (contexts * n_symbols + torch.arange(n_symbols)) % n_contexts
    moves = torch.zeros(n_contexts, n_contexts, dtype=table.dtype).scatter_add(1, following, table)
    equations = moves.T - torch.eye(n_contexts, dtype=table.dtype)
    equations[-1] = 1  # one of the equations follows from the others; instead, the probabilities sum to 1
    right = torch.zeros(n_contexts, dtype=table.dtype)
    right[-1] = 1
    return torch.linalg.solve(equations, right)
