"""The settings of a run: data, model and training, one typed class each."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from interp.config import setting, settings
from interp.data import DataConfig, RepeatedConfig
from interp.models import ConvAttnConfig, ModelConfig

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class TrainConfig:
    """How a model is trained. The defaults are the reference recipe: AdamW, 3e-4, 10 epochs, cosine with 10 % warm-up."""

    objective: Literal["autoregressive", "masked"] = setting(
        "autoregressive", "predict the next token, or tokens that were replaced by a mask (for architectures that see both sides)"
    )
    mask_share: Annotated[float, Field(gt=0, lt=1)] = setting(0.15, "share of the tokens after the first that are masked")
    targets: Literal["all", "answers"] = setting(
        "all", "train on every token, or only on those that follow from what comes before"
    )
    start_from: str | None = setting(
        None, "begin with the weights of a run folder or bundled model, of the same model settings; null means fresh ones"
    )
    optimizer: Literal["adamw", "sgd", "adam", "muon"] = setting(
        "adamw", "adamw, sgd (plain, or with momentum), adam, or muon (for matrices inside the blocks; adamw for all else)"
    )
    lr: Annotated[float, Field(gt=0)] = setting(3e-4, "largest learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = setting(
        0.01, "weight decay (decoupled for adamw and muon, part of the gradient for sgd and adam)"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting(0.0, "momentum of sgd")
    grad_clip: Annotated[float, Field(ge=0)] = setting(1.0, "largest gradient norm; 0 means no clipping")
    schedule: Literal["cosine", "linear", "constant"] = setting("cosine", "learning rate after the warm-up")
    warmup_ratio: Share = setting(0.1, "share of all steps over which the learning rate rises from 0")
    epochs: Positive = setting(10, "passes over the training data")
    max_steps: Positive | None = setting(None, "stop after so many steps, before the epochs are over; null means no limit")
    batch_size: Positive = setting(32, "sequences per step, over all processes")
    accumulate: Positive = setting(1, "parts in which a step's sequences go through the model, to save memory")
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "type of the matrix products while training (weights stay float32); float16 needs a GPU"
    )
    patience: Positive | None = setting(
        None, "stop after so many readings in a row without a lower validation loss; null means never"
    )
    n_evals: Positive = setting(20, "how often validation metrics and probes are read, evenly spaced in log steps")
    eval_every: Positive | None = setting(None, "read every so many steps instead of evenly in log steps; null means the latter")
    eval_sequences: Positive = setting(256, "validation sequences used at each reading")
    checkpoint_seconds: Annotated[float, Field(gt=0)] | None = setting(
        60.0, "save what a killed run goes on from after so many seconds; null means not by time"
    )
    checkpoint_steps: Positive | None = setting(
        None, "save what a killed run goes on from every so many steps; null means not by steps"
    )
    keep_checkpoints: Annotated[int, Field(ge=0)] = setting(
        0, "copies of the model kept for later, before the first step and evenly spaced in log steps"
    )
    sample_tokens: Annotated[int, Field(ge=0)] = setting(
        32, "tokens generated at the end of each epoch, for a look; 0 means none"
    )
    tracker: Literal["none", "wandb", "tensorboard"] = setting(
        "none", "where readings go besides the run folder; wandb is offline unless WANDB_MODE says otherwise"
    )
    seed: int = setting(0, "seed of the initial weights and of the data order")
    device: str = setting("auto", "auto (a GPU if there is one), cpu, cuda:N, or one per process: cuda:0,cuda:1 (under torchrun)")

    @model_validator(mode="after")
    def _options_act(self) -> "TrainConfig":
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum {self.momentum} acts only on sgd: set optimizer=sgd, or leave momentum at 0")
        masked = self.objective == "masked"
        if not masked and self.mask_share != _default("mask_share"):
            raise ValueError(f"mask_share {self.mask_share} acts only on the masked objective: set objective=masked, or leave it")
        if masked and self.targets == "answers":
            raise ValueError("targets=answers acts only on the autoregressive objective: masks are drawn among all tokens")
        if self.eval_every is not None and self.n_evals != _default("n_evals"):
            raise ValueError(f"n_evals {self.n_evals} does nothing when eval_every is set: leave one of them")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate {self.accumulate} is more parts than batch_size {self.batch_size} has sequences")
        return self


def _default(name: str) -> Any:
    return next(field.default for field in dataclasses.fields(TrainConfig) if field.name == name)


@settings
class RunConfig:
    """One run: what is trained, on what, how."""

    model: ModelConfig = setting(ConvAttnConfig(), "architecture")
    data: DataConfig = setting(RepeatedConfig(), "data")
    train: TrainConfig = setting(TrainConfig(), "training")
