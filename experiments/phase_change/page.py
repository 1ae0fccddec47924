"""The report: verdicts first, then what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch

from experiments.phase_change.answers import PASSAGES, TEXT
from experiments.phase_change.config import VARIANTS, StudyConfig
from interp.report import (
    Figure,
    HeadAtlas,
    Prose,
    Row,
    Section,
    StackedTokens,
    StepSlider,
    Table,
    TokenRow,
    Verdict,
    curve_grid,
    curves,
)
from interp.report.summaries import spread_of
from interp.result import Result
from interp.training import PhaseChange

BAND = "Mean over seeds; the band runs from the lowest seed to the highest."
SCORES = ("induction", "previous token", "prefix matching")
GAINS = ("gain, random tokens", PASSAGES, TEXT)
QUANTITIES = ("t10", "t50", "t90", "width", "height")


@dataclass(frozen=True)
class Looks:
    """What is looked at in the first seed's model."""

    frames: Mapping[str, Result]
    composition: Result
    tokens: Sequence[str]
    patterns: Result
    scores: Mapping[str, Result]
    selected: tuple[int, int]
    losses: Mapping[str, Result]
    passage: str


@dataclass(frozen=True)
class Found:
    """What was measured of all seeds."""

    curves: Mapping[str, Mapping[str, Result]]  # metric -> variant -> (seed, step)
    changes: Mapping[str, PhaseChange]
    final: Mapping[str, Result]
    composition: Mapping[str, Result]
    removal: Mapping[str, Result]


def sections(cards: Sequence[Verdict], found: Found, looks: Looks, study: StudyConfig, described: str) -> list[Section]:
    """The whole page."""
    lead = (
        "Each card answers one question. “Supported” and “refuted” speak of the prediction in its evidence, fixed before the reference "
        "runs, and ask it of every seed."
    )
    return [
        Section("Answers", list(cards), lead=lead),
        _timelines(found),
        _heads(looks),
        _composition(looks, found.composition),
        _cause(found.removal),
        _text(looks),
        _method(study, described),
    ]


def _timelines(found: Found) -> Section:
    timelines, final = found.curves, found.final
    names = ", ".join(VARIANTS)
    baseline = final["induction"].baseline
    scores = curve_grid({name: timelines[name] for name in SCORES}, "step", "share of attention", columns=3, log_x=True)
    gains = curve_grid(
        {name: timelines[name] for name in GAINS}, "step", "nats", columns=3, log_x=True, baseline=0, shared_y=False
    )
    losses = {"training loss": timelines["train_loss"], "validation loss": timelines["validation_loss"]}
    rows = [
        {"curve": name, "seeds with a change": f"{round(change.share * len(change.reasons))} of {len(change.reasons)}"}
        | _row(change)
        for name, change in found.changes.items()
    ]
    table = pd.DataFrame({name: [spread_of(result, variant) for variant in VARIANTS] for name, result in final.items()})
    table.insert(0, "model", VARIANTS)
    return Section(
        "When, and what comes with it",
        [
            Figure(
                scores,
                f"Best head's scores over steps for {names}.",
                f"The best head's scores on repeats of random tokens. {BAND}",
            ),
            Figure(
                gains,
                f"Gains over steps for {names}.",
                f"What the second copy of a repeat gains, and late minus early loss on held-out text (below zero: learns in context). {BAND}",
            ),
            Figure(curve_grid(losses, "step", "nats per token", columns=2, log_x=True), f"Losses over steps for {names}.", BAND),
            Table(
                pd.DataFrame(rows),
                "The phase changes of the two-layer model: median over seeds, and for the middle its interval. Against the range of the "
                "one-layer models; K-composition against none.",
            ),
            Table(
                table,
                f"At the end, on held-out sequences: mean over seeds (lowest–highest). A uniform head's induction: {baseline:.3f}.",
            ),
        ],
        lead="Read at steps evenly spaced in log step, on held-out sequences, while the models train.",
    )


def _row(change: PhaseChange) -> dict[str, float]:
    numbers = change.numbers
    place = {name: numbers.labels_of("quantity").index(name) for name in QUANTITIES}
    row = {name: float(numbers.values[index, 0]) for name, index in place.items()}
    return row | {f"t50, {bound}": float(numbers.values[place["t50"], part]) for part, bound in ((1, "low"), (2, "high"))}


def _heads(looks: Looks) -> Section:
    return Section(
        "Every head, step by step",
        [
            StepSlider(
                looks.frames,
                "Scores of every head on repeats of random tokens, first seed. Move the slider; choose a head to see its line.",
            ),
            HeadAtlas(
                looks.patterns,
                looks.tokens,
                "Attention of every head of the trained model (first seed) on a passage of held-out text, said twice.",
                scores=looks.scores,
                selected=looks.selected,
            ),
        ],
        lead="An induction head's map shows a line below the diagonal, one step right of the earlier copy; the previous-token head, "
        "a line right below the diagonal. Maps are for looking; the scores are the evidence.",
    )


def _composition(looks: Looks, pair: Mapping[str, Result]) -> Section:
    figure = curves(
        pair,
        "step",
        "share of norm",
        title="K-composition",
        log_x=True,
        baseline=next(iter(pair.values())).baseline,  # type: ignore[arg-type]
        baseline_label="random heads",
    )
    return Section(
        "How the two heads find each other",
        [
            Row(
                [
                    Figure(figure, "K-composition over steps of the circuit's pair and of all other pairs.", BAND),
                    StepSlider(
                        {"K-composition": looks.composition},
                        "From every head of the first layer into the keys of every head of the second (first seed).",
                    ),
                ]
            )
        ],
        lead="Read from the weights alone: how much of what a head writes into the residual stream a later head's keys read.",
    )


def _cause(removal: Mapping[str, Result]) -> Section:
    some = next(iter(removal.values()))
    variants = some.labels_of("variant")
    frame = pd.DataFrame({name: [spread_of(result, variant) for variant in variants] for name, result in removal.items()})
    frame.insert(0, "ablated", ["nothing", *variants[1:]])
    return Section(
        "Is it the cause?",
        [Table(frame, "Nats: mean over seeds (lowest–highest). In-context learning is late minus early: less is more.")],
        lead="Heads are replaced by their mean over held-out text. “Others” are sets of as many heads that belong to no part of the circuit.",
    )


def _text(looks: Looks) -> Section:
    names = list(looks.losses)
    most = max(float(result.values.nan_to_num(0).max()) for result in looks.losses.values())
    rows = [TokenRow(name, result, 0.0, most) for name, result in looks.losses.items()]
    first, last = looks.losses[names[0]], looks.losses[names[-1]]
    change = replace(first, name="change", values=last.values - first.values, description="loss after − loss before")
    span = float(torch.nan_to_num(change.values).abs().max()) or 1.0
    return Section(
        "The same text, before and after",
        [
            StackedTokens(
                looks.tokens,
                [*rows, TokenRow("end − before", change, -span, span)],
                "Loss of each token in nats; the rows of losses share one scale. The last row is blue where training from before the "
                "change to the end helped.",
            )
        ],
        lead=looks.passage,
    )


def _method(study: StudyConfig, described: str) -> Section:
    model, train = study.model, study.train
    return Section(
        "How this was measured",
        [
            Prose(
                f"Trained on {described}. Two layers of {model.n_heads} heads of width {model.head_width}, d_model {model.d_model}, no MLP, "
                f"norm {model.norm}, positions {model.positions}; AdamW, learning rate {train.lr:g}, {train.max_steps} steps of {train.batch_size} sequences.\n\n"
                f"Induction is the mean attention from each token of the second copy of {study.period} random tokens to the token that followed its first "
                "copy, over exactly those rows. The best head is chosen on one set of sequences and scored on another. The gain is the loss on the first copy "
                "minus the loss on the second, over the same tokens.\n\n"
                f"In-context learning is the mean loss of {study.window} tokens around position {study.late} minus that around position {study.early}, on held-out "
                "text that was not made to repeat.\n\n"
                "A phase change is a plateau, a sigmoid in log steps and a plateau (`interp.phase_change`): it must predict left-out readings better than a "
                "constant or a line, show both plateaus, and exceed twice the range of the one-layer models.\n\n"
                "Induction heads are the heads of the second layer that score at least half of its best; the previous-token head is the first "
                "layer's best previous-token head."
            )
        ],
    )
