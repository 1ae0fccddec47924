"""The study's settings and its two presets."""

from typing import Annotated

from pydantic import Field, model_validator

from interp.config import setting, settings
from interp.data.sentiment import SentimentConfig
from interp.models.architectures import Positive
from interp.models.encoder import EncoderConfig

Rate = Annotated[float, Field(gt=0)]


@settings
class Training:
    """A short training run."""

    epochs: Positive = setting(12, "passes over the training texts")
    batch_size: Positive = setting(64, "texts per step")
    lr: Rate = setting(5e-3, "learning rate of AdamW")


@settings
class HuggingFace:
    """The practical way: a Hugging Face classifier and its own Trainer."""

    model: str | None = setting(
        None,
        "a name or folder for AutoModelForSequenceClassification; null: a small DistilBERT with random weights, made on the spot",
    )
    train: Training = setting(Training(epochs=8, lr=3e-3), "how it is fine-tuned")


@settings
class DebugConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((10, 11, 12), "one model of each variant is trained per seed; pilots used 0 and 1")
    data: SentimentConfig = setting(SentimentConfig(), "the texts")
    length: Positive = setting(16, "texts are cut to so many tokens")
    vocab_size: Positive = setting(4096, "words of our own tokenizer, at most")
    encoder: EncoderConfig = setting(EncoderConfig(n_heads=2), "our encoder; d_vocab and n_ctx follow the data")
    train: Training = setting(Training(), "how our encoders are trained")
    hugging_face: HuggingFace = setting(HuggingFace(), "the practical way")
    calibration_length: Positive = setting(
        64, "texts are cut to so many tokens, some to less, for planted bugs and healthy models"
    )
    calibration_seeds: Positive = setting(5, "seeds per planted bug and per kind of healthy model")

    @model_validator(mode="after")
    def _can_be_measured(self) -> "DebugConfig":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more different numbers, not {list(self.seeds)}")
        if self.encoder.pad_id != 0:
            raise ValueError("encoder.pad_id must be 0, the padding of our tokenizer: leave it out")
        if self.length < 8:
            raise ValueError(f"length {self.length} is too short for padding and checks: give at least 8")
        return self


QUICK = DebugConfig()
FULL = DebugConfig(
    seeds=(10, 11, 12, 13, 14),
    data=SentimentConfig(source="movie_reviews"),
    length=512,
    vocab_size=8192,
    encoder=EncoderConfig(d_model=128, n_heads=4, dropout=0.1),
    train=Training(epochs=15, batch_size=32, lr=1e-3),
    hugging_face=HuggingFace(model="distilbert-base-uncased", train=Training(epochs=3, batch_size=16, lr=5e-5)),
    calibration_seeds=20,
)
PRESETS = {"quick": QUICK, "full": FULL}
