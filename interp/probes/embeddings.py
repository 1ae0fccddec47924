"""Residual-stream embeddings: what a model holds at chosen positions after chosen layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, ClassVar

import torch
from einops import einsum, rearrange
from jaxtyping import Int
from torch import Tensor

from interp.errors import DataError, SiteError
from interp.result import Result
from interp.running import Probe, Readings, run
from interp.sites import HookedModel, Site, layers_with, sites_of

EVERY = "example layer position d_model, example position -> example layer d_model"


@dataclass(frozen=True)
class ResidualStream(Probe):
    """Keeps the residual stream at some positions: axes (example, layer, position, d_model).

    `layers` count how many layers the stream went through: 0 is what enters the first, k what leaves the k-th.
    """

    layers: tuple[int, ...]
    positions: tuple[int, ...] | None = None
    name: ClassVar[str] = "residual_embeddings"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [Site("resid_post", layer - 1) if layer else Site("resid_pre", 0) for layer in self.layers]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return activation if self.positions is None else activation[:, list(self.positions)]

    def result(self, readings: Readings) -> Result:
        values = rearrange(list(readings.values()), "layer example position d_model -> example layer position d_model")
        places = range(values.shape[2]) if self.positions is None else self.positions
        return Result(
            name=self.name,
            values=values,
            axes=("example", "layer", "position", "d_model"),
            labels={"layer": tuple(map(str, self.layers)), "position": tuple(map(str, places))},
            count=len(values),
            unit="activation",
            description="residual stream after so many layers; 0: what enters the first",
        )


def residual_embeddings(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Result:
    """The residual stream after chosen layers at chosen positions: axes (example, layer, position, d_model).

    Layer 0 is what enters the first layer (embedding and positions), k what leaves the k-th; None: all, 0 to n_layers.
    `positions` may count from the end (−1: the last); None: all. The final norm is not applied. `mean_pooled` averages over
    positions. Raises `SiteError` for layers that are not there and for models without a residual stream, `DataError` for
    positions outside the tokens. Cost: one forward pass; memory: what is returned.
    """
    n_layers = len(sites_of(model, "resid_post"))
    asked = range(n_layers + 1) if layers is None else _integers("layers", layers)
    wrong = [layer for layer in asked if not 0 <= layer <= n_layers]
    if wrong:
        truth = f"this model has {n_layers}, so 0 to {n_layers} can be read"
        raise SiteError(f"the residual stream after {wrong[0]} layers", truth, "Choose among those (0 is before the first)")
    missing = [layer for layer in range(n_layers) if layer not in layers_with(model, "resid_post")]
    if missing:
        raise SiteError("the residual stream", f"it cannot be read after layers {missing}", "Read single sites with interp.run")
    probe = ResidualStream(tuple(dict.fromkeys(asked)), _places(positions, tokens))
    return run(model, tokens, [probe], batch_size=batch_size)[ResidualStream.name]


def mean_pooled(embeddings: Result, mask: Tensor | None = None) -> Result:
    """Embeddings averaged over positions: axes (example, layer, d_model), in float32 at least.

    `mask` [example position] says which positions count (ones, or True; an attention mask). Raises `DataError` for a mask that
    does not fit, or an example of which nothing counts.
    """
    values = embeddings.values.to(torch.promote_types(embeddings.values.dtype, torch.float32))
    wanted = (values.shape[0], values.shape[2])
    if mask is None:
        mask = torch.ones(wanted)
    if tuple(mask.shape) != wanted:
        raise DataError("averaging over positions", f"the mask has shape {tuple(mask.shape)}", f"Give one of shape {wanted}")
    weight = (mask != 0).to(values)
    if bool((weight.sum(1) == 0).any()):
        raise DataError("averaging over positions", "an example has no position that counts", "Leave that example out")
    mean = einsum(values, weight, EVERY) / rearrange(weight.sum(1), "example -> example 1 1")
    labels = {axis: names for axis, names in embeddings.labels.items() if axis != "position"}
    return replace(
        embeddings,
        name="mean_embeddings",
        values=mean,
        axes=("example", "layer", "d_model"),
        labels=labels,
        description=f"mean over positions of the {embeddings.description}",
    )


def _places(positions: Sequence[int] | None, tokens: Tensor) -> tuple[int, ...] | None:
    if positions is None or not isinstance(tokens, Tensor) or tokens.ndim != 2:
        return None  # tokens are checked by `run`
    length, asked = tokens.shape[1], _integers("positions", positions)
    wrong = [place for place in asked if not -length <= place < length]
    if wrong:
        raise DataError(f"position {wrong[0]}", f"sequences have {length} tokens", f"Choose −{length} to {length - 1}")
    return tuple(dict.fromkeys(place % length for place in asked))


def _integers(what: str, values: Any) -> list[int]:
    try:
        found = [index(value) for value in values]
    except TypeError:
        found = []
    if not found:
        raise DataError(f"{what} {values!r}", "a list of whole numbers was expected", f"Write for example {what}=[0, 1]")
    return found
