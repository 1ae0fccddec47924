"""A text whose first and last sentence are the same, to look at attention on a repeat in plain language."""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.data.packing import bos_id, encode_documents
from interp.errors import DataError, kind_of

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

    Raises `DataError` for what is no text or has no tokens, and for a tokenizer without BOS where it is wanted.
    """
    if not isinstance(text, str):
        raise DataError("a text to encode", f"it is given as {kind_of(text)}", "Give a str; several by encode_texts")
    return encode_texts(tokenizer, [text], bos=bos)


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, bos: bool = True) -> Int[Tensor, "batch pos"]:
    """Texts of equal length in tokens, a row each, as `encode_text` makes them; nothing is padded.

    Raises `DataError` where `encode_text` does, and for no texts or texts that differ in length.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        given = "none are" if isinstance(texts, Sequence) and not texts else f"{kind_of(texts)} is"
        raise DataError("texts to encode", f"{given} given", "Give a list of texts, at least one")
    wrong = [f"{kind_of(text)} at place {place}" for place, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        raise DataError("texts to encode", f"there is {wrong[0]}", "Give a list of str")
    rows = encode_documents(texts, tokenizer)
    if not all(rows):
        which = "it has" if len(rows) == 1 else f"{texts[rows.index([])]!r} at place {rows.index([])} has"
        raise DataError("a text to encode", f"{which} no tokens", "Give a text with at least one character")
    start = [bos_id(tokenizer)] if bos else []
    _check_same_length([len(start) + len(row) for row in rows])
    return torch.tensor([[*start, *row] for row in rows])


def _check_same_length(lengths: list[int]) -> None:
    if len(set(lengths)) == 1:
        return
    shown = ", ".join(map(str, lengths[:12])) + (f" … and {len(lengths) - 12} more" if len(lengths) > 12 else "")
    raise DataError(
        f"{len(lengths)} texts as one batch",
        f"they have {shown} tokens, and nothing is padded",
        "Give texts of equal length in tokens, or encode each by itself (token_losses and perplexity take a list of any lengths)",
    )
