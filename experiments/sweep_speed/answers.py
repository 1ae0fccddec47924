"""The predictions, and what the results say of each; `Numbers` reads the results by name."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.sweep_speed.measure import (
    DIFFERENCE,
    FLOOR,
    FLOPS,
    GPT2,
    LOOP,
    LOOP_DOUBLE,
    LOOP_SHARED,
    RUNS,
    SMALL,
    TIME,
)
from experiments.sweep_speed.tools import LENS, NNSIGHT, OURS, OURS_SHARED, PRODUCT
from experiments.sweep_speed.workload import HEADS, PLACES, SWEEPS, TOYS
from interp.report import Verdict
from interp.report.blocks import Outcome
from interp.result import Result

FASTER = {(HEADS, OURS): 5.0, (HEADS, OURS_SHARED): 12.0, (PLACES, OURS): 6.5, (PLACES, OURS_SHARED): 20.0}
SMALL_FASTER, GPU_FASTER = 5.0, 100.0
MOST_FLOPS, MOST_TIME = 1.15, 1.3
FLOAT32, FLOAT64 = 1e-4, 1e-10  # largest difference allowed, relative to the spread of effects
SAID = {OURS: "nothing shared", OURS_SHARED: "part of the prompt shared"}
PART = {HEADS: "3/4 of the prompt shared", PLACES: "half of the prompt shared"}


@dataclass(frozen=True, eq=False)
class Numbers:
    """The results, asked by labels."""

    results: Mapping[str, Result]

    def get(self, name: str, *where: str) -> Tensor:
        """The part of a result at these labels of its first axes; NaN when something was not measured."""
        result = self.results.get(name)
        if result is None:
            return torch.tensor(torch.nan)
        values = result.values
        for axis, label in zip(result.axes, where, strict=False):
            labels = result.labels_of(axis)
            if label not in labels:
                return torch.tensor(torch.nan)
            values = values[labels.index(label)]
        return values

    def ratios(self, model: str, sweep: str, tool: str, of: str = OURS, table: str = TIME) -> Tensor:
        """How many times longer `tool` took than our sweep, round by round; empty when one was not timed."""
        ratios = self.get(table, model, sweep, tool) / self.get(table, model, sweep, of)
        return ratios.reshape(-1)[~ratios.reshape(-1).isnan()]

    def above_floor(self, model: str, sweep: str, tool: str, with_runs: bool = False) -> float:
        """Our counted FLOPs over the fewest, with or without the two runs among these."""
        fewest = self.get(FLOOR, model, sweep, tool) + (self.get(RUNS, model) if with_runs else 0)
        return float(self.get(FLOPS, model, sweep, tool) / fewest)

    def over_product(self, model: str, sweep: str, tool: str) -> Tensor:
        """Our time over that of the fewest FLOPs at the rate of a large matrix product, round by round."""
        rate = self.get(FLOPS, model, sweep, PRODUCT) / self.get(TIME, model, sweep, PRODUCT)
        times = (self.get(TIME, model, sweep, tool) * rate / self.get(FLOOR, model, sweep, tool)).reshape(-1)
        return times[~times.isnan()]


def verdicts(results: Mapping[str, Result], device: str) -> list[Verdict]:
    """Every prediction's verdict."""
    numbers = Numbers(results)
    return [
        *(_faster(numbers, sweep, tool, least) for (sweep, tool), least in FASTER.items()),
        _few_flops(numbers),
        _near_the_machine(numbers),
        _small(numbers),
        _toys(numbers),
        _nnsight(numbers),
        _exact(numbers),
        _gpu(numbers, device),
    ]


def headline(results: Mapping[str, Result]) -> str:
    """The answer to the question of the study, in a few sentences."""
    numbers = Numbers(results)
    by_sweep = {sweep: [median(numbers.ratios(GPT2, sweep, LENS, tool)) for tool in (OURS, OURS_SHARED)] for sweep in SWEEPS}
    faster = "; ".join(
        f"over {sweep if sweep != HEADS else 'heads'} {bare:.1f} times, with {PART[sweep]} {shared:.1f} times"
        for sweep, (bare, shared) in by_sweep.items()
    )
    above = [numbers.above_floor(GPT2, sweep, tool) for sweep, tool in FASTER]
    text = (
        f"On the GPT-2 shape exact sweeps are faster than TransformerLens': {faster}. Counted operations are {min(above):.2f} to "
    )
    text += f"{max(above):.2f} times the fewest."
    traced = [ratios for sweep in SWEEPS if (ratios := numbers.ratios(GPT2, sweep, NNSIGHT)).numel()]
    return text + (
        f" nnsight takes {min(map(median, traced)):.1f} to {max(map(median, traced)):.1f} times as long." if traced else ""
    )


def shown(values: Tensor) -> str:
    """`5.02 (4.8–5.3)`: median, lowest and highest round."""
    if values.numel() == 0:
        return "not measured"
    middle, low, high = median(values), float(values.min()), float(values.max())
    places = 0 if middle >= 100 else 1 if middle >= 2 else 2  # the same for all three, so that they can be compared
    return f"{middle:.{places}f} ({low:.{places}f}–{high:.{places}f})"


def median(values: Tensor) -> float:
    """The middle of the rounds, of an even number the mean of the two."""
    return float(values.double().quantile(0.5)) if values.numel() else torch.nan


def judged(met: list[bool]) -> Outcome:
    """All, none or some."""
    if not met:
        return "not tested"
    return "supported" if all(met) else "mixed" if any(met) else "refuted"


def _faster(numbers: Numbers, sweep: str, tool: str, least: float) -> Verdict:
    ratios = numbers.ratios(GPT2, sweep, LENS, tool)
    shared = "nothing shared" if tool == OURS else PART[sweep]
    against = LOOP if tool == OURS else LOOP_SHARED
    return Verdict(
        question=f"GPT-2 shape, {sweep}, {shared}: how much faster than TransformerLens?",
        answer=f"{median(ratios):.1f} times.",
        outcome="supported" if median(ratios) >= least else "refuted",
        evidence=f"Median over rounds (lowest–highest): {shown(ratios)}; predicted at least {_digits(least)}.",
        control=f"Largest difference to the slow loop: {float(numbers.get(DIFFERENCE, GPT2, sweep, against)):.1e} of the spread of effects.",
    )


def _few_flops(numbers: Numbers) -> Verdict:
    found = {(sweep, tool): numbers.above_floor(GPT2, sweep, tool) for sweep, tool in FASTER}
    named = "; ".join(f"{sweep}, {SAID[tool]}: {ratio:.3f}" for (sweep, tool), ratio in found.items())
    counted, closed = (float(numbers.get(name, GPT2, HEADS, LENS)) for name in (FLOPS, FLOOR))
    return Verdict(
        question="GPT-2 shape: are there operations left to save?",
        answer=f"Counted FLOPs are {min(found.values()):.2f} to {max(found.values()):.2f} times the closed-form floor.",
        outcome=judged([ratio <= MOST_FLOPS for ratio in found.values()]),
        evidence=f"{named}; predicted at most {MOST_FLOPS}. Ours count the two runs, the floor does not.",
        control=f"The same counter gives {counted / closed:.3f} of the closed form for TransformerLens' loop (its clean run is one cell more).",
    )


def _near_the_machine(numbers: Numbers) -> Verdict:
    found = {(sweep, tool): numbers.over_product(GPT2, sweep, tool) for sweep, tool in FASTER}
    named = "; ".join(f"{sweep}, {SAID[tool]}: {shown(ratio)}" for (sweep, tool), ratio in found.items())
    middles = [median(ratios) for ratios in found.values()]
    return Verdict(
        question="GPT-2 shape: how near is that to what the machine can do?",
        answer=f"{min(middles):.2f} to {max(middles):.2f} times the floor's FLOPs at the rate of a large matrix product.",
        outcome=judged([middle <= MOST_TIME for middle in middles]),
        evidence=f"{named}; predicted at most {MOST_TIME}.",
        control="The rate is measured in every round, beside the tools.",
    )


def _small(numbers: Numbers) -> Verdict:
    found = {sweep: numbers.ratios(SMALL, sweep, LENS) for sweep in SWEEPS}
    return Verdict(
        question="The small transformer: how much faster than TransformerLens?",
        answer=", ".join(f"{sweep}: {median(ratios):.1f} times" for sweep, ratios in found.items()) + ".",
        outcome=judged([median(ratios) >= SMALL_FASTER for ratios in found.values()]),
        evidence="; ".join(f"{sweep}: {shown(ratios)}" for sweep, ratios in found.items())
        + f"; predicted at least {_digits(SMALL_FASTER)}.",
        control=_equal(numbers, SMALL),
    )


def _toys(numbers: Numbers) -> Verdict:
    found = {(toy, sweep): numbers.ratios(toy, sweep, LENS) for toy in TOYS for sweep in SWEEPS}
    middles = [median(ratios) for ratios in found.values()]
    return Verdict(
        question="The toys: how much faster than TransformerLens?",
        answer=f"{min(middles):.1f} to {max(middles):.1f} times.",
        outcome=judged([middle >= SMALL_FASTER for middle in middles]),
        evidence="; ".join(f"{toy}, {sweep}: {shown(ratios)}" for (toy, sweep), ratios in found.items())
        + f"; predicted at least {_digits(SMALL_FASTER)}. "
        "Over the heads of a one-layer toy there are as many cells as heads, and two of our passes are the runs themselves.",
        control=" ".join(f"{toy}: {_equal(numbers, toy)}" for toy in TOYS),
    )


def _nnsight(numbers: Numbers) -> Verdict:
    found = {(model, sweep): numbers.ratios(model, sweep, NNSIGHT) for model in (GPT2, SMALL, *TOYS) for sweep in SWEEPS}
    found = {key: ratios for key, ratios in found.items() if ratios.numel()}
    if not found:
        return Verdict(
            question="And nnsight, with a layer's cells in one trace?",
            answer="It is not installed.",
            outcome="not tested",
            evidence="Predicted: slower than ours on every model. Install the extra `bench`.",
        )
    least, most = (end(found, key=lambda key: median(found[key])) for end in (min, max))
    return Verdict(
        question="And nnsight, with a layer's cells in one trace?",
        answer=f"It takes {min(map(median, found.values())):.1f} to {max(map(median, found.values())):.1f} times as long as ours.",
        outcome=judged([median(ratios) > 1 for ratios in found.values()]),
        evidence=f"Least on {_named(found, least)}, most on {_named(found, most)}; predicted above 1 on every model and sweep, of which "
        f"there are {len(found)}. The table of times has each.",
        control="It wraps the plain Hugging Face module with the same weights (a toy: the toy itself); its values are compared with ours below.",
    )


def _exact(numbers: Numbers) -> Verdict:
    table = numbers.results[DIFFERENCE]
    labels = table.labels_of("against")
    single = _largest(table.values[..., [labels.index(name) for name in (LOOP, LOOP_SHARED)]])
    double = _largest(table.values[..., labels.index(LOOP_DOUBLE)]) if LOOP_DOUBLE in labels else float("nan")
    return Verdict(
        question="Is it the same number as the slow loop's?",
        answer=f"Yes within rounding: {single:.0e} of the spread of effects at most in float32, {double:.0e} in float64."
        if single <= FLOAT32 and double <= FLOAT64
        else f"Off by {single:.1e} of the spread of effects in float32, {double:.1e} in float64.",
        outcome=judged([single <= FLOAT32, double <= FLOAT64]),
        evidence=f"Largest over models and sweeps; predicted at most {FLOAT32:.0e} and {FLOAT64:.0e}. float64 where the loop can run whole.",
        control="A mistake does not shrink with the precision; rounding does, by nine orders.",
    )


def _gpu(numbers: Numbers, device: str) -> Verdict:
    question = "On a GPU: how much faster than TransformerLens?"
    if device == "cpu":
        return Verdict(
            question=question,
            answer="Not run: everything here ran on the CPU.",
            outcome="not tested",
            evidence=f"Predicted at least {_digits(GPU_FASTER)} on the GPT-2 shape. Run with device=cuda.",
        )
    found = {sweep: numbers.ratios(GPT2, sweep, LENS) for sweep in SWEEPS}
    return Verdict(
        question=question,
        answer=", ".join(f"{sweep}: {median(ratios):.0f} times" for sweep, ratios in found.items()) + ".",
        outcome=judged([median(ratios) >= GPU_FASTER for ratios in found.values()]),
        evidence="; ".join(f"{sweep}: {shown(ratios)}" for sweep, ratios in found.items())
        + f"; predicted at least {_digits(GPU_FASTER)}.",
        control="Clocks are read once the GPU is done.",
    )


def _named(found: Mapping[tuple[str, str], Tensor], key: tuple[str, str]) -> str:
    return f"{', '.join(key)}: {shown(found[key])}"


def _equal(numbers: Numbers, model: str) -> str:
    largest = _largest(torch.stack([numbers.get(DIFFERENCE, model, sweep, LOOP) for sweep in SWEEPS]))
    return f"Largest difference to the slow loop: {largest:.1e} of the spread of effects."


def _largest(values: Tensor) -> float:
    """The largest that was measured."""
    measured = values[~values.isnan()]
    return float(measured.max()) if measured.numel() else float("nan")


def _digits(value: float) -> str:
    """Two digits where there are few, none after the point where there are many."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
