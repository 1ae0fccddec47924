"""The report: verdicts first, then what they rest on."""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.report import (
    AttentionMaps,
    Figure,
    Prose,
    Row,
    Section,
    Table,
    curve_grid,
    curves,
    filter_distributions,
    kernel_maps,
    score_bars,
)
from interp.report.blocks import Verdict
from interp.report.summaries import spread_of
from interp.result import Result

Panels = Sequence[tuple[str, Result]]
Timelines = Mapping[str, Mapping[str, Result]]  # metric -> variant -> result over (seed, step)

LOSSES = {"train_loss": "training loss", "validation_loss": "validation loss"}


def answers_section(cards: Sequence[Verdict]) -> Section:
    """The verdicts."""
    lead = (
        "Each card answers one question. “Supported” and “refuted” speak of the prediction in its evidence, fixed before the reference "
        "runs, and ask it of every seed."
    )
    return Section("Answers", list(cards), lead=lead)


def scores_section(title: str, lead: str, tables: Mapping[str, Result], caption: str) -> Section:
    """One row per variant: every measurement as mean and range over seeds, and the induction scores drawn."""
    score = tables["induction"]
    variants = score.labels_of("variant")
    frame = pd.DataFrame({name: [spread_of(table, variant) for variant in variants] for name, table in tables.items()})
    frame.insert(0, "model", variants)
    bars = score_bars(
        {variant: score.at(variant=index) for index, variant in enumerate(variants)},
        "induction score",
        baseline=float(score.baseline),  # type: ignore[arg-type]
        baseline_label="uniform head",
    )
    alt = "; ".join(f"{variant}: {spread_of(score, variant)}" for variant in variants)
    return Section(
        title, [Table(frame, caption), Figure(bars, alt, "Induction score of the best head, one point per seed.")], lead=lead
    )


def training_section(title: str, lead: str, timelines: Timelines, baseline: float) -> Section:
    """Losses and accuracy, then induction, over training steps with bands over seeds."""
    names = ", ".join(timelines["train_loss"])
    losses = {label: timelines[metric] for metric, label in LOSSES.items()}
    grid = curve_grid(losses, "step", "nats per token", columns=2, log_x=True)
    accuracy = curves(timelines["validation_accuracy"], "step", "share of tokens", title="next-token accuracy", log_x=True)
    induction = curves(
        timelines["induction"],
        "step",
        "share of attention",
        title="induction",
        log_x=True,
        baseline=baseline,
        baseline_label="uniform head",
    )
    band = "Mean over seeds; the band runs from the lowest seed to the highest."
    return Section(
        title,
        [
            Figure(grid, f"Training and validation loss over steps for {names}.", band),
            Row(
                [
                    Figure(
                        accuracy,
                        f"Next-token accuracy on validation data over steps for {names}.",
                        f"Validation accuracy. {band}",
                    ),
                    Figure(
                        induction,
                        f"Induction score over steps for {names}.",
                        f"Induction of the best head, on held-out sequences. {band}",
                    ),
                ]
            ),
        ],
        lead=lead,
    )


def kernel_section(title: str, found: Mapping[str, Result]) -> Section:
    """The kernel of one trained model: statistics per tap, matrices, filters."""
    stats = found["kernel stats"]
    frame = stats.to_frame().pivot_table(index=["kernel", "tap"], columns="statistic", values="value", sort=False).reset_index()
    raw_next = stats.at(kernel=0).values[-1]
    return Section(
        title,
        [
            Table(
                frame,
                "Weights of the convolution by tap. The effective kernel is the one used: the next position is masked in it.",
            ),
            Prose(
                "The raw weights of the masked tap are not evidence of anything: they get no gradient, so they are the initial ones, "
                f"shrunk by weight decay where there is any (largest {float(raw_next[0]):.3f})."
            ),
            Figure(
                kernel_maps(found["kernel maps"]),
                "Kernel matrices per tap.",
                "Effective kernel, one matrix per tap, one colour scale.",
            ),
            Figure(
                filter_distributions(found["filter norms"]),
                "Distribution of filter norms per tap.",
                "How strongly each filter reads each tap: the norm of its weights over input channels.",
            ),
        ],
        lead="What the trained convolution of ConvAttn looks like (first seed).",
    )


def attention_section(title: str, lead: str, panels: Panels, tokens: Sequence[str], caption: str) -> Section:
    """Attention maps of several models on the same tokens, side by side."""
    return Section(title, [AttentionMaps(panels, tokens, caption)], lead=lead)


def method_section(facts: str) -> Section:
    """How it was measured, for the reader who doubts it."""
    return Section(
        "How this was measured",
        [
            Prose(
                "Induction is the mean attention from each token of the second copy to the token that followed its first copy, "
                "over exactly those rows; a uniform head's score is given beside it. The head is chosen on one set of sequences and "
                "scored on another."
                "\n\nGain is the loss on the first copy minus the loss on the second, over the same tokens, in nats.\n\n"
                "Key smear is measured causally: exchange the previous token and see how far the key moves, exchange the current one "
                "and see how far it moves then; the share is the first over the sum of both.\n\n" + facts
            )
        ],
    )


def without_matrices(found: Mapping[str, Result]) -> dict[str, Result]:
    """What of the kernel goes into `results.json`: the matrices themselves are in the run folder, and large."""
    return {name: result for name, result in found.items() if name != "kernel maps"}
