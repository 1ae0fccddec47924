"""What a diagnosis looks at: activations, gradients and paths of one batch, kept whole for as long as the checks need them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.errors import DataError, InterpError, SiteError
from interp.models.calling import check_tokens, device_of, eval_mode, hooks_on, in_trial, logits_of
from interp.probes.padding import check_unpadded, valid_positions
from interp.running import Intervention, edited
from interp.seeds import seed_for
from interp.sites import HookedModel, Site, check_model, layers_with

KEPT = ("resid_pre", "q", "k", "pattern", "z", "attn_out", "mlp_post", "resid_post")
SLOPES = ("resid_pre", "z", "attn_out", "resid_post")
Loss = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Reading:
    """One batch's forward pass, and what was tried on it; what was not or could not be read is empty."""

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    causal: bool | None  # None: nobody says
    residual: bool  # whether the model says that it has a residual stream; True when it says nothing
    scale: float | None  # of the scores, where the model's cfg states one
    dropping: bool = False  # in training mode, with dropout
    at: dict[Site, Tensor] = field(default_factory=dict)
    slopes: dict[Site, Tensor] = field(default_factory=dict)  # ∂loss/∂activation; zeros where there is none
    logits: Tensor | None = None
    again: Tensor | None = None  # a second pass over the same tokens
    earlier: Tensor | None = None  # a pass with other tokens in the second half
    left_on: Sequence[str] | None = None  # dropout modules that are on in a model in eval mode
    paths: dict[str, dict[int, Float[Tensor, "2"]]] = field(default_factory=dict)  # around what -> layer -> gain, alignment
    unreadable: dict[str, str] = field(default_factory=dict)  # what could not be tried -> why

    def layers(self, kind: str) -> dict[int, Tensor]:
        """Activations of one kind by layer, in float32 at least."""
        found = {site.layer: tensor for site, tensor in self.at.items() if site.kind == kind and site.layer is not None}
        return {layer: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for layer, tensor in sorted(found.items())}

    def stream(self, of: Mapping[Site, Tensor]) -> list[Tensor]:
        """What enters each layer and what leaves the last one, real tokens alone: [token d_model] each."""
        last = max((site.layer for site in of if site.kind == "resid_post" and site.layer is not None), default=None)
        entering = sorted((site for site in of if site.kind == "resid_pre"), key=lambda site: site.layer or 0)
        sites = entering + ([] if last is None else [Site("resid_post", last)])
        return [of[site][self.real].double() for site in sites if of[site].shape[:2] == self.real.shape]

    @property
    def visible(self) -> Bool[Tensor, "batch 1 query key"]:
        """The keys that a query may look at; every one of them for a query that is padding."""
        keys = rearrange(self.real, "batch key -> batch 1 1 key")
        pairs = keys.expand(-1, -1, self.real.shape[1], -1)
        return pairs.tril() if self._looks_back_only() else pairs

    def _looks_back_only(self) -> bool:
        if self.causal is not None:
            return self.causal
        return all(not bool(pattern.triu(1).any()) for pattern in self.layers("pattern").values())


def blank_reading(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    pad_id: int | None,
    mask: Tensor | None,
    causal: bool | None,
    residual: bool | None,
) -> Reading:
    """A reading with nothing read: the tokens, which are real, and what the model says of itself.

    What is padding is told by `mask`, by `pad_id` (also inside a row when the model's own `cfg.pad_id` names it, since that model
    hides it there), or not at all, which is refused where the tokenizer says that they are padded.
    """
    check_model(model)
    check_tokens(model, tokens)
    tokens = tokens.to(device_of(model), torch.int64)
    config = getattr(model, "cfg", None)
    own_pad = getattr(config, "pad_id", None)
    if mask is not None and pad_id is not None:
        raise DataError("which tokens are padding", "both mask and pad_id were given", "Give one of the two")
    if mask is not None:
        real = mask.to(tokens.device).bool()
        if real.shape != tokens.shape:
            shapes = f"the mask has shape {tuple(real.shape)}, the tokens {tuple(tokens.shape)}"
            raise DataError("which tokens are padding", shapes, "Give one entry per token")
    elif isinstance(own_pad, int) and pad_id in (None, own_pad):
        real = tokens != own_pad
    else:
        if pad_id is None:
            check_unpadded(model, tokens)
        real = valid_positions(tokens, pad_id)
    if not bool(real.any(1).all()):
        raise DataError("diagnosing", "a row holds nothing but padding", "Give every row at least one token")
    if causal is None:
        direction = getattr(config, "attention_dir", None)
        causal = {"causal": True, "bidirectional": False}.get(direction) if isinstance(direction, str) else None
    if residual is None:
        residual = bool(getattr(getattr(model, "config", None), "residual", True))
    return Reading(tokens, real, causal, residual, _stated_scale(config), _drops(model))


@contextmanager
def keeping(model: HookedModel, found: Reading, slopes: bool) -> Iterator[dict[Site, Tensor]]:
    """Every forward pass inside the block leaves its activations in `found.at`; yields those that gradients are wanted of."""
    live: dict[Site, Tensor] = {}

    def keep(site: Site, activation: Tensor) -> Tensor | None:
        if in_trial():
            return None
        fresh = None
        if slopes and torch.is_grad_enabled() and site.kind in SLOPES:
            if not activation.requires_grad and site.kind == "resid_pre":  # frozen parameters: the graph starts here
                activation = fresh = activation.detach().requires_grad_()
            live[site] = activation
        found.at[site] = activation.detach().clone()  # a view of what the model goes on to change would change with it
        return fresh

    sites = [Site(kind, layer) for kind in KEPT for layer in layers_with(model, kind)]
    with hooks_on(model, {site.hook_name: partial(keep, site) for site in sites}):
        yield live


def read_batch(model: HookedModel, found: Reading, loss: Loss | None) -> None:
    """Fill `found` in eval mode: activations and gradients, a second pass, a pass with later tokens changed, and the paths."""
    found.left_on = _left_on(model)
    found.dropping = False
    device = found.tokens.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), eval_mode(model):
        with torch.inference_mode(False), torch.enable_grad(), keeping(model, found, slopes=True) as live:
            tokens = found.tokens.clone()  # what was made in inference mode has no gradients
            logits = logits_of(model, tokens)
            slopes_of(found, live, logits, loss)
        found.logits = logits.detach()
        with torch.no_grad():
            found.again = logits_of(model, tokens)
            if found.causal and logits.ndim == 3 and tokens.shape[1] >= 4:
                found.earlier = logits_of(model, _later_changed(tokens, found.real))
        if found.residual and bool(found.logits.isfinite().all()):
            _read_paths(model, found)
        with torch.no_grad():
            logits_of(model, tokens[:1])  # some models keep their last pattern, and with it the graph


def slopes_of(found: Reading, live: Mapping[Site, Tensor], logits: Tensor, loss: Loss | None) -> None:
    """Fill `found.slopes` with the gradients of the loss (None: cross-entropy of labels drawn at random)."""
    value = _random_loss(logits) if loss is None else loss(logits)
    if not isinstance(value, Tensor) or value.ndim:
        kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InterpError("the gradients of the loss", f"loss(logits) is {kind}", "Return a tensor without axes")
    sites = [site for site, tensor in live.items() if tensor.requires_grad]
    if not value.requires_grad or not sites:
        found.unreadable["slopes"] = "the loss has no gradient at any activation"
        return
    gradients = torch.autograd.grad(value, [live[site] for site in sites], allow_unused=True)
    for site, gradient in zip(sites, gradients, strict=True):
        found.slopes[site] = torch.zeros_like(live[site]) if gradient is None else gradient.detach()


@dataclass(frozen=True, eq=False)
class _Cut(Intervention):
    """What layers add to the stream, cut off from what it was computed from: gradients reach it and end there."""

    at: Sequence[Site]
    kept: dict[Site, Tensor] = field(default_factory=dict)

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return self.at

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        self.kept[site] = activation.detach().requires_grad_()
        return self.kept[site]


def _read_paths(model: HookedModel, found: Reading) -> None:
    """Around attention and MLP: how each layer's resid_post follows what entered it, attention's output, and the MLP's."""
    layers = [n for n in layers_with(model, "attn_out") if n in layers_with(model, "resid_pre")]
    layers = [n for n in layers if n in layers_with(model, "resid_post")]
    if not layers:
        found.unreadable["paths"] = "the model has no resid_pre, attn_out and resid_post to follow"
        return
    cut = _Cut([Site(kind, n) for kind in ("attn_out", "mlp_out") for n in layers if n in layers_with(model, kind)])
    one_row = found.tokens[:1, found.real[0]]
    kept = Reading(found.tokens, found.real, found.causal, found.residual, None)
    try:
        with torch.inference_mode(False), torch.enable_grad(), edited(model, [cut], tokens=one_row.clone()):
            ends: dict[int, Tensor] = {}
            keep = {Site("resid_post", n).hook_name: partial(ends.__setitem__, n) for n in layers}
            with keeping(model, kept, slopes=True) as live, hooks_on(model, keep):
                logits_of(model, found.tokens.clone())
    except SiteError as error:
        found.unreadable["paths"] = f"the path cannot be followed ({error.asked}: {error.truth})"
        return
    starts = {"stream": live, "attention": cut.kept, "MLP": cut.kept}
    for name, kind in (("stream", "resid_pre"), ("attention", "attn_out"), ("MLP", "mlp_out")):
        sites = {n: Site(kind, n) for n in layers if Site(kind, n) in starts[name]}
        found.paths[name] = {n: _followed(ends[n], starts[name][site]) for n, site in sites.items()}


def _followed(end: Tensor, start: Tensor) -> Float[Tensor, "2"]:
    """The gradient of end · v at start for a random v: its part along v over |v|, and the cosine of the two (0, 0: no path)."""
    generator = torch.Generator().manual_seed(seed_for("path followed"))
    v = torch.randn(end.shape, generator=generator, dtype=torch.float64).to(end)
    gradient = None
    if end.requires_grad and start.requires_grad:
        with torch.inference_mode(False):
            (gradient,) = torch.autograd.grad(end, [start], v.clone(), retain_graph=True, allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        return torch.zeros(2, dtype=torch.float64)
    gradient, v = gradient.double().flatten(), v.double().flatten()
    return torch.stack([gradient @ v / (v @ v), gradient @ v / (gradient.norm() * v.norm())]).cpu()


def _later_changed(tokens: Tensor, real: Tensor) -> Tensor:
    """The tokens with the second half of each row replaced by its real tokens in reverse order of rows and places."""
    half = tokens.shape[1] // 2
    other = tokens.clone()
    other[:, half:] = torch.where(real[:, half:], tokens[:, :1], tokens[:, half:])
    return other


def _random_loss(logits: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(seed_for("labels of a diagnosis"))
    labels = torch.randint(logits.shape[-1], logits.shape[:-1], generator=generator).to(logits.device)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(wide.flatten(0, -2), labels.flatten())


def _dropouts(model: Any) -> Iterator[tuple[str, nn.Module]]:
    roots = [root for root in (model, getattr(model, "original_model", None)) if isinstance(root, nn.Module)]
    for root in roots:
        for name, module in root.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                yield name, module


def _drops(model: Any) -> bool:
    return any(module.training for _, module in _dropouts(model))


def _left_on(model: Any) -> list[str]:
    return [] if getattr(model, "training", False) else sorted({name for name, module in _dropouts(model) if module.training})


def _stated_scale(config: Any) -> float | None:
    """By what queries · keys are multiplied, where `cfg` says that it is not 1 / sqrt(d_head)."""
    if getattr(config, "use_attn_scale", True) is False:
        return 1.0
    divisor = getattr(config, "attn_scale", None)
    return 1.0 / float(divisor) if isinstance(divisor, (int, float)) and divisor > 0 else None
