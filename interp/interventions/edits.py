"""Plain interventions: put zeros, given values or a function of what was there in place of a part of an activation.

`Site.head` and `Site.position` say which part; for a pattern the position is that of the query.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import DataError, SiteError
from interp.running import Intervention
from interp.sites import HookedModel, Site

Filler = Callable[[Tensor], Tensor]  # part of an activation -> what is put in its place


@dataclass(frozen=True, eq=False)
class Rewrite(Intervention):
    """Puts `filler(part)` in place of the part of an activation that `site` names.

    The filler gets the part, [batch …] without the axes that the site fixes, and must not change it in place.
    """

    site: Site
    filler: Filler

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [self.site]

    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        index = part_index(self.site, activation)
        part = activation[index]
        new = self.filler(part)
        if new.shape != part.shape:
            shapes = f"its shape {tuple(part.shape)} became {tuple(new.shape)}"
            raise SiteError(f"rewriting {self.site}", shapes, "Return a tensor of the same shape")
        activation[index] = new.to(activation)
        return activation


class Zero(Rewrite):
    """Zeros in place of an activation, or of the head or position of it that `site` names."""

    def __init__(self, site: Site):
        super().__init__(site, torch.zeros_like)


class Replace(Rewrite):
    """`values` in place of an activation, or of the head or position of it that `site` names.

    `values` has the shape of the part, or one that broadcasts to it: e.g. for `Site("z", 1, head=3)` [batch pos d_head],
    [pos d_head] or [d_head]. Raises `SiteError` when it does not fit (also when the batch is not the one it was made for).
    """

    def __init__(self, site: Site, values: Tensor):
        super().__init__(site, given(values, str(site)))


@dataclass(frozen=True, eq=False)
class Freeze(Intervention):
    """Holds activations, usually attention patterns, at the values of another run on the same tokens.

    `values` maps a site to what it held, first axis the example (`capture` makes it). Without `tokens` the batch must be exactly
    that of the values. With `tokens`, [example pos], each row of the batch gets the values of the same tokens, so that batches
    may be parts of them; a row that is not among them raises `DataError`. Equals no intervention when nothing else is changed.
    """

    values: Mapping[Site, Tensor]
    tokens: Int[Tensor, "example pos"] | None = None

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return list(self.values)

    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        values = self.values[site]
        if self.tokens is not None:
            values = values[self._rows_of(tokens).to(values.device)]
        return Replace(site, values).edit(activation, site, tokens)

    def _rows_of(self, tokens: Tensor) -> Tensor:
        assert self.tokens is not None
        known = {tuple(row): index for index, row in enumerate(self.tokens.tolist())}
        rows = [known.get(tuple(row)) for row in tokens.tolist()]
        if None in rows:
            raise DataError(
                "freezing activations to those of another run",
                f"row {rows.index(None)} of the batch is not among the {len(self.tokens)} sequences it was run on "
                "(token ids must be given to the model, whole sequences at a time)",
                "Give reference=tokens, the same tokens the model is then called on",
            )
        return torch.tensor(rows)


def given(values: Tensor, what: str) -> Filler:
    """A filler that puts `values`, broadcast to the part. It raises `SiteError` naming `what` when they do not fit."""

    def fill(part: Tensor) -> Tensor:
        try:
            return values.to(part).expand_as(part)
        except RuntimeError:
            raise SiteError(
                f"replacing {what}",
                f"it holds {tuple(part.shape)} and the values are {tuple(values.shape)}",
                "Give values for this batch and these positions, or such as broadcast to them",
            ) from None

    return fill


def part_index(site: Site, activation: Tensor) -> tuple[int | slice, ...]:
    """The index of the part of `activation` that `site` names. Raises `SiteError` for a head or position it lacks."""
    wanted = {"head": site.head, "pos": site.position, "query": site.position}
    if site.position is not None and not {"pos", "query"} & set(site.axes):
        raise SiteError(f"site {site}", f"its axes are {site.axes or 'unknown'}", "Leave the position out")
    index: list[int | slice] = []
    for axis, size in zip(site.axes, activation.shape, strict=False):
        entry = wanted.get(axis)
        if entry is not None and not -size <= entry < size:
            raise SiteError(f"site {site}", f"there are {size} entries on its axis {axis!r}", f"Choose from 0 to {size - 1}")
        index.append(slice(None) if entry is None else entry)
    return tuple(index)
