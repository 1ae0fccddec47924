"""The study's settings, presets and predictions.

A pilot on world 0 chose settings and predictions. A first run on worlds 10 to 12 suggested one more (`FOLLOWS`) and changed no other.
The page is about worlds 20 to 22, which nothing was chosen on.
"""

import math
from dataclasses import replace

from pydantic import model_validator

from experiments.fact_editing.world import FactsConfig
from interp.config import setting, settings
from interp.models import TransformerConfig
from interp.training import RunConfig, TrainConfig

HELD = 0.9  # share of edits whose new answer is likelier than the old: "the edit holds"
SPREAD = 0.5  # share of rewordings that follow the edit: "it is about the fact, not the sentence"
KEPT = 0.8  # share of neighbours whose own answer is still likelier: "it is about this subject"
LEAK = 0.5  # share of edits of another subject that change this one's answer as well, above which the edit is not about a subject
FOLLOWS = 0.2  # by how much more often an edit reaches those who share its subject's old answer than those who do not


@settings
class StudyConfig:
    """Everything the study can be told."""

    seeds: tuple[int, ...] = setting((20, 21, 22), "one world and model per seed (with a model given: one sample of its cases)")
    model: str | None = setting(None, "a model to edit, by name or folder; null trains a small one on each generated world")
    cases: str | None = setting(None, "a file in CounterFact's or zsRE's format for that model; null: a few facts of our own")
    n_cases: int = setting(6, "facts edited per seed, one at a time")
    world: FactsConfig = setting(FactsConfig(), "the generated world")
    network: TransformerConfig = setting(TransformerConfig(d_model=48, n_layers=3, n_heads=4, n_ctx=34), "the small model")
    train: TrainConfig = setting(TrainConfig(), "how it is trained")
    layers: tuple[int, ...] = setting((0, 1, 2), "layers whose MLP output weights are edited, one at a time")
    epsilons: tuple[float, ...] = setting((3e-3, 1e-2, 3e-2, math.inf), "constraints, the loosest last; .inf is plain FT")
    layer: int = setting(1, "the layer of the main comparison")
    epsilon: float = setting(1e-2, "the constraint of the main comparison")
    lr: float = setting(5e-3, "Adam's learning rate")
    steps: int = setting(25, "steps at most")

    @model_validator(mode="after")
    def _fits(self) -> "StudyConfig":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more different numbers, not {list(self.seeds)}")
        if self.cases is not None and self.model is None:
            raise ValueError("cases act only on a model that is given: set model, or leave cases out")
        if self.layer not in self.layers or len(set(self.layers)) < len(self.layers) or len(self.layers) < 2:
            raise ValueError(f"layers must be two or more different ones, with layer {self.layer} among them")
        increasing = sorted(set(self.epsilons))
        if list(self.epsilons) != increasing or len(increasing) < 2 or increasing[-1] != math.inf or not increasing[0] >= 0:
            raise ValueError("epsilons must grow from 0 or more, and end with .inf (no constraint)")
        if self.epsilon not in increasing[:-1]:
            raise ValueError(f"epsilon {self.epsilon} must be one of the finite epsilons")
        if self.n_cases < 2:
            raise ValueError("n_cases must be at least 2: the wrong-subject control edits another case's subject")
        return self


QUICK = StudyConfig(
    train=TrainConfig(lr=4e-3, epochs=10, max_steps=1200, batch_size=48, weight_decay=0.1, n_evals=6, eval_sequences=64),
)
FULL = StudyConfig(
    model="gpt2", n_cases=20, layers=(0, 4, 8, 11), layer=0, epsilons=(5e-4, 1e-3, 2e-3, 4e-3, math.inf), epsilon=2e-3, lr=5e-4
)
PRESETS = {"quick": QUICK, "full": FULL}


def run_of(study: StudyConfig, seed: int) -> RunConfig:
    """The training run of one seed: a world of its own, and weights of its own."""
    return RunConfig(model=study.network, data=replace(study.world, world=seed), train=replace(study.train, seed=seed))
