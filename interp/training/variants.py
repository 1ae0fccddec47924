"""Runs of several variants and seeds: how they are named, and what is read off all of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch

from interp.result import Result
from interp.training.fit import FinishedRun
from interp.training.timeline import timeline

VariantRuns = Mapping[tuple[str, int], FinishedRun]
"""Finished runs by variant and seed; every variant has every seed."""


def run_name(variant: str, seed: int) -> str:
    """A name for `fit_all`, fit for a folder: small letters, digits and dashes, then the seed."""
    return f"{re.sub(r'[^a-z0-9]+', '-', variant.lower()).strip('-')}-seed{seed}"


T = TypeVar("T")


def table_of(runs: Mapping[tuple[str, int], T], name: str, unit: str, description: str, read: Callable[[T], float]) -> Result:
    """What `read` gives for each run (or model) by variant and seed: axes (variant, seed), in the given order."""
    variants = list(dict.fromkeys(variant for variant, _ in runs))
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    values = [[read(runs[variant, seed]) for seed in seeds] for variant in variants]
    return Result(
        name=name,
        values=torch.tensor(values, dtype=torch.float64),
        axes=("variant", "seed"),
        labels={"variant": tuple(variants), "seed": tuple(map(str, seeds))},
        unit=unit,
        description=description,
    )


def timelines(runs: VariantRuns, metric: str, unit: str = "") -> dict[str, Result]:
    """`timeline` of one metric for each variant, axes (seed, step)."""
    variants = dict.fromkeys(variant for variant, _ in runs)
    return {name: timeline([run for (variant, _), run in runs.items() if variant == name], metric, unit) for name in variants}


def perplexity_by_epoch(losses: Result) -> Result:
    """The exponential of a `timeline` of losses in nats that was read before the first epoch and after each; steps are epochs."""
    labels = {"seed": losses.labels_of("seed"), "step": tuple(map(str, range(losses.values.shape[1])))}
    return replace(losses, name="validation perplexity", values=losses.values.exp(), labels=labels, unit="")
