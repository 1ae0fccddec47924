"""Attention patterns set by hand: causal, and every row sums to 1."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, SiteError, nearest
from interp.running import Intervention
from interp.sites import HookedModel, Site

Pattern = Float[Tensor, "query key"]


def uniform(n_query: int, n_key: int) -> Pattern:
    """Equal attention to the current and every earlier position."""
    places = _places(n_query, n_key)
    reachable = torch.arange(n_key) <= rearrange(places, "query -> query 1")
    return reachable / (rearrange(places, "query -> query 1") + 1)


def previous(n_query: int, n_key: int) -> Pattern:
    """All attention to the token before; the first token, which has none, attends to itself."""
    return torch.nn.functional.one_hot((_places(n_query, n_key) - 1).clamp(min=0), n_key).to(torch.float32)


def to_self(n_query: int, n_key: int) -> Pattern:
    """All attention to the current token."""
    return torch.nn.functional.one_hot(_places(n_query, n_key), n_key).to(torch.float32)


FORMS: Mapping[str, Callable[[int, int], Pattern]] = {"uniform": uniform, "previous": previous, "self": to_self}


@dataclass(frozen=True)
class SetPattern(Intervention):
    """A head's attention pattern, or all heads' of a layer, set to one of `FORMS`: "uniform", "previous" or "self".

    Exact for causal attention over unpadded sequences: query i is taken to be the i-th last key (all keys but the last
    `n_query` come from a key-value cache), and every key up to it to be allowed. Raises `ConfigError` for another form and
    `SiteError` for a site that is not a pattern.
    """

    site: Site
    form: str

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(
                f"pattern {self.form!r}", f"the patterns are {', '.join(FORMS)}", f"{nearest(self.form, FORMS)}Name one of them"
            )
        if self.site.kind != "pattern" or self.site.position is not None:
            raise SiteError(f"setting the pattern at {self.site}", "only whole patterns can be set", 'Use Site("pattern", …)')

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [self.site]

    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        n_heads, n_query, n_key = activation.shape[1:]
        head = self.site.head
        if head is not None and not 0 <= head < n_heads:
            raise SiteError(f"site {self.site}", f"this layer has {n_heads} heads", f"Choose from 0 to {n_heads - 1}")
        activation[:, slice(None) if head is None else head] = FORMS[self.form](n_query, n_key).to(activation)
        return activation


def _places(n_query: int, n_key: int) -> Int[Tensor, " query"]:
    """The key position of each query."""
    return torch.arange(n_key - n_query, n_key)
