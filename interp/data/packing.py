"""From texts to rows of tokens of one length."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.errors import DataError

_CHARACTERS_AT_ONCE = 4_000_000  # bounds the memory of the tokenizer's own records, which are large beside the ids


def encode_documents(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The ids of each text, without any special token: what looks like one inside a text (`<|bos|>`) is spelt out."""
    return list(
        chain.from_iterable(
            tokenizer(
                group,
                add_special_tokens=False,
                split_special_tokens=True,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,  # else it warns of texts longer than the model, which are about to be cut
            )["input_ids"]
            for group in _groups(texts)
        )
    )


def pack(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, *, length: int) -> Int[Tensor, "sequence pos"]:
    """Documents as rows of `length` tokens, each row BOS and then `length - 1` consecutive tokens of the joined documents.

    The documents are joined in their order with one BOS between two of them. Every row begins with BOS, so that each head
    has the same place to rest and position 0 never carries a score; every token of the stream stands in exactly one row, save the
    last fewer than `length - 1`, which are dropped. A row may hold several documents, with BOS where the next begins.

    Raises `DataError` when the texts do not fill one row, or when `length` is less than 2.
    """
    if length < 2:
        raise DataError(f"sequences of {length} tokens", "each holds BOS and at least one more", "Use a length of 2 or more")
    bos = bos_id(tokenizer)
    ids = [np.asarray(document, dtype=np.int64) for document in encode_documents(texts, tokenizer) if document]
    separated = [part for document in ids for part in (np.asarray([bos], dtype=np.int64), document)][1:]
    stream = torch.from_numpy(np.concatenate(separated)) if separated else torch.empty(0, dtype=torch.int64)
    n_rows = len(stream) // (length - 1)
    if n_rows == 0:
        raise DataError(
            f"sequences of {length} tokens",
            f"the text has {len(stream)} tokens in {len(texts)} documents, and one sequence needs {length - 1}",
            "Use a longer text or a shorter length",
        )
    rows = stream[: n_rows * (length - 1)].view(n_rows, length - 1)
    return torch.cat([repeat(torch.tensor([bos]), "pos -> sequence pos", sequence=n_rows), rows], dim=1)


def bos_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id of the BOS token. Raises `DataError` when the tokenizer has none (`load_tokenizer` always gives one)."""
    if tokenizer.bos_token_id is None:
        raise DataError("the BOS token", "this tokenizer has none", "Open it with load_tokenizer, or set tokenizer.bos_token")
    return int(tokenizer.bos_token_id)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
