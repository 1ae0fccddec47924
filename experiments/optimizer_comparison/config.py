"""The study's settings and presets, and the optimizers that it compares. A pilot with seed 0 chose the grids' middles."""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from experiments.base_models import FULL as FULL_MODEL
from experiments.base_models import MODEL, PUBLISHED, Moved
from experiments.base_models import QUICK as QUICK_MODEL
from interp.config import setting, settings
from interp.training import TrainConfig
from interp.training.steps import steps_per_epoch

ADAMW, SGD, MOMENTUM, ADAM, MUON = "AdamW", "SGD", "SGD, momentum", "Adam", "Muon"
Chosen = tuple[Literal["adamw", "sgd", "adam", "muon"], float, float]
OPTIMIZERS: dict[str, Chosen] = {
    ADAMW: ("adamw", 0.0, 1e-3),
    SGD: ("sgd", 0.0, 1e-1),
    MOMENTUM: ("sgd", 0.9, 1e-2),
    ADAM: ("adam", 0.0, 1e-3),
    MUON: ("muon", 0.0, 1e-3),
}
"""By name: the setting, the momentum, and the learning rate in the middle of its grid."""


@settings
class StudyConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((10, 11, 12), "one base model and one fine-tune of each optimizer per seed")
    search_seed: int = setting(9, "the seed of the search for learning rates; none of `seeds`")
    model: str | None = setting(None, MODEL)
    moved: Moved = setting(Moved(), "the small model and the two texts")
    train: TrainConfig = setting(TrainConfig(), "how it is fine-tuned; optimizer, momentum and learning rate are varied")
    rates: Annotated[int, Field(ge=3)] = setting(5, "learning rates tried for each optimizer, an odd number")
    factor: Annotated[float, Field(gt=1)] = setting(3.0, "from one to the next")
    scale: Annotated[float, Field(gt=0)] = setting(1.0, "what all rates are multiplied by: less for a model trained on much text")
    timed_steps: Annotated[int, Field(gt=1)] = setting(40, "steps of each optimizer that are timed")

    @model_validator(mode="after")
    def _fits(self) -> "StudyConfig":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or self.search_seed in self.seeds:
            raise ValueError(f"seeds must be one or more different numbers without search_seed, not {list(self.seeds)}")
        if self.rates % 2 == 0:
            raise ValueError(f"rates must be odd, so that the grid has a middle, not {self.rates}")
        if self.train.max_steps is not None or self.train.eval_every is not None:
            raise ValueError("readings are taken after every epoch: set train.epochs, not max_steps or eval_every")
        return self


QUICK = StudyConfig(
    moved=QUICK_MODEL,
    train=TrainConfig(epochs=4, batch_size=16, eval_sequences=192, sample_tokens=0),
)
FULL = StudyConfig(
    seeds=(10, 11, 12, 13, 14),
    moved=FULL_MODEL,
    train=TrainConfig(epochs=4, batch_size=32, eval_sequences=1024, sample_tokens=0),
    rates=7,
    factor=2.0,
)
GPT2 = StudyConfig(
    model="gpt2",
    moved=PUBLISHED,
    train=TrainConfig(epochs=3, batch_size=16, eval_sequences=512, sample_tokens=0),
    scale=0.1,
)
PRESETS = {"quick": QUICK, "full": FULL, "gpt2": GPT2}


def grid(study: StudyConfig, name: str) -> list[float]:
    """The learning rates tried for an optimizer: as many for each, evenly spaced in their logarithm around its middle times `scale`."""
    half = study.rates // 2
    return [float(f"{OPTIMIZERS[name][2] * study.scale * study.factor**step:.3g}") for step in range(-half, half + 1)]


def lowest(losses: Tensor) -> int:
    """The place of the lowest of a grid's losses; NaN is a run that diverged."""
    return int(losses.nan_to_num(nan=torch.inf).argmin())


def tuned(study: StudyConfig, name: str, lr: float, seed: int, n_rows: int) -> TrainConfig:
    """The fine-tuning settings of one optimizer, rate and seed, with a reading after every epoch of `n_rows` rows."""
    optimizer, momentum, _ = OPTIMIZERS[name]
    every = steps_per_epoch(study.train, n_rows)
    return replace(study.train, optimizer=optimizer, momentum=momentum, lr=lr, seed=seed, eval_every=every)


def searched(study: StudyConfig) -> list[tuple[str, float]]:
    """Every optimizer with every rate of its grid."""
    return [(name, lr) for name in OPTIMIZERS for lr in grid(study, name)]
