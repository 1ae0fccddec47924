"""Muon for the matrices inside a model's blocks, AdamW for everything else, stepped as one optimizer."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ConfigError
from interp.training.config import TrainConfig


class Together(torch.optim.Optimizer):
    """Several optimizers over different parameters, as one: a step is a step of each, and the state is a list of theirs."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = list(parts)  # no super().__init__: groups and state are those of the parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of all parts; setting a group's "lr" sets it in its part."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        """What the parts remember, by parameter."""
        return defaultdict(dict, {parameter: kept for part in self.parts for parameter, kept in part.state.items()})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each part; a closure is refused, since each part would call it."""
        if closure is not None:
            raise ConfigError("a step of several optimizers", "a closure was given", "Compute gradients before the step")
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)

    def __repr__(self) -> str:
        return f"Together({', '.join(map(repr, self.parts))})"


def can_be_fused(parameters: Sequence[Tensor]) -> bool:
    """Whether torch's fused optimizers may have them: on the CPU those take every tensor's numbers to lie side by side.

    A bridge's queries, keys and values are views into one weight, and would be changed wrongly without a word; so would a
    transposed weight whose gradient is laid out in rows.
    """
    if not all(weight.is_contiguous() for weight in parameters):
        return False
    sizes = ((weight.numel() * weight.element_size(), weight.untyped_storage().nbytes()) for weight in parameters)
    return all(own == memory for own, memory in sizes)


def _in_blocks(model: nn.Module) -> set[int]:
    """The weights inside the blocks, by `id`; a bias may have two axes too, head and width."""
    blocks = getattr(model, "blocks", None)
    named = blocks.named_parameters() if isinstance(blocks, nn.Module) else ()
    return {id(parameter) for name, parameter in named if not name.rsplit(".", 1)[-1].startswith("b")}


def muon(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024, as torch has it) with AdamW at the same learning rate.

    Muon orthogonalises the averaged gradient of a matrix, so it gets the two-dimensional weights inside `blocks`; embeddings,
    norms, biases and weights with a head axis go to AdamW (queries, keys and values of a published model have none). Its
    steps are scaled to the size of AdamW's (`match_rms_adamw`), so one learning rate serves both. Raises `ConfigError` for a
    model without such matrices.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    in_blocks = _in_blocks(model)
    matrices = [parameter for parameter in trained if parameter.ndim == 2 and id(parameter) in in_blocks]
    if not matrices:
        raise ConfigError(
            "train.optimizer=muon",
            f"this {type(model).__name__} has no trained matrices (weights of two axes) inside its blocks",
            "Choose a model with MLPs, or train.optimizer=adamw",
        )
    inside = set(map(id, matrices))
    others = [parameter for parameter in trained if id(parameter) not in inside]
    first = torch.optim.Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
    second = torch.optim.AdamW(others, lr=config.lr, weight_decay=config.weight_decay, fused=can_be_fused(others))
    return Together([first, second])
