"""What parts of a model are worth: how much worse it predicts without them.

  interp ablate gpt2                                   every head by itself, the most important first
  interp ablate gpt2 --components mlps                 heads, layers, mlps, conv or taps
  interp ablate gpt2 --heads 1.0,1.3 --mode zero       these together: before and after
  interp ablate conv-attn --taps=-1                    the convolution without its previous tap
  interp ablate gpt2 --text essay.txt --metric accuracy

The metric is the loss in nats, or the accuracy: on repeated random tokens that of the second copy
(without its first token), which only a model can predict that remembers the first; on a text that of
every token. An effect is metric(ablated) − metric(untouched), the largest first.

--mode says what stands in for a part: mean (over all sequences and positions), position_mean, resample
(another sequence's), zero, frozen (zero, with the patterns of later layers as they were); or, for heads, uniform, previous and
self (another pattern).
"""

import argparse
from typing import TYPE_CHECKING, Any

from interp.cli.common import numbers, say
from interp.cli.inputs import Input, add_batch_size, add_model, add_text, open_model, passes, read_input
from interp.cli.results import add_output, add_top, check_output, deliver, parse_heads, records, shown

if TYPE_CHECKING:
    from interp.cli.main import Work
    from interp.result import Result

TOP = 10
COMPONENTS = ("heads", "layers", "mlps", "conv", "taps")
METRICS = ("loss", "accuracy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp ablate` understands."""
    add_model(parser)
    parser.add_argument("--components", choices=COMPONENTS, help="what to go through, one by one (default: heads)")
    together = parser.add_argument_group("instead, ablate these together")
    together.add_argument("--heads", type=parse_heads, default=[], metavar="L.H,…", help="heads, as LAYER.HEAD: 1.0,1.3")
    together.add_argument("--layers", type=numbers, default=[], metavar="L,…", help="all attention of these layers")
    together.add_argument("--mlps", type=numbers, default=[], metavar="L,…", help="the MLPs of these layers")
    together.add_argument("--taps", type=numbers, default=[], metavar="T,…", help="taps of a ConvAttn's kernel: --taps=-1,0")
    together.add_argument("--conv", action="store_true", help="the convolution of a ConvAttn")
    parser.add_argument("--mode", default="mean", help="what stands in for a part (default: mean)")
    parser.add_argument("--metric", choices=METRICS, default="loss", help="what is compared (default: loss)")
    add_top(parser, TOP, "of the sweep")
    add_batch_size(parser)
    add_text(parser)
    add_output(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model and read the text; the work is to ablate."""
    from interp.errors import ConfigError

    parts = {name: getattr(arguments, name) for name in ("heads", "layers", "mlps", "taps", "conv") if getattr(arguments, name)}
    idle = [f"--{name}" for name in ("components", "top") if getattr(arguments, name) is not None]
    if parts and idle:
        raise ConfigError(f"{idle[0]} with --{next(iter(parts))}", "these parts are ablated together, once", "Leave one out")
    check_output(arguments)
    from interp.interventions.modes import MODES, Manner

    if arguments.mode not in MODES:
        Manner(arguments.mode).check([])  # says so, before the model is opened
    model = open_model(arguments)
    Manner(arguments.mode).check(_components(model, parts))
    given = read_input(arguments, model, copies=2, draws=arguments.mode == "resample")

    def work() -> None:
        result = _together(arguments, model, given, parts) if parts else _sweep(arguments, model, given)
        rows = [{"together": result.description, **_by_part(result)}] if parts else _sorted(result)
        say(f"{metric_told(arguments.metric, given.period)}; {given.told}")
        kept = rows if parts else rows[: shown(arguments, TOP)]
        deliver(arguments, kept, result, _grid(result) if arguments.page else (), n_rows=len(rows), top=len(rows))

    return work


def metric_for(name: str, period: int | None) -> Any:
    """The metric of that name: of the second copy of repeats, or of every token of a text."""
    from interp import metrics

    return getattr(metrics, name)(None if period is None else range(period + 2, 2 * period + 1))


def metric_told(name: str, period: int | None) -> str:
    """What the metric is, in words."""
    unit = "loss in nats" if name == "loss" else "share of tokens predicted"
    return f"{unit}, {'every token' if period is None else 'second copy'}"


def _components(model: Any, parts: dict[str, Any]) -> list[Any]:
    """The parts, each found to be there."""
    from interp.interventions import components

    found: list[Any] = [*components.heads(model, parts.get("heads", []))]
    found += [components.part(model, "attn_out", layer) for layer in parts.get("layers", [])]
    found += [components.part(model, "mlp_out", layer) for layer in parts.get("mlps", [])]
    found += [components.taps(model, parts["taps"])] if "taps" in parts else []
    return found + ([components.part(model, "conv")] if "conv" in parts else [])


def _sweep(arguments: argparse.Namespace, model: Any, given: Input) -> "Result":
    from interp.interventions import ablation_sweep

    return ablation_sweep(
        model,
        given.tokens,
        metric_for(arguments.metric, given.period),
        arguments.components or "heads",
        mode=arguments.mode,
        seed=arguments.seed or 0,
        batch_size=arguments.batch_size,
    )


def _together(arguments: argparse.Namespace, model: Any, given: Input, parts: dict[str, Any]) -> "Result":
    """The metric before and after, and the effect: means over sequences, with the standard error of the paired difference."""
    import torch

    from interp.interventions import ablated
    from interp.interventions.modes import WITH_REFERENCE
    from interp.metrics import metric_values
    from interp.result import Result, mean_over_examples

    metric, size = metric_for(arguments.metric, given.period), arguments.batch_size
    reference = given.tokens if arguments.mode in WITH_REFERENCE else None
    with passes(model, "ablating", len(given.tokens), size, times=2 + (reference is not None)):
        before = metric_values(model, given.tokens, metric, batch_size=size)
        settings = {"mode": arguments.mode, "reference": reference, "seed": arguments.seed or 0, "batch_size": size}
        with ablated(model, **parts, **settings):
            after = metric_values(model, given.tokens, metric, batch_size=size)
    mean, stderr = mean_over_examples(torch.stack([before.values, after.values, after.values - before.values], dim=-1))
    named = ", ".join(name if value is True else f"{name} {_written(value)}" for name, value in parts.items())
    return Result(
        name=f"{metric.name}, {arguments.mode} ablation",
        values=mean,
        stderr=stderr,
        axes=("run",),
        labels={"run": ("before", "after", "effect")},
        count=len(given.tokens),
        unit=metric.unit,
        description=named,
        provenance=before.provenance,
    )


def _written(value: list[Any]) -> str:
    return "+".join(f"{entry[0]}.{entry[1]}" if isinstance(entry, tuple) else str(entry) for entry in value)


def _by_part(result: "Result") -> dict[str, float]:
    by_part = {row["run"]: row for row in records(result)}
    values = {name: row["value"] for name, row in by_part.items()}
    return values | ({} if result.stderr is None else {"stderr": by_part["effect"]["stderr"]})


def _sorted(effects: "Result") -> list[dict[str, Any]]:
    rows = sorted(records(effects), key=lambda row: (row["value"] != row["value"], -abs(row["value"])))
    return [{"effect" if name == "value" else name: value for name, value in row.items() if name != "baseline"} for row in rows]


def _grid(result: "Result") -> list[Any]:
    from interp.report import Grid

    return [Grid(result, result.description)] if len(result.axes) == 2 else []
