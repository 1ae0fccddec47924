"""The study's settings and presets, and its predictions' thresholds. They were fixed before any run."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from experiments.base_models import FULL as FULL_MODEL
from experiments.base_models import MODEL, PUBLISHED, Moved
from experiments.base_models import QUICK as QUICK_MODEL
from interp.config import setting, settings
from interp.training import TrainConfig

MODES = ("zero", "uniform", "previous", "random")
INTACT = "intact"
WORTH = 0.3  # nats by which intact attention is predicted to beat the bigram floor
RECOVERED = 0.5  # share of the loss of ablating at inference that training without attention is predicted to win back
NEAR = 0.2  # nats from the bigram floor within which a model trained with attention zeroed is predicted to end
BELOW = 0.5  # nats that it is predicted to be below the unigram floor
SAME_HEADS = 0.7  # rank correlation of heads' effects before and after


def trained(mode: str) -> str:
    """The name of the models fine-tuned under a mode."""
    return f"trained, {mode}"


def inferred(mode: str) -> str:
    """The name of the intact fine-tune, ablated when it is read."""
    return f"at inference, {mode}"


@settings
class StudyConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((10, 11, 12), "one base model and one fine-tune of each kind per seed")
    model: str | None = setting(None, MODEL)
    moved: Moved = setting(Moved(), "the small model and the two texts")
    train: TrainConfig = setting(TrainConfig(), "how it is fine-tuned, with attention and without")
    floor_rows: Annotated[int, Field(gt=0)] = setting(
        4096, "rows of the text that n-grams are counted in, the training rows first"
    )
    sweep_rows: Annotated[int, Field(gt=1)] = setting(64, "rows on which heads and MLPs are ablated one by one")
    sweep_length: Annotated[int, Field(gt=2)] = setting(32, "tokens of those rows, none of them padding")

    @model_validator(mode="after")
    def _fits(self) -> "StudyConfig":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more different numbers, not {list(self.seeds)}")
        if self.sweep_length > self.moved.then.length or self.floor_rows < self.moved.then.n_train:
            raise ValueError("sweep_length must not exceed the rows' length, nor moved.then.n_train exceed floor_rows")
        if self.train.max_steps is not None or self.train.eval_every is not None:
            raise ValueError("readings are taken after every epoch: set train.epochs, not max_steps or eval_every")
        return self


QUICK = StudyConfig(
    moved=replace(
        QUICK_MODEL,
        train=replace(QUICK_MODEL.train, max_steps=1200),  # attention worth ablating has to be learnt first
        then=replace(QUICK_MODEL.then, n_train=640),
    ),
    train=TrainConfig(lr=2e-3, epochs=4, batch_size=16, eval_sequences=192, sample_tokens=0),
)
FULL = StudyConfig(
    seeds=(10, 11, 12, 13, 14),
    moved=FULL_MODEL,
    train=TrainConfig(lr=5e-4, epochs=6, batch_size=32, eval_sequences=1024, sample_tokens=0),
    floor_rows=40000,
    sweep_rows=256,
    sweep_length=64,
)
GPT2 = StudyConfig(
    model="gpt2",
    moved=PUBLISHED,
    train=TrainConfig(lr=1e-4, epochs=3, batch_size=16, eval_sequences=512, sample_tokens=0),
    sweep_length=64,
)
PRESETS = {"quick": QUICK, "full": FULL, "gpt2": GPT2}
