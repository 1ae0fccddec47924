"""What is read off the runs; tables have axes (variant, seed)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import interp
from experiments.attention_ablation.config import INTACT, MODES, StudyConfig, inferred, trained
from interp.data import TokenData
from interp.errors import DataError
from interp.models.calling import device_of
from interp.result import Result
from interp.training.callbacks import Watch
from interp.training.variants import VariantRuns, perplexity_by_epoch, timelines

BASE, RESTORED = "before", "trained, zero; attention back"


def real_tokens(data: TokenData, split: str) -> Tensor:
    """True at BOS and text, False at padding."""
    assert data.answers is not None
    mask = data.answers[split].clone()
    mask[:, 0] = True
    return mask


def loss_of(model: Any, tokens: Tensor, mask: Tensor, mode: str | None = None, seed: int = 0) -> float:
    """Mean loss per token, padding left out, with attention ablated in a mode or (None) as it is."""
    if mode is None:
        return interp.perplexity(model, tokens, attention_mask=mask, batch_size=64).values[0, 0].item()
    with interp.ablate_attention(model, mode, seed=seed):
        return loss_of(model, tokens, mask)


def watch(data: TokenData, study: StudyConfig, seed: int) -> Watch:
    """What is read of the intact fine-tune after every epoch: its loss with attention ablated in each mode."""
    tokens = data.validation[: study.train.eval_sequences]
    mask = real_tokens(data, "validation")[: study.train.eval_sequences]
    return {inferred(mode): partial(loss_of, tokens=tokens, mask=mask, mode=mode, seed=seed) for mode in MODES}


def losses(runs: VariantRuns, bases: Mapping[int, Any], data: TokenData) -> Result:
    """Test loss of the base, of every fine-tune as it was trained, of the intact one ablated, and with attention put back."""
    tokens, mask = data.test, real_tokens(data, "test")
    read: dict[tuple[str, int], float] = {}
    for seed in bases:
        intact = runs[INTACT, seed].model
        read[BASE, seed] = loss_of(bases[seed], tokens, mask)
        read[INTACT, seed] = loss_of(intact, tokens, mask)
        for mode in MODES:
            read[trained(mode), seed] = loss_of(runs[trained(mode), seed].model, tokens, mask, mode, seed)
        for mode in MODES:
            read[inferred(mode), seed] = loss_of(intact, tokens, mask, mode, seed)
        read[RESTORED, seed] = loss_of(runs[trained("zero"), seed].model, tokens, mask)
    order = dict.fromkeys(name for name, _ in read)
    return Result(
        name="test loss",
        values=torch.tensor([[read[name, seed] for seed in bases] for name in order], dtype=torch.float64),
        axes=("variant", "seed"),
        labels={"variant": tuple(order), "seed": tuple(map(str, bases))},
        unit="nats",
        description="mean loss per token on test rows, padding left out",
    )


def floors(data: TokenData, more: TokenData) -> Result:
    """Unigram and bigram losses on the test rows: counted in the training rows, and in more rows of the same text."""
    if not torch.equal(data.test, more.test):
        raise DataError("n-gram floors", "the larger data has other test rows", "Vary n_train alone")
    assert data.answers is not None
    assert more.answers is not None
    found = [
        interp.ngram_floors(
            source.train, data.test, data.d_vocab, train_counted=source.answers["train"], counted=data.answers["test"]
        )  # type: ignore[index]
        for source in (data, more)
    ]
    return replace(
        found[0],
        name="n-gram floors",
        values=torch.stack([result.values for result in found]),
        axes=("counted in", "order", "quantity"),
        labels={"counted in": (f"{len(data.train):,} training rows", f"{len(more.train):,} rows"), **found[0].labels},
    )


def by_epoch(runs: VariantRuns) -> dict[str, Result]:
    """Validation perplexity before the first epoch and after each, axes (seed, step), the steps being epochs."""
    found = timelines(runs, "answer_loss")
    intact = {key: run for key, run in runs.items() if key[0] == INTACT}
    found |= {inferred(mode): timelines(intact, inferred(mode))[INTACT] for mode in MODES}
    return {name: perplexity_by_epoch(read) for name, read in found.items()}


def whole_rows(data: TokenData, study: StudyConfig) -> Tensor:
    """Test rows cut to a length at which none has padding. Raises `DataError` when there are fewer than two."""
    assert data.answers is not None
    full = data.answers["test"][:, 1 : study.sweep_length].all(1)
    rows = data.test[full][: study.sweep_rows, : study.sweep_length]
    if len(rows) < 2:
        raise DataError(
            "rows without padding", f"{len(rows)} test rows have {study.sweep_length} tokens", "Set sweep_length lower"
        )
    return rows


def sweeps(runs: VariantRuns, bases: Mapping[int, Any], rows: Tensor) -> dict[str, Result]:
    """What ablating one head or one MLP costs, in nats: before, after the intact fine-tune, and after that without attention.

    Heads: axes (variant, seed, layer, head), means in their place. MLPs: axes (variant, seed, layer); the models trained with
    attention zeroed are swept as they were trained, without it.
    """
    models: dict[str, dict[int, Any]] = {
        BASE: dict(bases),
        INTACT: {seed: runs[INTACT, seed].model for seed in bases},
        trained("zero"): {seed: runs[trained("zero"), seed].model for seed in bases},
    }
    heads = [[_sweep(model, rows, "heads") for model in models[name].values()] for name in (BASE, INTACT)]
    mlps = [[_sweep(model, rows, "mlps", name == trained("zero")) for model in by.values()] for name, by in models.items()]
    seeds = tuple(map(str, bases))
    named = {"layer": heads[0][0].labels_of("layer")}
    return {
        "heads": Result(
            name="effect of ablating a head",
            values=torch.stack([torch.stack([result.values for result in row]) for row in heads]),
            axes=("variant", "seed", "layer", "head"),
            labels={"variant": (BASE, INTACT), "seed": seeds, **named},
            unit="nats",
            description="loss with the head's output at its mean, minus loss as it is",
        ),
        "MLPs": Result(
            name="effect of ablating an MLP",
            values=torch.stack([torch.stack([result.values for result in row]) for row in mlps]),
            axes=("variant", "seed", "layer"),
            labels={"variant": tuple(models), "seed": seeds, **named},
            unit="nats",
            description="loss with the MLP's output at its mean, minus loss as it is",
        ),
    }


def _sweep(model: Any, rows: Tensor, components: str, without_attention: bool = False) -> Result:
    if without_attention:
        with interp.ablate_attention(model, "zero"):
            return _sweep(model, rows, components)
    return interp.ablation_sweep(model, rows, interp.metrics.loss(), components, progress=False)


def removal(runs: VariantRuns, data: TokenData, seed: int) -> Result:
    """Largest difference in logits after an ablation was put on a model and removed, and (the control) while it stood: axis mode."""
    model = runs[INTACT, seed].model
    tokens = data.test[:8].to(device_of(model))
    with torch.no_grad():
        before = model(tokens)
        rows = []
        for mode in MODES:
            handle = interp.ablate_attention(model, mode)
            during = model(tokens)
            handle.remove()
            rows.append([float((model(tokens) - before).abs().max()), float((during - before).abs().max())])
    return Result(
        name="removal",
        values=torch.tensor(rows, dtype=torch.float64),
        axes=("mode", "when"),
        labels={"mode": MODES, "when": ("after removal", "while it stood")},
        unit="logits",
        description="largest difference to the untouched model's logits",
    )
