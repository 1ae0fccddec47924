"""Repeated random tokens: the input on which induction can be seen, and only induction helps."""

from numbers import Integral

import torch
import xxhash
from jaxtyping import Int
from torch import Tensor

from interp.data import repeated_sequences
from interp.errors import ConfigError, DataError
from interp.models.calling import device_of, vocabulary_size
from interp.sites import HookedModel, check_model


def repeated_tokens(
    model: HookedModel, *, n_sequences: int = 32, period: int = 32, copies: int = 2, seed: int = 0
) -> Int[Tensor, "batch pos"]:
    """Sequences BOS + r + r (+ r …) for `model`: r is `period` distinct random tokens of its vocabulary, specials excluded.

    BOS is the tokenizer's, or token 0 for a model without one. The ids are on the model's device and depend on `seed` alone: with
    more `copies` the same r are only repeated further.
    Raises `DataError` when the vocabulary is unknown or has fewer than `period` usable tokens, when the repeats
    exceed the model's context, or for fewer than two copies; `ConfigError` for what is no whole number.
    """
    check_model(model)
    check_whole(n_sequences=n_sequences, period=period, copies=copies, seed=seed)
    if copies < 2:
        raise DataError(f"repeated tokens with copies={copies}", "a repeat has at least two copies", "Give copies=2 or more")
    n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
    if isinstance(n_ctx, int) and 0 < n_ctx < 1 + copies * period:
        raise DataError(
            f"repeats of {period} tokens said {copies} times",
            f"they need {1 + copies * period} positions and this model has {n_ctx}",
            f"Give period={(n_ctx - 1) // copies} or less, or tokens of your own",
        )
    twice = repeated_sequences(
        d_vocab=vocabulary_size(model),
        n_sequences=n_sequences,
        period=period,
        seed=seed,
        bos_id=bos_of(model),
        exclude=special_ids(model),
    ).to(device_of(model))
    return torch.cat([twice, *[twice[:, 1 : period + 1]] * (copies - 2)], dim=1)


def check_whole(**numbers: int) -> None:
    """Raise `ConfigError`, naming the setting, unless every one is a whole number."""
    for name, value in numbers.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            example = int(value) if isinstance(value, str) and value.strip().isdecimal() else 2
            raise ConfigError(
                f"{name}={value!r}", f"it is a {type(value).__name__}", f"Give a whole number, e.g. {name}={example}"
            )


def shuffled_tokens(tokens: Int[Tensor, "batch pos"], *, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """The same tokens in every row, in random order, the first kept in place: the permutation null of what depends on order.

    `in_context_learning(model, shuffled_tokens(tokens))`, or any score or loss, on it tells what the order was worth.
    """
    orders = [torch.randperm(len(row) - 1, generator=row_generator(row, seed)) + 1 for row in tokens]
    return torch.cat([tokens[:, :1], tokens.gather(1, torch.stack(orders).to(tokens.device))], dim=1)


def row_generator(row: Int[Tensor, " pos"], seed: int) -> torch.Generator:
    """A generator of the sequence's own, so that its draws do not depend on how the batch is split."""
    ids = row.long().cpu().contiguous()  # equal ids draw equally, whatever the type that holds them
    return torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(ids.numpy().tobytes(), seed=seed) >> 1)


def bos_of(model: HookedModel) -> int:
    """The id that starts a sequence: the tokenizer's BOS, or 0 where there is none."""
    bos = getattr(getattr(model, "tokenizer", None), "bos_token_id", None)
    return 0 if bos is None else int(bos)


def special_ids(model: HookedModel) -> tuple[int, ...]:
    """Ids that are not ordinary tokens (none for a model without a tokenizer)."""
    return tuple(getattr(getattr(model, "tokenizer", None), "all_special_ids", ()))


def ordinary_ids(model: HookedModel) -> Int[Tensor, " id"]:
    """Every id of the vocabulary but BOS and the special ones."""
    avoid = {bos_of(model), *special_ids(model)}
    return torch.tensor([token for token in range(vocabulary_size(model)) if token not in avoid])


def check_repeats(tokens: Int[Tensor, "batch pos"], period: int) -> int:
    """The number of copies. Raises `DataError` unless every row is one token, then `period` tokens, two or more times."""
    check_whole(period=period)
    copies, rest = divmod(tokens.shape[1] - 1, max(period, 1))
    if period < 2 or rest or copies < 2:
        raise DataError(
            f"a repeat of period {period}",
            f"rows have {tokens.shape[1]} tokens",
            "Give rows of 1 + copies × period tokens (BOS + r + r …), period at least 2",
        )
    if not bool((tokens[:, 1:-period] == tokens[:, period + 1 :]).all()):
        raise DataError(f"a repeat of period {period}", "the copies in a row differ", "Make rows with interp.repeated_tokens")
    return copies
