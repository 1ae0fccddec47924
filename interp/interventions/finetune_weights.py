"""Which weights an edit trains, by layer and a word that means the same on every model, and putting deltas on and off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import InterpError, ModelError, nearest

# word -> where it is in a block: a submodule of a TransformerLens bridge, or the weights of our models and HookedTransformer
WORDS: Mapping[str, tuple[str, ...]] = {
    "mlp_out": ("mlp.out", "mlp.W_out", "mlp.b_out"),
    "mlp_in": ("mlp.in", "mlp.W_in", "mlp.b_in"),
    "attn_out": ("attn.o", "attn.W_O", "attn.b_O"),
}
WRAPPING = "_original_component."  # a bridge's own, in the names of the weights it wraps


def named_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by name, a bridge's without its wrapping: as the wrapped model names it."""
    return {name.replace(WRAPPING, ""): parameter for name, parameter in model.named_parameters()}


def chosen_weights(model: nn.Module, layers: int | Sequence[int], module: str) -> dict[str, nn.Parameter]:
    """The weights and biases of `module` in each of `layers`.

    `module` is "mlp_out", "mlp_in" or "attn_out", or the name of a parameter or submodule with "{layer}" in it, such as
    "transformer.h.{layer}.mlp.c_proj". Raises `ModelError` for layers or a module that the model lacks.
    """
    given = list(layers) if isinstance(layers, Sequence) else [layers]
    if not given or not all(isinstance(one, Integral) and not isinstance(one, bool) and one >= 0 for one in given):
        raise ModelError(f"editing layers {layers!r}", "they are no layer numbers", "Give one or more, counted from 0")
    if not isinstance(module, str) or (module not in WORDS and "{layer}" not in module):
        hint = nearest(str(module), WORDS)
        raise ModelError(
            f"editing {module!r}", f"the words are {', '.join(WORDS)}", f'{hint}Or give a name with "{{layer}}" in it'
        )
    named = named_weights(model)
    chosen: dict[str, nn.Parameter] = {}
    for layer in map(int, given):
        found = _by_word(model, named, layer, module) if module in WORDS else _by_name(named, module.format(layer=layer))
        if not found:
            raise ModelError(f"editing {module!r} in layer {layer}", *_what_there_is(named, layer))
        chosen |= found
    return chosen


def _by_name(named: Mapping[str, nn.Parameter], name: str) -> dict[str, nn.Parameter]:
    return {own: parameter for own, parameter in named.items() if own == name or own.startswith(f"{name}.")}


def _by_word(model: nn.Module, named: Mapping[str, nn.Parameter], layer: int, word: str) -> dict[str, nn.Parameter]:
    blocks = getattr(model, "blocks", ())
    if not layer < len(blocks):
        return {}
    wanted: set[int] = set()
    for path in WORDS[word]:
        part: Any = blocks[layer]
        for step in path.split("."):
            part = getattr(part, step, None)
        if isinstance(part, nn.Parameter):
            wanted.add(id(part))
        elif isinstance(part, nn.Module):
            wanted |= {id(parameter) for parameter in part.parameters()}
    return {name: parameter for name, parameter in named.items() if id(parameter) in wanted}


def _what_there_is(named: Mapping[str, nn.Parameter], layer: int) -> tuple[str, str]:
    inside = [name for name in named if f".{layer}." in f".{name}"]
    if inside:
        shown = ", ".join(name.replace(f".{layer}.", ".{layer}.", 1) for name in inside[:20])
        return "there are no such weights", f'Give one of these as module, or a part of its name before a ".": {shown}'
    numbers = {int(part) for name in named for part in name.split(".") if part.isdecimal()}
    return f"the model has the layers {sorted(numbers) or 'of no number'}", "Give one of those"


@contextmanager
def only_these_trained(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients are computed for `weights` alone; every parameter's `requires_grad` is afterwards as it was."""
    roots = [root for root in (model, getattr(model, "original_model", None)) if isinstance(root, nn.Module)]
    flags = {parameter: parameter.requires_grad for root in roots for parameter in root.parameters()}
    wanted = {id(weight) for weight in weights}
    try:
        for parameter in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@dataclass(frozen=True, eq=False)
class WeightEdit:
    """Changes of a model's weights, which can be put on and off it.

    `deltas` hold new − old by parameter name, in float32 at least. `losses` are the mean over requests at each step, in nats,
    before that step's change; `converged` says whether the last of them was below the loss to stop at.
    `with edit: …` puts the deltas on for the block. Off again, the model is bit-equal to what it was.
    """

    model: Any
    deltas: Mapping[str, Tensor]
    losses: tuple[float, ...]
    converged: bool
    _states: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = field(default_factory=list, repr=False)  # (before, after)

    def __repr__(self) -> str:
        state = "on" if self.applied else "off"
        return f"WeightEdit({', '.join(self.deltas)}; {len(self.losses)} steps, largest change {self.largest:.3g}, {state})"

    @property
    def applied(self) -> bool:
        """Whether the deltas are on the model."""
        return bool(self._states)

    @property
    def largest(self) -> float:
        """The largest change of any single weight."""
        return max(float(delta.abs().max()) for delta in self.deltas.values())

    def apply(self) -> "WeightEdit":
        """Add the deltas to the model's weights, whatever these are by now. Raises `InterpError` when they are on already."""
        if self.applied:
            raise InterpError("applying an edit", "it is applied already", "Revert it first")
        weights = self._weights()
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        add_to(weights, before, self.deltas)
        self._states.append((before, {name: weight.detach().clone() for name, weight in weights.items()}))
        return self

    def revert(self) -> "WeightEdit":
        """Put the weights back as they were before `apply`, to the bit.

        Raises `InterpError` when the edit is not applied, and when somebody changed the weights since: that would be lost.
        """
        if not self.applied:
            raise InterpError("reverting an edit", "it is not applied", "Apply it first")
        before, after = self._states[-1]
        weights = self._weights()
        changed = [name for name, weight in weights.items() if not same_bits(weight, after[name])]
        if changed:
            told = f"{', '.join(changed)} changed since it was applied"
            raise InterpError("reverting an edit", told, "Revert later edits first, the last one before the others")
        put(weights, before)
        self._states.pop()
        return self

    def __enter__(self) -> Any:
        self.apply()
        return self.model

    def __exit__(self, *_: object) -> None:
        self.revert()

    def _weights(self) -> dict[str, nn.Parameter]:
        named = named_weights(self.model)
        lost = [name for name in self.deltas if name not in named]
        if lost:
            raise ModelError(f"editing {', '.join(lost)}", "the model has no such weights any more", "Make the edit anew")
        return {name: named[name] for name in self.deltas}


def add_to(weights: Mapping[str, Tensor], base: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> None:
    """weights := base + deltas, added in the deltas' type and rounded once."""
    put(weights, {name: base[name].to(delta.dtype) + delta for name, delta in deltas.items()})


def put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """weights := values, in place, outside any gradient."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one type hold the same numbers; NaN equals NaN, which a plain comparison denies."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
