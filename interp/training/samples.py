"""A look at what the model says while it trains: a sample at the end of each epoch, in `samples.jsonl`."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.data import TokenData
from interp.files import write_whole
from interp.training.callbacks import Callback

if TYPE_CHECKING:
    from interp.training.loop import Training

SAMPLES = "samples.jsonl"
LONGEST_PROMPT = 16


class Samples(Callback):
    """At the end of each epoch the model continues the first validation row, always with its likeliest token.

    Each row of `samples.jsonl` has step, epoch, prompt and text. No random numbers are drawn.
    """

    def __init__(self, data: TokenData, n_tokens: int):
        self.prompt = data.validation[:1, : max(1, min(LONGEST_PROMPT, data.validation.shape[1] // 4))]
        self.n_tokens, self.spell = n_tokens, speller(data)
        self.rows: list[dict[str, Any]] = []

    def on_start(self, training: "Training") -> None:
        self._write(training)  # rows that a killed run wrote after its last checkpoint are taken back

    def after_step(self, training: "Training") -> None:
        if training.step % training.steps_per_epoch and training.step != training.steps:
            return
        if not bool(torch.isfinite(training.losses[-1])):
            return  # the reading will say so
        text = _continued(training.model, self.prompt.to(training.engine.device), self.n_tokens)
        row = {"prompt": self.spell(self.prompt[0].tolist()), "text": self.spell(text)}
        self.rows.append({"step": training.step, "epoch": training.epoch} | row)
        self._write(training)

    def _write(self, training: "Training") -> None:
        if training.is_main and training.folder is not None:
            write_whole(training.folder / SAMPLES, "".join(json.dumps(row) + "\n" for row in self.rows))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": json.dumps(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = json.loads(state["rows"])


def speller(data: TokenData) -> Callable[[Sequence[int]], str]:
    """Turns ids into text: by the tokenizer, or by the task's symbols."""
    if data.tokenizer is not None:
        tokenizer = data.tokenizer
        return lambda ids: str(tokenizer.decode(list(ids)))
    assert data.symbols is not None
    symbols = data.symbols
    return lambda ids: " ".join(symbols[index] if index < len(symbols) else str(index) for index in ids)


def _continued(model: Any, prompt: Tensor, n_tokens: int) -> list[int]:
    """The `n_tokens` likeliest tokens after `prompt`, one by one; as many as fit the model's context."""
    from interp.generation import generate

    room = getattr(model.cfg, "n_ctx", None) or prompt.shape[1] + n_tokens
    fitting = min(n_tokens, room - prompt.shape[1])
    if fitting < 1:
        return []
    return list(generate(model, prompt, max_new_tokens=fitting, progress=False).new_tokens[0].tolist())
