"""Telling whether a function, a setting or an object is the same as in an earlier process, without pickling it."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from interp.provenance import tensor_hash


def described(value: Any, depth: int = 4) -> str:
    """A text that changes when a function does, its source, defaults or what it closes over, or an object's class or fields.

    It holds no addresses, so it is the same in every process. Numbers, texts and tensors count at any depth; of other things
    deeper than `depth` only the class does.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, type)):
        return repr(value)
    if isinstance(value, Tensor):
        return tensor_hash(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth == 0:
        return name
    parts = [described(part, depth - 1) for part in _parts_of(value)]
    return f"{name}{source_of(value)}({', '.join(parts)})"


def _parts_of(value: Any) -> list[Any]:
    """What else an object's behaviour depends on, besides its own source."""
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if inspect.isfunction(value):
        return [value.__defaults__, value.__kwdefaults__, inspect.getclosurevars(value).nonlocals]
    if isinstance(value, Mapping):
        return [entry for pair in value.items() for entry in pair]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [dict(sorted(vars(value).items()))] if hasattr(value, "__dict__") else [getattr(value, "__qualname__", "")]


def source_of(value: Any) -> str:
    """The source of a function, or of an object's class; '' for what is built in."""
    code = value if inspect.isfunction(value) or inspect.ismethod(value) else type(value)
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # built in, or typed into a prompt
        compiled = getattr(code, "__code__", None)
        return "" if compiled is None else f"{compiled.co_code.hex()}{compiled.co_consts}"
