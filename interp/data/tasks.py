"""Tasks: generated tokens of which the right answer is known. A task of your own is a class of about ten lines:

@task
class Parity(DrawnTask):
    '''Bits, then whether the number of ones among them is odd.'''

    kind: Literal["parity"] = "parity"
    n_bits: int = setting(8, "bits in a sequence")

    @property
    def symbols(self):
        return ("BOS", "0", "1")

    def draw(self, n_sequences, generator):
        bits = torch.randint(2, (n_sequences, self.n_bits), generator=generator)
        tokens = torch.cat([bits, bits.sum(dim=1, keepdim=True) % 2], dim=1) + 1
        return tokens, torch.arange(self.n_bits + 1) == self.n_bits

after which `data.kind=parity` names it in every configuration.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar, dataclass_transform

import torch
import xxhash
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from interp.config import setting, settings
from interp.data.tokens import DATA, SPLITS, TokenData, tokens_fingerprint
from interp.errors import ConfigError, DataError
from interp.registry import kind_of
from interp.seeds import seed_for

T = TypeVar("T")
Rows = tuple[Int[Tensor, "sequence pos"], Bool[Tensor, "sequence pos"]]
Positive = Annotated[int, Field(gt=0)]

_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_MOST_DRAWS = 50


@dataclass_transform(kw_only_default=True, frozen_default=True)
def task(cls: type[T]) -> type[T]:
    """Make `cls` a settings class and register it as a kind of data, so that configurations can name it (a decorator).

    It derives from `DrawnTask`, or from `Task` when it makes its splits itself. Raises `ConfigError` for any other class, and
    where `Registry.register` does.
    """
    if not issubclass(cls, Task):
        raise ConfigError(
            f"the task {cls.__name__}", "it is not a Task", "Derive it from interp.data.DrawnTask or interp.data.Task"
        )
    return DATA.register(settings(cls))


@settings
class Task(ABC):
    """Generated data in three splits, with its answers. What a configuration names is a subclass under `@task`."""

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """The name of each token id, for display. The first, id 0, is BOS."""

    @abstractmethod
    def splits(self) -> Mapping[str, Rows]:
        """For train, validation and test: token ids without BOS, and True at the tokens that are asked for."""

    @property
    def floor(self) -> float:
        """The smallest mean loss over the answers that any model can expect, in nats: 0, as each follows."""
        return 0.0

    @property
    def description(self) -> str:
        """What this is, in one line."""
        sentence = (inspect.getdoc(type(self)) or "").split("\n")[0].rstrip(".")
        return f"{kind_of(type(self))}: {sentence}"

    def load(self) -> TokenData:
        """The three splits, BOS (id 0) before every row. Equal settings give equal tokens.

        Raises `DataError` when the task's own rows, masks and symbols do not fit together, or when it has too few sequences.
        """
        splits, answers = {}, {}
        for split, (tokens, mask) in self.splits().items():
            splits[split] = torch.nn.functional.pad(tokens, (1, 0), value=0)
            answers[split] = torch.nn.functional.pad(mask, (1, 0), value=False)
        return TokenData(
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            d_vocab=len(self.symbols),
            tokenizer=None,
            bos_id=0,
            fingerprint=tokens_fingerprint(*splits.values()),
            description=self.description,
            answers=answers,
            floor=self.floor,
            symbols=self.symbols,
        )


@settings
class DrawnTask(Task):
    """A task whose sequences are drawn at random, as many as are wanted.

    No sequence stands in two splits: each is assigned to one by a hash of its tokens (80 % of all possible sequences to train,
    10 % to validation and to test) and each split draws until it has enough. In a small space training sees sequences twice.
    """

    n_train: Positive = setting(8192, "number of training sequences")
    n_validation: Positive = setting(512, "number of validation sequences, and of test sequences")
    seed: int = setting(0, "seed of all sequences; each split draws from a stream of its own")

    disjoint: ClassVar[bool] = True  # False for tasks whose probabilities a split by content would bend

    @abstractmethod
    def draw(self, n_sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n_sequences` random rows of one length, and which of their tokens are asked for.

        Tokens: ids from 1 up, without BOS, which is put before them. Answers: True where a token follows from those before it;
        one mask for all rows, or one for each. All randomness comes from `generator`.
        """

    def splits(self) -> Mapping[str, Rows]:
        sizes = {"train": self.n_train, "validation": self.n_validation, "test": self.n_validation}
        return {split: self._draw_split(split, size) for split, size in sizes.items()}

    def _draw_split(self, split: str, size: int) -> Rows:
        generator = torch.Generator().manual_seed(seed_for(str(kind_of(type(self))), self.seed, split))
        share = _SHARES[split] if self.disjoint else 1.0
        at_once = math.ceil(1.1 * size / share) + 16 if self.disjoint else size
        drawn: list[Rows] = []
        found = 0
        for _ in range(_MOST_DRAWS):
            tokens, answers = self._checked(at_once, generator)
            mine = _belongs_to(tokens, split) if self.disjoint else torch.ones(len(tokens), dtype=torch.bool)
            drawn.append((tokens[mine], answers[mine]))
            found += int(mine.sum())
            if found >= size:
                return torch.cat([rows for rows, _ in drawn])[:size], torch.cat([masks for _, masks in drawn])[:size]
        n_drawn = at_once * _MOST_DRAWS
        raise DataError(
            f"task {kind_of(type(self))!r}, split {split!r}",
            f"it has too few different sequences: {found} of {n_drawn} drawn belong to this split, and {size} are needed",
            "Make the sequences longer, or give them more symbols",
        )

    def _checked(self, n_sequences: int, generator: torch.Generator) -> Rows:
        tokens, answers = self.draw(n_sequences, generator)
        d_vocab = len(self.symbols)
        wrong = None
        if tokens.ndim != 2 or len(tokens) != n_sequences or tokens.is_floating_point():
            wrong = f"draw({n_sequences}) gave {tokens.dtype} of shape {tuple(tokens.shape)}, not {n_sequences} rows of token ids"
        elif answers.dtype != torch.bool or answers.shape not in (tokens.shape, tokens.shape[1:]):
            shapes = f"shape {tuple(answers.shape)}, its tokens of shape {tuple(tokens.shape)}"
            wrong = f"its answers are {answers.dtype} of {shapes}"
        elif tokens.min() < 1 or tokens.max() >= d_vocab:
            wrong = f"its ids are {int(tokens.min())} to {int(tokens.max())}, and its symbols BOS and 1 to {d_vocab - 1}"
        elif not answers.any():
            wrong = "it asks for no token: its answers are all False"
        if wrong is not None:
            raise DataError(f"task {kind_of(type(self))!r}", wrong, "See the example at the top of interp.data.tasks")
        return tokens.long(), answers.expand(tokens.shape)


def load_task(config: Task) -> TokenData:
    """The three splits of a task; the same as `config.load()`."""
    return config.load()


def numbers(count: int) -> tuple[str, ...]:
    """The names 0, 1, … of `count` symbols."""
    return tuple(map(str, range(count)))


def _belongs_to(tokens: Int[Tensor, "sequence pos"], split: str) -> Bool[Tensor, " sequence"]:
    """Whether the hash of a row's tokens falls to this split; the shares of the splits lie side by side in [0, 1)."""
    start = sum(_SHARES[earlier] for earlier in SPLITS[: SPLITS.index(split)])
    contents = tokens.contiguous().numpy().astype("<i8", copy=False)
    places = torch.tensor([xxhash.xxh3_64_intdigest(row.tobytes()) / 2**64 for row in contents], dtype=torch.float64)
    return (places >= start) & (places < start + _SHARES[split])
