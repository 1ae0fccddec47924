"""The cells of a patching sweep: which layers, heads and positions each one patches, and where it stands in the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import index
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import ConfigError, SiteError, nearest
from interp.interventions.patching.sources import Run
from interp.metrics.base import Metric
from interp.metrics.standard import position_of
from interp.running import Intervention
from interp.sites import KINDS, HookedModel, Site, check_site, layers_with, nearest_kind

PATCHABLE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "conv")
AXES = ("layer", "head", "position")
Positions = Sequence[Any] | Mapping[str, Any]  # each entry a position for all pairs, or a [pair] tensor


@dataclass(frozen=True, eq=False)
class Cell:
    """What one cell patches: the given layers at once; the given heads (None: all, or no such axis); the given places."""

    layers: tuple[int | None, ...]
    heads: Bool[Tensor, " head"] | None
    places: Bool[Tensor, "pair pos"] | None  # for a pattern the query's

    def mask(self, rows: Tensor, activation: Tensor, axes: tuple[str, ...]) -> Bool[Tensor, "..."]:
        """True where the activation of the pairs `rows` is patched; broadcasts to the activation."""
        mask = torch.ones((1,) * activation.ndim, dtype=torch.bool, device=activation.device)
        for name, part in (("head", self.heads), ("pos", self.places), ("query", self.places)):
            if part is not None and name in axes:
                shape = [1] * activation.ndim
                shape[axes.index(name)] = part.shape[-1]
                shape[0] = 1 if name == "head" else len(rows)
                mask = mask & (part if name == "head" else part[rows]).reshape(shape).to(activation.device)
        return mask


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of a sweep, in the order of the result's values."""

    kind: str
    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    shape: tuple[int, ...]
    at_once: str = ""  # where every cell patches all at once, in words; "" for all heads, all positions

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The axes of the activation that is patched."""
        return KINDS[self.kind][1]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pairs, with what has been read of them: what a way of running cells works on."""

    model: HookedModel
    rows: Int[Tensor, " pair"]  # their numbers among all pairs
    metric: Metric  # for these pairs
    base: Run  # the run that is patched
    sources: Mapping[Site, Tensor]  # what is put in


@dataclass(frozen=True, eq=False)
class Patch(Intervention):
    """Puts the source's values in place of what `cell` names, for the pairs `rows`."""

    cell: Cell
    kind: str
    sources: Mapping[Site, Tensor]
    rows: Tensor

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [Site(self.kind, layer) for layer in self.cell.layers]

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        mask = self.cell.mask(self.rows, activation, site.axes)
        return torch.where(mask, self.sources[site].to(activation), activation)


def chosen_sites(model: HookedModel, kind: str, layers: Sequence[int] | None) -> list[Site]:
    """The sites that a sweep over `kind` patches. Raises `SiteError` for kinds that cannot be patched and layers not there."""
    if kind not in PATCHABLE:
        raise SiteError(
            f"patching {kind!r}",
            f"the sites are {', '.join(PATCHABLE)}",
            f"{nearest_kind(kind, PATCHABLE)}Name one of them; `layers` and `heads` choose among its layers and heads",
        )
    if "{layer}" not in KINDS[kind][0]:
        if layers is not None:
            raise SiteError(f"patching {kind!r} at layers {layers!r}", f"{kind!r} has no layers", "Leave layers out")
        check_site(model, Site(kind))
        return [Site(kind)]
    if isinstance(layers, int) or (layers is not None and not len(layers)):
        raise SiteError(f"layers {layers!r}", "a list of layers was expected", "Write for example layers=[0, 1]")
    found = layers_with(model, kind) if layers is None else [int(layer) for layer in layers]
    sites = [Site(kind, layer) for layer in dict.fromkeys(found)] or [Site(kind, 0)]
    for site in sites:
        check_site(model, site)
    return sites


def make_grid(
    kind: str,
    sources: Mapping[Site, Tensor],
    n_pairs: int,
    *,
    over: Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Grid:
    """The product of the chosen axes. What is not in `over` is patched all at once, within what `heads` and `positions` allow."""
    axes = KINDS[kind][1]
    example = next(iter(sources.values()))
    have = [axis for axis in AXES if axis != "layer" or next(iter(sources)).layer is not None]
    have = [axis for axis in have if axis != "head" or "head" in axes]
    over = _axes(kind, over, have)
    n_heads = example.shape[axes.index("head")] if "head" in axes else None
    length = example.shape[axes.index("query" if "query" in axes else "pos")]
    layers = tuple(site.layer for site in sources)
    chosen_heads = _heads(kind, heads, n_heads)
    chosen_places = _places(positions, n_pairs, length)
    everywhere = {"layer": layers, "head": chosen_heads, "position": tuple(chosen_places)}
    steps = [everywhere[axis] for axis in over]
    cells = []
    for combination in product(*steps):
        fixed: dict[str, Any] = dict(zip(over, combination, strict=True))
        cells.append(
            Cell(
                (fixed["layer"],) if "layer" in fixed else layers,
                _head_mask((fixed["head"],) if "head" in fixed else chosen_heads, n_heads),
                _place_mask(
                    [fixed["position"]] if "position" in fixed else list(chosen_places), chosen_places, length, positions
                ),
            )
        )
    labels = {axis: tuple(str(entry) for entry in everywhere[axis]) for axis in over}
    asked = {"layer": layers != (None,), "head": heads is not None, "position": positions is not None}
    at_once = [_named(axis, tuple(map(str, everywhere[axis]))) for axis in AXES if asked[axis] and axis not in over]
    told = f"patched at once: {', '.join(at_once)}" if at_once else ""
    return Grid(kind, tuple(cells), over, labels, tuple(len(step) for step in steps), told)


def _named(axis: str, labels: Sequence[str]) -> str:
    """As in "position subject" or "heads 1, 3"; more than two numbers in a row as "layers 0 to 11"."""
    if len(labels) == 1:
        return f"{axis} {labels[0]}"
    in_a_row = labels[0].isdecimal() and list(labels) == [str(int(labels[0]) + step) for step in range(len(labels))]
    return f"{axis}s {labels[0]} to {labels[-1]}" if in_a_row and len(labels) > 2 else f"{axis}s {', '.join(labels)}"


def _axes(kind: str, over: Sequence[str] | None, have: list[str]) -> tuple[str, ...]:
    if over is None:
        return tuple(axis for axis in have if axis != ("position" if "head" in have else "head"))
    over = (over,) if isinstance(over, str) else tuple(over)
    wrong = [axis for axis in over if axis not in have]
    if wrong or len(set(over)) < len(over):
        told = f"its axes are {', '.join(have)}"
        hint = nearest(str(wrong[0]), have) if wrong else ""
        raise ConfigError(f"patching {kind!r} over {over!r}", told, f"{hint}Name some of those, each once")
    return over


def _heads(kind: str, heads: Sequence[int] | None, n_heads: int | None) -> tuple[int, ...]:
    if n_heads is None:
        if heads is not None:
            raise SiteError(f"patching {kind!r} at heads {heads!r}", f"{kind!r} has no heads", "Leave heads out")
        return ()
    if heads is None:
        return tuple(range(n_heads))
    try:
        chosen = tuple(dict.fromkeys(index(head) for head in heads))
    except TypeError:  # one number, or what is none
        chosen = ()
    if not chosen or not all(0 <= head < n_heads for head in chosen):
        raise SiteError(f"heads {heads!r}", f"there are heads 0 to {n_heads - 1}", "Give a list of some of them, e.g. [0, 1]")
    return chosen


def _head_mask(heads: tuple[int, ...], n_heads: int | None) -> Tensor | None:
    if n_heads is None or len(heads) == n_heads:
        return None
    mask = torch.zeros(n_heads, dtype=torch.bool)
    mask[list(heads)] = True
    return mask


def _places(positions: Positions | None, n_pairs: int, length: int) -> dict[str, Tensor]:
    """By label, the position in each pair."""
    if positions is None:
        return {str(place): torch.full((n_pairs,), place) for place in range(length)}
    if isinstance(positions, int | str) or not len(positions):
        raise ConfigError(
            f"positions {positions!r}",
            "a list of positions was expected, or a mapping from names to positions",
            "Write for example positions=[3, 4] or positions={'subject': pairs.positions['subject']}",
        )
    entries = positions.items() if isinstance(positions, Mapping) else [(None, entry) for entry in positions]
    found: dict[str, Tensor] = {}
    for name, entry in entries:
        place = position_of(entry)
        where = torch.full((n_pairs,), place) if isinstance(place, int) else place.cpu()
        if len(where) != n_pairs or bool(((where < -length) | (where >= length)).any()):
            told = f"there are {n_pairs} pairs of {length} positions"
            raise ConfigError(
                f"position {name or entry!r}", told, f"Give one place, or one per pair, each from 0 to {length - 1}"
            )
        where = where % length
        label = str(name) if name is not None else (str(int(where[0])) if isinstance(place, int) else f"place {len(found)}")
        if label in found:
            raise ConfigError(f"position {label!r}", "it is given twice", "Give each position once")
        found[label] = where
    return found


def _place_mask(labels: Sequence[str], places: Mapping[str, Tensor], length: int, given: Positions | None) -> Tensor | None:
    if given is None and len(labels) == length:
        return None
    where = torch.stack([places[label] for label in labels], dim=1)  # pair place
    return torch.zeros(len(where), length, dtype=torch.bool).scatter(1, where, True)


def tolerance(dtype: torch.dtype) -> float:
    """The relative difference that rounding may make between two ways of computing the same.

    A float64 model may compute its norms and rotations in float32 all the same.
    """
    return min(max(2000 * torch.finfo(dtype).eps, 1e-6), 0.05)
