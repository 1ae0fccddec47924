"""Telling whether a function, a setting or an object is the same as in an earlier process, without pickling it."""

import builtins
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp.provenance import tensor_hash

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range)
MADE_BY_PYTHON = ("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__abstractmethods__", "_abc_impl")
INSTALLED = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platlib", "purelib")})


def described(value: Any, told: Iterable[Any] = ()) -> str:
    """A text that changes when the code of a function, what it closes over, or the class, fields or numbers of an object do.

    Of code that is not installed also the globals it names count: numbers, texts, tensors, functions, objects, at any depth.
    The text holds no addresses, so it is the same in every process of one version of Python; it may differ for things that do
    the same. Left out are the objects of `told`, described elsewhere, fields that a class names in `_passing`, and hooks.
    """
    texts: list[str] = []
    known = {id(thing): (number, thing) for number, thing in enumerate(told)}  # what is held keeps its id for itself
    todo = [value]
    while todo:
        item = todo.pop()
        if type(item) in PLAIN:
            texts.append(repr(item))
        elif isinstance(item, Tensor):
            texts.append(tensor_hash(item))
        elif id(item) in known:
            texts.append(f"as {known[id(item)][0]}")
        else:
            known[id(item)] = (len(known), item)
            parts = list(_parts_of(item))
            texts.append(f"{_name_of(item)} {len(parts)}")
            todo += reversed(parts)
    return "\n".join(texts)


def source_of(value: Any) -> str:
    """The source of a function, or of an object's class; '' for what is built in."""
    code = value if inspect.isfunction(value) or inspect.ismethod(value) else type(value)
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # built in, or typed into a prompt
        compiled = getattr(code, "__code__", None)
        return "" if compiled is None else f"{compiled.co_code.hex()}{compiled.co_consts}"


def _name_of(item: Any) -> str:
    of = item if hasattr(item, "__qualname__") and hasattr(item, "__module__") else type(item)
    return f"{type(item).__name__} {of.__module__}.{of.__qualname__}"


def _parts_of(item: Any) -> Iterator[Any]:
    """What an object's behaviour depends on, besides its name."""
    if isinstance(item, FunctionType) and hasattr(item, "__wrapped__") and _is_installed(item):
        yield item.__wrapped__  # what a package wraps its own functions in is its own affair
    elif isinstance(item, FunctionType):
        yield from (item.__code__, item.__defaults__, item.__kwdefaults__, vars(item))
        yield from (_held(cell) for cell in item.__closure__ or ())
        yield {} if _is_installed(item) else _globals_of(item)
    elif isinstance(item, CodeType):
        yield from (item.co_code, item.co_names, item.co_varnames, item.co_freevars, item.co_flags, item.co_consts)
    elif isinstance(item, MethodType):
        yield from (item.__func__, item.__self__)
    elif isinstance(item, partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, Mapping):
        yield from (entry for pair in item.items() for entry in pair)
    elif isinstance(item, list | tuple):
        yield from item
    elif isinstance(item, set | frozenset):
        yield from sorted(described(entry) for entry in item)
    elif isinstance(item, type):
        yield from () if _is_installed(item) else _own_fields(item)
    elif isinstance(item, staticmethod | classmethod):
        yield item.__func__
    elif isinstance(item, property):
        yield from (item.fget, item.fset)
    elif not isinstance(item, ModuleType | RemovableHandle | MemberDescriptorType):
        yield from (source_of(item), type(item), *_state_of(item))


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _own_fields(item: type) -> list[Any]:
    return [item.__bases__, {name: field for name, field in vars(item).items() if name not in MADE_BY_PYTHON}]


def _state_of(item: Any) -> list[Any]:
    """The fields of an object; of one without, or that says it itself, what it would be made from."""
    kind = type(item)
    slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if isinstance(name, str)]
    says = kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__
    if (hasattr(item, "__dict__") or slots) and not says:
        fields = {**getattr(item, "__dict__", {}), **{name: getattr(item, name, None) for name in slots if name[:2] != "__"}}
        left_out = getattr(kind, "_passing", ())
        return [{name: field for name, field in fields.items() if name not in left_out and not _is_of_hooks(item, name)}]
    try:
        made = item.__reduce_ex__(2)
    except Exception:  # an object may say anything to being asked: then its class is all that is known of it
        return []
    return [made] if isinstance(made, str) else [part for part in made if part is not item]


def _is_of_hooks(item: Any, name: str) -> bool:
    return isinstance(item, nn.Module) and "_hooks" in name  # their keys count every hook that a process ever made


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """What a function's code, and the code inside it, names outside of it; of modules that are not installed what it may name."""
    names = sorted(set(_names_in(function.__code__)))
    found = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for module in [value for value in found.values() if isinstance(value, ModuleType) and not _is_installed(value)]:
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names if hasattr(module, name)}
    return found


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _is_installed(item: Any) -> bool:
    """Whether code is of Python, of an installed package or of this library: what it names is not looked into."""
    name = item.__name__ if isinstance(item, ModuleType) else getattr(item, "__module__", None)
    if name is None or name.split(".")[0] == "interp" or name == builtins.__name__:
        return True
    if name == "__main__":
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.modules
    return any(folder in Path(file).resolve().parents for folder in INSTALLED)
