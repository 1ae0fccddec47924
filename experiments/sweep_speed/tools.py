"""The tools that are compared. Each does one sweep and says what it took, by whatever meter it is given: a clock, or a FLOP counter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens import patching

import interp
from experiments.sweep_speed.workload import ANSWER, HEADS, PLACES, SITE, WRONG, Workload, quiet

OURS, OURS_SHARED = "interp", "interp, prompt partly shared"
LENS, NNSIGHT, PRODUCT = "TransformerLens patching", "nnsight, one trace per layer", "large matrix product"
TOOLS = (OURS, OURS_SHARED, LENS, NNSIGHT, PRODUCT)
PATCHES = {HEADS: patching.get_act_patch_attn_head_out_all_pos, PLACES: patching.get_act_patch_resid_pre}
TRACE_TOKENS = 2048  # a trace's batch holds at most so many tokens: its logits, at every position, must fit in memory
Meter = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Swept:
    """What a whole sweep took, and the values of the cells that were run."""

    cost: float
    values: dict[tuple[int, int], float]
    way: str = ""


Tool = Callable[[Meter], Swept]


def tools(work: Workload, sweep: str, product: int) -> dict[str, Tool]:
    """Every tool that can be had, ready to be metered."""
    found: dict[str, Tool] = {
        OURS: partial(ours, work, sweep, 0),
        OURS_SHARED: partial(ours, work, sweep, work.shared(sweep)),
        LENS: partial(transformer_lens, work, sweep),
    }
    if has_nnsight():
        found[NNSIGHT] = partial(nnsight_traces, work, sweep)
    left, right = torch.randn(2, product, product, device=work.clean.device)
    found[PRODUCT] = partial(matrix_product, left, right)
    return found


def has_nnsight() -> bool:
    """Whether nnsight is installed (the extra `bench`)."""
    return find_spec("nnsight") is not None


def ours(work: Workload, sweep: str, shared: int, meter: Meter) -> Swept:
    """The sweep of this library, both runs and the provenance of its result included."""
    began = meter()
    result = patched(work, sweep, work.corrupted_sharing(shared), positions=places(work, sweep))
    cost = meter() - began
    return Swept(cost, dict(zip(work.cells(sweep), result.values.flatten().tolist(), strict=True)), result.description)


def patched(work: Workload, sweep: str, corrupted: Tensor, **options: Any) -> interp.Result:
    """One call of `interp.activation_patching`."""
    metric = interp.metrics.logit_diff(ANSWER, WRONG)
    return interp.activation_patching(work.model, work.clean, corrupted, metric, SITE[sweep], progress=False, **options)


def places(work: Workload, sweep: str) -> list[int] | None:
    """The positions that are patched; None: all (in a sweep over heads, all at once)."""
    return list(work.steps(sweep)) if sweep == PLACES and work.timing.every > 1 else None


def transformer_lens(work: Workload, sweep: str, meter: Meter) -> Swept:
    """TransformerLens' own sweep, its clean run cached as in its tutorials. Cost: that run, and the loop scaled to all cells."""
    cells, corrupted = work.cells(sweep), work.corrupted
    chosen = spread_out(cells, work.timing.sampled)
    frame = pd.DataFrame(chosen, columns=["layer", "head" if sweep == HEADS else "pos"])
    with quiet():
        began = meter()
        _, cache = work.model.run_with_cache(work.clean)
        cached = meter()
        values = PATCHES[sweep](work.model, corrupted, cache, difference, index_axis_names=None, index_df=frame)
        loop = meter() - cached
    return Swept(cached - began + loop * len(cells) / len(chosen), dict(zip(chosen, values.tolist(), strict=True)))


def difference(logits: Tensor) -> Tensor:
    """The metric, in the form that the peers take."""
    return (logits[:, -1, ANSWER] - logits[:, -1, WRONG]).mean()


def nnsight_traces(work: Workload, sweep: str, meter: Meter) -> Swept:
    """nnsight, a layer's heads (or positions) as rows of one trace. Cost: the clean trace, and the others scaled to all cells."""
    from nnsight import NNsight

    n_layers, n_heads = work.shape.n_layers, work.shape.n_heads
    wrapped = NNsight(work.plain)
    sites = [patched_module(wrapped, sweep, layer) for layer in range(n_layers)]
    steps, size = work.steps(sweep), max(1, TRACE_TOKENS // work.shape.n_tokens)
    batches = [(layer, steps[first : first + size]) for layer in range(n_layers) for first in range(0, len(steps), size)]
    per_batch = len(batches[0][1])
    chosen = spread_out(batches, None if work.timing.sampled is None else -(-work.timing.sampled // per_batch))
    values: dict[tuple[int, int], float] = {}
    began = meter()
    with wrapped.trace(work.clean):
        kept = list().save()  # type: ignore[attr-defined]
        for site in sites:
            kept.append(site.input)
    cached = meter()
    for layer, rows in chosen:
        source = kept[layer]
        with wrapped.trace(work.corrupted.repeat(len(rows), 1)):
            put_in(sites[layer].input, source, rows, n_heads if sweep == HEADS else None)
            logits = logits_of(wrapped.output)[:, -1].save()  # type: ignore[attr-defined]
        found = (logits[:, ANSWER] - logits[:, WRONG]).tolist()
        values |= {(layer, step): value for step, value in zip(rows, found, strict=True)}
    loop = meter() - cached
    return Swept(cached - began + loop * len(work.cells(sweep)) / len(values), values)


def patched_module(wrapped: Any, sweep: str, layer: int) -> Any:
    """The module whose input is patched: in a toy a hook point, in a Hugging Face model what reads the activation."""
    if hasattr(wrapped, "transformer"):
        block = wrapped.transformer.h[layer]
        return block.attn.c_proj if sweep == HEADS else block
    block = wrapped.blocks[layer]
    return block.attn.hook_z if sweep == HEADS else block.hook_resid_pre


def put_in(activation: Tensor, source: Tensor, rows: Sequence[int], n_heads: int | None) -> None:
    """Row by row, one head (or one position, without `n_heads`) of `activation` becomes the source's."""
    if n_heads is not None:
        activation, source = (part.view(*part.shape[:2], n_heads, -1) for part in (activation, source))
    for row, step in enumerate(rows):
        where = (slice(None), step) if n_heads is not None else (step,)
        activation[(row, *where)] = source[(0, *where)]


def logits_of(output: Any) -> Tensor:
    """A Hugging Face model's logits, or a toy's."""
    return output.logits if hasattr(output, "logits") else output


def matrix_product(left: Tensor, right: Tensor, meter: Meter) -> Swept:
    """A large product: what the machine can do."""
    began = meter()
    left @ right
    return Swept(meter() - began, {})


def spread_out(items: Sequence[Any], count: int | None) -> list[Any]:
    """`count` of the items, evenly spaced from the first to the last; None: all."""
    if count is None or count >= len(items):
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]
