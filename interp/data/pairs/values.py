"""Prompt pairs: a clean prompt, a corrupted one of the same length, and what each calls for."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp.data.tokens import tokens_fingerprint
from interp.display import card, table
from interp.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from interp.metrics import Metric

END = "end"


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Clean and corrupted prompts [pair pos], all of one length, position by position the same part of the sentence.

    `answers` [pair] is the token that the clean prompt calls for at its end, `wrong` the one that the corrupted prompt calls for
    (or, where that calls for none in particular, the rival that the answer is measured against). `positions` names places, one
    index per pair; "end", where the answer is read, is always among them. `texts` are the prompts as text, clean and corrupted,
    and `strings` the text of each token of the clean prompts; both are empty where there is no tokenizer.
    Raises `DataError` when the parts do not fit together.
    """

    clean: Int[Tensor, "pair pos"]
    corrupted: Int[Tensor, "pair pos"]
    answers: Int[Tensor, " pair"]
    wrong: Int[Tensor, " pair"]
    positions: Mapping[str, Int[Tensor, " pair"]] = field(default_factory=dict)
    texts: tuple[tuple[str, str], ...] = ()
    strings: tuple[tuple[str, ...], ...] = ()
    description: str = "prompt pairs"

    def __post_init__(self) -> None:
        if self.clean.ndim != 2 or self.clean.numel() == 0 or self.clean.shape != self.corrupted.shape:
            shapes = f"the clean prompts are {tuple(self.clean.shape)} and the corrupted ones {tuple(self.corrupted.shape)}"
            raise _misfit(shapes, "Give two tensors [pair pos] of one shape, with at least one pair")
        n_pairs, length = self.clean.shape
        end = torch.full((n_pairs,), length - 1)
        object.__setattr__(self, "positions", MappingProxyType({END: end, **self.positions}))
        per_pair = {"answers": self.answers, "wrong": self.wrong, **self.positions}
        for name, values in per_pair.items():
            if values.shape != (n_pairs,):
                raise _misfit(f"{name!r} has shape {tuple(values.shape)} for {n_pairs} pairs", "Give one entry per pair")
        for name, values in self.positions.items():
            if int(values.min()) < 0 or int(values.max()) >= length:
                raise _misfit(
                    f"position {name!r} runs from {int(values.min())} to {int(values.max())} in prompts of {length} tokens",
                    f"Give indices from 0 to {length - 1}",
                )
        if {len(self.texts), len(self.strings)} - {0, n_pairs} or {len(row) for row in self.strings} - {length}:
            raise _misfit("the texts or token strings are not one per prompt or token", "Give all of them, or none")

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.clean)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that depend on every token, answer and named position, the same on every machine."""
        columns = [self.answers, self.wrong, *(self.positions[name] for name in sorted(self.positions))]
        return tokens_fingerprint(self.clean, self.corrupted, torch.stack([values.cpu() for values in columns]))

    @property
    def labels(self) -> tuple[str, ...]:
        """A label per position, for the columns of a grid: its index and, where all pairs agree, its name or its token."""
        return tuple(f"{place} {self._word(place)}".strip() for place in range(self.clean.shape[1]))

    def metric(self) -> "Metric":
        """Logit of the answer minus logit of the wrong answer where the answer is read; see `interp.metrics.logit_diff`."""
        from interp.metrics import logit_diff

        end = self.positions[END]
        same = bool((end == end[0]).all())
        return logit_diff(self.answers, self.wrong, position=int(end[0]) if same else end)

    def position(self, name: str) -> Int[Tensor, " pair"]:
        """The index of a named position in each pair. Raises `DataError` for a name that these pairs do not have."""
        if name not in self.positions:
            raise DataError(
                f"position {name!r} of these pairs",
                f"they have {', '.join(map(repr, self.positions))}",
                f"{nearest(name, self.positions)}Choose one of those",
            )
        return self.positions[name]

    def select(self, rows: Sequence[int] | Int[Tensor, " row"]) -> "PromptPairs":
        """The pairs `rows`, in that order (negative ones count from the end). Raises `DataError` for a row that is not there."""
        chosen = torch.as_tensor(rows, dtype=torch.int64).reshape(-1)
        n_pairs = len(self)
        if len(chosen) == 0 or int(chosen.min()) < -n_pairs or int(chosen.max()) >= n_pairs:
            raise DataError(f"pairs {chosen.tolist()[:8]}", f"there are {n_pairs} pairs", f"Choose from 0 to {n_pairs - 1}")
        chosen = chosen % n_pairs
        return dataclasses.replace(
            self,
            clean=self.clean[chosen],
            corrupted=self.corrupted[chosen],
            answers=self.answers[chosen],
            wrong=self.wrong[chosen],
            positions={name: values[chosen] for name, values in self.positions.items()},
            texts=tuple(self.texts[row] for row in chosen.tolist()) if self.texts else (),
            strings=tuple(self.strings[row] for row in chosen.tolist()) if self.strings else (),
        )

    def to(self, device: str | torch.device) -> "PromptPairs":
        """The same pairs with their tensors on `device`."""
        return dataclasses.replace(
            self,
            **{name: getattr(self, name).to(device) for name in ("clean", "corrupted", "answers", "wrong")},
            positions={name: values.to(device) for name, values in self.positions.items()},
        )

    def to_frame(self) -> "pd.DataFrame":
        """One row per pair: both prompts (text, or ids where there is none), the ids of both answers, the named positions."""
        import pandas as pd

        written = self.texts or tuple(
            (str(clean), str(corrupted)) for clean, corrupted in zip(self.clean.tolist(), self.corrupted.tolist(), strict=True)
        )
        columns: dict[str, Sequence[object]] = {
            "clean": [clean for clean, _ in written],
            "corrupted": [corrupted for _, corrupted in written],
            "answer": self.answers.tolist(),
            "wrong": self.wrong.tolist(),
        }
        return pd.DataFrame(columns | {f"at {name}": values.tolist() for name, values in self.positions.items()})

    def _word(self, place: int) -> str:
        """What stands at a position in every pair: its name, else its token, else nothing."""
        named = [name for name, values in self.positions.items() if bool((values == place).all())]
        if named:
            return named[-1]
        words = {row[place] for row in self.strings}
        return words.pop().strip() if len(words) == 1 else ""

    def __repr__(self) -> str:
        return f"PromptPairs({self.description}: {len(self)} pairs of {self.clean.shape[1]} tokens)"

    def _repr_html_(self) -> str:
        return card(repr(self), table(self.to_frame(), most=10))


def _misfit(truth: str, remedy: str) -> DataError:
    return DataError("prompt pairs", truth, remedy)
