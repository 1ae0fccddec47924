"""The tables and figures of the report, from the results alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.sweep_speed.answers import PART, Numbers, shown
from experiments.sweep_speed.measure import ALL_THREADS, CELLS, DIFFERENCE, FLOOR, FLOPS, MEMORY, SPREAD, TIME
from experiments.sweep_speed.tools import LENS, NNSIGHT, OURS, OURS_SHARED
from experiments.sweep_speed.workload import HEADS, PLACES, SWEEPS
from interp.report import Figure, Prose, Row, Section, Table, Verdict, curves
from interp.result import Result

GROWTHS = {"layers": "layers", "positions": "positions", "pairs": "pairs of prompts"}
ABSENT = "not installed"
METHOD = f"""All tools run the same weights on the same prompts in one process; within a round they take turns. A ratio is taken round by \
round; the tables give the median over rounds, and the lowest and highest. Ours counts everything: both runs, the untouched rows that check the \
result, hashing the weights for provenance. TransformerLens counts its cached clean run; what it, or nnsight, does is the same whatever the prompts \
share, so one timing serves both of our sweeps. Peers' loops cost the same for each cell; where a table says that fewer cells were timed, \
these are spread evenly and the loop's time is scaled.

The sweep over heads patches `z` of one head at all positions; the sweep over (layer, position) patches `resid_pre`. The metric is a logit \
difference at the last position. “Partly shared” means that the prompts agree on their first tokens: {PART[HEADS]} in the sweep over heads, \
{PART[PLACES]} over (layer, position); else they differ at every position.

The floor counts matrix products only, attention dense, two FLOPs per multiplication and addition. With d the width, S tokens of which \
P are shared, m = S − P, L layers, H heads and block = (8 + μ) d² + 4 S d per token, where μ is 16 with an MLP and 0 without:

- heads: H Σ over layers l of [ 2 m d d_head + μ m d² + max(0, L − 2 − l) m block + (4 m + 4 + μ) d² + 4 S d + 4 d ]; in the last layer m is \
1, and only the first two terms and the last stay;
- (layer, position): Σ over l and over p ≥ P of [ (L − 1 − l)(S − p) block + (4 (S − p) + 4 + μ) d² + 4 S d + 4 d ].

Counted FLOPs are torch's own count, with the CPU's attention kernel added to its table. The floor leaves out the two runs that every sweep \
needs: the run that is read and the run that is patched; one column adds them."""


def sections(cards: Sequence[Verdict], results: Mapping[str, Result], shapes: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The whole page."""
    numbers = Numbers(results)
    found = [
        Section(
            "Answers", list(cards), lead="The thresholds were fixed before the run. A prediction that fails is shown as such."
        ),
        Section("Time", [Table(pd.DataFrame(ratio_rows(numbers, TIME)), time_caption(numbers)), *all_threads(numbers)]),
        Section(
            "Operations",
            [
                Table(
                    pd.DataFrame(flop_rows(numbers)),
                    "Counted GFLOPs of ours beside the closed-form floor and the loop of full passes; and our time beside the floor's FLOPs at the rate "
                    "of a large matrix product. The floor of the toys leaves out the convolution.",
                )
            ],
        ),
        Section(
            "The same numbers",
            [
                Table(
                    pd.DataFrame(difference_rows(numbers)),
                    "Largest difference to our values, relative to the spread of effects (largest − smallest).",
                ),
                ways(results),
            ],
        ),
        Section(
            "Memory",
            [Table(pd.DataFrame(memory_rows(numbers)), "MiB that a sweep's tensors hold at their peak, beyond the model.")],
        ),
    ]
    return [*found, growth_section(results), Section("Method", [Table(pd.DataFrame(shapes), "What was swept."), Prose(METHOD)])]


def ratio_rows(numbers: Numbers, table: str) -> list[dict[str, Any]]:
    """One row per model and sweep: our seconds, and how many times longer the others take."""
    rows = []
    for model, sweep in swept(numbers, table):
        row: dict[str, Any] = {"model": model, "sweep": sweep, "cells": int(numbers.get(CELLS, model, sweep, OURS))}
        for tool, label in ((OURS, "interp, s"), (OURS_SHARED, "partly shared, s")):
            row[label] = float(numbers.get(table, model, sweep, tool).nanmedian())
        for tool, label in ((LENS, "TransformerLens"), (NNSIGHT, "nnsight")):
            for own, against in ((OURS, "÷ interp"), (OURS_SHARED, "÷ partly shared")):
                ratios = numbers.ratios(model, sweep, tool, own, table)
                row[f"{label} {against}"] = shown(ratios) if ratios.numel() else ABSENT
        rows.append(row)
    return rows


def swept(numbers: Numbers, table: str) -> list[tuple[str, str]]:
    """The models and sweeps that a table has."""
    models = numbers.results[table].labels_of("model")
    return [(model, sweep) for model in models for sweep in SWEEPS]


def time_caption(numbers: Numbers) -> str:
    """Which of the peers' times are scaled."""
    scaled = []
    for model, sweep in swept(numbers, CELLS):
        all_cells = int(numbers.get(CELLS, model, sweep, OURS))
        timed = {"TransformerLens": numbers.get(CELLS, model, sweep, LENS), "nnsight": numbers.get(CELLS, model, sweep, NNSIGHT)}
        fewer = [f"{tool} on {int(count)}" for tool, count in timed.items() if count < all_cells]
        if fewer:
            scaled.append(f"{model}, {sweep}: {' and '.join(fewer)} of {all_cells} cells")
    text = "Seconds of CPU time on one thread (on a GPU: of the wall), median; ratios as median (lowest–highest) over rounds."
    return text + (f" Peers timed on fewer cells and scaled: {'; '.join(scaled)}." if scaled else "")


def all_threads(numbers: Numbers) -> list[Table]:
    """The same on all threads, for the models where it was timed."""
    if ALL_THREADS not in numbers.results:
        return []
    return [Table(pd.DataFrame(ratio_rows(numbers, ALL_THREADS)), "The same on all threads: seconds of the wall.")]


def flop_rows(numbers: Numbers) -> list[dict[str, Any]]:
    """Counted, fewest, and the time that the fewest would take."""
    rows = []
    for model, sweep in swept(numbers, FLOPS):
        loop = float(numbers.get(FLOPS, model, sweep, LENS))
        for tool, shared in ((OURS, "nothing"), (OURS_SHARED, "3/4" if sweep == HEADS else "1/2")):
            counted, floor = (float(numbers.get(name, model, sweep, tool)) for name in (FLOPS, FLOOR))
            rows.append(
                {
                    "model": model,
                    "sweep": sweep,
                    "shared": shared,
                    "GFLOPs": counted / 1e9,
                    "floor": floor / 1e9,
                    "÷ floor": numbers.above_floor(model, sweep, tool),
                    "÷ (floor + two runs)": numbers.above_floor(model, sweep, tool, with_runs=True),
                    "loop ÷ ours": loop / counted,
                    "time ÷ (floor ÷ rate)": shown(numbers.over_product(model, sweep, tool)),
                }
            )
    return rows


def difference_rows(numbers: Numbers) -> list[dict[str, Any]]:
    """Everyone's largest difference to ours."""
    against = numbers.results[DIFFERENCE].labels_of("against")
    rows = []
    for model, sweep in swept(numbers, DIFFERENCE):
        row: dict[str, Any] = {"model": model, "sweep": sweep, "spread of effects": float(numbers.get(SPREAD, model, sweep))}
        for name in against:
            value = float(numbers.get(DIFFERENCE, model, sweep, name))
            row[name] = "not compared" if math.isnan(value) else f"{value:.1e}"
        rows.append(row)
    return rows


def ways(results: Mapping[str, Result]) -> Prose:
    """How the sweeps were computed."""
    return Prose("Ways taken: " + results[DIFFERENCE].description.split("Ways taken: ")[-1] + ".")


def memory_rows(numbers: Numbers) -> list[dict[str, Any]]:
    """Peak memory of ours and of TransformerLens."""
    return [
        {"model": model, "sweep": sweep} | {tool: float(numbers.get(MEMORY, model, sweep, tool)) for tool in (OURS, LENS)}
        for model, sweep in swept(numbers, MEMORY)
    ]


def growth_section(results: Mapping[str, Result]) -> Section:
    """Time of both tools, and our FLOPs, as one thing grows."""
    figures, rows = [], []
    for name, label in GROWTHS.items():
        growth = results[f"growth with {name}"]
        lines: dict[str, Result] = {}
        for index, sweep in enumerate(SWEEPS):
            own, lens = (growth.at(sweep=index, quantity=place) for place in (0, 1))
            lines |= {f"{sweep}, interp": own, f"{sweep}, TransformerLens": lens}
            for place, step in enumerate(growth.labels_of("step")):
                ours, theirs, flops = (float(value) for value in growth.values[index, :, place])
                rows.append(
                    {
                        "grows": label,
                        "to": int(step),
                        "sweep": sweep,
                        "interp, s": ours,
                        "TransformerLens ÷ interp": theirs / ours,
                        "GFLOPs": flops,
                    }
                )
        drawn = curves(lines, label, "seconds", log_x=True)
        drawn.figure.axes[0].set_yscale("log")
        figures.append(Figure(drawn, f"Seconds of each tool and sweep as {label} grow.", f"Time with {label}."))
    return Section(
        "Growth",
        [Row(figures), Table(pd.DataFrame(rows), "Median over rounds, one thread. Both axes of the figures are logarithmic.")],
    )
