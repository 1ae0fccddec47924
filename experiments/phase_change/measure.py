"""What is read while the models train, over their kept copies, and at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

import interp
from experiments.phase_change.config import CIRCUIT, ONE, TWO, StudyConfig
from interp.data import TokenData
from interp.errors import DataError
from interp.probes import TokenLoss
from interp.result import Result
from interp.sites import HookedModel
from interp.training import FinishedRun, kept_checkpoints, open_checkpoint
from interp.training.variants import VariantRuns, table_of

CHOOSE, REPORT = 101, 102  # seeds of the repeats on which the best head is chosen, and of those on which it is scored
LOOKS = ("induction", "previous_token")
SETS = ("intact", "induction heads", "as many others, mean", "as many others, most harmful", "previous-token head")
Head = tuple[int, int]


def best_score(model: HookedModel, score: str, period: int) -> float:
    """The best head's score on repeats of random tokens; chosen on one set of sequences, scored on another."""
    first, second = (
        interp.head_scores(model, scores=[score], period=period, n_sequences=16, seed=seed).values[0] for seed in (CHOOSE, REPORT)
    )
    return float(second.flatten()[first.argmax()])


def repeat_gain(model: HookedModel, period: int) -> float:
    """Nats per token gained on the second copy of random tokens."""
    return interp.repeat_loss(model, random_repeats(model, period), period).values[2].item()


def passage_gain(model: HookedModel, passages: Tensor, period: int) -> float:
    """Nats per token gained on the second copy of held-out text."""
    return interp.repeat_loss(model, passages, period).values[2].item()


def in_context(model: HookedModel, rows: Tensor, early: int, late: int, window: int) -> float:
    """Loss late minus loss early on held-out text as it is: negative when the model learns in context."""
    return interp.in_context_learning(model, rows, early, late, window=window).values[2].item()


def watch(study: StudyConfig, data: TokenData) -> dict[str, Callable[[Any], float]]:
    """What is read while models train."""
    passages = repeated_passages(data, study.period, "validation")
    rows = data.validation[: study.rows]
    return {
        "induction": partial(best_score, score="induction", period=study.period),
        "previous token": partial(best_score, score="previous_token", period=study.period),
        "prefix matching": partial(best_score, score="prefix_matching", period=study.period),
        "gain, random tokens": partial(repeat_gain, period=study.period),
        "gain, passages": partial(passage_gain, passages=passages, period=study.period),
        "in-context learning": partial(in_context, rows=rows, early=study.early, late=study.late, window=study.window),
    }


def random_repeats(model: HookedModel, period: int) -> Int[Tensor, "batch pos"]:
    """64 sequences BOS + r + r, none of which chose a head."""
    return interp.repeated_tokens(model, n_sequences=64, period=period, seed=REPORT)


def repeated_passages(data: TokenData, period: int, split: str = "test") -> Int[Tensor, "batch pos"]:
    """BOS + s + s for the beginning s of up to 64 held-out sequences. Raises `DataError` when they are shorter."""
    rows = getattr(data, split)[:64]
    if rows.shape[1] <= period:
        raise DataError(
            f"passages of {period} tokens", f"rows have {rows.shape[1]}", "Give a smaller period, or a larger data.length"
        )
    passage = rows[:, 1 : period + 1]
    return torch.cat([rows[:, :1], passage, passage], dim=1)


def final_table(runs: VariantRuns, study: StudyConfig, data: TokenData) -> dict[str, Result]:
    """What the trained models score, axes (variant, seed)."""
    passages, rows = repeated_passages(data, study.period), data.test[: study.rows]
    some = next(iter(runs.values())).model
    share = "share of attention"

    def score(name: str) -> Callable[[FinishedRun], float]:
        return lambda run: best_score(run.model, name, study.period)

    def null(run: FinishedRun) -> float:
        found = interp.null_scores(run.model, period=study.period, n_sequences=16, seed=REPORT)
        return found.at(statistic="q95", score="induction").values.max().item()

    def rest(run: FinishedRun) -> float:
        names = ["induction", "first_token"]
        found = interp.head_scores(run.model, scores=names, period=study.period, copies=2, seed=REPORT).values.flatten(1)
        return float(found[1, found[0].argmax()])

    tables = [
        table_of(runs, "induction", share, "to what followed last time, best head, random repeats", score("induction")),
        table_of(runs, "induction, tokens in random order", share, "control: 95 % quantile of the same heads' scores", null),
        table_of(runs, "first token", share, "to the first token, where heads rest, by the best induction head", rest),
        table_of(runs, "previous token", share, "to the token before, best head", score("previous_token")),
        table_of(runs, "gain, random tokens", "nats", "first copy − second", lambda run: repeat_gain(run.model, study.period)),
        table_of(
            runs, "gain, passages", "nats", "first copy − second", lambda run: passage_gain(run.model, passages, study.period)
        ),
        table_of(
            runs,
            "in-context learning",
            "nats",
            "loss late − loss early on held-out text as it is",
            lambda run: in_context(run.model, rows, study.early, study.late, study.window),
        ),
        table_of(
            runs,
            "test loss",
            "nats",
            "loss per token on held-out text",
            lambda run: interp.run(run.model, rows, [TokenLoss()])["loss"].item(),
        ),
    ]
    uniform = float(torch.as_tensor(interp.induction_scores(some, period=study.period).baseline).flatten()[0])
    found = {table.name: table for table in tables}
    found["induction"] = replace(found["induction"], baseline=uniform)
    return found


def copies(run: FinishedRun) -> dict[int, Any]:
    """The kept copies of a run's model, by step."""
    assert run.folder is not None
    return {step: open_checkpoint(run.folder, step) for step in kept_checkpoints(run.folder)}


def scores_over_steps(models: Mapping[int, Any], period: int) -> dict[str, Result]:
    """Every head's induction and previous-token score at each kept step, axes (step, layer, head)."""
    scores = {step: interp.head_scores(model, period=period, n_sequences=16, seed=REPORT) for step, model in models.items()}
    some = next(iter(scores.values()))
    names = some.labels_of("score")
    found = {}
    for name in LOOKS:
        index = names.index(name)
        found[name.replace("_", " ")] = Result(
            name=name.replace("_", " "),
            values=torch.stack([score.values[index] for score in scores.values()]),
            stderr=None if some.stderr is None else torch.stack([score.stderr[index] for score in scores.values()]),  # type: ignore[index]
            baseline=float(torch.as_tensor(some.baseline)[index].flatten()[0]),
            axes=("step", "layer", "head"),
            labels={"step": tuple(map(str, scores))},
            count=some.count,
            unit="share of attention",
            description=f"{name.replace('_', ' ')} score of every head at each kept step",
        )
    return found


def composition_over_steps(models: Mapping[int, Any]) -> Result:
    """K-composition of each head of the first layer with each of the second at each kept step, axes (step, from, into)."""
    found = [interp.composition_scores(model, "K") for model in models.values()]
    heads = found[0].values.shape[1]
    return Result(
        name="K-composition",
        values=torch.stack([result.values[0, :, 1] for result in found]),
        baseline=float(torch.as_tensor(found[0].baseline)),
        axes=("step", "from", "into"),
        labels={
            "step": tuple(map(str, models)),
            "from": tuple(f"L0H{head}" for head in range(heads)),
            "into": tuple(f"L1H{head}" for head in range(heads)),
        },
        unit="share of norm",
        description="how much of what a head of layer 0 writes is read as keys by a head of layer 1; chance is the baseline",
    )


def circuit(model: HookedModel, period: int) -> tuple[list[Head], Head]:
    """The induction heads of the second layer (every one that scores at least half of the best), and the previous-token head."""
    scores = interp.head_scores(model, scores=["induction", "previous_token"], period=period, seed=CHOOSE).values
    induction, previous = scores[0, -1], scores[1, 0]
    heads = [(scores.shape[1] - 1, int(head)) for head in (induction >= CIRCUIT * induction.max()).nonzero().flatten()]
    return heads, (0, int(previous.argmax()))


def composition_of_circuit(runs: Sequence[FinishedRun], period: int) -> dict[str, Result]:
    """K-composition over steps, axes (seed, step): of each seed's head that looks back into its best induction head, and of all
    other pairs on average. The pair is that of the trained model."""
    pairs, others = [], []
    steps: tuple[str, ...] = ()
    for run in runs:
        table = composition_over_steps(copies(run))
        heads, (_, back) = circuit(run.model, period)
        into = max(head for _, head in heads) if len(heads) == 1 else _best(run.model, period)
        pairs.append(table.values[:, back, into])
        others.append((table.values.sum((1, 2)) - pairs[-1]) / (table.values[0].numel() - 1))
        steps = table.labels_of("step")
    labels = {"seed": tuple(str(run.config.train.seed) for run in runs), "step": steps}
    common = dict(axes=("seed", "step"), labels=labels, unit="share of norm", baseline=table.baseline)
    return {
        "the circuit's pair": Result(name="K-composition", values=torch.stack(pairs), **common),  # type: ignore[arg-type]
        "other pairs, mean": Result(name="K-composition", values=torch.stack(others), **common),  # type: ignore[arg-type]
    }


def _best(model: HookedModel, period: int) -> int:
    return int(interp.induction_scores(model, period=period, seed=CHOOSE).values[-1].argmax())


def removals(runs: Sequence[FinishedRun], study: StudyConfig, data: TokenData) -> dict[str, Result]:
    """What the models gain from a repeat, and from context, with parts ablated, axes (variant, seed)."""
    passages, rows = repeated_passages(data, study.period), data.test[: study.rows]
    reads: dict[str, tuple[str, Callable[[Any], float]]] = {
        "gain, random tokens": ("nats", partial(repeat_gain, period=study.period)),
        "gain, passages": ("nats", partial(passage_gain, passages=passages, period=study.period)),
        "in-context learning": (
            "nats",
            partial(in_context, rows=rows, early=study.early, late=study.late, window=study.window),
        ),
    }
    columns: dict[str, list[list[float]]] = {name: [] for name in reads}
    for run in runs:
        model, reference = run.model, rows[:32]
        heads, back = circuit(model, study.period)
        layers, width = study.model.n_layers, study.model.n_heads
        rest = [(layer, head) for layer in range(layers) for head in range(width) if (layer, head) not in [*heads, back]]
        drawn = list(combinations(rest, min(len(heads), len(rest))))
        for name, (_, read) in reads.items():
            ours, behind = (_without(model, cut, reference, read) for cut in (heads, [back]))
            controls = [_without(model, cut, reference, read) for cut in drawn]
            worst = max(controls) if name == "in-context learning" else min(controls)
            columns[name].append([read(model), ours, sum(controls) / len(controls), worst, behind])
    seeds = tuple(str(run.config.train.seed) for run in runs)
    return {
        name: Result(
            name=name,
            values=rearrange(torch.tensor(columns[name], dtype=torch.float64), "seed variant -> variant seed"),
            axes=("variant", "seed"),
            labels={"variant": SETS, "seed": seeds},
            unit=unit,
            description=f"{name}, with heads replaced by their mean over held-out text",
        )
        for name, (unit, _) in reads.items()
    }


def _without(model: HookedModel, heads: Sequence[Head], reference: Tensor, read: Callable[[Any], float]) -> float:
    with interp.ablated(model, heads=heads, mode="mean", reference=reference):
        return read(model)


def losses_on(models: Mapping[str, Any], tokens: Int[Tensor, "1 pos"]) -> dict[str, Result]:
    """The loss of each token of one sequence under several models, axis (pos,); NaN for the first, which is never predicted."""
    found = {}
    for name, model in models.items():
        losses = interp.token_losses(model, tokens).values[0].double()
        values = torch.cat([losses.new_full((1,), torch.nan), losses])
        found[name] = Result(name=name, values=values, axes=("pos",), unit="nats", description="loss of each token")
    return found


def nearest_step(steps: Sequence[int], wanted: float) -> int:
    """The kept step that is nearest to `wanted` on a log scale."""
    return min(steps, key=lambda step: abs(torch.tensor(max(step, 0.5) / max(wanted, 0.5)).log().item()))


def around(changes: Mapping[str, float], steps: Sequence[int]) -> dict[str, int]:
    """The kept steps before, at and after a change with these t10, t50 and t90, and the last."""
    wanted = {"before": changes["t10"] / 1.5, "at half": changes["t50"], "after": changes["t90"] * 1.1}
    return {name: nearest_step(steps, step) for name, step in wanted.items()} | {"at the end": max(steps)}


def spelled(tokenizer: Any, tokens: Int[Tensor, "1 pos"]) -> list[str]:
    """Each token of one sequence as text."""
    return [tokenizer.decode([token]) for token in tokens[0].tolist()]


def folder_of(runs: VariantRuns, seed: int) -> Path:
    """Where the two-layer model of a seed is kept."""
    folder = runs[TWO, seed].folder
    assert folder is not None
    return folder


def of_variant(runs: VariantRuns, variant: str) -> list[FinishedRun]:
    """The runs of one variant, in the order of the seeds."""
    return [run for (name, _), run in runs.items() if name == variant]


def null_of(runs: VariantRuns) -> list[FinishedRun]:
    """The runs that cannot form an induction head."""
    return of_variant(runs, ONE)
