"""Registries: settings classes that a configuration can name by their `kind`, built in or added by a user.

ARCHITECTURES = Registry("architecture")        # somewhere in the library
@ARCHITECTURES.register                         # anywhere, also in a notebook
@settings
class MyConfig: kind: Literal["mine"] = "mine"; …
model: ARCHITECTURES.field() = setting(MyConfig(), "architecture")   # a field that holds any of them
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic.dataclasses import rebuild_dataclass
from pydantic_core import CoreSchema, core_schema

from interp.errors import ConfigError, nearest

T = TypeVar("T", bound=type)


class Registry:
    """Settings classes by `kind`, in the order in which they were registered."""

    def __init__(self, what: str):
        self.what = what
        self._classes: dict[str, type] = {}
        self._owners: list[type] = []

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
                'Add kind: Literal["name"] = "name"',
            )
        known = self._classes.get(kind)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"registering the {self.what} {kind!r}", f"{known.__qualname__} has this kind already", "Choose another kind"
            )
        self._classes[kind] = cls
        for owner in self._owners:
            rebuild_dataclass(owner, force=True)  # type: ignore[arg-type]
        return cls

    def __getitem__(self, kind: str) -> type:
        if kind not in self._classes:
            raise ConfigError(
                f"{self.what} {kind!r}",
                f"the kinds are {', '.join(self._classes)}",
                f"{nearest(str(kind), self._classes)}Name one of them, or register your own",
            )
        return self._classes[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __contains__(self, kind: object) -> bool:
        return kind in self._classes

    @property
    def classes(self) -> tuple[type, ...]:
        """The registered classes."""
        return tuple(self._classes.values())

    def owner(self, cls: T) -> T:
        """Note that `cls` has fields of this registry, so that its checks learn of kinds registered later (a decorator).

        Every settings class that contains an owner is an owner too; name inner ones first.
        """
        self._owners.append(cls)
        return cls

    def field(self) -> Any:
        """The type of a field that holds any registered class, told apart by `kind`."""
        return Annotated[Any, _AnyOf(self)]


@dataclasses.dataclass(frozen=True, eq=False)
class _AnyOf:
    registry: Registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {kind: handler.generate_schema(self.registry[kind]) for kind in self.registry}
        return core_schema.tagged_union_schema(choices, discriminator="kind") if choices else core_schema.any_schema()


def kind_of(cls: Any) -> Any:
    """The default of a settings class' field `kind`, or None."""
    return next((field.default for field in dataclasses.fields(cls) if field.name == "kind"), None)
