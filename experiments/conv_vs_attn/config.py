"""The study's settings, its two presets, and the variants it compares."""

from dataclasses import replace

from pydantic import model_validator

from interp.config import setting, settings
from interp.data import RepeatedConfig, TextConfig
from interp.models import AttnAttnConfig, ConvAttnConfig, SmearedKeyAttnConfig, ToyConfig
from interp.training import RunConfig, TrainConfig

CONV, ATTN, SMEARED = "ConvAttn", "AttnAttn", "SmearedKeyAttn"
MASKED, FROZEN = "ConvAttn, tap masked", "ConvAttn, frozen"  # short: they stand in legends
SUPPLIED, ONE_PERIOD = "AttnAttn, supplied", "supplied, one length"
CONV_RESIDUAL, REPEATS = "ConvAttn + residual", ", repeating text"

TOYS = {CONV: ConvAttnConfig(), ATTN: AttnAttnConfig(), SMEARED: SmearedKeyAttnConfig()}
"""The three architectures of the question, as published but for the kernel of ConvAttn, which is trained."""


@settings
class RepeatedStage:
    """Training on repeated random tokens."""

    data: RepeatedConfig = setting(
        RepeatedConfig(), "the repeats; their length varies, so that no fixed look-back can solve them"
    )
    d_model: int = setting(48, "width of the models")
    train: TrainConfig = setting(TrainConfig(), "how they are trained")
    test_period: int = setting(10, "length of the repeats that scores are read on; shorter than any trained on")

    @model_validator(mode="after")
    def _shorter_than_trained(self) -> "RepeatedStage":
        shortest = self.data.min_period or self.data.period
        if not 2 <= self.test_period < shortest:
            raise ValueError(f"test_period must be at least 2 and below the shortest repeat trained on, {shortest}")
        return self


@settings
class TextStage:
    """Training on text."""

    data: TextConfig = setting(TextConfig(), "the corpus")
    d_model: int = setting(128, "width of the models")
    train: TrainConfig = setting(TrainConfig(), "how they are trained")
    repeat_share: float = setting(
        1.0, "share of the training sequences that repeat a passage, in the variants where text repeats"
    )
    test_period: int = setting(24, "length of the passages of held-out text that are repeated to read scores")

    @model_validator(mode="after")
    def _passages_fit(self) -> "TextStage":
        if not 2 <= self.test_period < self.data.length:
            raise ValueError(f"test_period must be at least 2 and below data.length, {self.data.length}, BOS included")
        if self.data.repeat_share:
            raise ValueError("data.repeat_share must be 0: the variants of which text does not repeat use it; set repeat_share")
        return self


@settings
class StudyConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((10, 11, 12), "one model of each variant is trained per seed; pilots used 0 to 2")
    repeated: RepeatedStage = setting(RepeatedStage(), "first stage")
    text: TextStage = setting(TextStage(), "second stage")
    passage: str | None = setting(
        None, "a text file whose first and last sentence are the same, for the attention maps; null: our own"
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> "StudyConfig":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more different numbers, not {list(self.seeds)}")
        return self


QUICK = StudyConfig(
    repeated=RepeatedStage(
        data=RepeatedConfig(d_vocab=64, min_period=8, period=16, n_train=32 * 1000, n_validation=128),
        d_model=32,
        train=TrainConfig(lr=1e-2, epochs=1, n_evals=12, eval_sequences=64),
        test_period=6,
    ),
    text=TextStage(
        data=TextConfig(vocab_size=384, length=64),
        d_model=48,
        train=TrainConfig(lr=5e-3, epochs=100, max_steps=600, batch_size=16, n_evals=10, eval_sequences=64),
    ),
)
FULL = StudyConfig(
    seeds=(10, 11, 12, 13, 14),
    repeated=RepeatedStage(
        data=RepeatedConfig(d_vocab=256, min_period=16, period=32, n_train=32 * 4000, n_validation=512),
        d_model=64,
        train=TrainConfig(lr=3e-3, epochs=1, n_evals=24),
        test_period=12,
    ),
    text=TextStage(
        data=TextConfig(corpus="wikitext-2-raw-v1", vocab_size=4096, length=128),
        d_model=384,
        test_period=48,
    ),
)
PRESETS = {"quick": QUICK, "full": FULL}


def repeated_runs(study: StudyConfig) -> dict[tuple[str, int], RunConfig]:
    """The runs of the first stage, by variant and seed."""
    stage = study.repeated
    variants: dict[str, ToyConfig] = {
        **TOYS,
        MASKED: ConvAttnConfig(masked_taps=(-1,)),
        FROZEN: ConvAttnConfig(train_kernel=False),
        SUPPLIED: AttnAttnConfig(positions=True, residual=True),
    }
    length = 1 + 2 * stage.data.period
    runs = {name: RunConfig(model=_sized(model, stage.d_model, length), data=stage.data) for name, model in variants.items()}
    runs[ONE_PERIOD] = replace(runs[SUPPLIED], data=replace(stage.data, min_period=None))
    return _seeded(runs, stage.train, study.seeds)


def text_runs(study: StudyConfig) -> dict[tuple[str, int], RunConfig]:
    """The runs of the second stage, by variant and seed."""
    stage = study.text
    models: dict[str, ToyConfig] = {**TOYS, CONV_RESIDUAL: ConvAttnConfig(residual=True)}
    length = max(stage.data.length, 1 + 2 * stage.test_period)
    plain = {name: RunConfig(model=_sized(model, stage.d_model, length), data=stage.data) for name, model in models.items()}
    repeating = replace(stage.data, repeat_share=stage.repeat_share)
    runs = plain | {name + REPEATS: replace(plain[name], data=repeating) for name in (CONV, SMEARED, CONV_RESIDUAL)}
    return _seeded(runs, stage.train, study.seeds)


def _sized(model: ToyConfig, d_model: int, length: int) -> ToyConfig:
    return replace(model, d_model=d_model, n_ctx=max(model.n_ctx, length))


def _seeded(runs: dict[str, RunConfig], train: TrainConfig, seeds: tuple[int, ...]) -> dict[tuple[str, int], RunConfig]:
    return {(name, seed): replace(run, train=replace(train, seed=seed)) for name, run in runs.items() for seed in seeds}
