"""The study's settings, its two presets, and the variants it compares."""

from dataclasses import replace

from interp.config import setting, settings
from interp.data import RepeatedConfig, TextConfig
from interp.models import AttnAttnConfig, ConvAttnConfig, SmearedKeyAttnConfig, ToyConfig
from interp.training import RunConfig, TrainConfig

CONV, ATTN, SMEARED = "ConvAttn", "AttnAttn", "SmearedKeyAttn"
MASKED, FROZEN = "ConvAttn, previous tap masked", "ConvAttn, kernel frozen"
SUPPLIED, ONE_PERIOD = "AttnAttn + positions + residual", "AttnAttn + positions + residual, one period"
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


@settings
class TextStage:
    """Training on text."""

    data: TextConfig = setting(TextConfig(), "the corpus")
    d_model: int = setting(128, "width of the models")
    train: TrainConfig = setting(TrainConfig(), "how they are trained")
    repeat_share: float = setting(
        1.0, "share of the training sequences that repeat a passage, in the variants where text repeats"
    )
    test_period: int = setting(24, "length of the passages of validation text that are repeated to read scores")


@settings
class StudyConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((10, 11, 12), "one model of each variant is trained per seed; pilots used 0 to 2")
    repeated: RepeatedStage = setting(RepeatedStage(), "first stage")
    text: TextStage = setting(TextStage(), "second stage")
    passage: str | None = setting(
        None, "a text file whose first and last sentence are the same, for the attention maps; null: our own"
    )


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
    runs = {name: RunConfig(model=replace(model, d_model=stage.d_model), data=stage.data) for name, model in variants.items()}
    runs[ONE_PERIOD] = replace(runs[SUPPLIED], data=replace(stage.data, min_period=None))
    return _seeded(runs, stage.train, study.seeds)


def text_runs(study: StudyConfig) -> dict[tuple[str, int], RunConfig]:
    """The runs of the second stage, by variant and seed."""
    stage = study.text
    models: dict[str, ToyConfig] = {**TOYS, CONV_RESIDUAL: ConvAttnConfig(residual=True)}
    plain = {name: RunConfig(model=replace(model, d_model=stage.d_model), data=stage.data) for name, model in models.items()}
    repeating = replace(stage.data, repeat_share=stage.repeat_share)
    runs = plain | {name + REPEATS: replace(plain[name], data=repeating) for name in (CONV, SMEARED, CONV_RESIDUAL)}
    return _seeded(runs, stage.train, study.seeds)


def _seeded(runs: dict[str, RunConfig], train: TrainConfig, seeds: tuple[int, ...]) -> dict[tuple[str, int], RunConfig]:
    return {(name, seed): replace(run, train=replace(train, seed=seed)) for name, run in runs.items() for seed in seeds}
