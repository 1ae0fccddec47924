"""Settings as typed, frozen dataclasses: one declaration serves Python, files, the command line and the run folder.

A settings class is declared with `@settings` and `setting(default, "one sentence")`. Values are checked on construction
(pydantic), unknown names are refused, and every mistake is reported at once as a `ConfigError`.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Annotated, Any, TypeVar, cast, dataclass_transform, get_args

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from interp.errors import ConfigError, nearest
from interp.registry import NOT_A_KIND, kind_of, registry_of

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
            raise _refusal(type(self).__name__, _described(type(self), values, error)) from None

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
        raise _refusal(source, _described(cls, values, error)) from None


def find_mistakes(cls: type, values: Mapping[str, Any]) -> list[str]:
    """One text for each wrong key or value in `values`; empty where `build` would succeed."""
    try:
        TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        return _described(cls, values, error)
    return []


def as_dict(config: Any) -> dict[str, Any]:
    """The plain, JSON-ready values of a settings object; `build(type(config), as_dict(config))` equals it."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name: `{"train": {"lr": 1}}` is `{"train.lr": 1}`."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as groups in groups; the inverse of `flat`. No name may be the beginning of another."""
    groups: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        group = groups
        for parent in parents:
            group = group.setdefault(parent, {})
        group[leaf] = value
    return groups


def merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `given` laid over it, group by group; a group that is given another `kind` keeps nothing of `base`."""
    if "kind" in given and given["kind"] != base.get("kind"):
        return dict(given)
    result = dict(base)
    for name, value in given.items():
        below = base.get(name)
        result[name] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def override(config: T, assignments: Iterable[str]) -> T:
    """A copy of `config` with `key=value` assignments applied; keys are dotted, values are YAML.

    `override(config, ["model.d_model=64", "seeds=[0,1]"])`. A group that is given another `kind` starts from that kind's
    defaults. Raises `ConfigError` for a malformed assignment, or for all unknown keys and wrong values at once.
    """
    given = nested(read_assignments(assignments))
    return build(type(config), merged(as_dict(config), given), source="command line")


def read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as `{dotted key: value}`, the values read as YAML.

    Raises `ConfigError` for a malformed text, a key that is set twice, or a group that is set as a whole and in part.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key, asked = key.strip(), f"override {assignment!r}"
        if not equals or not all(key.split(".")):
            raise ConfigError(asked, "it is not of the form key=value", "Write for example d_model=64")
        if key in values:
            raise ConfigError(asked, f"{key} is set twice", "Leave one of the two out")
        values[key] = read_yaml(text, asked)
    for key in values:
        part = next((other for other in values if other.startswith(f"{key}.")), None)
        if part is not None:
            raise ConfigError(f"override {key!r}", f"{part!r}, a part of this group, is set too", "Set one of the two")
    return values


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


def field_types(cls: Any) -> dict[str, Any]:
    """The type of each field of a settings class, by name, resolved and with its annotations."""
    fields = cls.__pydantic_fields__
    return {
        name: Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation for name, info in fields.items()
    }


def group_class(annotation: Any, values: Any) -> type | None:
    """The settings class that a field of this type holds, told by the `kind` among its `values` (plain or a settings object).

    None for a setting that is no group, and for an unknown kind.
    """
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return annotation
    kind = values.get("kind") if isinstance(values, Mapping) else getattr(values, "kind", None)
    if (registry := registry_of(annotation)) is not None:
        return registry.get(kind)
    members = [member for entry in get_args(annotation) if (member := group_class(entry, values)) is not None]
    return members[0] if len(members) == 1 else next((member for member in members if kind_of(member) == kind), None)


def defaults_of(cls: type) -> dict[str, Any]:
    """The default of each field of a settings class that has one."""
    values = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return values


def setting_names(cls: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings of `cls`, its groups being of the kinds in `values`, or else of the default ones."""
    defaults = defaults_of(cls)
    for name, annotation in field_types(cls).items():
        given = values.get(name)
        group = given if isinstance(given, Mapping) else {}
        owner = group_class(annotation, group if "kind" in group else defaults.get(name))
        if owner is None:
            yield prefix + name
        else:
            yield from setting_names(owner, group, f"{prefix}{name}.")


class _Loader(yaml.SafeLoader):
    """YAML whose plain words read as in its version 1.2 (`1e-3` is a number, `no` and `12:30` are texts), and no key twice."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is set twice in one group", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _begins in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", [*"-+0123456789"]),
    ("float", _FLOAT, [*"-+.0123456789"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _begins)


def read_yaml(text: str, asked: str) -> Any:
    """The value of a YAML text (plain values only). Raises `ConfigError`, opened by `asked`, if it is none."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506
        json.dumps(value, default=str)  # fails for a list that holds itself
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None and "\n" in text.strip() else ""
        reason = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise ConfigError(
            asked, f"it cannot be read{place} ({reason})", "Quote texts with signs in them, or check the brackets"
        ) from None
    return value


def _refusal(source: str, mistakes: list[str]) -> ConfigError:
    return ConfigError(source, "; ".join(mistakes), "Correct the values named and try again")


def _described(cls: type, values: Mapping[str, Any], error: ValidationError) -> list[str]:
    return [_describe(cls, values, detail) for detail in error.errors()]


def _describe(cls: type, values: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    path = [str(part) for part in detail["loc"]]
    where, given, kind = ".".join(path), detail["input"], detail["type"]
    if kind == "unexpected_keyword_argument":
        return f"unknown setting {where!r} (given {_shown(given)}). {_right_names(cls, values, path)}"
    message = detail["msg"].removeprefix("Value error, ")
    if not where:
        return message
    if kind == NOT_A_KIND or (kind == "value_error" and isinstance(given, Mapping)):  # these say what was given themselves
        return f"{where}: {message}"
    context = detail.get("ctx", {})
    options = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags") or ""))
    hint = nearest(str(context.get("tag", given)), options).rstrip()
    return f"{where}: {message} (given {_shown(given)})" + (f". {hint}" if hint else "")


def _shown(given: Any) -> str:
    return f"the group {', '.join(map(str, given))}" if isinstance(given, Mapping) else repr(given)


def _right_names(cls: type, values: Mapping[str, Any], path: list[str]) -> str:
    *parents, wrong = path
    owner, kind = _owner(cls, values, parents)
    if owner is None:
        return ""
    names = list(field_types(owner))
    elsewhere = {name.rsplit(".", 1)[-1]: name for name in setting_names(cls, values)}
    close = get_close_matches(wrong, elsewhere, n=1, cutoff=0.6)
    hint = nearest(wrong, names) or (f"Did you mean {elsewhere[close[0]]!r}? " if close else "")
    return f"{hint}Settings {f'of {kind}' if kind else 'here'}: {', '.join(names)}"


def _owner(cls: type, values: Any, path: list[str]) -> tuple[type | None, Any]:
    """The settings class reached by a validation path, and its kind; members of a union appear in paths by their kind."""
    owner: type | None = cls
    for part in path:
        if owner is None or part == kind_of(owner):
            continue
        values = values.get(part) if isinstance(values, Mapping) else None
        owner = group_class(field_types(owner).get(part), values)
    return owner, kind_of(owner)
