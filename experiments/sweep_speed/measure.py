"""Time, counted FLOPs, memory and differences of every tool on every model, each as a `Result`."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from experiments.sweep_speed.config import DeepConfig, ShapeConfig, SweepSpeedConfig
from experiments.sweep_speed.floor import heads_floor, loop_count, positions_floor, two_runs
from experiments.sweep_speed.tools import (
    LENS,
    NNSIGHT,
    OURS,
    OURS_SHARED,
    PRODUCT,
    Meter,
    Swept,
    Tool,
    patched,
    spread_out,
    tools,
    transformer_lens,
)
from experiments.sweep_speed.tools import ours as our_sweep
from experiments.sweep_speed.workload import HEADS, SWEEPS, TOYS, Workload, gpt2_models, toy, transformer
from interp.errors import DataError
from interp.memory import allocated_at_peak
from interp.result import Result

TIME, ALL_THREADS, FLOPS, FLOOR, RUNS = "time", "time, all threads", "FLOPs", "fewest FLOPs", "FLOPs of two runs"
MEMORY, CELLS, DIFFERENCE, SPREAD = "memory", "cells timed", "difference", "spread of effects"
LOOP, LOOP_SHARED, LOOP_DOUBLE = "slow loop", "slow loop, prompt partly shared", "slow loop, float64"
SWEPT, TIMED = ("model", "sweep", "tool"), ("model", "sweep", "tool", "round")
TABLES = {
    TIME: (TIMED, "seconds", "of a whole sweep: CPU time on one thread, on a GPU synchronised wall time"),
    ALL_THREADS: (TIMED, "seconds", "of a whole sweep: wall time on all threads"),
    FLOPS: (SWEPT, "FLOPs", "counted, of a whole sweep; ours with both runs"),
    FLOOR: (
        SWEPT,
        "FLOPs",
        "closed form: the fewest that the sweep needs, without the two runs; for TransformerLens, one full pass a cell",
    ),
    RUNS: (("model",), "FLOPs", "closed form: the run that is read and the run that is patched"),
    MEMORY: (SWEPT, "MiB", "what a sweep's tensors hold at their peak, beyond the model"),
    CELLS: (SWEPT, "cells", "that were timed; where fewer than ours, the time is scaled to all"),
    DIFFERENCE: (
        ("model", "sweep", "against"),
        "of the spread",
        "largest difference to our values, relative to the spread of effects",
    ),
    SPREAD: (("model", "sweep"), "logits", "largest value of any cell minus the smallest"),
}
Numbers = dict[tuple[str, ...], float]
GPT2, GPT2_LONG, SMALL = "GPT-2 shape", "GPT-2 shape, long", "small"


@dataclass(frozen=True)
class Growth:
    """One thing that grows: its name, and the workload at each value."""

    name: str
    steps: tuple[int, ...]
    at: Callable[[int], Workload]


def measure(config: SweepSpeedConfig, say: Callable[[str], None]) -> dict[str, Result]:
    """Everything, by name. The number of torch threads is as before afterwards."""
    threads = torch.get_num_threads()
    found: dict[str, Numbers] = defaultdict(dict)
    ways: dict[str, str] = {}
    try:
        with torch.no_grad():
            for name, build in models(config).items():
                say(name)
                measure_model(build(), config, threads, found, ways)
            say("growth")
            torch.set_num_threads(1)
            grown = {f"growth with {growth.name}": growth_of(growth, config) for growth in growths(config)}
    finally:
        torch.set_num_threads(threads)
        gpt2_models.cache_clear()
    tables = {name: as_result(name, found[name]) for name in TABLES if found[name]}
    tables[DIFFERENCE] = replace(tables[DIFFERENCE], description=f"{tables[DIFFERENCE].description}. Ways taken: {told(ways)}")
    return tables | grown


def models(config: SweepSpeedConfig) -> dict[str, Callable[[], Workload]]:
    """What is swept, by name; those that share a model follow each other."""
    deep: dict[str, DeepConfig] = {GPT2: config.gpt2, GPT2_LONG: config.gpt2_long, SMALL: config.small}
    builders: dict[str, Callable[[], Workload]] = {
        name: partial(transformer, name, part, config.device) for name, part in deep.items()
    }
    return builders | {name: partial(toy, name, config.toys, config.device) for name in TOYS}


def measure_model(
    work: Workload, config: SweepSpeedConfig, threads: int, found: dict[str, Numbers], ways: dict[str, str]
) -> None:
    """Both sweeps of one model, into `found`. The first pass, which counts FLOPs, warms up."""
    found[RUNS][work.name,] = two_runs(work.shape)
    for sweep in SWEEPS:
        torch.set_num_threads(1)
        calls = tools(work, sweep, config.product)
        swept = {tool: counted(call) for tool, call in calls.items()}
        ways[f"{work.name}, {sweep}"] = swept[OURS].way.split("computed: ")[-1]
        for tool, outcome in swept.items():
            found[FLOPS][work.name, sweep, tool] = outcome.cost
            if tool != PRODUCT:
                found[CELLS][work.name, sweep, tool] = len(outcome.values)
        for tool, floor in floors(work, sweep).items():
            found[FLOOR][work.name, sweep, tool] = floor
        compare(work, sweep, swept, found)
        for tool in (OURS, LENS):
            found[MEMORY][work.name, sweep, tool] = peak(partial(calls[tool], time.perf_counter), config.device)
        rounds((work.name, sweep), calls, work.timing.rounds, clock(config.device, one_thread=True), found[TIME])
        if config.device == "cpu":
            torch.set_num_threads(threads)
            rounds((work.name, sweep), calls, work.timing.rounds_all_threads, clock("cpu", one_thread=False), found[ALL_THREADS])


def rounds(swept: tuple[str, str], calls: dict[str, Tool], count: int, meter: Meter, into: Numbers) -> None:
    """The tools in turn, `count` times; `swept` names the model and the sweep."""
    for turn in range(count):
        for tool, call in calls.items():
            into[*swept, tool, str(turn)] = call(meter).cost


def clock(device: str, one_thread: bool) -> Meter:
    """Seconds: of this process on one thread of a CPU; else of the wall, on a GPU once everything asked of it is done."""
    if device != "cpu":

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return synchronised
    return time.process_time if one_thread else time.perf_counter


def counted(tool: Tool) -> Swept:
    """The tool's sweep, its cost in FLOPs."""
    with counting() as counter:
        return tool(lambda: float(counter.get_total_flops()))


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts matrix products and attention; torch's own table lacks the kernel that attention takes on a CPU."""

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        yield counter


def peak(call: Callable[[], Any], device: str) -> float:
    """What the call's tensors hold at most, in MiB."""
    if device == "cpu":
        return allocated_at_peak(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def floors(work: Workload, sweep: str) -> dict[str, int]:
    """The fewest FLOPs of our sweeps, and those of a loop of full passes."""

    def fewest(shared: int) -> int:
        return heads_floor(work.shape, shared) if sweep == HEADS else positions_floor(work.shape, shared, work.timing.every)

    return {OURS: fewest(0), OURS_SHARED: fewest(work.shared(sweep)), LENS: loop_count(work.shape, len(work.cells(sweep)))}


def compare(work: Workload, sweep: str, swept: dict[str, Swept], found: dict[str, Numbers]) -> None:
    """Our values against the slow loop's on chosen cells, in float64 too where the model is small; the peers' against ours."""
    own = swept[OURS].values
    spread = max(own.values()) - min(own.values())
    found[SPREAD][work.name, sweep] = spread
    against = {
        LOOP: largest(loop_values(work, sweep, 0), own),
        LOOP_SHARED: largest(loop_values(work, sweep, work.shared(sweep)), swept[OURS_SHARED].values),
        **{tool: largest(swept[tool].values, own) for tool in (LENS, NNSIGHT) if tool in swept},
    }
    if work.timing.checked is None:
        work.model.double()
        doubled = our_sweep(work, sweep, 0, time.perf_counter).values
        against[LOOP_DOUBLE] = largest(loop_values(work, sweep, 0), doubled)
        work.model.float()
    for name, difference in against.items():
        found[DIFFERENCE][work.name, sweep, name] = difference / spread


def loop_values(work: Workload, sweep: str, shared: int) -> dict[tuple[int, int], float]:
    """The slow loop, one full pass a cell, on evenly spaced layers and heads (or positions)."""
    layers = spread_out(range(work.shape.n_layers), work.timing.checked)
    steps = spread_out(work.steps(sweep), work.timing.checked)
    which: dict[str, Any] = {"heads" if sweep == HEADS else "positions": steps}
    result = patched(work, sweep, work.corrupted_sharing(shared), layers=layers, mode="reference", **which)
    cells = [(layer, step) for layer in layers for step in steps]
    return dict(zip(cells, result.values.flatten().tolist(), strict=True))


def largest(values: dict[tuple[int, int], float], among: dict[tuple[int, int], float]) -> float:
    """The largest difference on the cells of `values`. Raises `DataError` when one is missing or undefined: that is no difference of 0."""
    differences = torch.tensor([value - among.get(cell, torch.nan) for cell, value in values.items()], dtype=torch.float64)
    if bool(differences.isnan().any()):
        raise DataError(
            "comparing sweeps", "a cell is missing or undefined in one of them", "Look at its values: the sweep is wrong"
        )
    return float(differences.abs().max())


def growths(config: SweepSpeedConfig) -> list[Growth]:
    """Layers, positions and pairs, each with the others at the middle of their lists (pairs: one)."""
    plan = config.growth
    middle = {"layers": plan.layers[len(plan.layers) // 2], "positions": plan.tokens[len(plan.tokens) // 2], "pairs": 1}

    def at(name: str, step: int) -> Workload:
        here = middle | {name: step}
        shape = DeepConfig(
            n_layers=here["layers"], n_tokens=here["positions"], d_model=plan.d_model, n_heads=plan.n_heads,
            d_vocab=plan.d_vocab, sampled=plan.sampled, rounds=plan.rounds,
        )  # fmt: skip
        return transformer(f"{name} {step}", shape, config.device, here["pairs"])

    lists = {"layers": plan.layers, "positions": plan.tokens, "pairs": plan.pairs}
    return [Growth(name, steps, partial(at, name)) for name, steps in lists.items()]


def growth_of(growth: Growth, config: SweepSpeedConfig) -> Result:
    """Median time and counted FLOPs of both sweeps as one thing grows: axes (sweep, quantity, step)."""
    quantities = (f"seconds, {OURS}", f"seconds, {LENS}", f"GFLOPs, {OURS}")
    values = torch.full((len(SWEEPS), len(quantities), len(growth.steps)), torch.nan, dtype=torch.float64)
    meter = clock(config.device, one_thread=True)
    for place, step in enumerate(growth.steps):
        work = growth.at(step)
        for index, sweep in enumerate(SWEEPS):
            calls = (partial(our_sweep, work, sweep, 0), partial(transformer_lens, work, sweep))
            values[index, 2, place] = counted(calls[0]).cost / 1e9
            spent = torch.tensor([[call(meter).cost for call in calls] for _ in range(config.growth.rounds)])
            values[index, :2, place] = spent.median(0).values
    labels = {"sweep": SWEEPS, "quantity": quantities, "step": tuple(map(str, growth.steps))}
    return Result(name=f"growth with {growth.name}", values=values, axes=("sweep", "quantity", "step"), labels=labels)


def as_result(name: str, numbers: Numbers) -> Result:
    """Numbers under keys, as a tensor; what was not measured is undefined."""
    axes, unit, description = TABLES[name]
    labels = {axis: tuple(dict.fromkeys(key[place] for key in numbers)) for place, axis in enumerate(axes)}
    values: Tensor = torch.full([len(names) for names in labels.values()], torch.nan, dtype=torch.float64)
    for key, number in numbers.items():
        values[tuple(labels[axis].index(part) for axis, part in zip(axes, key, strict=True))] = number
    return Result(name=name, values=values, axes=axes, labels=labels, unit=unit, description=description)


def told(ways: dict[str, str]) -> str:
    """Which sweeps took which way."""
    by_way: dict[str, list[str]] = defaultdict(list)
    for sweep, way in ways.items():
        by_way[way].append(sweep)
    return "; ".join(f"{way} ({'all' if len(by_way) == 1 else ', '.join(sweeps)})" for way, sweeps in by_way.items())


def timings(config: SweepSpeedConfig) -> dict[str, ShapeConfig]:
    """The settings of each model, by name."""
    deep = {GPT2: config.gpt2, GPT2_LONG: config.gpt2_long, SMALL: config.small}
    return {**deep, **dict.fromkeys(TOYS, config.toys)}
