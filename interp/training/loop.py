"""The training loop: one step, a reading, and what both share with callbacks."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from interp.data import TokenData
from interp.errors import ConfigError
from interp.models.saved import load_weights, stored_weights
from interp.seeds import seed_for
from interp.training.callbacks import Callback, Row, check_state, replaced_inputs, those_with
from interp.training.config import TrainConfig
from interp.training.engine import Engine, autocast
from interp.training.objectives import Batch, mean_loss, training_batch
from interp.training.readings import validation_numbers
from interp.training.steps import learning_rate, make_optimizer, reading_steps, steps_per_epoch, total_steps


class DivergedError(ConfigError):
    """The loss of a run is no longer finite."""


@dataclass
class Training:
    """A run under way; callbacks get it. `step` counts from 1 inside a step, and is 0 before the first.

    `model` is the bare model, hooks and all, also with several processes. Set `stop` to end after this step. `losses` are those
    of the steps since the last reading; `lr` is the learning rate of this step; `samples` and `tokens` count what was seen.
    """

    model: Any
    config: TrainConfig
    data: TokenData
    engine: Engine
    folder: Path | None
    callbacks: Sequence[Callback]
    step: int = 0
    samples: int = 0
    tokens: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    stop: bool = False
    losses: list[Tensor] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.model, self.config)
        self.scaler = torch.amp.GradScaler(self.engine.device.type, enabled=self.config.precision == "float16")
        self.steps = total_steps(self.config, len(self.data.train))
        self.steps_per_epoch = steps_per_epoch(self.config, len(self.data.train))

    @property
    def epoch(self) -> int:
        """Epochs begun: 1 during the first, 0 before the first step."""
        return -(-self.step // self.steps_per_epoch)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.engine.is_main

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as tensors, numbers and texts."""
        callbacks = [(type(method.__self__).__name__, method()) for method in those_with(self.callbacks, "state_dict")]
        for name, state in callbacks:
            check_state(name, state)
        numbers = {name: getattr(self, name) for name in ("step", "samples", "tokens", "lr", "seconds", "stop")}
        return {
            "numbers": numbers,
            "model": stored_weights(self.model),
            "trained": {name: parameter.requires_grad for name, parameter in self.model.named_parameters()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.engine.device) if self.engine.device.type == "cuda" else None,
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
            "rows": json.dumps(self.rows),
            "callbacks": callbacks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name, value in state["numbers"].items():
            setattr(self, name, value)
        load_weights(self.model, state["model"])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(state["trained"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.losses = list(state["losses"].to(self.engine.device).unbind())
        self.rows = json.loads(state["rows"])
        for load, (_, kept) in zip(those_with(self.callbacks, "load_state_dict"), state["callbacks"], strict=True):
            load(kept)
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.engine.device)
        torch.set_rng_state(state["random"])  # last: whatever comes before may draw


def batch_order(n_rows: int, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, " row"]]:
    """Row numbers of one batch after another, without end: each epoch is a fresh permutation that depends on seed and epoch.

    `start` leaves out as many batches, at the cost of one permutation.
    """
    epoch, skipped = divmod(start, -(-n_rows // batch_size))
    while True:
        generator = torch.Generator().manual_seed(seed_for("batch order", seed, epoch))
        yield from islice(torch.randperm(n_rows, generator=generator).split(batch_size), skipped, None)
        epoch, skipped = epoch + 1, 0


def train(training: Training, progress: bool) -> Iterator[Training]:
    """Take the steps that are left, yielding before the first (unless it was taken in an earlier process) and after each.

    Readings have been taken when it yields: whoever iterates keeps rows and checkpoints. Cost of a step: the model's, and a few
    dozen Python calls; each callback adds its own.
    """
    config, data = training.config, training.data
    readings = reading_steps(config, training.steps)
    batches = batch_order(len(data.train), config.batch_size, config.seed, start=training.step)
    wrapped = training.engine.wrap(training.model)
    step = _Step(training, wrapped)
    training.model.train()
    if not training.rows:
        _read(training)
        yield training
    bar = tqdm(total=training.steps, initial=training.step, desc="training", unit="step", disable=not progress)
    with bar:
        while training.step < training.steps and not training.stop:
            began = time.perf_counter()
            training.step += 1
            step.take(training_batch(config, data, next(batches), training.step))
            training.seconds += time.perf_counter() - began
            if training.step in readings:
                _read(training)
            bar.update()
            yield training


class _Step:
    """One optimizer step; looks up once what every step needs."""

    def __init__(self, training: Training, wrapped: Any):
        self.training, self.wrapped = training, wrapped
        self.on_batch, self.before_forward, self.after_backward, self.after_step = (
            those_with(training.callbacks, name) for name in ("on_batch", "before_forward", "after_backward", "after_step")
        )

    def take(self, batch: Batch) -> None:
        training, config = self.training, self.training.config
        training.lr = learning_rate(config, training.step, training.steps)
        for group in training.optimizer.param_groups:
            group["lr"] = training.lr
        if self.on_batch:
            batch = Batch(batch.tokens, replaced_inputs(self.on_batch, training, batch.inputs), batch.counted)
        training.optimizer.zero_grad()
        for method in self.before_forward:
            method(training)
        training.losses.append(self._backward(batch.to(training.engine.device)))
        training.samples += len(batch.tokens)
        training.tokens += batch.tokens.numel()
        self._move()
        for method in self.after_step:
            method(training)

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of the mean loss over the batch, in parts; returns this process's share of that mean."""
        n_parts = min(self.training.config.accumulate, len(batch.tokens))
        n_counted = max(1, batch.n_counted)
        if n_parts == 1:
            return self._backward_part(batch, n_counted, 0, last=True)
        bounds = [len(batch.tokens) * part // n_parts for part in range(n_parts + 1)]
        losses = [
            self._backward_part(batch.rows(slice(*bounds[part : part + 2])), n_counted, part, last=part == n_parts - 1)
            for part in range(n_parts)
        ]
        return torch.stack(losses).sum()

    def _backward_part(self, part: Batch, n_counted: int, number: int, last: bool) -> Tensor:
        training, config, engine = self.training, self.training.config, self.training.engine
        part, weight = engine.share(part)
        with engine.sharing(self.wrapped, last):
            with engine.own_randomness(config.seed, training.step, number), autocast(engine, config):
                loss = mean_loss(config.objective, self.wrapped(part.inputs), part, n_counted)
            if not loss.requires_grad:
                raise ConfigError(
                    f"training step {training.step}", "every parameter is frozen", "Let a callback leave at least one trainable"
                )
            weighted = loss if weight == 1 else loss * weight
            training.scaler.scale(weighted).backward()
        return loss.detach() if weight else torch.zeros_like(loss)

    def _move(self) -> None:
        training, config = self.training, self.training.config
        if config.precision == "float16":
            training.scaler.unscale_(training.optimizer)
        for method in self.after_backward:
            method(training)
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), config.grad_clip)
        training.scaler.step(training.optimizer)
        training.scaler.update()


def _check_finite(row: Row, step: int) -> None:
    if not all(math.isfinite(value) for value in row.values()):
        raise DivergedError("training", f"the loss is not finite at step {step}", "Lower train.lr, or set train.grad_clip")


def _read(training: Training) -> None:
    """Add a row: where training stands, its mean loss since the last row, validation metrics, and what callbacks add."""
    row: Row = {"step": training.step, "samples": training.samples, "tokens": training.tokens, "lr": training.lr}
    if training.losses:
        began = time.perf_counter()
        row["train_loss"] = float(training.engine.total(torch.stack(training.losses)).mean())
        training.seconds += time.perf_counter() - began  # on a GPU, where the steps end that were only begun
        _check_finite(row, training.step)
    row |= _times(training)
    row |= validation_numbers(training.model, training.data, training.config)
    _check_finite(row, training.step)
    for method in those_with(training.callbacks, "on_eval"):
        added = {name: float(value) for name, value in method(training, row).items()}
        twice = sorted(set(added) & set(row))
        if twice:
            raise ConfigError(
                f"callback {type(method.__self__).__name__}.on_eval",
                f"a reading already has {', '.join(twice)}",
                "Choose other names",
            )
        infinite = sorted(name for name, value in added.items() if math.isinf(value))
        if infinite:
            raise ConfigError(
                f"callback {type(method.__self__).__name__}.on_eval",
                f"{', '.join(infinite)} is infinite at step {training.step}",
                "Give NaN for what is undefined",
            )
        row |= {name: value for name, value in added.items() if not math.isnan(value)}  # undefined: the row lacks it
    training.losses = []
    training.rows.append(row)


def _times(training: Training) -> Row:
    before = training.rows[-1] if training.rows else {"seconds": 0.0, "step": 0}
    steps = training.step - before["step"]
    times: Row = {"seconds": round(training.seconds, 6)}
    if steps:
        times["seconds_per_step"] = round((training.seconds - before["seconds"]) / steps, 9)
    return times


@contextmanager
def own_random_state(training: Training) -> Iterator[None]:
    """Inside, torch draws from the run's own stream; the caller's random state is put back."""
    device = training.engine.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_for("training", training.config.seed))
        yield
