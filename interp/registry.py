"""Registries: settings classes that a configuration can name by their `kind`, built in or added by a user.

ARCHITECTURES = Registry("architecture")        # somewhere in the library
@ARCHITECTURES.register                         # anywhere, also in a notebook
@settings
class MyConfig: kind: Literal["mine"] = "mine"; …
model: ARCHITECTURES.field() = setting(MyConfig(), "architecture")   # a field that holds any of them
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from interp.errors import ConfigError, nearest

T = TypeVar("T", bound=type)


NOT_A_KIND = "not_a_kind"
"""The type of the errors that a field of a registry adds to those of pydantic."""


class Registry:
    """Settings classes by `kind`, in the order in which they were registered."""

    def __init__(self, what: str):
        self.what = what
        self._classes: dict[str, type] = {}

    def register(self, cls: T) -> T:
        """Add a settings class (a decorator). Its field `kind` must have a text as its default.

        Registering a class of the same module and name again replaces it (a notebook cell run twice); another class of the same
        kind is a `ConfigError`.
        """
        kind = kind_of(cls)
        if not isinstance(kind, str):
            raise ConfigError(
                f"registering the {self.what} {cls.__name__}",
                "it has no field `kind` with a text as its default",
                'Declare it with @settings and add kind: Literal["name"] = "name"',
            )
        known = self._classes.get(kind)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"registering the {self.what} {kind!r}", f"{known.__qualname__} has this kind already", "Choose another kind"
            )
        self._classes[kind] = cls
        return cls

    def __getitem__(self, kind: str) -> type:
        if kind not in self:
            raise ConfigError(f"{self.what} {kind!r}", f"the kinds are {', '.join(self)}", f"{self.hint(kind)}Name one of them")
        return self._classes[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def get(self, kind: object) -> type | None:
        """The class of this kind, or None."""
        return self._classes[kind] if isinstance(kind, str) and kind in self._classes else None

    def __contains__(self, kind: object) -> bool:
        return self.get(kind) is not None

    @property
    def classes(self) -> tuple[type, ...]:
        """The registered classes."""
        return tuple(self._classes.values())

    def hint(self, kind: object) -> str:
        """'Did you mean …? ' for the kind nearest to a wrong one, or ''."""
        return nearest(str(kind), self._classes)

    def field(self) -> Any:
        """The type of a field that holds any class registered by the time a value is checked, told apart by `kind`."""
        return Annotated[Any, AnyOf(self)]


@dataclasses.dataclass(frozen=True, eq=False)
class AnyOf:
    """Checks a field's value against the registered class of its `kind`.

    The class is looked up with each value, not when the field is declared, so that classes registered later are known to every
    settings class that was there before.
    """

    registry: Registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> Any:
        registry = self.registry
        if type(value) in registry.classes:
            return value
        if not isinstance(value, Mapping):
            given = f"a {type(value).__name__}" if dataclasses.is_dataclass(value) else f"{value!r}"
            raise PydanticCustomError(NOT_A_KIND, "{text}", {"text": f"{_unfit(registry)} (given {given})"})
        if "kind" not in value:
            raise PydanticCustomError(NOT_A_KIND, "{text}", {"text": f"it lacks kind. {_unfit(registry)}"})
        if value["kind"] not in registry:
            hint = registry.hint(value["kind"])
            text = f"there is no {registry.what} of kind {value['kind']!r}. {hint}Kinds: {', '.join(registry)}"
            raise PydanticCustomError(NOT_A_KIND, "{text}", {"text": text})
        checker: Any = registry[value["kind"]]
        return checker.__pydantic_validator__.validate_python(dict(value))  # its mistakes are passed on, each with its place


def kind_of(cls: Any) -> Any:
    """The default of a settings class' field `kind`, or None."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return next((field.default for field in fields if field.name == "kind"), None)


def registry_of(annotation: Any) -> Registry | None:
    """The registry whose `field()` a field's type is, or None."""
    return next((entry.registry for entry in get_args(annotation) if isinstance(entry, AnyOf)), None)


def _unfit(registry: Registry) -> str:
    return f"It must be the settings of a registered {registry.what}, of kind {', '.join(registry)}"
