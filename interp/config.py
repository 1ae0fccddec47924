"""Settings as typed, frozen dataclasses: one declaration serves Python, files, the command line and the run folder.

A settings class is declared with `@settings` and `setting(default, "one sentence")`. Values are checked on construction
(pydantic), unknown names are refused, and every mistake is reported at once as a `ConfigError`.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast, dataclass_transform, get_args

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from interp.errors import ConfigError, nearest

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only, validated dataclass that refuses unknown names, with `ConfigError` as `build` does."""
    made: Any = pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    construct = made.__init__

    @wraps(construct)
    def checked(self: T, *arguments: Any, **values: Any) -> None:
        try:
            construct(self, *arguments, **values)
        except ValidationError as error:
            raise _mistakes(type(self), error, type(self).__name__) from None

    made.__init__ = checked
    return cast(type[T], made)


def setting(default: Any, help: str) -> Any:
    """A field with a default and its one-sentence explanation (shown by `--help`)."""
    if isinstance(default, (list, dict)) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def build(cls: type[T], values: Mapping[str, Any], source: str = "settings") -> T:
    """Construct `cls` from plain values (as read from JSON, YAML or the command line).

    Raises `ConfigError` naming `source`, every wrong key with the nearest right one, and every wrong value with what is allowed.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise _mistakes(cls, error, source) from None


def as_dict(config: Any) -> dict[str, Any]:
    """The plain, JSON-ready values of a settings object; `build(type(config), as_dict(config))` equals it."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def override(config: T, assignments: Iterable[str]) -> T:
    """A copy of `config` with `key=value` assignments applied; keys are dotted, values are YAML.

    `override(config, ["model.d_model=64", "seeds=[0,1]"])`.
    Raises `ConfigError` for a malformed assignment, an unknown key or a wrong value.
    """
    values = as_dict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {assignment!r}", "it is not of the form key=value", "Write for example d_model=64")
        _assign(values, key.strip().split("."), _parse(text, assignment), key.strip())
    return build(type(config), values, source="command line")


def describe_fields(config: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """Rows `(dotted name, value, sentence)` for every leaf setting of a settings object, nested settings included."""
    rows: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            rows += describe_fields(value, f"{prefix}{field.name}.")
        else:
            rows.append((prefix + field.name, json.dumps(as_json(value)), field.metadata.get("help", "")))
    return rows


def as_json(value: Any) -> Any:
    """A settings value as JSON has it: tuples become lists."""
    return [as_json(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _parse(text: str, assignment: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"override {assignment!r}", f"its value cannot be read ({reason})", "Quote it, or check the brackets"
        ) from None


def _assign(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    *parents, leaf = path
    for name in parents:
        child = values.get(name)
        if not isinstance(child, dict):
            groups = [k for k, v in values.items() if isinstance(v, dict)]
            raise ConfigError(
                f"setting {key!r}",
                f"there is no group {name!r}",
                f"{nearest(name, groups)}Groups here: {', '.join(groups) or 'none'}",
            )
        values = child
    if leaf not in values:
        raise ConfigError(
            f"setting {key!r}", f"there is no setting {leaf!r}", f"{nearest(leaf, values)}Settings here: {', '.join(values)}"
        )
    values[leaf] = value


def _mistakes(cls: type, error: ValidationError, source: str) -> ConfigError:
    problems = [_describe(cls, detail) for detail in error.errors()]
    return ConfigError(source, "; ".join(problems), "Correct the values named and try again")


def _describe(cls: type, detail: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        owner = _owner(cls, [str(part) for part in detail["loc"][:-1]])
        names = [field.name for field in dataclasses.fields(owner)] if owner else []
        hint = nearest(str(detail["loc"][-1]), names)
        return f"unknown setting {where!r} (given {detail['input']!r}). {hint}Settings here: {', '.join(names)}"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    if not where:
        return message
    return f"{where}: {message}" + ("" if isinstance(given, Mapping) else f" (given {given!r})")  # a group would be long


def _owner(cls: type, path: list[str]) -> type | None:
    """The settings class reached from `cls` by a validation path, or None; union members appear in paths by their tag."""
    owner: Any = cls
    for part in path:
        members = [owner, *get_args(owner)]
        named = [m for m in members if dataclasses.is_dataclass(m) and part == _tag(m)]
        fields = {f.name: f.type for m in members if dataclasses.is_dataclass(m) for f in dataclasses.fields(m)}
        owner = named[0] if named else fields.get(part)
    return owner if isinstance(owner, type) and dataclasses.is_dataclass(owner) else None


def _tag(cls: Any) -> Any:
    return next((field.default for field in dataclasses.fields(cls) if field.name == "kind"), None)
