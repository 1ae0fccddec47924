"""What results show of themselves in a notebook: small HTML without scripts, styles that leak, or anything loaded.

Text keeps the notebook's own colour, so it is readable on light and dark; coloured cells set both colours. All text is escaped.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from interp.result import Provenance, Result

MISSING = "–"
_BOOLEANS = ("bool", "bool_")  # Python's and NumPy's
_VISIBLE = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}
_WHITE, _BLUE, _RED = (255, 255, 255), (8, 81, 156), (178, 24, 43)
_MOST_CELLS, _MOST_COLUMNS, _MOST_ROWS = 400, 26, 10
_LONGEST = 24  # of a label: the names of all scores fit


def number(value: float | int, digits: int = 3) -> str:
    """`value` with `digits` significant digits; NaN is a dash, integers keep all digits, a true minus sign."""
    if isinstance(value, Integral):
        return f"{int(value):,}".replace("-", "−")
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10**digits:
        text = f"{value:,.0f}" if abs(rounded) < 1e9 else f"{value:.{digits - 1}e}"
    else:
        text = "0" if rounded == 0 else f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", "−")


def visible_token(token: str, longest: int = 12) -> str:
    """`token` as a label: white space as marks, control and direction characters as escapes, long ones cut short."""
    shown = "".join(_VISIBLE.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def whole(text: str) -> str:
    """`text` with half a character, as broken tokens have it, written as an escape: files and tables refuse the half."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_missing(value: Any) -> bool:
    """Whether a cell of a table holds nothing: None, NaN, or one of the data frame's own marks for that."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, Real) and math.isnan(value))


def is_numeric(values: Iterable[Any]) -> bool:
    """Whether all the values that are there are numbers, and some are; yes and no are none."""
    present = [value for value in values if not is_missing(value)]
    return bool(present) and all(isinstance(v, Real) and type(v).__name__ not in _BOOLEANS for v in present)


def cell(value: Any, digits: int = 3) -> str:
    """A value of a table as text: numbers by `number`, yes and no, a dash for nothing."""
    if type(value).__name__ in _BOOLEANS:
        return "yes" if value else "no"
    if is_missing(value):
        return MISSING
    if isinstance(value, Real):
        return number(int(value) if isinstance(value, Integral) else float(value), digits)
    return str(value)


def card(title: str, *parts: str, note: str = "") -> str:
    """A bold title with a note in plain text, then parts that are HTML made by the functions below."""
    head = f'<p style="margin:0 0 .4em"><b>{_text(title)}</b>{" " + _text(note) if note else ""}</p>'
    return f'<div style="overflow-x:auto;line-height:1.4">{head}{"".join(parts)}</div>'


def line(text: str) -> str:
    """A line of plain text, a little quieter."""
    return f'<p style="margin:0 0 .4em;opacity:.75">{_text(text)}</p>' if text else ""


def details(summary: str, facts: Mapping[str, str]) -> str:
    """A fold with one line per fact; nothing where there is none."""
    rows = "".join(f"<div><b>{_text(name)}</b> {_text(value)}</div>" for name, value in facts.items())
    return f'<details style="margin:.4em 0"><summary>{_text(summary)}</summary>{rows}</details>' if rows else ""


def table(data: "pd.DataFrame", digits: int = 3, most: int | None = None) -> str:
    """A data frame as a table without its index: its first `most` rows (None: all), numbers to `digits` digits, right-aligned."""
    rows = list(data.itertuples(index=False, name=None))
    sides = [_side(is_numeric(row[place] for row in rows)) for place in range(data.shape[1])]
    head = _cells('th scope="col"', sides, map(str, data.columns))
    body = "".join(f"<tr>{_cells('td', sides, (cell(value, digits) for value in row))}</tr>" for row in rows[:most])
    return _rows(head, body) + (line(f"{most} of {len(rows)} rows") if most is not None and len(rows) > most else "")


def describe_result(result: "Result") -> str:
    """A result: what it is, its values in colour where they are few, else the largest ones, and where they come from."""
    parts = [line(result.description), line(" · ".join(filter(None, _facts(result)))), *_values(result)]
    return card(result.name, *parts, details("Provenance", known_facts(result.provenance)))


def lines_of_result(result: "Result") -> list[str]:
    """A result in plain text: a line that says what it is, then its values as a table, of many the largest."""
    head = f"{result.name}: {'; '.join(filter(None, _facts(result)))}"
    cells, defined = result.values.numel(), result.values.numel() - int(result.values.isnan().sum())
    if not cells or not result.axes:
        spread = "" if result.stderr is None or not cells else f" ± {number(float(result.stderr.detach()), 2)}"
        return [head, f"{number(float(result.values.detach()))}{spread}" if cells else "no values"]
    rows = result.to_frame() if cells <= _MOST_ROWS else result.top(_MOST_ROWS)
    shown = {name: [cell(value) for value in rows[name]] for name in map(str, rows.columns)}
    widths = {name: max(map(len, (name, *column))) for name, column in shown.items()}
    lines = [[name.rjust(width) for name, width in widths.items()]]
    lines += [
        [text.rjust(widths[name]) for name, text in zip(shown, row, strict=True)] for row in zip(*shown.values(), strict=True)
    ]
    more = [f"the {_MOST_ROWS} largest of {number(defined)} defined values; .to_frame() has all"] if defined > _MOST_ROWS else []
    return [whole(text) for text in [head, *("  ".join(row) for row in lines), *more]]


def known_facts(provenance: "Provenance") -> dict[str, str]:
    """The parts of a provenance that are known, as text."""
    facts = asdict(provenance)
    versions = ", ".join(f"{name} {version}" for name, version in facts.pop("versions").items())
    seconds = facts.pop("seconds")
    shown = {**facts, "versions": versions, "seconds": number(seconds) if seconds else ""}
    return {name: str(value) for name, value in shown.items() if value not in ("", None)}


def _facts(result: "Result") -> Iterable[str]:
    sizes = zip(result.values.shape, result.axes, strict=True)
    yield " × ".join(f"{axis} ({size})" for size, axis in sizes)
    yield result.unit
    yield f"over {number(result.count)} examples" if result.count is not None else ""
    if result.baseline is not None and getattr(result.baseline, "ndim", 0) == 0:
        yield f"baseline {number(float(result.baseline))}"


def _values(result: "Result") -> Iterable[str]:
    shape, cells = tuple(result.values.shape), result.values.numel()
    if cells == 0:
        return [line("no values")]
    if cells == 1:
        return [_one(result)]
    if len(shape) == 1 and cells <= _MOST_COLUMNS:
        return [_heat(result)]
    if len(shape) == 2 and cells <= _MOST_CELLS and shape[1] <= _MOST_COLUMNS:
        return [_heat(result)]
    if len(shape) == 3 and shape[0] <= _MOST_ROWS:  # e.g. score, layer, head: a largest value over all scores says nothing
        return _by_first(result)
    defined = cells - int(result.values.isnan().sum())
    rest = line(f"the {_MOST_ROWS} largest of {number(defined)} defined values" if defined > _MOST_ROWS else "")
    return [table(result.top(_MOST_ROWS)), rest]


def _by_first(result: "Result") -> Iterable[str]:
    axis = result.axes[0]
    are_small = result.values.numel() <= _MOST_CELLS and result.values.shape[2] <= _MOST_COLUMNS
    for place, name in enumerate(result.labels_of(axis)):
        part = result.at(**{axis: place})
        shown = _heat(part) if are_small else table(part.top(3))
        yield f'<p style="margin:.5em 0 .2em"><b>{_text(axis)} {_text(visible_token(name, 40))}</b></p>' + shown
    yield line("" if are_small else f"the 3 largest values of each {axis}")


def _one(result: "Result") -> str:
    value, error = result.item(), result.stderr
    spread = "" if error is None else f" ± {number(float(error.detach()), 2)}"
    return f'<p style="margin:0 0 .4em;font-size:1.5em">{number(value, 4)}{spread} <small>{_text(result.unit)}</small></p>'


def _heat(result: "Result") -> str:
    """One or two axes as a table of coloured cells; every cell says its place, value, error and baseline when pointed at."""
    values = result.values.detach().cpu().double()
    values = values if values.ndim == 2 else values[:, None]
    rows = result.labels_of(result.axes[0])
    columns = result.labels_of(result.axes[1]) if len(result.axes) == 2 else ("value",)
    largest = max((abs(v) for row in values.tolist() for v in row if not math.isnan(v)), default=0.0) or 1.0
    two_signs = bool((values < 0).any()) and bool((values > 0).any())
    hints = iter(_hints(result))
    body = ""
    for name, row in zip(rows, values.tolist(), strict=True):
        cells = "".join(f'<td title="{next(hints)}"{_coloured(v / largest, two_signs)}>{_fixed(v, largest)}</td>' for v in row)
        body += f'<tr style="text-align:right"><th scope="row">{_text(visible_token(name, _LONGEST))}</th>{cells}</tr>'
    corner = "\u202f\\\u202f".join(result.axes)
    head = f'<th style="white-space:nowrap">{_text(corner)}</th>'
    head += "".join(f'<th scope="col">{_text(visible_token(name, _LONGEST))}</th>' for name in columns)
    sign = "−" if bool((values < 0).any()) else ""
    scale = f"blue −{number(largest)}, white 0, red {number(largest)}" if two_signs else f"white 0, blue {sign}{number(largest)}"
    return _rows(head, body) + line(f"colour: {scale}" + (f"; {MISSING} is undefined" if bool(values.isnan().any()) else ""))


def _hints(result: "Result") -> Iterable[str]:
    """For every value, in order: where it is, the value, its standard error, its baseline."""
    for row in result.to_frame().to_dict("records"):
        place = ", ".join(f"{axis} {visible_token(str(row[axis]), _LONGEST)}" for axis in result.axes)
        more = f" ± {number(row['stderr'], 2)}" if not is_missing(row.get("stderr")) else ""
        more += f", baseline {number(row['baseline'])}" if not is_missing(row.get("baseline")) else ""
        yield _text(f"{place}: {number(row['value'], 4)}{more}")


def _fixed(value: float, largest: float) -> str:
    """With as many decimals as give the largest of all two digits, so that a column of them can be compared at a glance."""
    power = math.floor(math.log10(largest))
    if math.isnan(value) or not -3 <= power <= 5:
        return number(value, 2)
    text = f"{value:.{max(2 - power if power >= 0 else 1 - power, 0)}f}"
    return (text if float(text) else text.removeprefix("-")).replace("-", "−")


def _coloured(share: float, two_signs: bool) -> str:
    """A background from white (0) to full colour (1 or −1) and text that is readable on it; red only where both signs occur."""
    if math.isnan(share):
        return ""
    end = _RED if two_signs and share > 0 else _BLUE
    mixed = [round(white + (colour - white) * abs(share)) for white, colour in zip(_WHITE, end, strict=True)]
    linear = [(part / 255 + 0.055) ** 2.4 / 1.055**2.4 if part > 10 else part / 255 / 12.92 for part in mixed]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # at 0.179 black and white differ equally much from the background, by WCAG's measure 4.6 to 1
    return f' style="background:#{bytes(mixed).hex()};color:{"#fff" if luminance < 0.179 else "#000"}"'


def _rows(head: str, body: str) -> str:
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0 0 .4em"
    return f'<table cellpadding="4" style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _side(is_number: bool) -> str:
    return f' style="text-align:{"right" if is_number else "left"}"'


def _cells(tag: str, sides: Iterable[str], texts: Iterable[str]) -> str:
    return "".join(f"<{tag}{side}>{_text(text)}</{tag[:2]}>" for side, text in zip(sides, texts, strict=True))


def _text(value: object) -> str:
    return escape(whole(str(value)))
