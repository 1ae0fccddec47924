"""What is read off the runs; each function gives one `Result`, most over (variant, seed)."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

import interp
from experiments.base_models import Bases
from experiments.optimizer_comparison.config import OPTIMIZERS, StudyConfig, grid, lowest, tuned
from interp.data import TokenData
from interp.errors import DataError
from interp.models.calling import device_of
from interp.result import Result
from interp.training import FinishedRun, read_step_losses
from interp.training.objectives import Batch, mean_loss, training_batch
from interp.training.steps import make_optimizer
from interp.training.variants import VariantRuns, perplexity_by_epoch, table_of, timelines

Search = Mapping[tuple[str, float], FinishedRun | None]


def search_table(found: Search, study: StudyConfig) -> Result:
    """Validation loss at the end of every run of the search, axes (variant, rate); rates are places in each optimizer's grid.

    NaN where a run diverged (None).
    """
    values = [[_last_loss(found[name, lr]) for lr in grid(study, name)] for name in OPTIMIZERS]
    return Result(
        name="search",
        values=torch.tensor(values, dtype=torch.float64),
        axes=("variant", "rate"),
        labels={"variant": tuple(OPTIMIZERS), "rate": tuple(f"rate {place + 1}" for place in range(study.rates))},
        unit="nats",
        description="validation loss by learning rate, lowest first; padding left out",
    )


def _last_loss(run: FinishedRun | None) -> float:
    return math.nan if run is None else float(run.metrics[-1]["answer_loss"])


def best_rates(search: Result, study: StudyConfig) -> dict[str, float]:
    """The rate with the lowest validation loss, for each optimizer. Raises `DataError` when one diverged at every rate."""
    for name, row in zip(OPTIMIZERS, search.values, strict=True):
        if bool(row.isnan().all()):
            raise DataError(f"the learning rate of {name}", "it diverged at every rate of its grid", "Set scale lower")
    return {name: grid(study, name)[lowest(row)] for name, row in zip(OPTIMIZERS, search.values, strict=True)}


def tables(runs: VariantRuns, starts: Bases, data: TokenData) -> dict[str, Result]:
    """The loss and perplexity of the fine-tuned models on test rows, and what the base models had there."""
    assert data.answers is not None
    mask = data.answers["test"].clone()
    mask[:, 0] = True

    def loss(model: Any) -> float:
        return interp.perplexity(model, data.test, attention_mask=mask, batch_size=64).values[0, 0].item()

    seeds = {seed for _, seed in runs}
    models = {("before", seed): model for seed, model in starts.models.items() if seed in seeds}
    models |= {key: run.model for key, run in runs.items()}
    losses = table_of(models, "test loss", "nats", "mean loss per token on test rows, padding left out", loss)
    perplexities = Result(
        name="test perplexity",
        values=losses.values.exp(),
        axes=losses.axes,
        labels=losses.labels,
        description="exponential of the test loss",
    )
    return {"test loss": losses, "test perplexity": perplexities}


def by_epoch(runs: VariantRuns) -> dict[str, Result]:
    """Validation perplexity before the first epoch and after each, by optimizer: axes (seed, step), the steps being epochs."""
    return {name: perplexity_by_epoch(read) for name, read in timelines(runs, "answer_loss").items()}


def by_step(runs: VariantRuns, smooth: int = 8) -> dict[str, Result]:
    """Training loss per step, by optimizer, each the mean of `smooth` steps: axes (seed, step)."""
    found = {}
    for name in OPTIMIZERS:
        chosen = {seed: run for (variant, seed), run in runs.items() if variant == name}
        curves = [read_step_losses(run.folder) for run in chosen.values() if run.folder is not None]
        width = min(smooth, len(curves[0]))
        means = torch.stack(curves).unfold(1, width, 1).mean(-1)
        steps = tuple(str(step) for step in range(width, width + means.shape[1]))
        found[name] = Result(
            name="training loss",
            values=means,
            axes=("seed", "step"),
            labels={"seed": tuple(map(str, chosen)), "step": steps},
            unit="nats",
            description=f"mean of the last {width} steps; padding left out",
        )
    return found


def step_times(study: StudyConfig, starts: Bases, data: TokenData) -> Result:
    """CPU milliseconds per step: axes (variant, part, step), the optimizers taking turns in this process, on one thread."""
    torch.set_num_threads(1)
    settings = {name: tuned(study, name, OPTIMIZERS[name][2], study.search_seed, len(data.train)) for name in OPTIMIZERS}
    models = {name: starts.fresh(study.search_seed) for name in OPTIMIZERS}
    optimizers = {name: make_optimizer(models[name], settings[name]) for name in OPTIMIZERS}
    batch = first_batch(study, starts, data)
    moved = batch.to(device_of(models[next(iter(OPTIMIZERS))]))
    spent = torch.zeros(len(OPTIMIZERS), 2, study.timed_steps, dtype=torch.float64)
    for turn in range(-2, study.timed_steps):  # two rounds before the clock counts: the state is made in the first
        for row, name in enumerate(OPTIMIZERS):
            began = time.process_time()
            optimizers[name].zero_grad()
            mean_loss("autoregressive", models[name](moved.inputs), moved, batch.n_counted).backward()
            between = time.process_time()
            optimizers[name].step()
            ended = time.process_time()
            if turn >= 0:
                spent[row, :, turn] = torch.tensor([between - began, ended - between], dtype=torch.float64) * 1000
    return Result(
        name="time per step",
        values=spent,
        axes=("variant", "part", "step"),
        labels={"variant": tuple(OPTIMIZERS), "part": ("forward and backward", "optimizer")},
        unit="CPU ms",
        description="one thread, the optimizers in turns",
    )


def first_batch(study: StudyConfig, starts: Bases, data: TokenData) -> Batch:
    """The first training rows, as a step gets them."""
    train = starts.run(study.search_seed, study.train).train
    return training_batch(train, data, torch.arange(min(train.batch_size, len(data.train))), 1)


def padding_check(study: StudyConfig, starts: Bases, data: TokenData) -> Result:
    """Whether padding reaches the loss: the largest differences between equal batches that differ in padding only.

    Axis (quantity): loss and gradients with other tokens in the place of padding (0 if padding is left out); the loss minus that
    of each row by itself, cut before its padding; and, as the control, the loss with padding counted minus the loss without.
    """
    assert data.answers is not None
    base, batch = starts.models[study.search_seed], first_batch(study, starts, data)
    real = data.answers["train"][: len(batch.tokens)]
    other = torch.where(real, batch.tokens, 1)
    other[:, 0] = batch.tokens[:, 0]
    loss, gradients = _gradients(base, batch)
    changed, changed_gradients = _gradients(base, Batch(other, other, batch.counted))
    with torch.no_grad():
        alone = [
            mean_loss("autoregressive", base(row[None].to(device_of(base))).cpu(), Batch(row[None], row[None], None), 1)
            for row in (tokens[: int(kept.sum()) + 1] for tokens, kept in zip(batch.tokens, real, strict=True))
        ]
    counted = _gradients(base, Batch(batch.tokens, batch.tokens, None))[0]
    by_row = float(torch.stack(alone).double().sum() / real[:, 1:].sum())
    gap = max(float((a - b).abs().max()) for a, b in zip(gradients, changed_gradients, strict=True))
    values = [abs(loss - changed), gap, abs(loss - by_row), abs(counted - loss)]
    names = ("loss, other padding", "gradients, other padding", "loss, row by row without padding", "control: padding counted")
    return Result(
        name="padding",
        values=torch.tensor(values, dtype=torch.float64),
        axes=("quantity",),
        labels={"quantity": names},
        unit="nats",
        description="differences between batches that differ in their padding only",
    )


def _gradients(base: Any, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    batch = batch.to(device_of(base))
    loss = mean_loss("autoregressive", base(batch.inputs), batch, batch.n_counted)
    found = torch.autograd.grad(loss, list(base.parameters()), allow_unused=True)  # a bridge has some that nothing reads
    return float(loss.detach()), [gradient for gradient in found if gradient is not None]
