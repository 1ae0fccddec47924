"""What is read on held-out data while a model trains, in float32 and without dropout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.data import TokenData
from interp.metrics.standard import hits
from interp.probes.loss import NextTokenAccuracy, TokenLoss
from interp.result import Result
from interp.running import Probe, Readings, measure
from interp.seeds import seed_for
from interp.sites import OUTPUT, HookedModel, Site
from interp.training.config import TrainConfig
from interp.training.objectives import Batch, masked, token_losses


@dataclass(frozen=True)
class _Counted(Probe):
    """Sums over the predictions that count in this very batch: loss, right predictions, how many. NaN where one is undefined."""

    name: ClassVar[str] = "counted"
    objective: str
    tokens: Int[Tensor, "batch pos"]
    which: Bool[Tensor, "batch pos"]

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        losses = token_losses(self.objective, activation, self.tokens)
        if self.objective == "autoregressive":
            losses = nn.functional.pad(losses, (1, 0))
            right = nn.functional.pad(hits(activation[:, :-1], self.tokens[:, 1:]), (1, 0))
        else:
            right = hits(activation, self.tokens)
        parts = [torch.where(self.which, part.double(), 0.0).sum(-1) for part in (losses, right, torch.ones_like(losses))]
        return torch.stack(parts, dim=-1)

    def result(self, readings: Readings) -> Result:
        return Result(name=self.name, values=readings[OUTPUT].sum(0), axes=("sum",), labels={"sum": ("loss", "right", "n")})


def validation_numbers(model: Any, data: TokenData, config: TrainConfig) -> dict[str, float]:
    """Loss (nats) and accuracy on the first `eval_sequences` of validation, and on its answers where the data has them.

    Autoregressive: over the tokens that are trained on, all but the first or (`targets=answers`) the answers; `answer_loss`,
    `answer_accuracy` over the answers, the tokens that follow from what comes before, and `loss_above_floor`, how far the
    answer loss is above the best possible one, where that is known. Masked: over the masked tokens; the same tokens are masked
    at each reading.
    """
    tokens = data.validation[: config.eval_sequences]
    if config.objective == "masked":
        batch = masked(tokens, data.d_vocab, config.mask_share, seed_for("validation masks", config.seed))
        loss, accuracy = _over_counted(model, batch, config)
        return {"validation_loss": loss, "validation_accuracy": accuracy}
    numbers = _of_answers(model, data, config)
    if config.targets == "answers" and numbers:
        return {"validation_loss": numbers["answer_loss"], "validation_accuracy": numbers["answer_accuracy"], **numbers}
    measured = measure(model, tokens, [TokenLoss(), NextTokenAccuracy()], batch_size=config.batch_size)
    loss, accuracy = (_of_all(measured[name], len(tokens)) for name in ("loss", "accuracy"))
    return {"validation_loss": loss, "validation_accuracy": accuracy, **numbers}


def _of_all(result: Result, n: int) -> float:
    """The mean over all `n` examples: NaN when one of them is undefined, so that a run whose numbers break down shows it."""
    return result.item() if result.count == n else math.nan


def _of_answers(model: Any, data: TokenData, config: TrainConfig) -> dict[str, float]:
    """Nothing where the data has no answers."""
    tokens = data.validation[: config.eval_sequences]
    answers = None if data.answers is None else data.answers["validation"][: config.eval_sequences].clone()
    if answers is None:
        return {}
    answers[:, 0] = False  # nothing comes before the first token
    if not bool(answers.any()):
        return {}
    loss, accuracy = _over_counted(model, Batch(tokens, tokens, answers), config)
    numbers = {"answer_loss": loss, "answer_accuracy": accuracy}
    return numbers if data.floor is None else {**numbers, "loss_above_floor": loss - data.floor}


def _over_counted(model: Any, batch: Batch, config: TrainConfig) -> tuple[float, float]:
    """Mean loss and accuracy over the predictions that count; each weighs the same, whichever row it stands in."""
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(batch.tokens), config.batch_size):
        part = batch.rows(slice(start, start + config.batch_size)).to(device)
        assert part.counted is not None
        probe = _Counted(config.objective, part.tokens, part.counted)
        sums += measure(model, part.inputs, [probe])[probe.name].values.cpu()
    loss, right, n = sums.tolist()
    return loss / n, right / n
