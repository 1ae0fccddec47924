"""What is put in place of an ablated component: the modes, for a single batch and for a sweep over many.

"zero"           zeros
"mean"           its mean over examples and positions
"position_mean"  its mean over examples, at each position
"resample"       its output on another example, drawn by a seed
"uniform", "previous", "self"   heads only: the attention pattern is set, the values stay (see `patterns`)
"frozen"         zeros, while the attention patterns of all later layers stay those of the untouched run (the
                 pattern-preserving ablation of Olsson et al. 2022): what is left is the component's effect on what is moved,
                 without its effect on where later heads look

Means and other examples come from a reference (token ids), or from the tokens at hand. In a sweep they are always taken from
untouched runs and over all examples, so that results do not depend on the batch size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import reduce
from jaxtyping import Int
from torch import Tensor

from interp.errors import ConfigError, DataError, InterpError, SiteError, each_a, nearest
from interp.interventions.components import Component, Part
from interp.interventions.edits import Filler, Freeze, given, part_index
from interp.interventions.patterns import FORMS, SetPattern
from interp.metrics.values import row_chunks
from interp.result import Result
from interp.running import Intervention, Probe, Readings, measure
from interp.sites import HookedModel, Site, layers_with

Tokens = Int[Tensor, "batch pos"]
MEANS, WITH_REFERENCE = ("mean", "position_mean"), ("mean", "position_mean", "resample", "frozen")
MODES = ("zero", "mean", "position_mean", "resample", *FORMS, "frozen")
Interventions = Callable[[Sequence[Component]], list[Intervention]]  # for a set of components


@dataclass(frozen=True, eq=False)
class Manner:
    """How components are ablated: the mode, where means and other examples come from, and the batch size for running that."""

    mode: str
    reference: Int[Tensor, "example ref_pos"] | None = None
    seed: int = 0
    batch_size: int | None = None

    def check(self, components: Sequence[Component]) -> None:
        """Raise unless the mode exists, can be applied to these components and has a use for the reference, if one is given."""
        mode = self.mode
        if mode not in MODES:
            raise ConfigError(
                f"ablation mode {mode!r}", f"the modes are {', '.join(MODES)}", f"{nearest(mode, MODES)}Name one of them"
            )
        if mode in FORMS and not all(isinstance(c, Part) and c.site.kind == "z" for c in components):
            raise ConfigError(
                f"ablation mode {mode!r}", "only heads have attention patterns", "Ablate heads, or use another mode"
            )
        if self.reference is not None and mode not in WITH_REFERENCE:
            raise ConfigError(
                f"ablation mode {mode!r} with a reference", "it takes nothing from one", f"Use one of {', '.join(WITH_REFERENCE)}"
            )


def for_any_batch(model: HookedModel, components: Sequence[Component], manner: Manner) -> list[Intervention]:
    """Interventions that ablate `components` in whatever batch the model is called on.

    Without a reference, means and other examples are those of that batch, as the model (other ablations included) has them.
    """
    mode, reference, seed, batch_size = manner.mode, manner.reference, manner.seed, manner.batch_size
    if mode in FORMS:
        return _set_patterns(components, mode)
    if mode == "frozen":
        if reference is None:
            raise InterpError(
                'ablation mode "frozen"',
                "the patterns to freeze are those of the untouched run, which has to come first",
                "Give reference=tokens, the tokens the model is then called on",
            )
        patterns = capture(model, reference, _later_patterns(model, components), batch_size)
        return [*(c.rewritten(torch.zeros_like) for c in components), *_frozen(patterns, reference)]
    if mode in MEANS and reference is not None:
        means = mean_outputs(model, components, reference, mode, batch_size)
        return [c.rewritten(given(means[c], str(c))) for c in components]
    if mode == "resample" and reference is not None:
        activations = capture(model, reference, _sites(components), batch_size)
        return [c.rewritten(_drawn_from(c.output(activations), seed)) for c in components]
    live: dict[str, Filler] = {
        "zero": torch.zeros_like,
        "mean": batch_and_position_mean,
        "position_mean": batch_mean,
        "resample": _shuffled(seed),
    }
    return [c.rewritten(live[mode]) for c in components]


def for_batches(
    model: HookedModel, components: Sequence[Component], tokens: Tokens, manner: Manner
) -> Callable[[Int[Tensor, " row"]], Interventions]:
    """For each batch of rows of `tokens`, what turns a set of `components` into the interventions that ablate it.

    Cost: "mean" one forward pass over the reference (or the tokens) here; "resample" and "frozen" one per batch of rows, whose
    activations (those of the components, or the patterns) are held until the next.
    """
    mode, reference, seed, batch_size = manner.mode, manner.reference, manner.seed, manner.batch_size
    if mode in ("position_mean", "resample") and reference is not None and reference.shape[1] != tokens.shape[1]:
        raise DataError(
            f"ablation mode {mode!r}",
            f"the reference has {reference.shape[1]} positions, the tokens {tokens.shape[1]}",
            "Give a reference of the same length",
        )
    if mode in MEANS:
        if reference is None:
            _check_mean(mode, len(tokens) if mode == "position_mean" else tokens.numel())
        means = mean_outputs(model, components, tokens if reference is None else reference, mode, batch_size)
        return lambda rows: lambda chosen: [c.rewritten(given(means[c], str(c))) for c in chosen]
    if mode == "frozen":
        if reference is not None:
            raise InterpError(
                'a sweep in mode "frozen"', "its patterns are those of the tokens themselves", "Leave reference out"
            )
        return lambda rows: _frozen_in(model, capture(model, tokens[rows], _later_patterns(model, components)))
    if mode == "resample":
        pool = tokens if reference is None else reference
        donors = derangement(len(tokens), seed) if reference is None else drawn(len(reference), len(tokens), seed)
        return lambda rows: _from_donors(capture(model, pool[donors[rows]], _sites(components)))
    return lambda rows: lambda chosen: for_any_batch(model, chosen, manner)


def _from_donors(activations: Mapping[Site, Tensor]) -> Interventions:
    return lambda chosen: [c.rewritten(given(c.output(activations), str(c))) for c in chosen]


def _frozen_in(model: HookedModel, patterns: Mapping[Site, Tensor]) -> Interventions:
    def interventions(chosen: Sequence[Component]) -> list[Intervention]:
        later = {site: patterns[site] for site in _later_patterns(model, chosen)}
        return [*(c.rewritten(torch.zeros_like) for c in chosen), *_frozen(later)]

    return interventions


def _frozen(patterns: Mapping[Site, Tensor], tokens: Tensor | None = None) -> list[Intervention]:
    return [Freeze(patterns, tokens)] if patterns else []


def _later_patterns(model: HookedModel, components: Sequence[Component]) -> list[Site]:
    if not components:
        return []
    first = min(component.next_layer for component in components)
    return [Site("pattern", layer) for layer in layers_with(model, "pattern") if layer >= first]


def _set_patterns(components: Sequence[Component], form: str) -> list[Intervention]:
    sites = [c.site for c in components if isinstance(c, Part)]
    return [SetPattern(Site("pattern", site.layer, head=site.head), form) for site in sites]


def _sites(components: Sequence[Component]) -> list[Site]:
    return list(dict.fromkeys(site for component in components for site in component.reads()))


def batch_mean(output: Tensor) -> Tensor:
    """The mean over examples, at each position."""
    _check_mean("position_mean", len(output))
    return output.mean(0, keepdim=True).expand_as(output)


def batch_and_position_mean(output: Tensor) -> Tensor:
    """The mean over examples and positions."""
    _check_mean("mean", len(output) * output.shape[1])
    return output.mean((0, 1), keepdim=True).expand_as(output)


def _check_mean(mode: str, n_entries: int) -> None:
    """The mean of one entry is that entry: putting it in its place would look like an ablation without effect."""
    if n_entries < 2:
        raise DataError(
            f"ablation mode {mode!r}",
            "there is one entry to average, so nothing would be ablated (generating with a cache, each step has one position)",
            "Give reference=, more examples, or another mode",
        )


def derangement(n: int, seed: int) -> Int[Tensor, " example"]:
    """A random permutation of 0 … n − 1 without fixed points (one cycle through all). Raises `DataError` for n < 2."""
    if n < 2:
        raise DataError(f"resampling among {n} examples", "there is no other example", "Give at least two, or a reference")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others


def drawn(n_reference: int, n: int, seed: int) -> Int[Tensor, " example"]:
    """`n` indices below `n_reference`: distinct ones when there are enough, else drawn independently."""
    generator = torch.Generator().manual_seed(seed)
    if n_reference >= n:
        return torch.randperm(n_reference, generator=generator)[:n]
    return torch.randint(n_reference, (n,), generator=generator)


def _shuffled(seed: int) -> Filler:
    return lambda output: output[derangement(len(output), seed).to(output.device)]


def _drawn_from(values: Tensor, seed: int) -> Filler:
    def fill(output: Tensor) -> Tensor:
        return given(values[drawn(len(values), len(output), seed).to(values.device)], "an output by one of the reference")(output)

    return fill


@dataclass(frozen=True)
class Capture(Probe):
    """Keeps an activation, or the head or position of it that `site` names, whole."""

    site: Site

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"activation at {self.site}"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [self.site]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return activation[part_index(site, activation)]

    def result(self, readings: Readings) -> Result:
        values = readings[self.site]
        fixed = {"head" if self.site.head is not None else "", *(("pos", "query") if self.site.position is not None else ())}
        axes = tuple(axis for axis in self.site.axes if axis not in fixed)
        return Result(name=self.name, values=values, axes=axes or tuple(f"axis {i}" for i in range(values.ndim)))


def capture(model: HookedModel, tokens: Tokens, sites: Sequence[Site], batch_size: int | None = None) -> dict[Site, Tensor]:
    """The activations of the untouched model at `sites`, first axis the example; `Replace` and `Freeze` take them as they are.

    Raises as `run` does, `SiteError` for what is no list of sites, and for activations with infinite entries (masked
    `attn_scores`). Memory: all of them at once.
    """
    sites = each_a(Site, sites, "capturing activations", 'Give a list of sites, e.g. [Site("z", 0)]', SiteError)
    if not sites:
        return {}
    results = measure(model, tokens, [Capture(site) for site in sites], batch_size=batch_size)
    return {site: results[Capture(site).name].values for site in sites}


def mean_outputs(
    model: HookedModel, components: Sequence[Component], tokens: Tokens, mode: str, batch_size: int | None
) -> dict[Component, Tensor]:
    """Each component's mean output on `tokens`: over examples and positions ("mean"), or [pos …], over examples.

    Sums are kept in float64, so the mean does not depend on the batch size beyond rounding of the activations.
    """
    sums: dict[Component, Tensor] = {}
    for rows in row_chunks(len(tokens), batch_size):
        activations = capture(model, tokens[rows], _sites(components))
        for component in components:
            output = component.output(activations).to(torch.float64)
            kept = "pos ..." if mode == "position_mean" else "..."
            total = reduce(output, f"batch pos ... -> {kept}", "sum")
            sums[component] = sums[component] + total if component in sums else total
    count = len(tokens) * (1 if mode == "position_mean" else tokens.shape[1])
    return {component: total / count for component, total in sums.items()}
