"""Repeated random tokens: what follows in the second copy can only be looked up in the first."""

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.config import setting
from interp.data.tasks import Rows, Task, numbers, task
from interp.errors import DataError
from interp.seeds import seed_for

_KEYS_AT_ONCE = 2**22  # 32 MB of random keys


@task
class RepeatedConfig(Task):
    """Repeated random tokens: BOS + r + r, the tokens of r distinct. What follows in the second copy can only be looked up.

    With `min_period` the length of r is drawn for each sequence, and r goes on repeating to the end of it. With one length for
    all, a model that knows positions can learn to look back by that many tokens without reading any. Splits are independent
    draws: they share sequences only where there are hardly more orders of tokens than sequences.

    Asked for is every token from which on r is known to repeat: the first of the second copy too where no longer r is possible.
    """

    kind: Literal["repeated"] = setting("repeated", "which data this is")
    d_vocab: int = setting(256, "number of tokens in the vocabulary; token 0 is BOS")
    period: int = setting(32, "length of r, or the largest length; a sequence has 1 + 2 * period tokens")
    min_period: int | None = setting(None, "smallest length of r, drawn for each sequence; null means that all have one length")
    n_train: int = setting(8192, "number of training sequences")
    n_validation: int = setting(512, "number of validation sequences, and of test sequences")
    seed: int = setting(0, "seed of all sequences; each split draws from a stream of its own")

    def __post_init__(self) -> None:
        if self.min_period is not None and not 1 <= self.min_period <= self.period:
            raise ValueError(f"min_period must lie between 1 and period = {self.period}, not {self.min_period}")
        for name in ("d_vocab", "period", "n_train", "n_validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.period > self.d_vocab - 1:
            raise ValueError(f"period must be at most d_vocab - 1 = {self.d_vocab - 1}, not {self.period}; its tokens differ")

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("BOS", *numbers(self.d_vocab)[1:])

    @property
    def description(self) -> str:
        lengths = f"{self.min_period} to {self.period}" if self.min_period is not None else f"{self.period}"
        return f"repeated random tokens: BOS + r + r, r of {lengths} distinct tokens out of {self.d_vocab - 1}"

    def splits(self) -> Mapping[str, Rows]:
        sizes = {"train": self.n_train, "validation": self.n_validation, "test": self.n_validation}
        return {name: _repeats(self, size, seed=seed_for("repeated", self.seed, name)) for name, size in sizes.items()}


def _repeats(config: RepeatedConfig, n_sequences: int, *, seed: int) -> Rows:
    rows = repeated_sequences(config.d_vocab, n_sequences, period=config.period, seed=seed)[:, 1:]
    shortest = config.period if config.min_period is None else config.min_period
    generator = torch.Generator(device="cpu").manual_seed(seed_for("periods", seed))
    periods = torch.randint(shortest, config.period + 1, (n_sequences, 1), generator=generator)
    place = torch.arange(2 * config.period)
    known_from = torch.where(periods == config.period, periods, periods + 1)
    return rows.gather(1, place % periods), place >= known_from


def repeated_sequences(
    d_vocab: int,
    n_sequences: int,
    *,
    period: int,
    seed: int,
    bos_id: int = 0,
    exclude: Collection[int] = (),
    device: str | torch.device = "cpu",
) -> Int[Tensor, "sequence pos"]:
    """`n_sequences` rows BOS + r + r, with 1 + 2 * `period` tokens each.

    The `period` tokens of r are distinct, so that every token of the second copy has exactly one earlier occurrence; r is uniform
    among all such orders of tokens other than `bos_id` and `exclude` (special ids). Drawn on the CPU from a generator of its own:
    the same seed gives the same tokens on every device, and the global generator is left alone.

    Raises `DataError` when fewer than `period` tokens are available, or when a count is not positive.
    """
    available = sorted(set(range(d_vocab)) - {bos_id, *exclude})
    asked = f"repeated sequences of period {period}"
    if period < 1 or n_sequences < 1:
        raise DataError(asked, f"period and n_sequences ({n_sequences}) must be at least 1", "Use positive numbers")
    if period > len(available):
        raise DataError(
            asked,
            f"their tokens are distinct, and only {len(available)} of {d_vocab} remain without BOS and excluded ones",
            f"Use a period of at most {len(available)}, or a larger vocabulary",
        )
    generator = torch.Generator(device="cpu").manual_seed(seed)
    once = torch.tensor(available)[_distinct(len(available), n_sequences, period, generator)]
    bos = torch.full((n_sequences, 1), bos_id)
    return torch.cat([bos, once, once], dim=1).to(device)


def _distinct(n_options: int, n_rows: int, n_drawn: int, generator: torch.Generator) -> Int[Tensor, "sequence drawn"]:
    """Rows of distinct indices below `n_options`, uniform among all orders; memory stays small for any `n_options`."""
    if n_drawn**2 <= 2 * n_options:
        return _by_rejection(n_options, n_rows, n_drawn, generator)
    step = max(1, _KEYS_AT_ONCE // n_options)
    chunks = []
    for start in range(0, n_rows, step):  # float64 keys: in float32 equal keys, and so a bias by index, would be common
        keys = torch.rand(min(step, n_rows - start), n_options, generator=generator, dtype=torch.float64)
        chunks.append(keys.topk(n_drawn, dim=1).indices)
    return torch.cat(chunks)


def _by_rejection(n_options: int, n_rows: int, n_drawn: int, generator: torch.Generator) -> Int[Tensor, "sequence drawn"]:
    """Draws whole rows again until none repeats; at least a quarter of the rows pass each time, since n_drawn² ≤ 2 n_options."""
    rows = torch.randint(n_options, (n_rows, n_drawn), generator=generator)
    pending = torch.arange(n_rows)
    while len(pending := pending[_has_repeats(rows[pending])]):
        rows[pending] = torch.randint(n_options, (len(pending), n_drawn), generator=generator)
    return rows


def _has_repeats(rows: Int[Tensor, "sequence drawn"]) -> Tensor:
    return (rows.sort(dim=1).values.diff(dim=1) == 0).any(dim=1)
