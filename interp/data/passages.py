"""A text whose first and last sentence are the same, to look at attention on a repeat in plain language."""

import re

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.data.packing import bos_id, encode_documents
from interp.errors import DataError

REPEATED_PASSAGE = (
    "The old clockmaker set every clock by hand. "
    "Nobody asked him why he still bothered, and he never said. "
    "The old clockmaker set every clock by hand."
)
"""Our own, 27 words: the last sentence repeats the first, so a head that looks for what followed last time shows up on it."""


def check_passage(text: str) -> str:
    """The text, if its first and last sentence are the same (it may have any number between); raises `DataError` if not."""
    sentences = [sentence.strip() for sentence in re.split(r"(?<=[.!?])\s+", text.strip())]
    if len(sentences) < 2 or sentences[0] != sentences[-1]:
        raise DataError(
            "a passage that repeats",
            f"its {len(sentences)} sentences begin with {sentences[0][:60]!r} and end with {sentences[-1][:60]!r}",
            "Give a text whose last sentence is its first one again",
        )
    return text


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str, *, bos: bool = True) -> Int[Tensor, "1 pos"]:
    """One text as tokens, with BOS in front unless `bos` is False. Special tokens written in the text are spelt out.

    Raises `DataError` for a text without tokens, or a tokenizer without BOS where it is wanted.
    """
    (ids,) = encode_documents([text], tokenizer)
    if not ids:
        raise DataError("a text to encode", "it has no tokens", "Give a text with at least one character")
    return torch.tensor([[bos_id(tokenizer), *ids] if bos else ids])
