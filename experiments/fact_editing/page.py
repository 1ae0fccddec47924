"""The report: verdicts first, then what they rest on."""

import re
from collections.abc import Sequence

import pandas as pd
import torch

from experiments.fact_editing.answers import of
from experiments.fact_editing.config import StudyConfig
from experiments.fact_editing.measure import EDITED_MEASURES, FTL
from interp.interventions import EditCase
from interp.report import Figure, Grid, Prose, Row, Section, Table, Verdict, curves, score_bars
from interp.report.summaries import spread
from interp.result import Result

_PART = re.compile(r"L(?P<layer>\d+)(?P<part>H\d+| .+)")  # a component's name


def sections(found: dict[str, Result], cards: Sequence[Verdict], cases: Sequence[EditCase], study: StudyConfig) -> list[Section]:
    """The whole page."""
    return [
        Section(
            "Answers",
            list(cards),
            lead="Each card answers one question. “Supported” and “refuted” speak of the prediction in its evidence, fixed before "
            "the reference runs, and ask it of every seed.",
        ),
        edits_section(found, cases),
        trade_section(found["trade-off"], study),
        mechanism_section(found, study),
        method_section(study),
    ]


def edits_section(found: dict[str, Result], cases: Sequence[EditCase]) -> Section:
    """The edit and its controls, side by side."""
    names = found["variants"].labels_of("variant")
    digits = {"KL": 3, "largest change": 3}
    frame = pd.DataFrame(
        {measure: [spread(of(found, name, measure), digits.get(measure, 2)) for name in names] for measure in EDITED_MEASURES}
    )
    frame.insert(0, "edit", names)
    said = found["fluency"]
    fluent = {name: spread(said.values[row]) for row, name in enumerate(said.labels_of("variant"))}
    frame["fluency, bits"] = [fluent.get(name, "") for name in names]
    seeds = found["variants"].labels_of("seed")
    bars = {name: Result(name=name, values=of(found, name, "score"), axes=("seed",), labels={"seed": seeds}) for name in names}
    alt = "; ".join(f"{name}: {spread(of(found, name, 'score'))}" for name in names)
    examples = pd.DataFrame(
        [
            {"prompt": case.prompt, "true": case.true, "new": case.new, "reworded": (case.paraphrases or ("",))[0],
             "neighbour": (case.neighbours or (("", ""),))[0][0]} for case in cases[:5]
        ]
    )  # fmt: skip
    return Section(
        "The edits and their controls",
        [
            Table(frame, "Mean over edited facts, then over seeds (lowest–highest)."),
            Figure(
                score_bars(bars, "score S"),
                alt,
                "The field's score: the harmonic mean of efficacy, paraphrase and neighbourhood.",
            ),
            Table(examples, "Some of the first seed's edits."),
        ],
        lead="Efficacy: the edit's own prompt gives the new answer rather than the true one. Paraphrase: the fact's other wordings do "
        "too. Neighbourhood: others with the same true answer keep it. All are shares of prompts. KL: how far predictions on text "
        "about others moved, in nats per token. Fluency: entropy of the n-grams in what the model says next.",
    )


def trade_section(swept: Result, study: StudyConfig) -> Section:
    """Over constraints, one curve per layer, and over both."""
    numbers = [0.0 if name == "none" else float(name) for name in swept.labels_of("epsilon")]
    loosest = max(numbers) * 3  # where "none" is drawn
    steps = tuple(f"{number or loosest:g}" for number in numbers)
    figures = []
    for measure in ("efficacy", "paraphrase", "neighbourhood"):
        lines = {}
        for index, layer in enumerate(study.layers):
            part = swept.at(layer=index, measure=swept.labels_of("measure").index(measure))
            labels = {"seed": part.labels_of("seed"), "step": steps}
            lines[f"layer {layer}"] = Result(name=measure, values=part.values, axes=("seed", "step"), labels=labels)
        figure = curves(
            lines, "largest change of a weight (ε)", "share of prompts", title=measure, log_x=True, y_range=(-0.03, 1.03)
        )
        alt = f"{measure} over ε for layers {', '.join(map(str, study.layers))}."
        figures.append(Figure(figure, alt, f"{measure.capitalize()}; band over seeds. The last point is without a constraint."))
    place = swept.labels_of("measure").index("score")
    score = swept.at(measure=place)
    mean = Result(
        name="score S", values=score.values.mean(0), axes=("layer", "epsilon"),
        labels={axis: score.labels_of(axis) for axis in ("layer", "epsilon")}, unit="score S",
    )  # fmt: skip
    frame = swept.to_frame().pivot_table(index=["layer", "epsilon"], columns="measure", values="value", sort=False).reset_index()
    return Section(
        "The trade-off over constraints and layers",
        [
            Row(figures),
            Grid(mean, "Score S by layer and constraint, mean over seeds.", min_value=0.0, max_value=1.0),
            Table(frame, "Means over seeds; KL in nats per token."),
        ],
        lead="One fact is edited at a time, in one layer's MLP output weights.",
    )


def mechanism_section(found: dict[str, Result], study: StudyConfig) -> Section:
    """Where the new answer comes from."""
    components, direct, places = (
        found[name] for name in ("recovery by component", "direct contribution, change", "recovery by place")
    )
    others = [
        {"part": name, "change, logits": spread(direct.values[:, index])}
        for index, name in enumerate(direct.labels_of("component"))
        if not _PART.fullmatch(name)
    ]
    where = [{"place": name, "recovers alone": spread(places.values[:, i])} for i, name in enumerate(places.labels_of("place"))]
    return Section(
        "Where the new answer comes from",
        [
            Grid(by_layer(components), "Share of the change that one part's output, taken from the edited model, brings back."),
            Grid(by_layer(direct), "Change of each part's direct contribution to new − true, in logits."),
            Table(pd.DataFrame(others), "The same for what belongs to no layer."),
            Table(
                pd.DataFrame(where), f"The output of layer {study.layer}'s MLP taken from the edited model at some tokens only."
            ),
            Prose(
                "A recovery is the share of the change in logit(new) − logit(true) that comes back: 1 all, 0 none. Parts before the "
                "edited layer are the same in both models, so they recover nothing; the edited MLP recovers all. What later parts recover "
                "is how far they pass on what the edit wrote; shares need not add up to 1. The direct contributions add up to the "
                "change of the logit difference."
            ),
        ],
        lead=f"{FTL} in layer {study.layer}, read on the edit's own prompt.",
    )


def by_layer(result: Result) -> Result:
    """A result over (seed, component) as (layer, part), the mean over seeds; NaN where a layer has no such part."""
    found = [
        (_PART.fullmatch(name), value) for name, value in zip(result.labels_of("component"), result.values.mean(0), strict=True)
    ]
    cells = {(int(match["layer"]), match["part"].strip()): value for match, value in found if match}
    layers, parts = sorted({layer for layer, _ in cells}), list(dict.fromkeys(part for _, part in cells))
    values = torch.full((len(layers), len(parts)), torch.nan, dtype=torch.float64)
    for (layer, part), value in cells.items():
        values[layers.index(layer), parts.index(part)] = value
    labels = {"layer": tuple(map(str, layers)), "part": tuple(parts)}
    return Result(name=result.name, values=values, axes=("layer", "part"), labels=labels, unit=result.unit)


def method_section(study: StudyConfig) -> Section:
    """What was done, and what it does not show."""
    return Section(
        "Method",
        [
            Prose(
                f"Adam, learning rate {study.lr:g}, at most {study.steps} steps, no weight decay; a step is left out once the loss is "
                "below 0.01; after each step every weight is clamped to within ε of where it was (FT-L of Meng et al. 2022, with a "
                "learning rate for small models: the published one, 5e-4, is for GPT-2 XL and GPT-J). The loss is read at the prompt's last "
                "token. After each edit the weights are put back to the bit.\n\n"
                "In the generated worlds every name, fact and wording is drawn from the seed, and each fact is left out of training "
                "in one wording. Neighbours are people with the same true answer, asked in the edit's own wording. A small model on a small "
                "language says how the method behaves where all truth is known; it does not say which ε suits a large model."
            )
        ],
    )
