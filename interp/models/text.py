"""Text to tokens and back for models with a tokenizer, in TransformerLens' words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens import HookedRootModule

from interp.errors import DataError, ModelError, kind_of
from interp.models.calling import device_of

Ids = Int[Tensor, "..."] | Int[np.ndarray, "..."] | Sequence[Any]


class ReadsText(HookedRootModule):
    """A hooked model that turns text into tokens and back through its `tokenizer` (None: it has none, and each call says so).

    The names and what they do are TransformerLens', but that nothing is padded or cut and that special tokens written in a text
    are spelt out instead of being read.
    """

    tokenizer: Any

    def to_tokens(
        self, text: str | Sequence[str] | Int[Tensor, "..."], prepend_bos: bool | None = None
    ) -> Int[Tensor, "batch pos"]:
        """Token ids of a text, or of several of equal length in tokens, BOS first in each, on the model's device.

        Write `prepend_bos=False` for what is only part of a prompt, such as an answer: BOS is left out. Ids given as a tensor
        come back with a batch axis added when they have none. Raises `DataError` for texts of different lengths, for what is
        neither, and for `prepend_bos` beside ids, which are left as they are; `ModelError` without a tokenizer.
        """
        if isinstance(text, Tensor):
            return _as_batch(_ids(text), prepend_bos)
        from interp.data.passages import encode_text, encode_texts

        tokenizer, bos = self._reader("turning text into tokens"), prepend_bos is not False
        if isinstance(text, str):
            return encode_text(tokenizer, text, bos=bos).to(device_of(self))
        if not isinstance(text, list | tuple):
            raise DataError("turning text into tokens", f"it is given as {kind_of(text)}", "Give a text, a list of texts, or ids")
        return encode_texts(tokenizer, text, bos=bos).to(device_of(self))

    def to_string(self, tokens: int | Ids) -> str | list[str]:
        """The text of ids [pos], or the texts of ids [batch pos], BOS and other special tokens included."""
        tokenizer = self._reader("turning tokens into text")
        ids = _ids(tokens)
        if ids.ndim > 2:
            raise DataError("turning tokens into text", f"they have shape {tuple(ids.shape)}", "Give ids [pos] or [batch pos]")
        rows = [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in ids.reshape(-1, ids.shape[-1]).tolist()]
        return rows if ids.ndim == 2 else rows[0]

    def to_str_tokens(self, text: str | Ids | Sequence[Any], prepend_bos: bool | None = None) -> list[str] | list[list[str]]:
        """Each token's own text: of a text, BOS first as in `to_tokens`, or of ids [pos] or [1 pos]; of a list, a list of each.

        Raises `DataError` for ids of several rows (`to_str_tokens(list(tokens))` spells each), and where `to_tokens` does.
        """
        tokenizer = self._reader("spelling tokens")
        if isinstance(text, list | tuple) and not all(isinstance(one, int) for one in text):
            return [self.to_str_tokens(one, prepend_bos) for one in text]  # type: ignore[return-value]
        ids = self.to_tokens(text, prepend_bos) if isinstance(text, str) else _as_batch(_ids(text), prepend_bos)
        if len(ids) != 1:
            raise DataError("spelling tokens", f"the ids have {len(ids)} rows", "Give one row, or list(tokens) for each of them")
        return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids[0].tolist()]

    def to_single_token(self, string: str) -> int:
        """The id of a text that is one token, without BOS. Raises `DataError` for a text of several, saying which."""
        tokens = self.to_tokens(string, prepend_bos=False)
        if not isinstance(string, str):
            raise DataError("a single token", f"the text is given as {kind_of(string)}", "Give one text at a time")
        if tokens.numel() != 1:
            parts = ", ".join(map(repr, self.to_str_tokens(tokens)))
            blank = "" if string.startswith(" ") else f"A word inside a text has its blank in front ({' ' + string!r}). "
            raise DataError(
                f"{string!r} as a single token",
                f"it is {tokens.numel()} tokens: {parts}",
                f"{blank}Give a text of one token, or take model.to_tokens({string!r}, prepend_bos=False)[0, 0], its first",
            )
        return int(tokens)

    def _reader(self, asked: str) -> Any:
        if self.tokenizer is None:
            raise ModelError(asked, "this model has no tokenizer", "Give token ids, or set model.tokenizer")
        return self.tokenizer


def _ids(tokens: Any) -> Tensor:
    try:
        ids = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            "reading token ids", f"they are given as {kind_of(tokens)}", "Give integers [pos] or [batch pos]"
        ) from None
    if ids.numel() == 0 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        told = f"they have shape {tuple(ids.shape)} and type {ids.dtype}"
        raise DataError("reading token ids", told, "Give integers [pos] or [batch pos], at least one")
    return ids.reshape(1) if ids.ndim == 0 else ids


def _as_batch(ids: Tensor, prepend_bos: bool | None) -> Int[Tensor, "batch pos"]:
    if prepend_bos is not None:
        raise DataError("token ids with prepend_bos", "it is for text; ids are left as they are", "Leave it out, or give text")
    if ids.ndim not in (1, 2):
        raise DataError("token ids as a batch", f"they have shape {tuple(ids.shape)}", "Give [pos] or [batch pos]")
    return ids if ids.ndim == 2 else ids[None]
