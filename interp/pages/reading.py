"""What a model reads for a page about it: repeats that fit it, a text, and how both are spelt."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.data import REPEATED_PASSAGE, encode_text
from interp.errors import DataError
from interp.models.calling import check_tokens, device_of
from interp.probes import repeated_tokens
from interp.probes.attention import DEFAULT_COPIES, DEFAULT_PERIOD
from interp.probes.repeats import ordinary_ids
from interp.sites import HookedModel

MOST_TOKENS = 64  # of the text that is shown token by token


def fitting_period(model: HookedModel, trained_length: int | None = None) -> int:
    """The usual period of repeats (25), or as many tokens as leave room for four copies and BOS.

    The room is the model's context and, where it is known, the length of the sequences it was trained on: at positions beyond
    those a model may do anything. Raises `DataError` where not even two tokens fit.
    """
    n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
    room = [length for length in (n_ctx, trained_length) if isinstance(length, int) and length > 0]
    period = min([DEFAULT_PERIOD, len(ordinary_ids(model)), *((length - 1) // DEFAULT_COPIES for length in room)])
    if period < 2:
        told = f"it reads {min(room, default=0)} positions and has {len(ordinary_ids(model))} ordinary tokens"
        raise DataError("repeated random tokens for this model", told, "Give tokens of your own")
    return period


def example_of(model: HookedModel, given: str | Tensor | None, period: int, seed: int) -> tuple[Int[Tensor, "1 pos"], str]:
    """The sequence that is shown token by token, and what it is.

    What was given (of several rows the first); else, with a tokenizer, a passage whose last sentence is its first again; else
    one repeat of random tokens. Cut to `MOST_TOKENS`, or to the model's context. Raises `DataError` for what cannot be run.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if isinstance(given, Tensor):
        check_tokens(model, given)
        row, told = given[:1], "the first sequence that was given"
    elif given is not None or tokenizer is not None:
        if tokenizer is None:
            raise DataError("a text for this model", "it has no tokenizer", "Give token ids, or leave the text out")
        text, told = _passage(tokenizer) if given is None else (str(given), "the text that was given")
        row = encode_text(tokenizer, text, bos=tokenizer.bos_token_id is not None)
    else:
        row = repeated_tokens(model, n_sequences=1, period=period, seed=seed)
        told = f"{period} random tokens, said twice"
    n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
    most = min(MOST_TOKENS, n_ctx) if isinstance(n_ctx, int) and n_ctx > 0 else MOST_TOKENS
    if row.shape[1] > most:
        row, told = row[:, :most], f"{told} (its first {most} tokens)"
    if row.shape[1] < 3:
        raise DataError("a text for this model", f"it has {row.shape[1]} tokens", "Give a longer one")
    return row.to(device_of(model)), told


def _passage(tokenizer: Any) -> tuple[str, str]:
    """Our passage, or where a tokenizer makes too much of it, only the sentence that it begins and ends with."""
    if encode_text(tokenizer, REPEATED_PASSAGE, bos=False).shape[1] < MOST_TOKENS:
        return REPEATED_PASSAGE, "a passage whose last sentence is its first again"
    sentence = REPEATED_PASSAGE.partition(". ")[0] + "."
    return f"{sentence} {sentence}", "a sentence, said twice"


def spelled(model: Any, tokens: Int[Tensor, " pos"]) -> list[str]:
    """The text of each token; its number behind a t for a model without a tokenizer, whose first is BOS."""
    tokenizer = getattr(model, "tokenizer", None)
    ids = tokens.tolist()
    if tokenizer is not None:
        return [tokenizer.decode([token]) for token in ids]
    return ["BOS" if place == 0 and token == 0 else f"t{token}" for place, token in enumerate(ids)]


def as_rows(tokens: Tensor) -> Int[Tensor, "row pos"]:
    """Ids [pos] or [row pos] as rows."""
    return tokens[None] if tokens.ndim == 1 else tokens


def on_cpu(values: Tensor) -> Tensor:
    """Detached, on the CPU, in float64: what results of pages hold."""
    return values.detach().to("cpu", torch.float64)
