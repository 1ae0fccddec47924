"""`run`: the one place where a model is called for analysis.

One forward pass per batch. At each hook point interventions edit first, probes read after them, and whatever was changed
for the purpose (hooks, train/eval mode) is put back, also after an exception.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import DataError, InterpError, SiteError
from interp.provenance import provenance_of
from interp.result import Result
from interp.sites import LOGITS, HookedModel, Site, check_model, check_site

Readings = Mapping[Site, Tensor]


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
    `SiteError` (unknown or silent site, or one that fires more than once). Cost: one forward pass plus what the probes do.
    """
    check_model(model)
    check_tokens(model, tokens)
    if not probes or len({probe.name for probe in probes}) != len(probes):
        names = [probe.name for probe in probes]
        raise InterpError("run", f"it was given the probes {names}", "Give at least one probe, each name once")
    started = time.perf_counter()
    size = batch_size or len(tokens)
    if size < 1:
        raise DataError(f"run with batch_size {batch_size}", "a batch holds at least one example", "Give a positive number")
    parts: dict[str, dict[Site, list[Tensor]]] = {probe.name: {} for probe in probes}
    with torch.no_grad(), eval_mode(model):
        for chunk in tokens.to(device_of(model)).split(size):
            _run_batch(model, chunk, probes, interventions, parts)
    readings = {name: {site: torch.cat(pieces) for site, pieces in found.items()} for name, found in parts.items()}
    results = {probe.name: probe.result(readings[probe.name]) for probe in probes}
    provenance = provenance_of(model, tokens, time.perf_counter() - started)
    return {name: result.with_provenance(provenance) for name, result in results.items()}


def check_tokens(model: HookedModel, tokens: Tensor) -> None:
    """Raise `DataError` unless `tokens` is a non-empty [batch pos] tensor of ids inside the model's vocabulary and context."""
    if tokens.ndim != 2 or tokens.numel() == 0 or tokens.is_floating_point():
        raise DataError(
            "running a model",
            f"tokens have shape {tuple(tokens.shape)} and type {tokens.dtype}",
            "Give integer ids, [batch pos], at least one",
        )
    config = getattr(model, "cfg", None)
    d_vocab, n_ctx = getattr(config, "d_vocab", None), getattr(config, "n_ctx", None)
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or (isinstance(d_vocab, int) and d_vocab > 0 and high >= d_vocab):
        raise DataError(
            "running a model", f"token ids run from {low} to {high}, the vocabulary has {d_vocab}", "Use this model's tokenizer"
        )
    if isinstance(n_ctx, int) and 0 < n_ctx < tokens.shape[1]:
        raise DataError(
            "running a model", f"sequences of {tokens.shape[1]} tokens exceed its context of {n_ctx}", "Shorten or split them"
        )


def device_of(model: HookedModel) -> torch.device:
    """The device of the model's first parameter (CPU for a model without parameters)."""
    parameter = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def eval_mode(model: HookedModel) -> Iterator[None]:
    """Put every submodule into eval mode, and back to the mode each one was in."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Station:
    """One hook point and everything that edits or reads there, in order."""

    def __init__(self, name: str):
        self.name = name
        self.edits: list[tuple[Intervention, Site]] = []
        self.reads: list[tuple[Callable[[Tensor], None], Site]] = []
        self.fired = 0

    def pass_through(self, activation: Tensor, tokens: Tensor) -> Tensor | None:
        self.fired += 1
        edited = activation
        for intervention, site in self.edits:
            edited = intervention.edit(edited.clone(), site, tokens)
            if edited.shape != activation.shape:
                shapes = f"{tuple(activation.shape)} became {tuple(edited.shape)}"
                raise SiteError(f"editing {site}", f"the activation's shape {shapes}", "Return a tensor of the same shape")
        for read, _ in self.reads:
            read(edited)
        return edited if self.edits else None

    def check(self) -> None:
        """An edit or a reading that did not happen must not look like one that had no effect."""
        if self.fired == 1:
            return
        sites = ", ".join(str(site) for _, site in [*self.edits, *self.reads])
        told = (
            "it never fires in this model's forward pass"
            if not self.fired
            else f"it fires {self.fired} times in one forward pass"
        )
        raise SiteError(
            f"site {sites}", f"{told} (hook point {self.name!r})", "Use another site; interp.audit(model) lists those that work"
        )


def _run_batch(
    model: HookedModel,
    tokens: Tensor,
    probes: Sequence[Probe],
    interventions: Sequence[Intervention],
    parts: dict[str, dict[Site, list[Tensor]]],
) -> None:
    stations: dict[int, _Station] = {}  # by hook point, not by name: several names can mean the same point

    def station(site: Site) -> _Station:
        name = check_site(model, site)
        return stations.setdefault(id(model.hook_dict[name]), _Station(name))

    for intervention in interventions:
        for site in intervention.sites(model):
            if site.kind == LOGITS:
                raise SiteError("editing the logits", "they are the model's output, not a hook point", "Edit the last resid_post")
            station(site).edits.append((intervention, site))
    output_reads: list[Callable[[Tensor], None]] = []
    for probe in probes:
        prepared = probe.prepare(tokens)
        for site in probe.sites(model):
            read = _reader(probe, site, prepared, parts[probe.name].setdefault(site, []))
            output_reads.append(read) if site.kind == LOGITS else station(site).reads.append((read, site))
    logits = _forward(model, tokens, list(stations.values()))
    for read in output_reads:
        read(logits)


def _reader(probe: Probe, site: Site, prepared: Any, kept: list[Tensor]) -> Callable[[Tensor], None]:
    def read(activation: Tensor) -> None:
        # clone: a reading may be a view of a tensor that the model goes on to change
        kept.append(probe.read(activation, site, prepared).detach().clone())

    return read


def _forward(model: HookedModel, tokens: Tensor, stations: list[_Station]) -> Tensor:
    def hook(at: _Station) -> Callable:
        # A bridge may report another name than the one asked for, so the hook closes over its own station.
        return lambda activation, hook: at.pass_through(activation, tokens)

    with model.hooks(fwd_hooks=[(at.name, hook(at)) for at in stations]):
        logits = model(tokens)
    for at in stations:
        at.check()
    return logits
