"""Registries: what is registered later is known to every settings class, and a mistake names the right kinds and settings."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from interp.config import as_dict, build, override, setting, settings
from interp.errors import ConfigError
from interp.registry import Registry

SHAPES = Registry("shape")


@SHAPES.register
@settings
class Circle:
    kind: Literal["circle"] = "circle"
    radius: Annotated[float, Field(gt=0)] = setting(1.0, "half the width")


@settings
class Drawing:
    shape: SHAPES.field() = setting(Circle(), "what is drawn")  # type: ignore[valid-type]
    colour: Literal["red", "green"] = setting("red", "in which colour")


@settings
class Book:
    page: Drawing = setting(Drawing(), "the only page")


@SHAPES.register
@settings
class Square:  # after every class that has a field of this registry
    kind: Literal["square"] = "square"
    side: float = setting(2.0, "length of a side")
    corners: tuple[int, ...] = setting((), "which are round")


def test_a_class_registered_later_is_known_at_any_depth() -> None:
    book = build(Book, {"page": {"shape": {"kind": "square", "side": "3", "corners": [1, 2]}}})
    assert book.page.shape == Square(side=3.0, corners=(1, 2))
    assert build(Book, as_dict(book)) == book
    assert Drawing(shape=Square()).shape.side == 2.0
    assert hash(book) == hash(build(Book, as_dict(book)))


def test_another_kind_starts_from_its_own_defaults() -> None:
    book = Book(page=Drawing(shape=Circle(radius=7), colour="green"))
    assert override(book, ["page.shape.kind=square"]).page == Drawing(shape=Square(), colour="green")
    assert override(book, ["page.shape.side=5", "page.shape.kind=square"]).page.shape == Square(side=5), "in any order"
    assert override(book, ["page.shape.kind=circle"]) == book


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "sqare"},
            r"^book: page.shape: there is no shape of kind 'sqare'. Did you mean 'square'\? Kinds: circle, square",
        ),
        (
            {"kind": "square", "sides": 3},
            r"'page.shape.sides' \(given 3\). Did you mean 'side'\? Settings of square: kind, side, corn",
        ),
        ({"kind": "circle", "radius": -1}, r"page.shape.radius: Input should be greater than 0 \(given -1\)"),
        ({"radius": 1}, "page.shape: it lacks kind.*circle, square"),
        ("circle", r"page.shape: .*registered shape, of kind circle, square \(given 'circle'\)"),
        (None, "given None"),
        ({"kind": ["circle"]}, r"no shape of kind \['circle'\]"),
    ],
)
def test_mistakes_name_what_is_right(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Book, {"page": {"shape": values}}, source="book")


def test_all_mistakes_inside_and_outside_are_told() -> None:
    with pytest.raises(ConfigError, match=r"shape.radius.*shape.x.*colour: .*'red' or 'green'.*Did you mean 'green'"):
        build(Drawing, {"shape": {"kind": "circle", "radius": -1, "x": 1}, "colour": "gren"})


def test_what_is_not_registered_is_refused() -> None:
    @settings
    class Circle:
        kind: Literal["circle"] = "circle"

    with pytest.raises(ConfigError, match="given a Circle"):
        Drawing(shape=Circle())
    with pytest.raises(ConfigError, match="Circle has this kind already"):
        SHAPES.register(Circle)
    with pytest.raises(ConfigError, match="no field `kind`"):
        SHAPES.register(int)
    assert SHAPES["circle"] is not Circle


def test_the_same_class_again_replaces_the_first() -> None:
    own = Registry("own")

    def cell(default: int) -> type:
        @own.register
        @settings
        class Mine:
            kind: Literal["mine"] = "mine"
            size: int = setting(default, "how large")

        return Mine

    @settings
    class Holder:
        held: own.field() = setting(cell(1)(), "anything")  # type: ignore[valid-type]

    second = cell(2)
    assert own.classes == (second,)
    assert build(Holder, {"held": {"kind": "mine"}}).held.size == 2
    with pytest.raises(ConfigError, match="Did you mean 'mine'"):
        own["mien"]
