"""The settings of a run: data, model and training, one typed class each."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from interp.config import setting, settings
from interp.data import DataConfig, RepeatedConfig
from interp.models import ConvAttnConfig, ModelConfig

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class TrainConfig:
    """How a model is trained. The defaults are the reference recipe: AdamW, 3e-4, 10 epochs, cosine with 10 % warm-up."""

    optimizer: Literal["adamw", "sgd"] = setting("adamw", "adamw, or sgd (plain, or with momentum)")
    lr: Annotated[float, Field(gt=0)] = setting(3e-4, "largest learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = setting(0.01, "weight decay (decoupled for adamw)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting(0.0, "momentum of sgd")
    grad_clip: Annotated[float, Field(ge=0)] = setting(1.0, "largest gradient norm; 0 means no clipping")
    schedule: Literal["cosine", "constant"] = setting("cosine", "learning rate after the warm-up")
    warmup_ratio: Share = setting(0.1, "share of all steps over which the learning rate rises from 0")
    epochs: Positive = setting(10, "passes over the training data")
    max_steps: Positive | None = setting(None, "stop after so many steps, before the epochs are over; null means no limit")
    batch_size: Positive = setting(32, "sequences per step")
    n_evals: Positive = setting(20, "how often validation metrics and probes are read, evenly spaced in log steps")
    eval_sequences: Positive = setting(256, "validation sequences used at each reading")
    seed: int = setting(0, "seed of the initial weights and of the data order")
    device: str = setting("auto", "auto (a GPU if there is one), cpu, or cuda:N")

    @model_validator(mode="after")
    def _options_act(self) -> "TrainConfig":
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum {self.momentum} acts only on sgd: set optimizer=sgd, or leave momentum at 0")
        return self


@settings
class RunConfig:
    """One run: what is trained, on what, how."""

    model: ModelConfig = setting(ConvAttnConfig(), "architecture")
    data: DataConfig = setting(RepeatedConfig(), "data")
    train: TrainConfig = setting(TrainConfig(), "training")
