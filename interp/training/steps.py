"""How many steps, at which learning rate, read when, with which optimizer."""

import math

import torch
from torch import nn

from interp.training.config import TrainConfig
from interp.training.muon import can_be_fused, muon


def total_steps(config: TrainConfig, n_rows: int) -> int:
    """Optimizer steps of a run: epochs × batches (the last one may be smaller), cut at `max_steps`."""
    steps = config.epochs * steps_per_epoch(config, n_rows)
    return min(steps, config.max_steps or steps)


def steps_per_epoch(config: TrainConfig, n_rows: int) -> int:
    """Batches in one pass over the data; the last one may be smaller."""
    return math.ceil(n_rows / config.batch_size)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of step 1 … steps: a linear rise, then constant, or a line or half a cosine to 0 after the last."""
    warmup = round(config.warmup_ratio * steps)
    if step <= warmup:
        return config.lr * step / warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup - 1) / max(1, steps - warmup)
    return config.lr * (1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def eval_steps(steps: int, n_evals: int) -> frozenset[int]:
    """Up to `n_evals` steps in 1 … steps, evenly spaced in log step; the last is always one of them."""
    spaced = torch.logspace(0, math.log10(steps), n_evals, dtype=torch.float64) if n_evals > 1 else torch.tensor([steps])
    return frozenset(int(step) for step in spaced.round()) | {steps}


def reading_steps(config: TrainConfig, steps: int) -> frozenset[int]:
    """The steps after which metrics are read; the last is always one of them."""
    if config.eval_every is not None:
        return frozenset(range(config.eval_every, steps, config.eval_every)) | {steps}
    return eval_steps(steps, config.n_evals)


def kept_steps(config: TrainConfig, steps: int) -> frozenset[int]:
    """The steps after which a copy of the model is kept: 0 first, then evenly spaced in log step up to the last."""
    if config.keep_checkpoints < 2:
        return frozenset(range(config.keep_checkpoints))
    return eval_steps(steps, config.keep_checkpoints - 1) | {0}


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimizer over the parameters that are trained (a frozen kernel is left out, decay included)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = can_be_fused(trained)
    if config.optimizer == "muon":
        return muon(model, config)
    if config.optimizer == "adam":
        return torch.optim.Adam(trained, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, fused=fused)  # one call, not one per tensor
