"""`ablated`: a model without some of its parts, for as long as a `with` block lasts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InterpError, SiteError
from interp.interventions import components as parts
from interp.interventions.components import Component
from interp.interventions.modes import Manner, for_any_batch
from interp.models.calling import check_tokens
from interp.running import Intervention, edited
from interp.sites import HookedModel, Site, check_model

Head = tuple[int, int]


@contextmanager
def ablated(
    model: HookedModel,
    *,
    heads: Sequence[Head] = (),
    layers: Sequence[int] = (),
    mlps: Sequence[int] = (),
    conv: bool = False,
    taps: Sequence[int] = (),
    mode: str = "mean",
    reference: Int[Tensor, "example pos"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Iterator[HookedModel]:
    """`model` with parts ablated, inside a `with` block: called directly, through `run`, or generating.

    `heads` are (layer, head), cut at `z`; `layers` are attention layers, at `attn_out`; `mlps` at `mlp_out`; `conv` the
    convolution's output; `taps` offsets of a ConvAttn's kernel, at what each adds to that output. The ablation replaces them as
    `mode` says (see `modes`): "zero", "mean", "position_mean", "resample", "frozen", and for heads "uniform", "previous" and
    "self". Without `reference`, means and other examples are those of each batch the model is called on (so of a batch of
    `run`); with it they are those of the model as it was before the block, on the reference; same length for "position_mean"
    and "resample". "frozen" needs it: the tokens the model is then called on, or more. `seed` draws the other examples of
    "resample"; `batch_size` is for running the reference.

    Nothing in the model changes but hooks, which are gone afterwards, whatever happens inside; blocks can be nested, the inner
    one acting after the outer. Equals a zero (or mean …) written into a copy of the model's activations; "zero" on a tap equals
    masking that tap. Raises at the start `SiteError` for parts that do not exist or cannot be written, `ConfigError` for an
    unknown mode or one that does not apply; at the end `SiteError` when some hook never fired (unless an exception is
    passing). Cost: a trial pass over a few tokens the first time, one pass over the reference, and a copy of what is edited.
    """
    check_model(model)
    if reference is not None:
        check_tokens(model, reference)
    chosen = _components(model, heads=heads, layers=layers, mlps=mlps, conv=conv, taps=taps)
    manner = Manner(mode, reference, seed, batch_size)
    manner.check(chosen)
    counted = [_Counted(intervention) for intervention in for_any_batch(model, chosen, manner)]
    with edited(model, counted, tokens=_tokens_to_try(model, reference)):
        yield model
    silent = [str(site) for intervention in counted for site, times in intervention.acted.items() if not times]
    if silent:
        raise SiteError(
            f"ablating at {', '.join(silent)}",
            "the model never passed there inside the block, so nothing was ablated",
            "Call the model inside the with block; interp.audit(model) lists the sites that work",
        )


def _tokens_to_try(model: HookedModel, reference: Tensor | None) -> Tensor | None:
    """What to try sites on: the reference, or None for random tokens, or token 0 when the size of the vocabulary is unknown."""
    if reference is not None:
        return reference[:1]
    known = isinstance(getattr(getattr(model, "cfg", None), "d_vocab", None), int)
    return None if known else torch.zeros(1, 2, dtype=torch.long)


class _Counted(Intervention):
    """An intervention, and how often it acted at each of its sites."""

    _passing = ("acted",)

    def __init__(self, intervention: Intervention):
        self.intervention = intervention
        self.acted: dict[Site, int] = {}

    def sites(self, model: HookedModel) -> Sequence[Site]:
        sites = self.intervention.sites(model)
        for site in sites:
            self.acted.setdefault(site, 0)
        return sites

    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        self.acted[site] += 1
        return self.intervention.edit(activation, site, tokens)


def _components(
    model: HookedModel,
    *,
    heads: Sequence[Head],
    layers: Sequence[int],
    mlps: Sequence[int],
    conv: bool,
    taps: Sequence[int],
) -> list[Component]:
    if conv and taps:
        raise InterpError("ablating the convolution and its taps", "the taps are parts of it", "Give conv=True or taps=[…]")
    for name, given in {"layers": layers, "mlps": mlps, "taps": taps}.items():
        if isinstance(given, int):
            raise InterpError(f"ablated({name}={given})", "several can be ablated together", f"Give a list: {name}=[{given}]")
    chosen: list[Component] = [*parts.heads(model, heads)]
    chosen += [parts.part(model, "attn_out", layer) for layer in dict.fromkeys(layers)]
    chosen += [parts.part(model, "mlp_out", layer) for layer in dict.fromkeys(mlps)]
    chosen += [parts.part(model, "conv")] if conv else []
    chosen += [parts.taps(model, taps)] if taps else []
    if not chosen:
        raise InterpError("ablated(model)", "nothing was named to ablate", "Give heads, layers, mlps, conv or taps")
    return chosen
