"""The report: verdicts first, then what they rest on."""

from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.attention_ablation.answers import bigram
from experiments.attention_ablation.config import INTACT, MODES, StudyConfig, inferred, trained
from interp.report import Figure, Grid, Prose, Row, Section, Table, Verdict, curves, score_bars
from interp.report.summaries import spread_of
from interp.result import Result

BAND = "Mean over seeds; the band runs from the lowest seed to the highest."


def sections(
    cards: Sequence[Verdict], found: Mapping[str, Result], epochs: Mapping[str, Result], study: StudyConfig, described: str
) -> list[Section]:
    """The whole page."""
    lead = (
        "Each card answers one question. “Supported” and “refuted” speak of the prediction in its evidence, fixed before the reference "
        "runs, and ask it of every seed."
    )
    return [
        Section("Answers", list(cards), lead=lead),
        _losses(found),
        _training(epochs, found),
        _effects(found),
        _method(study, described),
    ]


def _losses(found: Mapping[str, Result]) -> Section:
    table = found["test loss"]
    names = table.labels_of("variant")
    frame = pd.DataFrame({"model": names, "test loss, nats": [spread_of(table, name) for name in names]})
    frame["perplexity, mean"] = table.values.exp().mean(1).tolist()
    bars = {name: table.at(variant=index) for index, name in enumerate(names)}
    alt = "; ".join(f"{name}: {spread_of(table, name)}" for name in names)
    counts = found["floors"].to_frame().pivot_table(index=["counted in", "order"], columns="quantity", values="value", sort=False)
    return Section(
        "With attention, without, and from when on",
        [
            Figure(
                score_bars(bars, "nats per token", baseline=bigram(dict(found)), baseline_label="bigram floor"),
                alt,
                "Test loss, one point per seed; lower is better.",
            ),
            Row(
                [
                    Table(frame, "Mean over seeds (lowest–highest), padding left out; “before” is the base model."),
                    Table(
                        counts.reset_index(),
                        "What token counts reach, in nats: on the test rows (smoothed), and the entropy of the counts themselves.",
                    ),
                ]
            ),
        ],
    )


def _training(epochs: Mapping[str, Result], found: Mapping[str, Result]) -> Section:
    floor = float(found["floors"].values[-1, 1, 0])
    kinds = {"trained": [INTACT, *map(trained, MODES)], "at inference": [INTACT, *map(inferred, MODES)]}
    titles = {"trained": "ablated while training", "at inference": "trained intact, ablated when read"}
    figures = []
    for kind, names in kinds.items():
        chosen = {name: epochs[name] for name in names}
        figure = curves(
            chosen, "epoch", "perplexity", title=titles[kind], baseline=2.718281828459045**floor, baseline_label="bigram floor"
        )
        figures.append(Figure(figure, f"Validation perplexity by epoch for {', '.join(names)}.", BAND))
    return Section("Validation perplexity by epoch", [Row(figures)])


def _effects(found: Mapping[str, Result]) -> Section:
    heads, mlps = found["heads"], found["MLPs"]
    means = heads.values.mean(heads.axes.index("seed"))  # both grids on one scale
    maps = [
        Grid(
            _mean_over_seeds(heads.at(variant=index)),
            f"Nats lost without the head, {name}: mean over seeds.",
            f"Effect of every head, {name}.",
            min_value=min(0.0, float(means.min())),
            max_value=float(means.max()),
        )
        for index, name in enumerate(heads.labels_of("variant"))
    ]
    frame = mlps.to_frame().groupby(["variant", "layer"], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    return Section(
        "What matters, head by head and MLP by MLP",
        [Row(maps), Table(frame, "Nats lost without the MLP of a layer: mean, lowest and highest seed.")],
        lead="Each part alone, its output replaced by its mean over all rows.",
    )


def _mean_over_seeds(result: Result) -> Result:
    labels = {axis: result.labels_of(axis) for axis in ("layer", "head")}
    return Result(name=result.name, values=result.values.mean(0), axes=("layer", "head"), labels=labels, unit=result.unit)


def _method(study: StudyConfig, described: str) -> Section:
    train = study.train
    return Section(
        "How this was measured",
        [
            Prose(
                f"{described}: AdamW, learning rate {train.lr:g}, {train.epochs} "
                f"epochs, batches of {train.batch_size}. The loss is the mean over tokens that are neither padding nor the first.\n\n"
                "Zero: attention layers write nothing. Uniform, previous, random: every head's pattern is set (to equal weights, to the token before, to a causal "
                "pattern drawn once per head and seed), values and outputs stay and are trained. Models trained under an ablation are read under it, except "
                "where their attention is said to be back.\n\n"
                "The floors: unigrams with one added to each count; bigrams by absolute discounting, interpolated with the unigrams. A model without attention "
                "also sees positions and has read the documentation, so it may end a little below the bigram floor."
            )
        ],
    )
