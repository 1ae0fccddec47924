"""Hook points for a plain `nn.Module`, named from outside: no subclassing, no edits to its source.

    model = interp.hooked(bert, {
        "resid_post": "bert.encoder.layer.{layer}",
        "z": Output("bert.encoder.layer.{layer}.attention.self", index=0, heads=4),
        "pattern": Output("bert.encoder.layer.{layer}.attention.self", index=1),
    })

The wrapper is a `HookedRootModule`, so every probe and `run` work on it. The module stays as it is: torch hooks stand on its
submodules only while the wrapper is being called.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from einops import EinopsError, rearrange
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.errors import ModelError, SiteError, kind_of, nearest
from interp.sites import KINDS, Site

PER_HEAD_JOINED = "batch pos (head d_head)"
SHARED_BY_HEADS = ("k", "v")  # one key or value may serve a group of heads


@dataclass(frozen=True)
class Output:
    """What a submodule returns, as the place of a site.

    `path` is the submodule's name in its module; `{layer}` in it stands for the layer's number. `index` picks one entry of a
    tuple (a number) or of a mapping (a key). `columns=(start, stop)` takes only those of the last axis (one of joined q, k, v).
    `layout` names the tensor's axes in einops' words when they are not the site's own order, e.g. `"batch head pos d_head"` or
    `"pos batch d_model"`; `heads=4` is short for heads lying side by side in the last axis (`"batch pos (head d_head)"`), and
    `heads=1` for a site with a head axis and a tensor without one.
    """

    path: str
    index: int | str | None = None
    heads: int | None = None
    columns: tuple[int, int] | None = None
    layout: str | None = None
    incoming: ClassVar[bool] = False


class Input(Output):
    """What a submodule is given (its first positional argument, or the one at `index`): else as `Output`.

    `Input("transformer.h.{layer}.attn.c_proj", heads=4)` is `z` in a module whose heads are joined by a projection.
    """

    incoming: ClassVar[bool] = True


def hooked(
    module: nn.Module,
    sites: Mapping[str, str | Output],
    *,
    d_vocab: int | None = None,
    n_ctx: int | None = None,
    n_heads: int | None = None,
    tokenizer: Any = None,
    logits: Callable[[Any], Tensor] | None = None,
) -> "HookedModule":
    """A model with hook points for `module`: each site's kind (see `Site`, or a name of your own) and where to find it.

    Called with tokens [batch pos], it returns the module's logits: its output, or `output.logits`, or what the function
    `logits` makes of the output. A kind that exists per layer needs `{layer}` in its path; without, it is layer 0, if the module
    has no other there (for one layer of several, name the hook point: "blocks.1.attn.hook_pattern"). `d_vocab`,
    `n_ctx` and `n_heads` are taken from a Hugging Face configuration or the sites when not given; a probe that needs one that
    is not known says so. Sites that the module computes but does not use further (attention weights that it only returns) can
    be read but not written: `interp.audit` tells. Gradients flow through.

    Raises `ModelError` for a path that does not exist (with near ones) or is one of several layers. `SiteError` comes from the
    first call on, for a submodule that is not called, an entry that is no tensor, or one whose axes, columns or heads do not fit.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"hooking {kind_of(module)}", "it is not a torch module", "Give an nn.Module")
    if not isinstance(sites, Mapping) or not all(isinstance(place, (str, Output)) for place in sites.values()):
        raise ModelError(
            f"hooking {kind_of(module)} at {sites!r}", "places are paths or Output(…)", "Give {site: submodule path, …}"
        )
    known = getattr(module, "config", None)
    points = [point for kind, place in sites.items() for point in _points(module, kind, place)]
    if not points:
        raise ModelError(f"hooking {kind_of(module)}", "no sites were named", "Give {site: submodule path, …}")
    heads = [n for point in points if (n := point.place.heads or 1) > 1]  # 1: a tensor without a head axis
    config = SimpleNamespace(
        n_layers=1 + max((point.site.layer or 0) for point in points),
        n_heads=n_heads or _first(known, "num_attention_heads", "n_head") or (max(heads) if heads else None),
        d_vocab=d_vocab or _first(known, "vocab_size") or _only_embedding(module),
        n_ctx=n_ctx or _first(known, "max_position_embeddings", "n_positions"),
        d_model=_first(known, "hidden_size", "n_embd"),
    )
    return HookedModule(module, points, config, logits, tokenizer)


@dataclass(frozen=True)
class _Point:
    """One hook point of the wrapper: its site, where it lies, and the axes of the tensor there and in the site."""

    site: Site
    place: Output
    submodule: nn.Module

    def pick(self, value: Any) -> Tensor:
        """The site's activation in what the submodule was given or returned."""
        tensor = self._entry(value)
        if self.place.columns:
            tensor = tensor[..., self._columns(tensor)]
        there, here = self._layouts()
        if there == here:
            self._check_axes(tensor)
            return tensor
        try:
            return rearrange(tensor, f"{there} -> {here}", **self._sizes(there))
        except EinopsError:
            raise self._misfit(tensor, there) from None

    def put(self, value: Any, activation: Tensor) -> Any:
        """`value` with the site's activation exchanged, everything else in it as it was; `value` itself is not changed."""
        there, here = self._layouts()
        tensor = activation if there == here else rearrange(activation, f"{here} -> {there}")
        if self.place.columns:
            start, stop = self.place.columns
            whole = self._entry(value)
            tensor = torch.cat([whole[..., :start], tensor, whole[..., stop:]], dim=-1)
        return _exchanged(value, self.place.index, tensor)

    def _entry(self, value: Any) -> Tensor:
        index = self.place.index
        try:
            entry = value if index is None else value[index]
        except (KeyError, IndexError, TypeError):
            entry = None
        if not isinstance(entry, Tensor):
            what = "is given" if self.place.incoming else "returns"
            hint = (
                "Attention weights are None unless the model was loaded with attn_implementation='eager'" if entry is None else ""
            )
            raise SiteError(
                f"site {self.site}",
                f"submodule {self.place.path!r} {what} {_described(value)}, with no tensor at index {index!r}",
                f"Give the index of the tensor, e.g. Output({self.place.path!r}, index=0). {hint}".rstrip(". "),
            )
        return entry

    def _columns(self, tensor: Tensor) -> slice:
        start, stop = self.place.columns or (0, 0)
        size = tensor.shape[-1] if tensor.ndim else 0
        if not 0 <= start < stop <= size:
            raise SiteError(
                f"site {self.site} at columns {(start, stop)}",
                f"the last axis of the tensor at {self.place.path!r} has {size} of them",
                f"Give columns=(start, stop) with 0 ≤ start < stop ≤ {size}",
            )
        return slice(start, stop)

    def check_heads(self, activation: Tensor, n_heads: int | None) -> None:
        """Raise `SiteError` unless the activation has `n_heads` heads, or (keys and values) a number that divides it."""
        _, here = self._layouts()
        if not n_heads or "head" not in here.split() or self.place.heads == 1:
            return
        size, shared = activation.shape[here.split().index("head")], self.site.kind in SHARED_BY_HEADS
        if size == n_heads or (shared and n_heads % size == 0):
            return
        among = ", which do not divide among them" if shared else ""
        raise SiteError(
            f"site {self.site} of a module with n_heads={n_heads}",
            f"the tensor at {self.place.path!r} has {size} heads{among}",
            "Give hooked(…, n_heads=…) as many as a layer has queries, and heads= of the site as many as lie in its tensor",
        )

    def _layouts(self) -> tuple[str, str]:
        here = " ".join(self.site.axes)
        there = self.place.layout
        if there is None and self.place.heads and "d_head" in here:
            there = PER_HEAD_JOINED
        if there is None:
            there = here.replace("head ", "", 1) if self.place.heads == 1 else here
        names = re.findall(r"\w+", there)
        if "head" in self.site.axes and "head" not in names:
            here = " ".join("1" if axis == "head" else axis for axis in self.site.axes)
        return there, here

    def _sizes(self, there: str) -> dict[str, int]:
        return {"head": self.place.heads} if self.place.heads and "head" in re.findall(r"\w+", there) else {}

    def _check_axes(self, tensor: Tensor) -> None:
        if self.site.axes and tensor.ndim != len(self.site.axes):
            raise self._misfit(tensor, " ".join(self.site.axes))

    def _misfit(self, tensor: Tensor, there: str) -> SiteError:
        return SiteError(
            f"site {self.site}",
            f"the tensor at {self.place.path!r} has shape {tuple(tensor.shape)}, which does not fit the axes ({there})",
            "Give heads= (joined in the last axis), columns= or layout= so that they fit, or another index",
        )


class HookedModule(HookedRootModule):
    """A module with hook points named from outside; made by `hooked`. `wrapped` is the module itself."""

    def __init__(
        self, module: nn.Module, points: list[_Point], config: Any, logits: Callable[[Any], Tensor] | None, tokenizer: Any
    ):
        super().__init__()
        self.wrapped = module
        self.training = module.training
        self.tokenizer = tokenizer
        self._points, self._config, self._logits = points, config, logits
        for point in points:
            _place(self, point.site.hook_name)
        self.setup()

    @property
    def cfg(self) -> Any:
        """What is known of the model's shape (None for what is not), with the device and type its weights have now."""
        weight = next(self.parameters(), torch.empty(0))
        return SimpleNamespace(**vars(self._config), device=weight.device, dtype=weight.dtype)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        """The module's logits for `tokens`, its activations passing through the hook points on the way."""
        called: set[int] = set()
        with self._listening(called):
            output = self.wrapped(tokens)
        for point in self._points:
            if id(point.submodule) not in called:
                raise SiteError(
                    f"site {point.site}",
                    f"submodule {point.place.path!r} is not called in the forward pass",
                    "Name a submodule that is (one whose forward runs, not one whose weights are read), or leave the site out",
                )
        return self._logits(output) if self._logits else _logits(output)

    @contextmanager
    def _listening(self, called: set[int]) -> Iterator[None]:
        handles = []
        try:
            for point in self._points:
                handles.append(self._listen(point, called))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _listen(self, point: _Point, called: set[int]) -> Any:
        hook_point = self.hook_dict[point.site.hook_name]

        def through(at: _Point, value: Any) -> Any:
            called.add(id(at.submodule))
            activation = at.pick(value)
            at.check_heads(activation, self._config.n_heads)
            edited = hook_point(activation)
            return None if edited is activation else at.put(value, edited)

        if not point.place.incoming:
            return point.submodule.register_forward_hook(lambda module, inputs, output: through(point, output))

        def before(module: nn.Module, inputs: tuple, named: dict) -> tuple | None:
            index = point.place.index
            if index is None:
                index = 0 if inputs else next(iter(named), 0)
            at = replace(point, place=replace(point.place, index=index))
            changed = through(at, named if isinstance(index, str) else inputs)
            if changed is None:
                return None
            return (inputs, changed) if isinstance(index, str) else (changed, named)

        return point.submodule.register_forward_pre_hook(before, with_kwargs=True)


def _points(module: nn.Module, kind: str, place: str | Output) -> list[_Point]:
    place = Output(place) if isinstance(place, str) else place
    modules = dict(module.named_modules())
    layered = "{layer}" in KINDS.get(kind, (kind, ()))[0]
    if "{layer}" not in place.path:
        if place.path not in modules:
            raise _no_such_path(place.path, modules)
        if layered:
            _check_only_layer(kind, place.path, modules)
        return [_Point(_site(kind, 0 if layered else None), place, modules[place.path])]
    if not layered:
        raise ModelError(
            f"site {kind!r} at {place.path!r}",
            f"{kind!r} has no layers, its path has",
            f"{nearest(kind, KINDS)}Name one submodule, or write {{layer}} into a site name of your own",
        )
    pattern = re.compile(re.escape(place.path).replace(r"\{layer\}", r"(\d+)"))
    layers = sorted(int(match[1]) for path in modules if (match := pattern.fullmatch(path)))
    if not layers:
        raise _no_such_path(place.path, modules)
    paths = {layer: place.path.replace("{layer}", str(layer)) for layer in layers}
    return [_Point(_site(kind, layer), replace(place, path=path), modules[path]) for layer, path in paths.items()]


def _site(kind: str, layer: int | None) -> Site:
    if kind in KINDS:
        return Site(kind, layer)
    return Site(kind.format(layer=layer))


def _check_only_layer(kind: str, path: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise `ModelError` where the path of one layer is given for a kind that other layers have too.

    Layers are the entries of a list, all of one type, that have submodules themselves (unlike the maps of a `Sequential`).
    """
    parts = path.split(".")
    for at in (at for at, part in enumerate(parts) if part.isdecimal()):
        before, behind = parts[:at], parts[at + 1 :]
        entries = list(modules[".".join(before)].children())
        are_layers = len({type(entry) for entry in entries}) == 1 and all(list(entry.children()) for entry in entries)
        having = sum(".".join([*before, str(layer), *behind]) in modules for layer in range(len(entries)))
        if are_layers and having > 1:
            pattern = ".".join([*before, "{layer}", *behind])
            alone = KINDS.get(kind, (kind,))[0].format(layer=parts[at])
            raise ModelError(
                f"site {kind!r} at {path!r}",
                f"that is one layer, and {having} layers have it",
                f"Write {pattern!r} for all of them; for this one alone, name the site by its hook point: {alone!r}",
            )


def _no_such_path(path: str, modules: Mapping[str, nn.Module]) -> ModelError:
    spelled = path.replace("{layer}", "0")
    templates = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.|$)", "{layer}", name) for name in modules if name))
    shown = ", ".join(templates[:12]) + (", …" if len(templates) > 12 else "")
    if not templates:
        return ModelError(f"hooking submodule {path!r}", "this module has no submodules", "Give the module that holds it")
    return ModelError(
        f"hooking submodule {path!r}", "there is none", f"{nearest(spelled, filter(None, modules))}Submodules here: {shown}"
    )


def _place(root: nn.Module, hook_name: str) -> None:
    """Put a hook point into `root` under its dotted name, making the modules between."""
    *parents, leaf = hook_name.split(".")
    owner = root
    for parent in parents:
        if parent not in owner._modules:
            owner.add_module(parent, nn.Module())
        owner = owner._modules[parent] or owner
    if hasattr(owner, leaf):
        raise ModelError(f"a hook point named {hook_name!r}", "that name is taken in the wrapper", "Choose another name")
    owner.add_module(leaf, HookPoint())


def _exchanged(value: Any, index: int | str | None, tensor: Tensor) -> Any:
    if index is None:
        return tensor
    if isinstance(value, Mapping):  # a Hugging Face ModelOutput is one, made from its entries
        key = list(value)[index] if isinstance(index, int) else index
        return type(value)(**{**value, key: tensor})
    entries = [tensor if place == index % len(value) else entry for place, entry in enumerate(value)]
    return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{kind_of(value)} with {', '.join(value)}"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(
            f"a tensor {tuple(entry.shape)}" if isinstance(entry, Tensor) else type(entry).__name__ for entry in value
        )
        return f"{kind_of(value)} of {len(value)} ({inside})"
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else kind_of(value)


def _logits(output: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise ModelError(
            "finding the logits",
            f"the module returns {_described(output)}",
            "Give hooked(…, logits=a function that takes what it returns to a tensor)",
        )
    return logits


def _first(config: Any, *names: str) -> int | None:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)


def _only_embedding(module: nn.Module) -> int | None:
    """The size of the vocabulary of a module with a single embedding; with several there is no telling which it is."""
    sizes = [child.num_embeddings for child in module.modules() if isinstance(child, nn.Embedding)]
    return sizes[0] if len(sizes) == 1 else None
