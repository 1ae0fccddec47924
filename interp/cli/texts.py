"""Texts that a command reads: from a file, standard input or the command line, as token ids."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from interp.sites import HookedModel

USUAL_LENGTH = 128


def encode(model: "HookedModel", text: str) -> "Tensor":
    """A text as one row of ids, BOS first; for a model without a tokenizer the ids themselves, parted by spaces."""
    from interp.errors import DataError
    from interp.models.calling import check_tokens, device_of

    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None:
        from interp.data import encode_text

        return encode_text(tokenizer, text, bos=tokenizer.bos_token_id is not None).to(device_of(model))
    import torch

    words = text.split()
    if not words or not all(word.isdecimal() for word in words):
        raise DataError(
            f"the text {text[:40]!r}", "this model has no tokenizer, so it reads numbers", "Give token ids, such as '0 7 3 9 7'"
        )
    row = torch.tensor([[int(word) for word in words]], device=device_of(model))
    check_tokens(model, row.T)  # the ids; whether they fit the context is for what runs them to say
    return row


def read_text(path: str) -> str:
    """A UTF-8 file, or standard input for "-". Raises `DataError` for one that cannot be read."""
    from interp.errors import DataError, nearest

    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        folder = Path(path).expanduser().parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        hint = nearest(Path(path).name, names)
        raise DataError(
            f"--text {path}", f"it cannot be read ({error.strerror})", f"{hint}Name a text file, or - for standard input"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"--text {path}", f"byte {error.start} is not UTF-8", "Save the file as UTF-8") from None


def cut(row: "Tensor", model: Any, length: int | None, limit: int, name: str) -> tuple["Tensor", str]:
    """The ids of a text as sequences of equal length, BOS first in each, and what they are.

    What does not fill the last one is left out; a text shorter than one is a sequence of its own length.
    """
    import torch
    from einops import rearrange

    from interp.errors import DataError

    n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
    longest = n_ctx if isinstance(n_ctx, int) and n_ctx > 0 else USUAL_LENGTH
    bos = getattr(getattr(model, "tokenizer", None), "bos_token_id", None)
    start = row[:, : int(bos is not None)]
    body = row[:, start.shape[1] :]
    width = min(length or min(USUAL_LENGTH, longest), row.shape[1]) - start.shape[1]
    if width < 1:
        raise DataError(f"--text {name}", "it has no tokens beside the first", "Give a longer text")
    found = body.shape[1] // width
    rows = rearrange(body[:, : found * width], "one (row pos) -> (one row) pos", pos=width)[:limit]
    tokens = torch.cat([start.expand(len(rows), -1), rows], dim=1)
    return tokens, f"{len(rows)} of {found} sequences of {tokens.shape[1]} tokens of {name}"
