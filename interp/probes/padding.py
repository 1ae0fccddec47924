"""Which positions hold real tokens. What is padding is stated by the caller or refused, never guessed."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import DataError
from interp.sites import HookedModel

NO_PADDING = -1  # as `pad_id`: these tokens are not padded, whatever they look like


def check_unpadded(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> None:
    """Raise `DataError` when `tokens` look padded by the model's own tokenizer and the caller has said nothing.

    Its padding id anywhere counts as padding; where that id is also BOS or EOS (as GPT-2's users set it), two or more of
    them at the start or the end of a row do. A model without a tokenizer, or one without a padding id, has no padding.
    """
    tokenizer = getattr(model, "tokenizer", None)
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None or tokens.shape[1] < 2:
        return
    is_pad = tokens == pad
    if pad in (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None)):
        is_pad = torch.stack([is_pad[:, 0] & is_pad[:, 1], is_pad[:, -1] & is_pad[:, -2]])
    if bool(is_pad.any()):
        raise DataError(
            "reading these tokens",
            f"they hold the tokenizer's padding id {pad}, and nothing says whether it is padding",
            f"Give pad_id={pad} (padding at the end of rows), or pad_id={NO_PADDING} if these are real tokens",
        )


def valid_positions(tokens: Int[Tensor, "batch pos"], pad_id: int | None) -> Bool[Tensor, "batch pos"]:
    """True at real tokens: all but the run of `pad_id` at the end of each row.

    Raises `DataError` for rows that begin with two of them (padded on the left: positions and attention would have to be
    shifted) or hold nothing else.
    """
    if pad_id is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    is_pad = tokens == pad_id
    if tokens.shape[1] >= 2 and bool((is_pad[:, 0] & is_pad[:, 1]).any()):
        raise DataError(f"tokens with pad_id {pad_id}", "a row begins with padding", "Pad on the right (tokenizer.padding_side)")
    return ~(is_pad.flip(1).cumprod(1).flip(1).bool())


def check_mask(mask: Tensor, tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """An attention mask as booleans. Raises `DataError` unless it has the tokens' shape and every row is ones, then zeros."""
    valid = mask.bool()
    if valid.shape != tokens.shape:
        shapes = f"{tuple(valid.shape)} and the tokens {tuple(tokens.shape)}"
        raise DataError("an attention mask", f"it has shape {shapes}", "Give one entry per token")
    if bool((valid[:, 1:] & ~valid[:, :-1]).any()) or not bool(valid[:, 0].all()):
        raise DataError(
            "an attention mask", "a row is not ones followed by zeros", "Pad on the right (tokenizer.padding_side = 'right')"
        )
    return valid
