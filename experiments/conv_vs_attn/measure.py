"""What is read off the trained models; each function gives one `Result` over (variant, seed)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import interp
from interp.data import TokenData
from interp.errors import DataError
from interp.models import Toy
from interp.probes import RepeatLoss, TokenLoss, filter_norms, kernel_maps
from interp.result import Result
from interp.training import FinishedRun
from interp.training.variants import VariantRuns, table_of

CHOOSE, REPORT = 101, 102  # seeds of the repeats on which the best head is chosen, and of those on which it is scored


def induction_on_repeats(model: Toy, period: int) -> float:
    """The best head's induction score on random repeats; chosen on one set of sequences, scored on another."""
    chosen = interp.induction_scores(model, period=period, seed=CHOOSE).values.argmax()
    return float(interp.induction_scores(model, period=period, seed=REPORT).values.flatten()[chosen])


def induction_on_passages(model: Toy, passages: Tensor, period: int) -> float:
    """The best head's induction score on repeated passages; chosen on one half of them, scored on the other."""
    first, second = passages.tensor_split(2)
    chosen = interp.induction_scores(model, first, period=period).values.argmax()
    return float(interp.induction_scores(model, second, period=period).values.flatten()[chosen])


def gain_on_passages(model: Toy, passages: Tensor, period: int) -> float:
    """Nats gained per token on the second copy of the passages."""
    return interp.repeat_loss(model, passages, period).values[2].item()


def repeated_passages(data: TokenData, period: int, split: str = "test") -> Tensor:
    """BOS + s + s for the beginning s of up to 128 sequences of held-out text.

    Raises `DataError` for a single sequence: the head is chosen on one half of them and scored on the other.
    """
    rows = getattr(data, split)[:128]
    if len(rows) < 2:
        raise DataError(
            f"passages of {split} text", "it fills a single sequence", "Give a longer text, or a smaller text.data.length"
        )
    passage = rows[:, 1 : period + 1]
    return torch.cat([rows[:, :1], passage, passage], dim=1)


def repeated_watch(period: int) -> dict[str, Callable[[Toy], float]]:
    """What is read while models train on repeats."""
    return {"induction": partial(induction_on_repeats, period=period)}


def text_watch(passages: Tensor, period: int) -> dict[str, Callable[[Toy], float]]:
    """What is read while models train on text."""
    return {
        "induction": partial(induction_on_passages, passages=passages, period=period),
        "gain": partial(gain_on_passages, passages=passages, period=period),
    }


def uniform_score(model: Toy, period: int) -> float:
    """What a head that attends uniformly to the past scores on random repeats of this period."""
    baseline = interp.induction_scores(model, period=period, seed=REPORT).baseline
    return float(torch.as_tensor(baseline).flatten()[0])


def repeated_results(runs: VariantRuns, test_period: int, train_period: int) -> dict[str, Result]:
    """The tables of the first stage."""

    def gain(run: FinishedRun, part: int) -> float:
        tokens = interp.repeated_tokens(run.model, period=test_period, n_sequences=128, seed=REPORT)
        return interp.repeat_loss(run.model, tokens, test_period).values[part].item()

    def smear(run: FinishedRun, offset: int) -> float:
        return interp.key_smear(run.model, offset=offset).values[0, 0].item()

    some = next(iter(runs.values())).model
    share = "attention to what followed last time, best head"
    tables = [
        table_of(runs, "induction", "share of attention", share, lambda run: induction_on_repeats(run.model, test_period)),
        table_of(
            runs,
            "induction, trained length",
            "share of attention",
            share,
            lambda run: induction_on_repeats(run.model, train_period),
        ),
        table_of(runs, "first copy", "nats", "loss on the first copy", partial(gain, part=0)),
        table_of(runs, "second copy", "nats", "loss on the second copy", partial(gain, part=1)),
        table_of(runs, "gain", "nats", "loss on the first copy − loss on the second", partial(gain, part=2)),
        table_of(runs, "smear", "share of the key", "first layer's key owed to the previous token", partial(smear, offset=-1)),
        table_of(runs, "smear, two back", "share of the key", "control: owed to the token two back", partial(smear, offset=-2)),
    ]
    found = {table.name: table for table in tables}
    found["induction"] = replace(found["induction"], baseline=uniform_score(some, test_period))
    found["induction, trained length"] = replace(found["induction, trained length"], baseline=uniform_score(some, train_period))
    return found


def text_results(runs: VariantRuns, data: TokenData, period: int) -> dict[str, Result]:
    """The tables of the second stage, on text that was not trained on."""
    passages = repeated_passages(data, period)
    some = next(iter(runs.values())).model
    baseline = interp.induction_scores(some, passages, period=period).baseline
    share = "attention to what followed last time, best head, on repeated passages"

    def loss(run: FinishedRun) -> float:
        return interp.run(run.model, data.test, [TokenLoss()], batch_size=64)["loss"].item()

    def gain(run: FinishedRun) -> float:
        return interp.run(run.model, passages, [RepeatLoss(period)])["repeat_loss"].values[2].item()

    def smear(run: FinishedRun) -> float:
        return interp.key_smear(run.model).values[0].max().item()

    induction = table_of(
        runs, "induction", "share of attention", share, lambda run: induction_on_passages(run.model, passages, period)
    )

    def attention_to(run: FinishedRun, score: str) -> float:
        return interp.head_scores(run.model, passages, scores=[score], period=period).values.max().item()

    tables = [
        replace(induction, baseline=float(torch.as_tensor(baseline).flatten()[0])),
        table_of(
            runs,
            "itself",
            "share of attention",
            "attention to the current position, most of any head",
            partial(attention_to, score="current_token"),
        ),
        table_of(
            runs,
            "earlier copy",
            "share of attention",
            "attention to earlier copies of the current token itself, most of any head",
            partial(attention_to, score="duplicate_token"),
        ),
        table_of(runs, "gain", "nats", "loss on the first copy − loss on the second", gain),
        table_of(runs, "test loss", "nats", "loss per token on held-out text", loss),
        table_of(runs, "smear", "share of the key", "first layer's keys owed to the previous token, most smeared head", smear),
    ]
    return {table.name: table for table in tables}


def kernels(model: Toy) -> dict[str, Result]:
    """The convolution of one trained model: statistics, matrices and filter norms per tap."""
    return {"kernel stats": interp.kernel_stats(model), "kernel maps": kernel_maps(model), "filter norms": filter_norms(model)}


def attention_on(models: Sequence[tuple[str, Toy]], tokens: Tensor) -> list[tuple[str, Result]]:
    """Attention of every head on one sequence, for each model: axes (head, query, key)."""
    panels = []
    for name, model in models:
        patterns = interp.attention_patterns(model, tokens)
        layers, heads = patterns.values.shape[:2]
        labels = tuple(f"L{layer}H{head}" for layer in range(layers) for head in range(heads))
        flat = replace(patterns, values=patterns.values.flatten(0, 1), axes=("head", "query", "key"), labels={"head": labels})
        panels.append((name, flat))
    return panels


def random_repeat(model: Toy, period: int) -> Tensor:
    """One sequence BOS + r + r."""
    return interp.repeated_tokens(model, n_sequences=1, period=period, seed=REPORT)


def spelled(tokenizer: Any, tokens: Tensor) -> list[str]:
    """Each token of one sequence as text."""
    return [tokenizer.decode([token]) for token in tokens[0].tolist()]
