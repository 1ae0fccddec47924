"""What two studies fine-tune: a small model trained on the Python documentation, or a published one, moved to Python code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.config import setting, settings
from interp.data import PaddedTextConfig, TextConfig
from interp.models import PretrainedConfig, TransformerConfig, build_model
from interp.models.saved import open_saved
from interp.training import RunConfig, TrainConfig, fit_all


@settings
class Moved:
    """The small model, what it is trained on first, and what it (or a published model) is moved to."""

    network: TransformerConfig = setting(TransformerConfig(), "the small model")
    first: TextConfig = setting(TextConfig(), "what the small model is trained on first")
    train: TrainConfig = setting(TrainConfig(), "how it is trained first")
    then: PaddedTextConfig = setting(PaddedTextConfig(), "what is moved to; its tokenizer is that of the model")


QUICK = Moved(
    network=TransformerConfig(d_model=48, n_layers=2, n_heads=4, n_ctx=64),
    first=TextConfig(vocab_size=512, length=64),
    train=TrainConfig(lr=4e-3, epochs=10, max_steps=600, batch_size=16, n_evals=5, eval_sequences=64, sample_tokens=0),
    then=PaddedTextConfig(length=64, n_train=384, n_held_out=192),
)
FULL = Moved(
    network=TransformerConfig(d_model=256, n_layers=4, n_heads=8, n_ctx=128),
    first=TextConfig(vocab_size=4096, length=128),
    train=TrainConfig(lr=1e-3, epochs=10, sample_tokens=0),
    then=PaddedTextConfig(length=128, n_train=8192, n_held_out=1024),
)
PUBLISHED = Moved(then=PaddedTextConfig(length=128, n_train=2048, n_held_out=512))
MODEL = "a causal language model of Hugging Face's to fine-tune, by name or folder; null: a small one, trained first"
"""What the setting `model` of both studies means."""


@dataclass(frozen=True)
class Bases:
    """The models that fine-tunes begin with, one per seed; a published one is the same for all."""

    moved: Moved
    published: str | None
    models: Mapping[int, Any]
    folders: Mapping[int, Path]  # of those that were trained here

    @property
    def some(self) -> Any:
        """One of the models."""
        return next(iter(self.models.values()))

    @property
    def data(self) -> PaddedTextConfig:
        """What is moved to. All models have equal tokenizers: naming one of them for all runs has the data loaded once."""
        own = self.published or str(next(iter(self.folders.values())) / "tokenizer")
        return replace(self.moved.then, tokenizer=own)

    def run(self, seed: int, train: TrainConfig) -> RunConfig:
        """A fine-tune of this seed's model; the loss is over tokens that are not padding."""
        if self.published:
            model = PretrainedConfig(path=self.published)
            return RunConfig(model=model, data=self.data, train=replace(train, targets="answers"))
        train = replace(train, start_from=str(self.folders[seed]), targets="answers")
        return RunConfig(model=self.moved.network, data=self.data, train=train)

    def fresh(self, seed: int) -> Any:
        """Another copy of a seed's model."""
        return build_model(PretrainedConfig(path=self.published)) if self.published else open_saved(self.folders[seed])

    def described(self) -> str:
        """What they are, in a sentence."""
        if self.published:
            return f"The base model is {Path(self.published).name} as published, the same for every seed."
        return f"Base models are trained on {self.moved.first.corpus}, one per seed."

    def text(self, description: str) -> str:
        """The data's own description, without the folder that its tokenizer lies in."""
        return description.replace(self.data.tokenizer, "that of the base")


def bases(published: str | None, moved: Moved, seeds: Sequence[int], runs: Path, workers: int | None) -> Bases:
    """The published model, or one per seed trained on the first text and kept in the folder of runs."""
    if published is not None:
        return Bases(moved, published, dict.fromkeys(seeds, build_model(PretrainedConfig(path=published))), {})
    configs = {
        f"base-seed{seed}": RunConfig(model=moved.network, data=moved.first, train=replace(moved.train, seed=seed))
        for seed in seeds
    }
    done = dict(zip(seeds, fit_all(configs, runs, workers=workers).values(), strict=True))
    return Bases(moved, None, {seed: run.model for seed, run in done.items()}, {seed: run.folder for seed, run in done.items()})
