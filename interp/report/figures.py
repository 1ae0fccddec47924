"""Figures of results. Each returns what it drew and the numbers in it, and touches nothing else: no pyplot, no global settings.

Colours follow the order of the results, so models given in the same order look the same in every figure.
"""

from collections.abc import Mapping
from math import ceil
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from interp.display import whole
from interp.report.plotting import (
    COLOURS,
    DASHES,
    INK,
    SOFT,
    Drawn,
    check_any,
    legend_above,
    long_form,
    new_figure,
    number_axis,
    numbers_along,
    plain_text,
    styled,
    tidy,
    tint,
    values_of,
    with_baseline,
)
from interp.report.text import number, visible_token
from interp.result import Result

_DIVERGING = "RdBu_r"  # blue below zero, red above: told apart also without colour vision for red and green
_MOST_LABELS = 50


def curves(
    results: Mapping[str, Result],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
    log_x: bool = False,
    baseline: float | int | None = None,
    baseline_label: str = "baseline",
    y_range: tuple[float | int, float | int] | None = None,
) -> Drawn:
    """One line per result with axes `seed step` or `step`: the mean, each seed thin, and a band from lowest to highest.

    Steps are read from the labels as numbers. Undefined values (NaN) are left out.
    """
    check_any(results)
    with styled():
        figure = new_figure()
        axes = figure.subplots()
        _draw_curves(axes, results, log_x, baseline, baseline_label)
        axes.set(xlabel=x_label, ylabel=y_label, title=title, ylim=y_range)
        legend_above(figure, axes)
        data = long_form(results, "line")
        return Drawn(plain_text(figure), with_baseline(data, baseline_label, baseline))


def curve_grid(
    panels: Mapping[str, Mapping[str, Result]],
    x_label: str,
    y_label: str,
    *,
    columns: int = 3,
    log_x: bool = False,
    baseline: float | int | None = None,
    baseline_label: str = "baseline",
    y_range: tuple[float | int, float | int] | None = None,
    shared_y: bool = True,
) -> Drawn:
    """Small multiples of `curves`, one per entry of `panels`; the first names the legend.

    The axes are shared, so that heights can be compared; with `shared_y=False` each panel fills its own, so that a small one
    does not come out flat beside a large one.
    """
    check_any(panels)
    for results in panels.values():
        check_any(results)
    columns = min(columns, len(panels))
    rows = ceil(len(panels) / columns)
    with styled():
        figure = new_figure(max(5.3, 3.0 * columns), 0.5 + 2.6 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=shared_y, squeeze=False)
        for axes, (title, results) in zip(grid.flat, panels.items(), strict=False):
            _draw_curves(axes, results, log_x, baseline, baseline_label)
            axes.set(title=fill(title, 26) if len(title) > 26 else title, ylim=y_range)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel(x_label, fontsize=10.5, color=SOFT)
        figure.supylabel(y_label, fontsize=10.5, color=SOFT)
        legend_above(figure, grid.flat[0])
        data = pd.concat([_in_panel(title, long_form(results, "line")) for title, results in panels.items()], ignore_index=True)
        return Drawn(plain_text(figure), with_baseline(data, baseline_label, baseline))


def score_bars(
    results: Mapping[str, Result], x_label: str, *, baseline: float | int | None = None, baseline_label: str = "baseline"
) -> Drawn:
    """One bar per result with axis `seed`: the mean, written beside it, and a dot per seed."""
    check_any(results)
    with styled():
        figure = new_figure(height=1.1 + 0.55 * len(results))
        axes = figure.subplots()
        for row, (result, colour) in enumerate(zip(results.values(), _cycle(COLOURS, len(results)), strict=True)):
            values = values_of(result, ("seed",))
            mean = float(np.nanmean(values))
            axes.barh(row, mean, height=0.56, color=tint(colour))
            axes.plot([mean, mean], [row - 0.28, row + 0.28], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot(values, row + _spread(len(values)), "o", color=colour, markersize=5, markeredgecolor="white")
            axes.text(1.02, row, number(mean), transform=axes.get_yaxis_transform(), va="center", fontweight="bold")
        if baseline is not None:
            axes.axvline(
                baseline, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label=f"{baseline_label} ({number(baseline)})"
            )
            figure.legend(loc="outside upper right", fontsize=10)
        axes.set_yticks(range(len(results)), list(results))
        axes.set(xlabel=x_label, ylim=(len(results) - 0.4, -0.6))
        tidy(axes, "x")
        axes.tick_params(axis="y", length=0, labelsize=10.5, labelcolor=INK)
        number_axis(axes.xaxis)
        return Drawn(plain_text(figure), with_baseline(long_form(results, "bar"), baseline_label, baseline))


def kernel_maps(result: Result) -> Drawn:
    """A convolution's weights, axes `tap out in`: one map per tap, all on one scale that is symmetric around zero.

    The scale ends at the 99.9th percentile of the sizes, so that a single large weight does not blank out the rest.
    """
    values = values_of(result, ("tap", "out", "in"))
    taps = result.labels_of("tap")
    limit = float(np.nanquantile(np.abs(values), 0.999)) or 1.0
    beyond = "both" if float(np.nanmax(np.abs(values))) > limit else "neither"
    with styled():
        figure = new_figure(1.2 + 2.5 * len(taps), 3.1)
        grid = figure.subplots(1, len(taps), sharey=True, squeeze=False)[0]
        for axes, tap, weights in zip(grid, taps, values, strict=True):
            # "none" embeds every weight as one pixel; anything else resamples to the figure's resolution
            image = axes.imshow(weights, cmap=_colour_map(_DIVERGING), vmin=-limit, vmax=limit, interpolation="none")
            axes.set(title=tap, xlabel="in")
            axes.tick_params(colors=SOFT, labelsize=9, length=2)
        grid[0].set_ylabel("out")
        bar = figure.colorbar(image, ax=list(grid), extend=beyond, shrink=0.85, pad=0.02)
        bar.set_label(result.unit or "weight")
        bar.outline.set_visible(False)
        number_axis(bar.ax.yaxis)
        return Drawn(plain_text(figure), result.to_frame())


def filter_distributions(result: Result) -> Drawn:
    """How one number per filter is spread, axes `tap filter`: the whole distribution, its quartiles and median, per tap."""
    values = values_of(result, ("tap", "filter"))
    taps = result.labels_of("tap")
    with styled():
        figure = new_figure()
        axes = figure.subplots()
        edges = np.histogram_bin_edges(values[~np.isnan(values)], bins=min(48, max(12, values.shape[1] // 5)))
        for place, (row, colour) in enumerate(zip(values, _cycle(COLOURS, len(taps)), strict=True)):
            defined = row[~np.isnan(row)]
            if len(defined):
                _draw_distribution(axes, place, defined, edges, colour)
        axes.axhline(0, color="#9aa0a8", linewidth=0.8, zorder=0)
        axes.set_xticks(range(len(taps)), taps)
        axes.set(xlabel="tap", ylabel=result.unit or result.name, xlim=(-0.55, len(taps) - 0.2))
        tidy(axes)
        number_axis(axes.yaxis)
        return Drawn(plain_text(figure), result.to_frame())


def heat_map(result: Result, *, title: str = "") -> Drawn:
    """Any result with two axes as a map with its labels; two colours around zero when it has values of both signs.

    Values are written into the cells of small maps; undefined ones (NaN) are left grey.
    """
    values = values_of(result, result.axes if len(result.axes) == 2 else ("row", "column"))
    rows, columns = (result.labels_of(axis) for axis in result.axes)
    norm = _scale(values)
    with styled():
        figure = new_figure(min(9.0, max(4.2, 1.9 + 0.42 * len(columns))), min(9.0, max(2.4, 1.3 + 0.34 * len(rows))))
        axes = figure.subplots()
        colours = _colour_map(_DIVERGING if norm.vmin < 0 < norm.vmax else "Blues")  # type: ignore[operator]
        image = axes.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="none")
        _label(figure, axes, axes.yaxis, rows)
        _label(figure, axes, axes.xaxis, columns)
        axes.tick_params(colors=SOFT, labelsize=9, length=0)
        axes.set(ylabel=result.axes[0], xlabel=result.axes[1], title=title)
        if len(rows) * len(columns) <= 100 and len(columns) <= 10:
            _write_values(axes, values, image)
        bar = figure.colorbar(image, ax=axes, label=result.unit, pad=0.02)
        bar.outline.set_visible(False)
        number_axis(bar.ax.yaxis)
        return Drawn(plain_text(figure), result.to_frame())


def bar_chart(result: Result, *, title: str = "") -> Drawn:
    """Any result with one axis: a bar per entry, with its standard error and its baseline where they are known.

    Undefined entries (NaN) have no bar.
    """
    values = values_of(result, result.axes if len(result.axes) == 1 else ("entry",))
    names, data = result.labels_of(result.axes[0]), result.to_frame()
    with styled():
        figure = new_figure(min(9.0, max(4.2, 1.2 + 0.3 * len(names))), 3.2)
        axes = figure.subplots()
        errors = None if result.stderr is None else data["stderr"].to_numpy()
        axes.bar(range(len(names)), values, width=0.7, yerr=errors, color=tint(COLOURS[0]), edgecolor=COLOURS[0], ecolor=INK)
        if result.baseline is not None:
            axes.plot(range(len(names)), data["baseline"], "_", color=INK, markersize=9, label="baseline")
            figure.legend(loc="outside upper right", fontsize=10)
        axes.axhline(0, color="#9aa0a8", linewidth=0.8, zorder=0)
        _label(figure, axes, axes.xaxis, names)
        axes.set(xlabel=result.axes[0], ylabel=result.unit or "value", title=title)
        tidy(axes)
        number_axis(axes.yaxis)
        return Drawn(plain_text(figure), data)


def _in_panel(title: str, data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(panel=whole(title))[["panel", *data.columns]]


def _draw_curves(
    axes: Axes, results: Mapping[str, Result], log_x: bool, baseline: float | int | None, baseline_label: str
) -> None:
    for i, (name, result) in enumerate(results.items()):
        values = np.ma.masked_invalid(np.atleast_2d(values_of(result, ("seed", "step"), ("step",))))
        steps = numbers_along(result, "step")
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        if len(values) > 1:
            axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
            for seed in values:
                axes.plot(steps, seed, color=colour, alpha=0.4, linewidth=0.7)
        marker = "o" if len(steps) == 1 else ""
        axes.plot(steps, values.mean(0), color=colour, linestyle=dash, marker=marker, linewidth=2.2, label=name)
    if baseline is not None:
        axes.axhline(baseline, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), label=f"{baseline_label} ({number(baseline)})")
    tidy(axes)
    number_axis(axes.yaxis)
    if log_x:
        _log_steps(axes, [step for result in results.values() for step in numbers_along(result, "step")])
    else:
        number_axis(axes.xaxis)


def _log_steps(axes: Axes, steps: list[float]) -> None:
    """A logarithmic axis that can also show step 0."""
    positive = [step for step in steps if step > 0]
    if positive:
        low, high = min(positive), max(positive)
        axes.set_xscale(
            "symlog" if min(steps) <= 0 else "log", **({"linthresh": low, "linscale": 0.35} if min(steps) <= 0 else {})
        )
        axes.set_xlim(min(steps), high * 1.05)
        powers = 10.0 ** np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
        ticks = ([0.0] if min(steps) <= 0 else []) + (list(powers) if len(powers) > 1 else [low, high])
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
    number_axis(axes.xaxis)


def _draw_distribution(axes: Axes, place: int, values: Any, edges: Any, colour: str) -> None:
    """A histogram mirrored around `place`: honest also for a tap whose filters are all equal, where a density is not."""
    counts, _ = np.histogram(values, edges)
    half = 0.33 * counts / counts.max()
    if np.ptp(values) <= 1e-6 * (edges[-1] - edges[0]):  # a line: a bin would claim a spread over the bin's width
        axes.plot([place - 0.33, place + 0.33], [values.mean()] * 2, color=colour, linewidth=2.5, solid_capstyle="butt")
    else:
        axes.stairs(place + half, edges, baseline=place - half, orientation="horizontal", fill=True, color=tint(colour))
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    axes.plot([place, place], [low, high], color=colour, linewidth=5, solid_capstyle="butt")
    axes.plot([place - 0.1, place + 0.1], [middle, middle], color=INK, linewidth=2)
    axes.annotate(number(middle), (place + 0.36, middle), va="center", fontsize=9.5)


def _scale(values: Any) -> Normalize:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 < high:
        return TwoSlopeNorm(0, -max(-low, high), max(-low, high))
    return Normalize(min(low, 0.0), high if high > min(low, 0.0) else 1.0)


def _label(figure: Figure, axes: Axes, axis: Any, names: tuple[str, ...]) -> None:
    """Tick labels, thinned out where there are too many to read, upright where they would not fit side by side."""
    every = ceil(len(names) / _MOST_LABELS)
    shown = [visible_token(name, 20) for name in names[::every]]
    axis.set_ticks(range(0, len(names), every), shown)
    if axis is axes.xaxis and max(map(len, shown)) * len(shown) > 9 * figure.get_size_inches()[0]:
        axes.tick_params(axis="x", rotation=90)


def _write_values(axes: Axes, values: Any, image: Any) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(column, row, number(value, 2), ha="center", va="center", fontsize=9, color="white" if dark else INK)


def _colour_map(name: str) -> Any:
    # 65 shades: more cannot be told apart, and the embedded image of a large kernel is a quarter smaller
    return matplotlib.colormaps[name].resampled(65).with_extremes(bad="#c8c8c8")


def _cycle(colours: tuple[str, ...], count: int) -> list[str]:
    return [colours[i % len(colours)] for i in range(count)]


def _spread(count: int) -> Any:
    """Offsets that keep equal seeds from hiding each other."""
    return np.linspace(-0.18, 0.18, count) if count > 1 else np.zeros(count)
