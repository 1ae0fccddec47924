"""`run`: the one place where a model is called for analysis (`measure` is the same for callers that run it many times).

One forward pass per batch. At each hook point interventions edit first, probes read after them, and whatever was changed
for the purpose (hooks, train/eval mode) is put back, also after an exception. `edited` keeps interventions on a model for as
long as a `with` block lasts, with gradients if they are wanted.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import DataError, InterpError, ModelError, SiteError, each_a
from interp.models.calling import check_tokens, device_of, eval_mode, hooks_on, in_trial, logits_of
from interp.models.writable import check_writable, firing_problem, holds_pattern, resid_mid_route, trial_tokens
from interp.provenance import provenance_of
from interp.result import Result
from interp.sites import LOGITS, HookedModel, Site, check_model, check_site

Readings = Mapping[Site, Tensor]
BY_NAME = 'scores by name come from interp.head_scores(model, tokens, scores=["induction"])'


class Probe(ABC):
    """Reads activations as they flow past and reduces each, on the spot, to a few numbers per example.

    A probe holds its settings only; what it reads is kept by `run`, so one probe can be used again and again.
    """

    name: ClassVar[str]

    @abstractmethod
    def sites(self, model: HookedModel) -> Sequence[Site]:
        """The sites to read; `Site("logits")` is the model's output."""

    def prepare(self, tokens: Int[Tensor, "batch pos"]) -> Any:
        """Computed once per batch and handed to every `read` of it: by default the tokens themselves."""
        return tokens

    @abstractmethod
    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        """Reduce one activation to a small tensor whose first axis is the example."""

    @abstractmethod
    def result(self, readings: Readings) -> Result:
        """Turn the readings of all examples (first axis) into a `Result`."""


class Intervention(ABC):
    """Rewrites an activation as it flows past."""

    @abstractmethod
    def sites(self, model: HookedModel) -> Sequence[Site]:
        """The sites to edit."""

    @abstractmethod
    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        """The new activation. The one given is a copy: it may be edited in place and returned."""


def run(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    probes: Sequence[Probe],
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: int | None = None,
) -> dict[str, Result]:
    """Run `model` on `tokens` once, under `interventions`, and return each probe's `Result` by the probe's name.

    The model is run in eval mode and without gradients; hooks, mode and flags are afterwards as they were. Results do not
    depend on `batch_size` (None: all examples at once) beyond rounding. Raises `ModelError`, `DataError` (tokens) and
    `SiteError`: an unknown or silent site, one that fires more than once, one whose edits the model would drop; `InterpError`
    for what is no probe or intervention.
    Cost: one forward pass plus what the probes do, and one pass over the weights at memory speed for the provenance; the first
    time a site of a model is edited, also the trial that `interp.models.writable.check_writable` describes (a few tokens).
    """
    started = time.perf_counter()
    results = measure(model, tokens, probes, interventions, batch_size=batch_size)
    provenance = provenance_of(cast(nn.Module, model), tokens, time.perf_counter() - started)
    return {name: result.with_provenance(provenance) for name, result in results.items()}


def measure(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    probes: Sequence[Probe],
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: int | None = None,
) -> dict[str, Result]:
    """`run` without the provenance, which costs a pass over all weights: for callers that run many times and state it once."""
    check_model(model)
    check_tokens(model, tokens)
    remedy = f"Give probes, e.g. [interp.probes.Induction()]; {BY_NAME}"
    probes = each_a(Probe, probes, "run", remedy)  # type: ignore[type-abstract]
    if not probes or len({probe.name for probe in probes}) != len(probes):
        names = [probe.name for probe in probes]
        raise InterpError("run", f"it was given the probes {names}", "Give at least one probe, each name once")
    interventions = _check_edits(model, interventions, tokens)
    size = len(tokens) if batch_size is None else batch_size
    if not isinstance(size, Integral) or size < 1:
        raise DataError(f"run with batch_size {batch_size!r}", "a batch holds at least one example", "Give a positive number")
    parts: dict[str, dict[Site, list[Tensor]]] = {probe.name: {} for probe in probes}
    with torch.no_grad(), eval_mode(model):
        for chunk in tokens.to(device_of(model), torch.int64).split(size):  # ids are indices and targets, which int32 is not
            _run_batch(model, chunk, probes, interventions, parts)
    readings = {name: {site: torch.cat(pieces) for site, pieces in found.items()} for name, found in parts.items()}
    return {probe.name: probe.result(readings[probe.name]) for probe in probes}


@contextmanager
def edited(
    model: HookedModel, interventions: Sequence[Intervention], *, tokens: Int[Tensor, "batch pos"] | None = None
) -> Iterator[HookedModel]:
    """While the block lasts, every call of `model` runs under `interventions`; gradients flow through them when enabled.

    Mode and gradient setting are the caller's. `tokens` are only used to try whether the sites can be written (default: a few
    random ones). Raises `SiteError` as `run` does: on entry for unknown sites and for edits that the model would drop,
    and from the call itself for a site that does not fire exactly once.
    """
    check_model(model)
    if not isinstance(model, nn.Module):
        raise ModelError(f"editing a {type(model).__name__}", "it is not a torch module", "Use interp.run")
    tokens = trial_tokens(model) if tokens is None else tokens
    check_tokens(model, tokens)
    interventions = _check_edits(model, interventions, tokens)
    plan = _Plan(model, tokens)
    for intervention in interventions:
        plan.add_edits(intervention)

    def begin(module: nn.Module, inputs: tuple, named: dict) -> None:
        if not in_trial():
            plan.begin(_tokens_of(model, inputs, named))

    def end(module: nn.Module, inputs: tuple, output: Any) -> None:
        if not in_trial():
            plan.check()

    handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
    try:
        handles.append(model.register_forward_hook(end))
        with hooks_on(model, plan.hooks()):
            yield model
    finally:
        for handle in handles:
            handle.remove()


def _tokens_of(model: Any, inputs: tuple, named: dict) -> Tensor:
    given = inputs[0] if inputs else named.get("input")
    if given is None:  # under a name of the model's own
        given = next((value for value in named.values() if isinstance(value, Tensor)), None)
    return given if isinstance(given, Tensor) else model.to_tokens(given)


class _Station:
    """One hook point and everything that edits or reads there, in order: edits, then reads, then edits of a later site.

    The last are edits of `resid_mid` on models where writing it directly would reach only the MLP: they change attn_out by as
    much, after whoever reads attn_out has read it.
    """

    _passing = ("fired",)  # not what `identity.described` tells it by

    def __init__(self, name: str):
        self.name = name
        self.sites: list[Site] = []
        self.edits: list[Callable[[Tensor], Tensor]] = []
        self.reads: list[Callable[[Tensor], None]] = []
        self.late_edits: list[Callable[[Tensor], Tensor]] = []
        self.fired = 0

    def pass_through(self, activation: Tensor) -> Tensor | None:
        self.fired += 1
        edited = activation
        for edit in self.edits:
            edited = edit(edited)
        for read in self.reads:
            read(edited)
        for edit in self.late_edits:
            edited = edit(edited)
        return edited if self.edits or self.late_edits else None

    def check(self) -> None:
        """An edit or a reading that did not happen must not look like one that had no effect."""
        if problem := firing_problem(self.fired):
            raise SiteError(
                f"site {', '.join(map(str, self.sites))}",
                f"{problem} (hook point {self.name!r})",
                "Use another site; interp.audit(model) lists those that work",
            )


class _Plan:
    """What happens at which hook point in a forward pass. Stations are keyed by hook point: several names can mean the same."""

    _passing = ("model", "tokens", "points", "stations")

    def __init__(self, model: HookedModel, tokens: Tensor):
        self.model, self.tokens = model, tokens
        self.points = model.hook_dict  # a bridge puts it together anew each time it is asked
        self.stations: dict[int, _Station] = {}

    def begin(self, tokens: Tensor) -> None:
        """A forward pass on `tokens` starts."""
        self.tokens = tokens
        for station in self.stations.values():
            station.fired = 0

    def check(self) -> None:
        for station in self.stations.values():
            station.check()

    def hooks(self) -> dict[str, Callable[[Tensor], Tensor | None]]:
        return {station.name: station.pass_through for station in self.stations.values()}

    def station(self, site: Site) -> _Station:
        name = site.hook_name if site.hook_name in self.points else check_site(self.model, site)
        station = self.stations.setdefault(id(self.points[name]), _Station(name))
        station.sites.append(site)
        return station

    def add_edits(self, intervention: Intervention) -> None:
        for site in intervention.sites(self.model):
            edit = partial(self._edit, intervention, site)
            if site.kind == "resid_mid" and resid_mid_route(self.model, site, self.tokens) == "attn_out":
                self._edit_through_attn_out(site, edit)
            else:
                self.station(site).edits.append(edit)

    def add_reads(self, probe: Probe, kept: dict[Site, list[Tensor]]) -> list[Callable[[Tensor], None]]:
        """Plan the probe's readings of hook points; return its readings of the logits."""
        prepared = probe.prepare(self.tokens)
        of_logits: list[Callable[[Tensor], None]] = []
        for site in probe.sites(self.model):
            read = partial(_read, probe, site, prepared, kept.setdefault(site, []))
            reads = of_logits if site.kind == LOGITS else self.station(site).reads
            reads.append(read)
        return of_logits

    def _edit(self, intervention: Intervention, site: Site, activation: Tensor) -> Tensor:
        copy = activation.clone()
        edited = intervention.edit(copy, site, self.tokens)
        if not isinstance(edited, Tensor) or edited.shape != activation.shape:
            became = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise SiteError(
                f"editing {site}",
                f"the activation's shape {tuple(activation.shape)} became {became}",
                "Return a tensor of the same shape",
            )
        # What is not our own copy may be the caller's (an entry of a cache): the model must not get to change it.
        return edited if edited is copy else edited.to(activation).clone()

    def _edit_through_attn_out(self, site: Site, edit: Callable[[Tensor], Tensor]) -> None:
        """resid_mid := edit(resid_mid), as attn_out += edit(resid_mid) - resid_mid: unedited entries stay bit-equal."""
        before: list[Tensor] = []

        def keep(resid_pre: Tensor) -> None:
            before[:] = [resid_pre]

        def late(attn_out: Tensor) -> Tensor:
            resid_mid = before[0] + attn_out
            return attn_out + (edit(resid_mid) - resid_mid)

        self.station(Site("resid_pre", site.layer)).reads.append(keep)
        self.station(Site("attn_out", site.layer)).late_edits.append(late)


def _check_edits(model: HookedModel, given: Sequence[Intervention], tokens: Tensor) -> list[Intervention]:
    """The interventions as a list, all of whose edits the model will take."""
    remedy = 'Give a list of interventions, e.g. [interp.interventions.Zero(Site("z", 0, head=1))]'
    interventions = each_a(Intervention, given, "editing a model", remedy)  # type: ignore[type-abstract]
    sites = [site for intervention in interventions for site in intervention.sites(model)]
    for site in sites:
        if site.kind == LOGITS:
            raise SiteError("editing the logits", "they are the model's output, not a hook point", "Edit the last resid_post")
        check_site(model, site)
    check_writable(model, sites, tokens)
    return interventions


def _run_batch(
    model: HookedModel,
    tokens: Tensor,
    probes: Sequence[Probe],
    interventions: Sequence[Intervention],
    parts: dict[str, dict[Site, list[Tensor]]],
) -> None:
    plan = _Plan(model, tokens)
    for intervention in interventions:
        plan.add_edits(intervention)
    of_logits = [read for probe in probes for read in plan.add_reads(probe, parts[probe.name])]
    with hooks_on(model, plan.hooks()):
        logits = logits_of(model, tokens)
    plan.check()
    for read in of_logits:
        read(logits)


def _read(probe: Probe, site: Site, prepared: Any, kept: list[Tensor], activation: Tensor) -> None:
    if site.kind == "attn_scores" and holds_pattern(activation):
        raise SiteError(
            f"reading {site}", "this model puts the pattern (after the softmax) there, not the scores", "Read pattern, or q and k"
        )
    version = None if activation.is_inference() else activation._version
    reading = probe.read(activation, site, prepared)
    if version is not None and activation._version != version:
        raise InterpError(
            f"probe {probe.name!r} at {site}",
            "it changed the activation that it was given",
            "Reduce a copy, or use an Intervention",
        )
    kept.append(reading.detach().clone())  # clone: a reading may be a view of a tensor that the model goes on to change
