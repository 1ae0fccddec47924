"""What every source of data gives to training: three splits of tokens, and how to read them."""

import hashlib
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class TokenData:
    """Tokens in three splits, none of which shares a row's origin with another. Every row begins with `bos_id`.

    `d_vocab` is one more than the largest id that can occur; `tokenizer` is None for tasks that have no text; `fingerprint` is a
    hash of all tokens, the same on every machine; `description` says in one line what this is.
    """

    train: Int[Tensor, "train_sequence pos"]
    validation: Int[Tensor, "validation_sequence pos"]
    test: Int[Tensor, "test_sequence pos"]
    d_vocab: int
    tokenizer: PreTrainedTokenizerFast | None
    bos_id: int
    fingerprint: str
    description: str


def tokens_fingerprint(*splits: Int[Tensor, "_ _"]) -> str:
    """32 hex digits that depend on each split's shape and tokens."""
    digest = hashlib.sha256()
    for tokens in splits:
        digest.update(repr(tuple(tokens.shape)).encode())
        digest.update(tokens.long().cpu().contiguous().numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()[:32]
