"""How many steps, at which learning rate, read when, with which optimizer."""

import math

import torch

from interp.models import Toy
from interp.training.config import TrainConfig


def total_steps(config: TrainConfig, n_rows: int) -> int:
    """Optimizer steps of a run: epochs × batches (the last one may be smaller), cut at `max_steps`."""
    steps = config.epochs * math.ceil(n_rows / config.batch_size)
    return min(steps, config.max_steps or steps)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of step 1 … steps: a linear rise over the warm-up, then constant or half a cosine down to 0 after the last."""
    warmup = round(config.warmup_ratio * steps)
    if step <= warmup:
        return config.lr * step / warmup
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup - 1) / max(1, steps - warmup)))


def eval_steps(steps: int, n_evals: int) -> frozenset[int]:
    """Up to `n_evals` steps in 1 … steps, evenly spaced in log step; the last is always one of them."""
    spaced = torch.logspace(0, math.log10(steps), n_evals, dtype=torch.float64) if n_evals > 1 else torch.tensor([steps])
    return frozenset(int(step) for step in spaced.round()) | {steps}


def make_optimizer(model: Toy, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimizer over the parameters that are trained (a frozen kernel is left out, decay included)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, fused=True)  # one call, not one per tensor
