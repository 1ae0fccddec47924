"""Attention ablated for as long as wanted, while a model trains or after: a handle that puts everything back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, ModelError, SiteError, nearest
from interp.interventions.edits import Zero
from interp.interventions.patterns import FORMS, SetPattern
from interp.models.writable import check_writable, trial_tokens
from interp.running import Intervention
from interp.seeds import seed_for
from interp.sites import HookedModel, Site, check_model, check_site, layers_with

SHARPNESS = 3.0  # standard deviation of a random pattern's scores: the largest of a hundred gets about half of the attention

Cut = Callable[[int, int], Intervention]  # layer and seed -> what ablates that layer's attention


class AttentionAblation:
    """Attention of some layers ablated; `remove()`, or the end of a `with` block, puts the model back as it was.

    `mode`, `layers` and `seed` say what it is.
    """

    def __init__(self, model: HookedModel, mode: str, layers: tuple[int, ...], seed: int):
        self.mode, self.layers, self.seed = mode, layers, seed
        cuts = [ATTENTION_MODES[mode](layer, seed) for layer in layers]
        sites = [(cut, site) for cut in cuts for site in cut.sites(model)]
        check_writable(model, [site for _, site in sites], trial_tokens(model))
        # torch's own hooks, not `edited`: blocks of that end in the order they began, and handles are removed in any
        self._handles = [
            model.hook_dict[check_site(model, site)].register_forward_hook(partial(_rewrite, cut, site)) for cut, site in sites
        ]

    @property
    def active(self) -> bool:
        """Whether the ablation acts."""
        return bool(self._handles)

    def remove(self) -> None:
        """Take the ablation away; a second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "AttentionAblation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"AttentionAblation({self.mode!r}, layers={self.layers}, active={self.active})"


def ablate_attention(
    model: HookedModel, mode: str = "zero", layers: Sequence[int] | None = None, *, seed: int = 0
) -> AttentionAblation:
    """Ablate the attention of `layers` (None: all) in every call of `model` until the handle is removed.

    Modes: "zero" (attention layers write nothing: `attn_out` is 0), "uniform" (every head attends equally to the current and all
    earlier positions), "previous" (to the token before), "self" (to the current token), "random" (a pattern per head and layer,
    drawn once by `seed` and the same for every text and length: softmax of normal scores of standard deviation 3). In all but
    "zero" values and outputs stay and can be trained; queries and keys get no gradient. Gradients flow, train and eval mode are
    the caller's. For causal attention over unpadded or right-padded rows.

    Equals `ablated` with `layers=` (zero) or all `heads=` (patterns), without its block. Several ablations can stand on a model
    and be removed in any order; after the last is removed, hooks and logits are bit-equal to before. Raises
    `ConfigError` for an unknown mode, `SiteError` for layers without attention. Cost: a trial pass the first time; "zero" still
    computes the attention.
    """
    check_model(model)
    if mode not in ATTENTION_MODES:
        known = ", ".join(ATTENTION_MODES)
        raise ConfigError(
            f"ablating attention, mode {mode!r}", f"the modes are {known}", f"{nearest(mode, ATTENTION_MODES)}Name one"
        )
    known_layers = layers_with(model, "attn_out" if mode == "zero" else "pattern")
    if not known_layers:
        raise ModelError("ablating attention", f"this {type(model).__name__} has none that can be reached", "Give a transformer")
    chosen = tuple(known_layers) if layers is None else tuple(dict.fromkeys(layers))
    wrong = [layer for layer in chosen if layer not in known_layers]
    if wrong or not chosen:
        told = f"attention stands in layers {', '.join(map(str, known_layers))}"
        raise SiteError(f"ablating the attention of layers {list(chosen)}", told, "Name one or more of them")
    return AttentionAblation(model, mode, chosen, seed)


def _rewrite(cut: Intervention, site: Site, module: Any, inputs: tuple, activation: Tensor) -> Tensor:
    """What a hook point passes on instead of `activation`. None of these interventions reads the tokens."""
    return cut.edit(activation.clone(), site, torch.empty(0, 0, dtype=torch.long))


@dataclass(frozen=True, eq=False)
class RandomPattern(Intervention):
    """All heads' patterns of a layer set to random ones: causal, rows sum to 1, the same in every call, whatever the length."""

    site: Site
    seed: int
    rows: list[Float[Tensor, "head key"]] = field(default_factory=list)  # of queries 0, 1, …, drawn when first needed

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [self.site]

    def edit(self, activation: Tensor, site: Site, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        n_heads, n_query, n_key = activation.shape[1:]
        while len(self.rows) < n_key:
            self.rows.append(self._row(len(self.rows), n_heads))
        pattern = torch.zeros(n_heads, n_query, n_key)
        for query, place in enumerate(range(n_key - n_query, n_key)):
            pattern[:, query, : place + 1] = self.rows[place]
        activation[:] = pattern.to(activation)
        return activation

    def _row(self, query: int, n_heads: int) -> Float[Tensor, "head key"]:
        generator = torch.Generator().manual_seed(seed_for("random pattern", self.seed, self.site.layer or 0, query))
        return (SHARPNESS * torch.randn(n_heads, query + 1, generator=generator)).softmax(-1)


def _form(form: str) -> Cut:
    return lambda layer, seed: SetPattern(Site("pattern", layer), form)


ATTENTION_MODES: Mapping[str, Cut] = {
    "zero": lambda layer, seed: Zero(Site("attn_out", layer)),
    **{form: _form(form) for form in FORMS},
    "random": lambda layer, seed: RandomPattern(Site("pattern", layer), seed),
}
"""What `ablate_attention` can put in the place of attention."""
