"""What a page is put together from: whether each part is a block, and the results that blocks show."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as MatplotlibFigure

from interp.errors import ReportError
from interp.report.plotting import Drawn
from interp.report.rendering import Block
from interp.result import Result


def check_blocks(asked: str, blocks: object) -> None:
    """Raises `ReportError` unless `blocks` is a list of blocks; it says what to wrap each thing in that is none."""
    if isinstance(blocks, str | bytes | Mapping) or not isinstance(blocks, Sequence):
        truth = f"its blocks are a {type(blocks).__name__}, and should be a list"
        what = f"[{type(blocks).__name__}(…)]" if _is_block(blocks) else f"a list. {_remedy(blocks)}"
        raise ReportError(asked, truth, f"Give {what}")
    for place, block in enumerate(blocks):
        if not _is_block(block):
            raise ReportError(asked, f"number {place} of its blocks is {_named(block)}, which is no block", _remedy(block))


def shown_results(blocks: Iterable[Any]) -> dict[str, Result]:
    """Every result that blocks hold, once each, by its name; a second one of the same name gets a number."""
    found: dict[str, Result] = {}
    for result in _results(list(blocks)):
        if any(result is known for known in found.values()):
            continue
        name, again = result.name, 2
        while name in found:
            name, again = f"{result.name} {again}", again + 1
        found[name] = result
    return found


def _results(value: Any) -> Iterator[Result]:
    if isinstance(value, Result):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _results(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _results(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from _results(getattr(value, part.name))


def _is_block(value: object) -> bool:
    return isinstance(value, Block) and not isinstance(value, type)


def _named(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Result):
        return f"the result {value.name!r} with axes {value.axes}"
    return "None" if value is None else f"a {type(value).__name__}"


def _remedy(value: object) -> str:
    """What to write in its place."""
    if isinstance(value, type):
        return f"Make one: {value.__name__}(…)"
    if isinstance(value, Result):
        return f"Wrap it: {_wrapping(value.axes)}"
    wrappings: dict[type, str] = {
        pd.DataFrame: "Wrap it: Table(frame, caption)",
        pd.Series: "Wrap it: Table(series.to_frame(), caption)",
        str: "Wrap it: Prose(text)",
        Drawn: "Wrap it: Figure(drawn, alt, caption)",
        MatplotlibFigure: "Wrap it with its numbers, a data frame: Figure(Drawn(figure, data), alt, caption)",
    }
    usual = "Give blocks such as Prose(text), Table(frame, caption), Grid(result, caption), Figure(drawn, alt, caption)"
    return next((remedy for kind, remedy in wrappings.items() if isinstance(value, kind)), usual)


def _wrapping(axes: tuple[str, ...]) -> str:
    if axes == ("layer", "head", "query", "key"):
        return "HeadAtlas(result, tokens, caption)"
    if axes == ("head", "query", "key"):
        return "AttentionMaps([(name, result)], tokens, caption)"
    if len(axes) == 2:
        also = "; scores of heads can also go with their patterns: HeadAtlas(patterns, tokens, caption, scores={name: result})"
        return "Grid(result, caption)" + (also if axes == ("layer", "head") else "")
    drawn = "Figure(bar_chart(result), alt, caption), or " if len(axes) == 1 else ""
    return drawn + "Table(result.to_frame(), caption)"
