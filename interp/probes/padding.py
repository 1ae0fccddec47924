"""Which positions hold real tokens. What is padding is stated by the caller or refused, never guessed."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import DataError
from interp.metrics.base import Metric, Opaque, gather
from interp.metrics.standard import Accuracy, Loss, Normalized
from interp.models.calling import check_tokens
from interp.sites import HookedModel

NO_PADDING = -1  # as `pad_id`: these tokens are not padded, whatever they look like
UNLESS_REAL = "if these are real tokens, set model.tokenizer.pad_token = None meanwhile"
WHOLE_ROWS = f"Give rows of equal length, without padding; {UNLESS_REAL}"


def check_unpadded(model: HookedModel, tokens: Int[Tensor, "batch pos"], remedy: str | None = None) -> None:
    """Raise `DataError` when `tokens` look padded by the model's own tokenizer and the caller has said nothing.

    Its padding id anywhere counts as padding; where that id is also BOS or EOS (as GPT-2's users set it), two or more of
    them at the start or the end of a row do. A model without a tokenizer, or one without a padding id, has no padding.
    `remedy`: what to do, where the caller takes no `pad_id`.
    """
    if bool(_looks_padded(model, tokens).any()):
        pad = _pad_of(model)
        raise DataError(
            "reading these tokens",
            f"they hold the tokenizer's padding id {pad}, and nothing says whether it is padding",
            remedy or f"Give pad_id={pad} (padding at the end of rows), or pad_id={NO_PADDING} if these are real tokens",
        )


def check_reads_unpadded(model: HookedModel, tokens: Int[Tensor, "batch pos"], metric: Metric) -> None:
    """Raise `DataError` when `metric` reads, or wants predicted, what looks like padding (see `check_unpadded`), or a row begins
    with it, which shifts positions and is attended to.

    Padding behind what is read changes nothing in a causal model. A function of one's own chooses itself what it reads of the
    logits that it is given: only padding at the start is refused for it.
    """
    is_pad = _looks_padded(model, tokens)
    if not bool(is_pad.any()):
        return
    if bool(is_pad[:, 0].any()):
        truth = f"a row begins with the tokenizer's padding id {_pad_of(model)}"
        raise DataError(f"{metric.name} of these tokens", truth, f"Pad on the right, and name the positions; {UNLESS_REAL}")
    inner = metric.metric if isinstance(metric, Normalized) else metric
    if isinstance(inner, Opaque):
        return
    columns = is_pad.unsqueeze(-1)  # as logits of a single id
    read = gather(columns, inner.reads.positions, 1, "position").flatten(1).any(1)
    if isinstance(inner, Loss | Accuracy) and inner.targets is not None:
        read = read | gather(columns, torch.tensor(inner.targets), 1, "target").flatten(1).any(1)
    if bool(read.any()):
        raise DataError(
            f"{metric.name} of these tokens",
            f"in {int(read.sum())} of {len(read)} rows it reads where the tokenizer's padding id {_pad_of(model)} stands",
            f"Name positions (position=, targets=) that hold real tokens, or give rows of equal length; {UNLESS_REAL}",
        )


def _pad_of(model: HookedModel) -> int | None:
    return getattr(getattr(model, "tokenizer", None), "pad_token_id", None)


def _looks_padded(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Where padding seems to stand."""
    check_tokens(model, tokens)
    tokenizer, pad = getattr(model, "tokenizer", None), _pad_of(model)
    if pad is None or tokens.shape[1] < 2:
        return torch.zeros_like(tokens, dtype=torch.bool)
    is_pad = tokens == pad
    if pad not in (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None)):
        return is_pad
    leading, trailing = is_pad.cumprod(1).bool(), is_pad.flip(1).cumprod(1).flip(1).bool()
    return (leading & leading[:, 1:2]) | (trailing & trailing[:, -2:-1])  # a single one may be BOS or EOS


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
