"""Calibration: how often each planted bug is found and how often a healthy model is blamed, over seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

import interp
from experiments.debug_encoder.planted import BUGS, Bug, build
from interp.models import AttnAttnConfig, ConvAttnConfig, SmearedKeyAttnConfig, TransformerConfig, build_model
from interp.models.encoder import EncoderConfig
from interp.probes.health import Diagnosis, diagnose
from interp.result import Result
from interp.seeds import seed_for

Diagnoses = Mapping[str, Sequence[Diagnosis]]  # by name, one per seed


def whole_rows(d_vocab: int, length: int, n: int = 24) -> Tensor:
    """Random tokens without padding."""
    generator = torch.Generator().manual_seed(seed_for("tokens to diagnose on", d_vocab, length))
    return torch.randint(1, d_vocab, (n, length), generator=generator)


def planted(config: EncoderConfig, tokens: Tensor, n_seeds: int) -> dict[str, list[Diagnosis]]:
    """A diagnosis of each planted bug per seed, untrained."""
    whole = whole_rows(config.d_vocab, tokens.shape[1])
    return {
        bug.name: [diagnose(build(bug.name, config, seed), whole if bug.causal else tokens) for seed in range(n_seeds)]
        for bug in tqdm(BUGS, desc="planted bugs", leave=False)
    }


def healthy_models(config: EncoderConfig, n_seeds: int) -> Iterator[tuple[str, Any, bool]]:
    """Name, model, and whether it reads padding, of healthy models of every kind the library builds or brings along."""
    encoders = {
        "encoder": config,
        "encoder, −1e9": replace(config, mask="-1e9"),
        "encoder, norm after": replace(config, norm="post"),
        "encoder, ReLU": replace(config, activation="relu"),
        "encoder, 8 layers, dropout": replace(config, n_layers=8, dropout=0.1),
    }
    shape = {"d_vocab": config.d_vocab, "d_model": config.d_model, "n_ctx": config.n_ctx, "n_heads": config.n_heads}
    others: dict[str, Any] = {
        "transformer": TransformerConfig(**shape),
        "transformer, rotary, RMS, gated": TransformerConfig(positions="rotary", norm_kind="rms", gated=True, **shape),
        "transformer, norm after": TransformerConfig(norm="post", **shape),
        "transformer, no norm": TransformerConfig(norm="none", **shape),
        "ConvAttn": ConvAttnConfig(**shape),
        "AttnAttn, residual": AttnAttnConfig(residual=True, positions=True, **shape),
        "SmearedKeyAttn": SmearedKeyAttnConfig(**shape),
    }
    for name, each in encoders.items():
        for seed in range(n_seeds):
            yield f"{name}, untrained", build("correct", each, seed), True
    for name, each in others.items():
        for seed in range(n_seeds):
            yield f"{name}, untrained", build_model(each, seed), False
    for name in interp.bundled_models():
        yield "bundled, trained", interp.load_model(name), False


def healthy(config: EncoderConfig, tokens: Tensor, n_seeds: int) -> dict[str, list[Diagnosis]]:
    """A diagnosis of each healthy model."""
    found: dict[str, list[Diagnosis]] = {}
    for name, model, padded in tqdm(list(healthy_models(config, n_seeds)), desc="healthy models", leave=False):
        batch = tokens if padded else whole_rows(model.cfg.d_vocab, tokens.shape[1])
        found.setdefault(name, []).append(diagnose(model, batch))
    return found


def is_found(bug: Bug, diagnosis: Diagnosis) -> bool:
    """Whether one of the checks that should speak did."""
    return bool(set(bug.expected) & set(diagnosis.found))


def rates(name: str, axis: str, counts: Mapping[str, tuple[int, int]], description: str) -> Result:
    """Share of hits by name, axes (`axis`, part): hits and tries."""
    return Result(
        name=name,
        values=torch.tensor(list(counts.values()), dtype=torch.float64),
        axes=(axis, "part"),
        labels={axis: tuple(counts), "part": ("hits", "tries")},
        unit="models",
        description=description,
    )


def table(name: str, seeds: Sequence[int], values: Mapping[str, Sequence[float]], unit: str, description: str) -> Result:
    """One number per variant and seed."""
    return Result(
        name=name,
        values=torch.tensor(list(values.values()), dtype=torch.float64),
        axes=("variant", "seed"),
        labels={"variant": tuple(values), "seed": tuple(map(str, seeds))},
        unit=unit,
        description=description,
    )


def curve(name: str, seeds: Sequence[int], values: Sequence[Sequence[float]], description: str) -> Result:
    """Accuracy over epochs, axes (seed, step)."""
    return Result(
        name=name,
        values=torch.tensor(values, dtype=torch.float64),
        axes=("seed", "step"),
        labels={"seed": tuple(map(str, seeds)), "step": tuple(map(str, range(len(values[0]))))},
        unit="share of texts",
        description=description,
    )


def attention_on(
    models: Mapping[str, Any], row: Tensor, read: Callable[[Any, Tensor], Result] = interp.attention_patterns
) -> list:
    """Attention of every head of several models on one row: (name, result over head, query, key)."""
    panels = []
    for name, model in models.items():
        found = read(model, row)
        layers, heads = found.values.shape[:2]
        labels = tuple(f"L{layer}H{head}" for layer in range(layers) for head in range(heads))
        panels.append(
            (name, replace(found, values=found.values.flatten(0, 1), axes=("head", "query", "key"), labels={"head": labels}))
        )
    return panels
