"""Where in a model: a `Site` names an activation by layer and kind, in TransformerLens' words.

A site is a value, not a string, and resolving it against a model either gives the hook point or raises with the valid ones
listed. A kind outside the table below is taken as the literal name of a hook point, for modules with names of their own.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

from interp.errors import ModelError, SiteError, kind_of, nearest

RESIDUAL = ("batch", "pos", "d_model")
PER_HEAD = ("batch", "pos", "head", "d_head")
SQUARE = ("batch", "head", "query", "key")
NEURONS = ("batch", "pos", "d_mlp")

# kind -> (hook name, axes). A name with {layer} exists once per layer.
KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "embed": ("hook_embed", RESIDUAL),
    "pos_embed": ("hook_pos_embed", RESIDUAL),
    "conv": ("hook_conv", RESIDUAL),
    "resid_pre": ("blocks.{layer}.hook_resid_pre", RESIDUAL),
    "resid_mid": ("blocks.{layer}.hook_resid_mid", RESIDUAL),
    "resid_post": ("blocks.{layer}.hook_resid_post", RESIDUAL),
    "attn_out": ("blocks.{layer}.hook_attn_out", RESIDUAL),
    "mlp_out": ("blocks.{layer}.hook_mlp_out", RESIDUAL),
    "q": ("blocks.{layer}.attn.hook_q", PER_HEAD),
    "k": ("blocks.{layer}.attn.hook_k", PER_HEAD),
    "v": ("blocks.{layer}.attn.hook_v", PER_HEAD),
    "attn_scores": ("blocks.{layer}.attn.hook_attn_scores", SQUARE),
    "pattern": ("blocks.{layer}.attn.hook_pattern", SQUARE),
    "z": ("blocks.{layer}.attn.hook_z", PER_HEAD),
    "mlp_pre": ("blocks.{layer}.mlp.hook_pre", NEURONS),
    "mlp_post": ("blocks.{layer}.mlp.hook_post", NEURONS),
}
LOGITS = "logits"  # the model's output: can be read like a site, never written


@runtime_checkable
class HookedModel(Protocol):
    """What `interp` needs of a model; HookedTransformer, TransformerBridge and any HookedRootModule have it."""

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        """The hook points by name; several names may mean one point."""

    def hooks(self, fwd_hooks: list, bwd_hooks: list = ..., reset_hooks_end: bool = ...) -> Any:
        """A context in which (name, function) pairs are called at their hook points."""

    def __call__(self, tokens: Any) -> Any:
        """The logits for tokens [batch pos]."""


@dataclass(frozen=True)
class Site:
    """An activation's address: `Site("pattern", 1)`, `Site("conv")`, `Site("z", 0, head=3)`, `Site("resid_post", 2)`.

    `head` and `position` narrow an intervention to one entry; probes read the whole activation. A full hook name of the table
    means the same site: `Site("blocks.1.hook_resid_mid") == Site("resid_mid", 1)`.
    """

    kind: str
    layer: int | None = None
    head: int | None = None
    position: int | None = None

    def __post_init__(self) -> None:
        if self.layer is None and self.kind in _names():
            object.__setattr__(self, "kind", _names()[self.kind])
        elif self.layer is None and (known := _layered_name(self.kind)):
            object.__setattr__(self, "kind", known[0])
            object.__setattr__(self, "layer", known[1])
        if ("{layer}" in KINDS.get(self.kind, (self.kind,))[0]) != (self.layer is not None):
            raise _wrong_layer(self)
        if self.head is not None and "head" not in self.axes:
            raise SiteError(f"site {self}", f"{self.kind!r} has axes {self.axes}, no head", "Leave the head out")

    def __str__(self) -> str:
        parts = [self.kind] + [f"{name} {value}" for name, value in vars(self).items() if name != "kind" and value is not None]
        return " ".join(parts)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the activation's axes (empty for a hook point outside the table)."""
        return KINDS.get(self.kind, ("", ()))[1]

    @property
    def hook_name(self) -> str:
        """The hook point's name in TransformerLens' spelling."""
        return KINDS.get(self.kind, (self.kind, ()))[0].format(layer=self.layer)


@lru_cache
def _names() -> dict[str, str]:
    return {name: kind for kind, (name, _) in KINDS.items() if "{layer}" not in name}


@lru_cache(maxsize=4096)
def _layered_name(name: str) -> tuple[str, int] | None:
    """The kind and layer that a full hook name stands for, or None."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    kinds = {template: kind for kind, (template, _) in KINDS.items()}
    kind = kinds.get(f"blocks.{{layer}}.{match[2]}") if match else None
    return (kind, int(match[1])) if match and kind else None


def nearest_kind(name: object, kinds: Iterable[str] = KINDS) -> str:
    """'Did you mean …? ' for the kind out of `kinds` whose own name, or whose hook point's, is the closest; '' when none is.

    Hook points may be named in full (`blocks.0.attn.hook_z`) or by their end (`hook_z`), a site by itself.
    """
    kinds, text = tuple(kinds), name.kind if isinstance(name, Site) else str(name)
    by_hook = {KINDS[kind][0].rsplit(".", 1)[-1]: kind for kind in kinds if kind in KINDS}
    last = text.rsplit(".", 1)[-1]
    return nearest(by_hook.get(last, last.removeprefix("hook_")), kinds) or nearest(text, kinds)


def _wrong_layer(site: Site) -> SiteError:
    """The error for a site that lacks its layer, or has one that its kind does not take."""
    kind = site.kind
    if site.layer is None:
        return SiteError(f"site {site}", f"{kind!r} needs a layer", f"Write Site({kind!r}, 0)")
    if kind in KINDS or kind in _names() or kind == LOGITS:
        return SiteError(f"site {site}", f"{kind!r} has no layer", f"Write Site({kind!r})")
    layered = [known for known, (template, _) in KINDS.items() if "{layer}" in template]
    return SiteError(
        f"site {site}",
        f"{kind!r} is no kind that exists once per layer; those are {', '.join(layered)}",
        f"{nearest_kind(kind, layered)}A hook point with a name of its own is given without a layer: Site({kind!r})",
    )


OUTPUT = Site(LOGITS)


def check_no_name(model: object) -> None:
    """Raise `ModelError` for the name or folder of a model where the model itself is wanted."""
    if isinstance(model, str | PurePath):
        raise ModelError(
            f"using {str(model)!r} as a model",
            f"it is a {'name' if isinstance(model, str) else 'path'} and not the model itself",
            f"Open it first: model = interp.load_model({str(model)!r})",
        )


def check_model(model: object) -> None:
    """Raise `ModelError` unless `model` has hook points and the calls `interp` needs; for a name it says what opens it."""
    check_no_name(model)
    if not isinstance(model, HookedModel):
        raise ModelError(
            f"using {kind_of(model)} as a model",
            "it has no hook points (hook_dict and hooks())",
            "Open one with interp.load_model, or give this one hook points with interp.hooked(module, sites)",
        )


def check_site(model: HookedModel, site: Site) -> str:
    """The hook name of `site` in `model`. Raises `SiteError` listing what exists when it does not."""
    if site.kind == LOGITS or site.hook_name in model.hook_dict:
        return site.hook_name
    if site.layer is not None and layers_with(model, site.kind):
        have = layers_with(model, site.kind)
        raise SiteError(f"site {site}", f"this model has {site.kind!r} at layers {have}", "Choose one of those layers")
    kinds = available_kinds(model)
    raise SiteError(
        f"site {site}",
        f"this {type(model).__name__} has no {site.kind!r}",
        f"{nearest_kind(site, [*kinds, *model.hook_dict])}Kinds here: {', '.join(kinds) or 'none'}; "
        f"any other of its {len(model.hook_dict)} hook names can be given as a kind too",
    )


def layers_with(model: HookedModel, kind: str) -> list[int]:
    """The layers at which `model` has a hook point of this kind, in order."""
    template = KINDS[kind][0] if kind in KINDS else kind
    if "{layer}" not in template:
        return []
    pattern = re.compile(re.escape(template).replace(r"\{layer\}", r"(\d+)"))
    return sorted(int(match[1]) for name in model.hook_dict if (match := pattern.fullmatch(name)))


def sites_of(model: HookedModel, kind: str) -> list[Site]:
    """Every site of one kind, by layer. Raises `SiteError` when the model has none, `ModelError` for what is no model."""
    check_model(model)
    layers = layers_with(model, kind)
    if not layers:
        site = Site(kind, 0) if "{layer}" in KINDS.get(kind, ("",))[0] else Site(kind)
        check_site(model, site)
        return [site]
    return [Site(kind, layer) for layer in layers]


def available_kinds(model: HookedModel) -> list[str]:
    """The kinds of the table that exist somewhere in `model`."""
    return [kind for kind, (name, _) in KINDS.items() if name in model.hook_dict or layers_with(model, kind)]
