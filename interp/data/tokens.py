"""What every source of data gives to training: three splits of tokens, and how to read them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.registry import Registry

SPLITS = ("train", "validation", "test")

DATA = Registry("data")
"""Every kind of data that a configuration can name; `@DATA.register` adds one, and `@task` a generated one."""


@runtime_checkable
class DataSource(Protocol):
    """Settings of a kind of data: a settings class with this method."""

    def load(self) -> "TokenData":
        """The tokens that these settings describe; equal settings give equal tokens."""
        ...


@dataclass(frozen=True)
class TokenData:
    """Tokens in three splits, none of which shares a row's origin with another. Every row begins with `bos_id`.

    `d_vocab` is one more than the largest id that can occur; `tokenizer` is None for tasks that have no text; `fingerprint` is a
    hash of all tokens, the same on every machine; `description` says in one line what this is.

    Tasks say more. `answers` marks, for each split by name, the tokens that are asked for: each follows from what comes before it
    (in a Markov language: as far as it can). `floor` is the smallest mean loss over them that any model can expect, in nats.
    `symbols` names every token id for display. `padded` says that rows end in padding, which `answers` leaves out.
    """

    train: Int[Tensor, "train_sequence pos"]
    validation: Int[Tensor, "validation_sequence pos"]
    test: Int[Tensor, "test_sequence pos"]
    d_vocab: int
    tokenizer: PreTrainedTokenizerFast | None
    bos_id: int
    fingerprint: str
    description: str
    answers: Mapping[str, Bool[Tensor, "_ pos"]] | None = None
    floor: float | None = None
    padded: bool = False
    symbols: tuple[str, ...] | None = None


def tokens_fingerprint(*splits: Int[Tensor, "_ _"]) -> str:
    """32 hex digits that depend on each split's shape and tokens."""
    digest = hashlib.sha256()
    for tokens in splits:
        digest.update(repr(tuple(tokens.shape)).encode())
        digest.update(tokens.long().cpu().contiguous().numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()[:32]
