"""What can be ablated: a head, an attention layer's or MLP's output, the convolution, and single taps of its kernel.

A component knows what it puts out, from activations read at some sites, and how to put something else in its place. How that
something is chosen (zero, a mean, another example) is the business of `modes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ModelError, SiteError
from interp.interventions.edits import Filler, Rewrite, part_index
from interp.models.parts import CausalConv
from interp.models.toys import ConvAttn
from interp.running import Intervention
from interp.sites import HookedModel, Site, check_site, layers_with


class Component(ABC):
    """A part of a model whose output can be replaced."""

    @abstractmethod
    def reads(self) -> Sequence[Site]:
        """The sites from which its output is known."""

    @abstractmethod
    def output(self, activations: Mapping[Site, Tensor]) -> Tensor:
        """What it puts out, [batch pos …], from the activations at `reads()`."""

    @abstractmethod
    def rewritten(self, filler: Filler) -> Intervention:
        """The intervention that puts `filler(output)` in place of its output."""

    @property
    @abstractmethod
    def next_layer(self) -> int:
        """The first layer whose attention can feel it."""


@dataclass(frozen=True)
class Part(Component):
    """A component that is (a head of) the activation at one site."""

    site: Site

    def reads(self) -> Sequence[Site]:
        return [Site(self.site.kind, self.site.layer)]

    def output(self, activations: Mapping[Site, Tensor]) -> Tensor:
        whole = activations[self.reads()[0]]
        return whole[part_index(self.site, whole)]

    def rewritten(self, filler: Filler) -> Intervention:
        return Rewrite(self.site, filler)

    def __str__(self) -> str:
        return str(self.site)

    @property
    def next_layer(self) -> int:
        return 0 if self.site.layer is None else self.site.layer + 1


@dataclass(frozen=True)
class Taps(Component):
    """Taps of a ConvAttn's kernel, by offset (−1 the previous position): what each adds to the convolution's output.

    The output is [batch pos tap d_model], computed from the embedding with the effective kernel: no weight is touched.
    """

    conv: CausalConv
    offsets: tuple[int, ...]
    positions: bool  # the convolution's input is the token embedding plus a position embedding

    def reads(self) -> Sequence[Site]:
        return [Site("embed"), Site("pos_embed")] if self.positions else [Site("embed")]

    def output(self, activations: Mapping[Site, Tensor]) -> Float[Tensor, "batch pos tap d_model"]:
        x = self.input(activations)
        each = [self.convolved(x, [offset]) - self.bias for offset in self.offsets]
        return torch.stack(each, dim=2)

    def rewritten(self, filler: Filler) -> Intervention:
        return TapRewrite(self, filler)

    def __str__(self) -> str:
        return f"taps {list(self.offsets)}"

    @property
    def next_layer(self) -> int:
        return 0

    @property
    def bias(self) -> Tensor | float:
        """What the convolution puts out without any tap."""
        return 0.0 if self.conv.conv.bias is None else self.conv.conv.bias

    def input(self, activations: Mapping[Site, Tensor]) -> Float[Tensor, "batch pos d_model"]:
        """What the convolution reads, summed in the order in which the model sums it."""
        first, *rest = [activations[site] for site in self.reads()]
        return first + rest[0] if rest else first

    def convolved(self, x: Float[Tensor, "batch pos d_model"], offsets: Sequence[int]) -> Float[Tensor, "batch pos d_model"]:
        """The convolution with these taps alone: bit-equal to a model whose other taps are masked."""
        kept = torch.tensor([float(offset in offsets) for offset in self.conv.offsets]).to(x)
        kernel, conv = self.conv.effective_kernel * kept, self.conv.conv
        channels_first = rearrange(x, "batch pos d_model -> batch d_model pos")
        mixed = nn.functional.conv1d(channels_first, kernel, conv.bias, padding=conv.padding[0])
        return rearrange(mixed, "batch d_model pos -> batch pos d_model")


@dataclass(frozen=True, eq=False)
class TapRewrite(Intervention):
    """Puts `filler(output of the taps)` in place of what the taps add to the convolution's output.

    Raises `SiteError` when the convolution's output or its input was changed by another intervention: which share of it is the
    taps' would not be defined.
    """

    taps: Taps
    filler: Filler
    _seen: dict[Site, Tensor] = field(default_factory=dict)  # the convolution's input, for the length of one forward pass

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [*self.taps.reads(), Site("conv")]

    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        if site.kind != "conv":
            self._seen[site] = activation.clone()
            return activation
        taps = self.taps
        x = taps.input(self._seen)
        everything = taps.convolved(x, taps.conv.offsets)
        tolerance = 100 * torch.finfo(x.dtype).eps * float(everything.detach().abs().max())
        if not bool(((activation - everything).abs() <= tolerance).all()):
            raise SiteError(
                f"taps {list(taps.offsets)} of the convolution",
                "its input or output was changed by another intervention as well",
                "Give all taps to one ablation, and leave embed, pos_embed and conv alone otherwise",
            )
        rest = taps.convolved(x, [offset for offset in taps.conv.offsets if offset not in taps.offsets])
        new = rest + self.filler(taps.output(self._seen)).to(rest).sum(2)
        self._seen.clear()
        return new


def head(model: HookedModel, layer: int, number: int) -> Part:
    """A head, at its `z`. Raises `SiteError` listing the layers or heads that exist when this one does not."""
    site = Site("z", layer, head=number)
    check_site(model, site)
    n_heads = n_heads_of(model)
    if number < 0 or (n_heads is not None and number >= n_heads):
        have = f"layers have heads 0 to {n_heads - 1}" if n_heads else "heads are counted from 0"
        raise SiteError(f"head {number} of layer {layer}", f"in this model {have}", "Choose one of those")
    return Part(site)


def heads(model: HookedModel, chosen: Sequence[tuple[int, int]]) -> list[Part]:
    """Heads given as pairs (layer, head), each once. Raises `SiteError` for anything else, and as `head` does."""
    try:
        pairs = [(index(layer), index(number)) for layer, number in chosen]
    except (TypeError, ValueError):
        raise SiteError(f"heads {chosen!r}", "a head is a pair (layer, head)", "Give a list of pairs, e.g. [(1, 3)]") from None
    return [head(model, *pair) for pair in dict.fromkeys(pairs)]


def n_heads_of(model: HookedModel) -> int | None:
    """How many query heads a layer has, from the model's `cfg`; None when it does not say."""
    n_heads = getattr(getattr(model, "cfg", None), "n_heads", None)
    return n_heads if isinstance(n_heads, int) and n_heads > 0 else None


def part(model: HookedModel, kind: str, layer: int | None = None) -> Part:
    """The activation at one site, checked to exist."""
    site = Site(kind, layer)
    check_site(model, site)
    return Part(site)


def every(model: HookedModel, kind: str) -> list[Part]:
    """The activation of this kind at every layer. Raises `SiteError` when the model has none."""
    return [part(model, kind, layer) for layer in layers_with(model, kind)] or [part(model, kind, 0)]


def taps(model: HookedModel, offsets: Sequence[int] | None = None) -> Taps:
    """Taps of the convolution's kernel, by offset; None: all that are not masked.

    Raises `ModelError` when the model is not a ConvAttn, and `SiteError` for a tap that its kernel does not use.
    """
    if not isinstance(model, ConvAttn):
        raise ModelError(
            f"taps of a {type(model).__name__}",
            "only a ConvAttn has a kernel whose taps can be told apart",
            "Ablate heads, layers or the site 'conv' instead",
        )
    used = [offset for offset, kept in zip(model.conv.offsets, model.conv.mask.tolist(), strict=True) if kept]
    wrong = [offset for offset in offsets or () if offset not in used]
    if wrong:
        raise SiteError(
            f"taps {wrong}", f"this kernel uses the offsets {used}", "Choose from those (−1 is the previous position)"
        )
    chosen = tuple(used if offsets is None else dict.fromkeys(offsets))
    return Taps(model.conv, chosen, positions=model.config.positions)
