"""The study's settings and presets, its variants, and its predictions' thresholds. They were fixed before the reference runs."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from interp.config import setting, settings
from interp.data import TextConfig
from interp.models import SmearedKeyAttnConfig, TransformerConfig
from interp.training import RunConfig, TrainConfig

TWO, ONE, SMEARED = "two layers", "one layer", "one layer, smeared keys"
VARIANTS = (TWO, ONE, SMEARED)

STRONG = 0.4  # share of all attention on what followed last time: what counts as a clear induction head
ABRUPT = 0.5  # decades of training steps within which the change from a tenth to nine tenths happens
TOLERANCE = 0.05  # decades by which the previous-token head may be later
TOGETHER = 0.2  # decades between the middles of two changes that count as one
COMPOSED = 1.5  # times chance: K-composition of the previous-token head with the head that does induction
REMOVED = 0.5  # share of the gain on repeats that ablating the induction heads removes
SPARED = 0.25  # largest share that ablating as many other heads may remove
CIRCUIT = 0.5  # share of the best head's score from which a head belongs to the circuit


@settings
class StudyConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((10, 11, 12), "one model of each variant is trained per seed; the pilot used 0")
    data: TextConfig = setting(TextConfig(), "the text, and the share of training sequences that repeat a passage")
    model: TransformerConfig = setting(
        TransformerConfig(mlp=False, positions="rotary"),
        "the two-layer model; the controls have its width and heads",
    )
    train: TrainConfig = setting(TrainConfig(), "how they are trained; copies of the models are kept for what is read over steps")
    period: Annotated[int, Field(gt=1)] = setting(25, "length of the repeats that scores and gains are read on")
    rows: Annotated[int, Field(gt=3)] = setting(96, "held-out sequences that in-context learning is read on")
    early: Annotated[int, Field(gt=0)] = setting(10, "place of the early tokens of in-context learning")
    window: Annotated[int, Field(gt=0)] = setting(
        11, "tokens around the early and the late place; the late ones are the last of a row"
    )

    @model_validator(mode="after")
    def _fits(self) -> "StudyConfig":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more different numbers, not {list(self.seeds)}")
        if self.model.n_layers != 2 or self.model.mlp:
            raise ValueError(
                "the model of the question has two layers of attention and no MLP: leave n_layers at 2 and mlp at false"
            )
        if self.model.n_ctx < max(self.data.length, 1 + 4 * self.period):
            raise ValueError(f"model.n_ctx must hold a sequence and four copies of period tokens, not {self.model.n_ctx}")
        if self.train.keep_checkpoints < 8:
            raise ValueError("eight checkpoints or more are needed to see a change: set train.keep_checkpoints")
        if not self.window // 2 < self.early < self.late:
            raise ValueError("two windows must fit into a row of data.length tokens: set early, window or data.length")
        return self

    @property
    def late(self) -> int:
        """The place of the late tokens."""
        return self.data.length - 1 - self.window // 2


QUICK = StudyConfig(
    data=TextConfig(vocab_size=1024, length=64, repeat_share=1.0),
    model=TransformerConfig(d_model=80, n_heads=4, d_head=32, n_ctx=256, mlp=False, positions="rotary", rotary_share=0.25),
    train=TrainConfig(
        lr=1e-2,
        epochs=100,
        max_steps=2000,
        batch_size=32,
        warmup_ratio=0.04,
        n_evals=64,
        eval_sequences=64,
        keep_checkpoints=49,
        sample_tokens=0,
    ),
)
FULL = StudyConfig(
    seeds=(10, 11, 12, 13, 14),
    data=TextConfig(corpus="python-source", vocab_size=4096, length=256, repeat_share=0.1),
    model=TransformerConfig(d_model=256, n_heads=8, d_head=32, n_ctx=256, mlp=False, positions="rotary", rotary_share=0.25),
    train=TrainConfig(
        lr=2e-3,
        epochs=100,
        max_steps=20000,
        batch_size=32,
        warmup_ratio=0.04,
        n_evals=48,
        keep_checkpoints=49,
        sample_tokens=0,
    ),
    rows=512,
    early=20,
)
PRESETS = {"quick": QUICK, "full": FULL}


def study_runs(study: StudyConfig) -> dict[tuple[str, int], RunConfig]:
    """Every run, by variant and seed."""
    model = study.model
    smeared = SmearedKeyAttnConfig(
        d_model=model.d_model,
        n_heads=model.n_heads,
        d_head=model.head_width,
        n_ctx=model.n_ctx,
        residual=True,
        output_projection=True,
    )
    models = {TWO: model, ONE: replace(model, n_layers=1), SMEARED: smeared}
    return {
        (name, seed): RunConfig(model=models[name], data=study.data, train=replace(study.train, seed=seed))
        for name in VARIANTS
        for seed in study.seeds
    }
