"""Which token a word is, in this tokenizer and in this place: tokenizers differ in spaces, digits and merges."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.data.packing import bos_id, encode_documents
from interp.errors import DataError


def check_tokenizer(asked: str, tokenizer: Any) -> None:
    """Raise `DataError` where there is none, as with a model that has no text."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        truth = f"they are made of text, and the tokenizer given is a {type(tokenizer).__name__}"
        raise DataError(
            asked, truth, "Give a fast tokenizer, e.g. model.tokenizer of a language model; induction_pairs need none"
        )


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of a text, without special tokens; what looks like one is spelt out."""
    return encode_documents([text], tokenizer)[0]


def continuation(tokenizer: PreTrainedTokenizerFast, text: str, more: str) -> list[int] | None:
    """The ids that `more` adds behind `text`, or None when it changes the tokens of `text`.

    It is asked in place, because the same word is another token at the start of a text, or has a space of its own there.
    """
    before, after = encode_documents([text, text + more], tokenizer)
    return after[len(before) :] if after[: len(before)] == before else None


def single_continuation(tokenizer: PreTrainedTokenizerFast, text: str, more: str) -> int | None:
    """The one id that `more` adds behind `text`, or None when it is not one token."""
    added = continuation(tokenizer, text, more)
    return added[0] if added is not None and len(added) == 1 else None


def single_words(tokenizer: PreTrainedTokenizerFast, words: tuple[str, ...], before: str = "to") -> dict[str, int]:
    """Those of `words` that are one token behind a space, with their ids; no two of them share an id."""
    found = {word: single_continuation(tokenizer, before, f" {word}") for word in words}
    unknown = tokenizer.unk_token_id
    kept = {word: number for word, number in found.items() if number is not None and number != unknown}
    return {word: number for word, number in kept.items() if list(kept.values()).count(number) == 1}


def rows_of(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], bos: bool
) -> tuple[Int[Tensor, "row pos"], tuple[tuple[str, ...], ...]]:
    """Texts of equal length as rows of ids, with BOS in front if `bos`, and the text of each token."""
    start = [bos_id(tokenizer)] if bos else []
    rows = [start + ids for ids in encode_documents(texts, tokenizer)]
    return torch.tensor(rows), tuple(tuple(str(tokenizer.decode([number])) for number in row) for row in rows)
