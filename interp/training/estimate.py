"""What runs will cost, found by taking a few real steps of each distinct shape."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from interp.config import as_dict
from interp.data import TokenData, load_data
from interp.errors import ConfigError, InterpError
from interp.models import build_model
from interp.models.saved import count_parameters
from interp.training.config import RunConfig
from interp.training.engine import pick_device
from interp.training.fit import fit
from interp.training.objectives import model_for
from interp.training.plans import Plan
from interp.training.steps import reading_steps, total_steps

_PACE = {"lr", "weight_decay", "momentum", "schedule", "warmup_ratio", "epochs", "max_steps", "patience", "seed", "n_evals"}
_UNTIMED = _PACE | {"eval_every", "tracker", "sample_tokens", "checkpoint_seconds", "checkpoint_steps", "keep_checkpoints"}
"""Settings of training on which the time of a step or of a reading does not depend."""


@dataclass(frozen=True)
class Estimate:
    """A run's parameters, sequences, tokens in a sequence, steps, and the expected seconds of training and readings."""

    plan: Plan
    n_parameters: int
    n_sequences: int
    length: int
    steps: int
    seconds: float


def check_plans(plans: Sequence[Plan]) -> dict[Any, TokenData]:
    """Load each distinct data once, and see that every model fits its data and every device is there. Returns data by settings.

    Raises `ConfigError` with all mistakes, each with a file and a run that has it. Cost: that of loading the data.
    """
    data: dict[Any, TokenData] = {}
    wrong: dict[Any, InterpError] = {}
    mistakes: dict[str, list[Plan]] = {}
    for plan in plans:
        described = plan.config.data
        try:
            if described in wrong:
                raise wrong[described]
            if described not in data:
                data[described] = load_data(described)
            model_for(plan.config, data[described])
            for device in plan.config.train.device.split(","):
                pick_device(device.strip())
        except InterpError as error:
            if described not in data:
                wrong[described] = error
            mistakes.setdefault(str(error), []).append(plan)
    if mistakes:
        shown = [f"{found[0].source}: {error} ({_runs(found)})" for error, found in mistakes.items()]
        raise ConfigError(
            f"{sum(map(len, mistakes.values()))} of {len(plans)} runs cannot be trained",
            "\n  " + "\n  ".join(shown) + "\nNothing was run",
            "Correct what is named and try again",
        )
    return data


def estimate(plans: Sequence[Plan], *, steps: int = 6, progress: bool = True) -> list[Estimate]:
    """The size and expected time of every run, in one process of one thread, as `fit_all` gives each.

    Twice `steps` steps of training and a few readings are taken for each distinct combination of model, shape of data and
    settings that cost time; nothing is written. Saving files is not counted. Raises where `check_plans` does.
    """
    data = check_plans(plans)
    measured: dict[str, tuple[float, float]] = {}
    estimates = []
    with _one_thread():
        for plan in tqdm(plans, desc="timing a few steps", unit="run", disable=not progress):
            config, tokens = plan.config, data[plan.config.data]
            model = build_model(model_for(config, tokens))
            shape = _shape(config, tokens)
            if shape not in measured:
                first, second = (_measure(config, tokens, steps) for _ in range(2))  # the first calls of a process are slow
                measured[shape] = min(first[0], second[0]), min(first[1], second[1])
            per_step, per_reading = measured[shape]
            n_steps = total_steps(config.train, len(tokens.train))
            n_readings = 1 + len(reading_steps(config.train, n_steps))
            estimates.append(
                Estimate(
                    plan=plan,
                    n_parameters=count_parameters(model),
                    n_sequences=len(tokens.train),
                    length=tokens.train.shape[1],
                    steps=n_steps,
                    seconds=n_steps * per_step + n_readings * per_reading,
                )
            )
    return estimates


def together(estimates: Sequence[Estimate], workers: int | None = None) -> float:
    """Seconds until all runs are done in so many processes (default: one per core): no less than the longest takes alone."""
    workers = min(workers or os.cpu_count() or 1, len(estimates))
    return max(sum(each.seconds for each in estimates) / workers, *(each.seconds for each in estimates))


def _runs(plans: Sequence[Plan]) -> str:
    return plans[0].name if len(plans) == 1 else f"{plans[0].name} and {len(plans) - 1} more runs"


def _shape(config: RunConfig, data: TokenData) -> str:
    train = {name: value for name, value in as_dict(config.train).items() if name not in _UNTIMED}
    rows = min(len(data.train), config.train.batch_size), min(len(data.validation), config.train.eval_sequences)
    return json.dumps([as_dict(config.model), train, rows, data.train.shape[1], data.d_vocab], sort_keys=True)


def _measure(config: RunConfig, data: TokenData, steps: int) -> tuple[float, float]:
    """Seconds of a step and of a reading; the first step, which is slower, is left out."""
    quick: Any = {
        "max_steps": steps,
        "epochs": steps,
        "eval_every": None,
        "patience": None,
        "tracker": "none",
        "sample_tokens": 0,
    }
    train = replace(config.train, **quick, n_evals=2, lr=1e-12)  # such a rate moves nothing far, wherever the settings would
    began = time.perf_counter()
    run = fit(replace(config, train=train), data=data, progress=False)
    elapsed = time.perf_counter() - began
    last = run.metrics[-1]
    return last["seconds_per_step"], max(0.0, elapsed - last["seconds"]) / len(run.metrics)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
