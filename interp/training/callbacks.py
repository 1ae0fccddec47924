"""Callbacks: code that runs inside the training loop, without an edit of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from torch import Tensor

from interp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from interp.training.loop import Training

Watch = Mapping[str, Callable[[Any], float]]
Row = dict[str, float | int]
PLAIN = (bool, int, float, str, Tensor, type(None))


class Callback:
    """What may happen at each point of a training step; a subclass overrides what it needs.

    In the order of a step: `on_batch`, `before_forward`, `after_backward`, `after_step`, and after some steps `on_eval`. All get
    the `Training`: model, optimizer, settings, data, step, and so on. Whatever a callback remembers from step to step belongs in
    `state_dict`, or a killed run does not continue as it would have. Torch's random state is kept with the run, so draw from it
    (or from a generator whose state is in `state_dict`). With several processes every method runs in each of them, with equal
    random numbers.
    """

    arguments: tuple[Any, ...]  # that it was made with: they tell one run from another

    def __new__(cls, *arguments: Any, **named: Any) -> "Callback":
        made = super().__new__(cls)
        made.arguments = (*arguments, *sorted(named.items()))
        return made

    def on_start(self, training: "Training") -> None:
        """Before the first step of this process, the state of a killed run restored."""

    def on_batch(self, training: "Training", inputs: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """The tokens that the model reads instead of `inputs` (a copy; same shape). What it has to predict stays as it was."""
        return inputs

    def before_forward(self, training: "Training") -> None:
        """The batch is chosen, gradients are None. What is frozen here (`requires_grad_(False)`) does not move at all."""

    def after_backward(self, training: "Training") -> None:
        """When gradients are complete, before clipping. A gradient set to 0 still lets AdamW move its weight: set it to None."""

    def after_step(self, training: "Training") -> None:
        """After the weights moved."""

    def on_eval(self, training: "Training", row: Row) -> Mapping[str, float]:
        """At a reading: numbers to add to `row` (NaN: left out), which has the metrics and what earlier callbacks added."""
        return {}

    def on_end(self, training: "Training") -> None:
        """After the last step; also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """What is remembered: numbers, texts, tensors, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""


class Watching(Callback):
    """Reads functions of the model at log-spaced steps (or every so many: `TrainConfig.eval_every`), e.g. any probe's score."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_eval(self, training: "Training", row: Row) -> Mapping[str, float]:
        return {name: float(function(training.model)) for name, function in self.watch.items()}


class Calling(Callback):
    """Calls a function without arguments after each step."""

    def __init__(self, function: Callable[[], None]):
        self.function = function

    def after_step(self, training: "Training") -> None:
        self.function()


class EarlyStopping(Callback):
    """Ends training after `patience` readings in a row without a lower validation loss than the lowest so far."""

    def __init__(self, patience: int):
        self.patience, self.best, self.waited = patience, float("inf"), 0

    def on_eval(self, training: "Training", row: Row) -> Mapping[str, float]:
        loss = float(row["validation_loss"])
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        training.stop = training.stop or self.waited >= self.patience
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


def those_with(callbacks: Sequence[Callback], method: str) -> list[Any]:
    """The callbacks' own versions of a method, in order; a step pays only for what is there."""
    return [
        getattr(callback, method) for callback in callbacks if getattr(type(callback), method) is not getattr(Callback, method)
    ]


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise `ConfigError` for anything that is not a callback, and for a method that no callback has (a name mistyped)."""
    known = [name for name in vars(Callback) if not name.startswith("_")]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            given = callback.__name__ if isinstance(callback, type) else type(callback).__name__
            raise ConfigError(
                f"callback {given}", "it is no instance of interp.training.Callback", "Derive a class and give an instance"
            )
        if ("state_dict" in vars(type(callback))) != ("load_state_dict" in vars(type(callback))):
            raise ConfigError(
                f"callback {type(callback).__name__}",
                "it has one of state_dict and load_state_dict without the other",
                "Define both, or neither",
            )
        for name in dir(callback):
            hooklike = name.startswith(("on_", "before_", "after_"))
            if hooklike and name not in known and callable(getattr(callback, name)):
                raise ConfigError(
                    f"callback {type(callback).__name__}.{name}",
                    "the loop never calls a method of this name",
                    f"{nearest(name, known)}Choose from {', '.join(known)}",
                )


def replaced_inputs(methods: Sequence[Any], training: "Training", inputs: Tensor) -> Tensor:
    """`inputs` after every `on_batch`. Raises `ConfigError` when one returns anything but token ids of the same shape."""
    for method in methods:
        replaced = method(training, inputs.clone())  # a copy: an edit in place must not reach what has to be predicted
        given = f"{type(replaced).__name__}"
        if isinstance(replaced, Tensor):
            given = f"{replaced.dtype} of shape {tuple(replaced.shape)}".removeprefix("torch.")
        if not isinstance(replaced, Tensor) or replaced.shape != inputs.shape or replaced.dtype != inputs.dtype:
            raise ConfigError(
                f"callback {type(method.__self__).__name__}.on_batch",
                f"it returned {given} for token ids of shape {tuple(inputs.shape)}",
                "Return the tokens that the model is to read",
            )
        inputs = replaced.to(inputs.device)
    return inputs


def check_state(name: str, state: Any) -> None:
    """Raise `ConfigError` when a state holds anything that is not kept in a checkpoint."""
    if isinstance(state, dict):
        for key, value in state.items():
            check_state(f"{name}[{key!r}]", value)
    elif isinstance(state, (list, tuple)):
        for index, value in enumerate(state):
            check_state(f"{name}[{index}]", value)
    elif not isinstance(state, PLAIN):
        raise ConfigError(
            f"callback state {name}",
            f"it is a {type(state).__name__}, which a checkpoint does not hold",
            "Give numbers, texts, tensors, and lists and dicts of them",
        )
