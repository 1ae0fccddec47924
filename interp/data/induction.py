"""Induction with distractors: what followed this key the last time?"""

from typing import Annotated, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor

from interp.config import setting
from interp.data.tasks import DrawnTask, Positive, task


@task
class InductionConfig(DrawnTask):
    """Pairs of a key and a value, each pair twice, in random order among distractors: the second value follows from the first.

    The keys of a row are distinct; its values are uniform and may be equal. No distance is fixed: a model must find the key.
    """

    kind: Literal["induction"] = setting("induction", "which data this is")
    n_keys: Positive = setting(32, "number of different keys in the vocabulary")
    n_values: Positive = setting(32, "number of different values in the vocabulary")
    n_distractors: Positive = setting(32, "number of different distractors in the vocabulary")
    n_pairs: Positive = setting(4, "pairs in a sequence, of distinct keys, each of them shown twice")
    n_noise: Annotated[int, Field(ge=0)] = setting(16, "distractors in a sequence, which has 4 * n_pairs + n_noise + 1 tokens")

    def __post_init__(self) -> None:
        if self.n_pairs > self.n_keys:
            raise ValueError(f"n_pairs must be at most n_keys = {self.n_keys}, not {self.n_pairs}; the keys of a sequence differ")

    @property
    def symbols(self) -> tuple[str, ...]:
        groups = (("k", self.n_keys), ("v", self.n_values), ("d", self.n_distractors))
        return ("BOS", *(f"{letter}{number}" for letter, count in groups for number in range(count)))

    def draw(self, n_sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n_shown = 2 * self.n_pairs

        def choose(n_options: int, n_chosen: int) -> Tensor:
            keys = torch.rand(n_sequences, n_options, generator=generator, dtype=torch.float64)
            return keys.argsort(dim=1)[:, :n_chosen]

        keys = 1 + choose(self.n_keys, self.n_pairs)
        values = 1 + self.n_keys + torch.randint(self.n_values, (n_sequences, self.n_pairs), generator=generator)
        pair = choose(n_shown, n_shown) // 2  # which pair is shown first, second, …
        slot = choose(n_shown + self.n_noise, n_shown).sort(dim=1).values  # … and which of all units, of 2 tokens or 1, they are
        start = slot + torch.arange(n_shown)  # each pair before it took one token more than a distractor
        first_distractor = 1 + self.n_keys + self.n_values
        width = 2 * n_shown + self.n_noise
        tokens = first_distractor + torch.randint(self.n_distractors, (n_sequences, width), generator=generator)
        tokens.scatter_(1, start, keys.gather(1, pair)).scatter_(1, start + 1, values.gather(1, pair))
        same = rearrange(pair, "sequence shown -> sequence shown 1") == rearrange(pair, "sequence shown -> sequence 1 shown")
        again = same.tril(-1).any(dim=2)
        return tokens, torch.zeros_like(tokens, dtype=torch.bool).scatter(1, start + 1, again)
