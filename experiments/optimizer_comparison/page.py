"""The report: verdicts first, then what they rest on."""

from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.optimizer_comparison.config import OPTIMIZERS, StudyConfig, grid, lowest
from interp.report import Figure, Prose, Section, Table, Verdict, curves, score_bars
from interp.report.summaries import spread_of
from interp.result import Result

BAND = "Mean over seeds; the band runs from the lowest seed to the highest."


def sections(
    cards: Sequence[Verdict],
    found: Mapping[str, Result],
    training: tuple[Mapping[str, Result], Mapping[str, Result]],
    study: StudyConfig,
    described: str,
) -> list[Section]:
    """The whole page; `training` is the perplexity by epoch and the training loss by step."""
    lead = (
        "Each card answers one question. “Supported” and “refuted” speak of the prediction in its evidence, fixed before the reference "
        "runs, and ask it of every seed."
    )
    return [
        Section("Answers", list(cards), lead=lead),
        _result(found),
        _training(*training),
        _search(found["search"], study),
        _times(found["time per step"]),
        _method(study, described, found["padding"]),
    ]


def _result(found: Mapping[str, Result]) -> Section:
    table = found["test perplexity"]
    names = table.labels_of("variant")
    frame = pd.DataFrame(
        {
            name: [spread_of(result, variant) for variant in names]
            for name, result in found.items()
            if name in ("test loss", "test perplexity")
        }
    )
    frame.insert(0, "optimizer", names)
    bars = {name: table.at(variant=names.index(name)) for name in OPTIMIZERS}
    alt = "; ".join(f"{name}: {spread_of(table, name)}" for name in names)
    return Section(
        "What each optimizer reaches",
        [
            Table(frame, "Mean over seeds (lowest–highest), on test rows, padding left out; “before” is the base model."),
            Figure(score_bars(bars, "test perplexity"), alt, "Test perplexity, one point per seed; lower is better."),
        ],
    )


def _training(epochs: Mapping[str, Result], steps: Mapping[str, Result]) -> Section:
    names = ", ".join(epochs)
    return Section(
        "Training",
        [
            Figure(curves(epochs, "epoch", "perplexity", title="validation"), f"Validation perplexity by epoch for {names}.", BAND),
            Figure(curves(steps, "step", "nats per token", title="training loss"), f"Training loss by step for {names}.", f"Each point is a mean over the last steps. {BAND}"),
        ],
    )  # fmt: skip


def _search(search: Result, study: StudyConfig) -> Section:
    rows = []
    for name, row in zip(OPTIMIZERS, search.values, strict=True):
        losses = {
            f"rate {place + 1}": f"{lr:g}: " + ("diverged" if loss.isnan() else f"{float(loss):.3f}")
            for place, (lr, loss) in enumerate(zip(grid(study, name), row, strict=True))
        }
        rows.append({"optimizer": name, **losses, "chosen": f"{grid(study, name)[lowest(row)]:g}"})
    return Section(
        "The search for learning rates",
        [Table(pd.DataFrame(rows), "Learning rate: validation loss at the end of a full run.")],
        lead=f"Every optimizer gets {study.rates} rates, each {study.factor:g} times the one before, and as many steps as in the comparison.",
    )


def _times(spent: Result) -> Section:
    rows = []
    for name, values in zip(OPTIMIZERS, spent.values, strict=True):
        forward, own = (float(part.median()) for part in values)
        rows.append(
            {
                "optimizer": name,
                "forward and backward, ms": forward,
                "optimizer, ms": own,
                "share of a step": own / (forward + own),
            }
        )
    return Section(
        "Time per step",
        [
            Table(
                pd.DataFrame(rows), f"Medians of {spent.values.shape[-1]} steps: CPU time on one thread, the optimizers in turns."
            )
        ],
    )


def _method(study: StudyConfig, described: str, padding: Result) -> Section:
    train = study.train
    checks = pd.DataFrame({"difference": padding.labels_of("quantity"), "nats": padding.values.tolist()})
    return Section(
        "How this was measured",
        [
            Prose(
                f"{described} Rows hold whole lines and are padded on "
                "the right; the loss is the mean over tokens that are neither padding nor the first. "
                f"All optimizers share the rest: {train.epochs} epochs, batches of {train.batch_size}, {train.schedule} schedule with {train.warmup_ratio:.0%} warm-up, "
                f"gradients clipped to norm {train.grad_clip:g}, weight decay {train.weight_decay:g}."
            ),
            Table(checks, "Largest differences on the first batch."),
        ],
    )
