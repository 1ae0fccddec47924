"""What a sweep reads before it patches: the run that is patched, and the values that are put into it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.interventions.components import Part
from interp.interventions.modes import Capture, capture, derangement, mean_outputs
from interp.interventions.pair_runs import one_of
from interp.metrics.base import Metric, Reads, at_least_float32, gather
from interp.metrics.values import LogitsRead
from interp.models.calling import hooks_on, standing_hooks
from interp.running import Probe, measure
from interp.sites import HookedModel, Site

Tokens = Int[Tensor, "pair pos"]
UNEMBEDDED = "unembed.hook_in"
SOURCES = ("run", "zero", "mean", "resample")


@dataclass(frozen=True, eq=False)
class Run:
    """One untouched forward pass: activations at some sites, the logits that the metric reads, and the metric's values."""

    tokens: Tokens
    at: dict[Site, Tensor]
    logits: Tensor  # pair read id
    values: Tensor  # pair


def read_run(model: HookedModel, tokens: Tokens, sites: Sequence[Site], metric: Metric) -> Run:
    """Run `model` on `tokens`, keeping what is asked for. Cost: one forward pass; memory: all of it at once.

    Where the model shows what it unembeds, and no hooks that might count positions stand on it, only those that the metric
    reads are.
    """
    probes: list[Probe] = [Capture(site) for site in dict.fromkeys(sites)]
    positions = metric.reads.positions
    if positions is None or UNEMBEDDED not in model.hook_dict or standing_hooks(model):
        found = measure(model, tokens, [*probes, LogitsRead(metric.reads)])
    else:
        with hooks_on(model, {UNEMBEDDED: lambda resid: gather(resid, positions, 1, "position")}):
            found = measure(model, tokens, [*probes, LogitsRead(Reads(None, metric.reads.ids))])
    logits = found[LogitsRead.name].values
    values = metric.score(at_least_float32(logits), tokens.to(logits.device)).to(torch.float64)
    return Run(tokens, {probe.site: found[probe.name].values for probe in probes}, logits, values)  # type: ignore[attr-defined]


def read_both(model: HookedModel, one: Tokens, other: Tokens, sites: Sequence[Site], metric: Metric) -> tuple[Run, Run]:
    """Two runs on as many tokens in one forward pass: what a small model costs is the pass, not the rows."""
    both, half = torch.cat([one, other]), len(one)
    run = read_run(model, both, sites, metric.select(torch.arange(half).repeat(2)))

    def part(rows: slice) -> Run:
        return Run(both[rows], {site: values[rows] for site, values in run.at.items()}, run.logits[rows], run.values[rows])

    return part(slice(half)), part(slice(half, None))


@dataclass(frozen=True, eq=False)
class Source:
    """What is patched in: `of(rows, run)` gives the values at each site for those pairs, `run` the other run on them."""

    of: Callable[[Tensor, Run], dict[Site, Tensor]]
    is_run: bool  # whether the values are those of the other run on the same pair


def make_source(name: str, model: HookedModel, tokens: Tokens, sites: Sequence[Site], *, seed: int, batch_size: int) -> Source:
    """What is put in. "run": the other run on the same pair; "resample": on another pair; "mean": its mean; "zero": zeros.

    The mean is over pairs and positions (of a pattern, over pairs). Cost: "mean" one more pass over all pairs here; "resample"
    one more pass over the pairs of each batch.
    """
    one_of("source", name, SOURCES)
    if name == "run":
        return Source(lambda rows, run: {site: run.at[site] for site in sites}, True)
    if name == "zero":
        return Source(lambda rows, run: {site: torch.zeros_like(run.at[site]) for site in sites}, False)
    if name == "resample":
        donors = derangement(len(tokens), seed)
        return Source(lambda rows, run: capture(model, tokens[donors[rows]], sites), False)
    over = "position_mean" if "query" in sites[0].axes else "mean"  # a pattern's mean keeps its places: its rows sum to 1
    means = mean_outputs(model, [Part(site) for site in sites], tokens, over, batch_size)
    return Source(lambda rows, run: {site: means[Part(site)].to(run.at[site]).expand_as(run.at[site]) for site in sites}, False)
