"""Modular addition: the whole table, a share of it held out."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field

from interp.config import setting
from interp.data.tasks import Rows, Task, numbers, task
from interp.seeds import seed_for


@task
class ModularAdditionConfig(Task):
    """Rows a + b = c with c = (a + b) mod p; every pair (a, b) once, in one split only.

    The pairs (a, b) and (b, a) always share a split, so that what is held out cannot be looked up in its mirror image. Half of
    what is held out is validation, half is test.
    """

    kind: Literal["modular_addition"] = setting("modular_addition", "which data this is")
    modulus: Annotated[int, Field(ge=2)] = setting(97, "p: the numbers are 0 to p - 1, and the table has p * p rows")
    held_out: Annotated[float, Field(gt=0, lt=1)] = setting(0.4, "share of the table that is not trained on")
    seed: int = setting(0, "which part of the table that is, and the order of the rows")

    def __post_init__(self) -> None:
        if not 2 <= self._n_held < self._n_sums:
            raise ValueError(
                f"held_out {self.held_out} of the {self._n_sums} sums modulo {self.modulus} are {self._n_held}: "
                "at least 2 must be held out, and one trained on"
            )

    @property
    def _n_sums(self) -> int:
        return self.modulus * (self.modulus + 1) // 2

    @property
    def _n_held(self) -> int:
        return round(self.held_out * self._n_sums)

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("BOS", *numbers(self.modulus), "+", "=")

    def splits(self) -> Mapping[str, Rows]:
        generator = torch.Generator().manual_seed(seed_for("modular addition", self.seed))
        sums = torch.combinations(torch.arange(self.modulus), with_replacement=True)
        sums = sums[torch.randperm(len(sums), generator=generator)]
        half = self._n_held // 2
        parts = {"train": sums[self._n_held :], "validation": sums[:half], "test": sums[half : self._n_held]}
        return {split: self._rows(part, generator) for split, part in parts.items()}

    def _rows(self, sums: torch.Tensor, generator: torch.Generator) -> Rows:
        mirrored = sums[sums[:, 0] != sums[:, 1]].flip(1)
        pairs = torch.cat([sums, mirrored])
        a, b = pairs[torch.randperm(len(pairs), generator=generator)].unbind(dim=1)
        plus, equals = (torch.full_like(a, self.modulus + number) for number in (0, 1))
        tokens = 1 + torch.stack([a, plus, b, equals, (a + b) % self.modulus], dim=1)
        return tokens, (torch.arange(5) == 4).expand(tokens.shape)
