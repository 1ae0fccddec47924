"""The models that are moved: trained on the Python documentation, then fine-tuned on the standard library's code."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from interp.config import setting, settings
from interp.data import PaddedTextConfig, TextConfig
from interp.models import TransformerConfig
from interp.training import FinishedRun, RunConfig, TrainConfig, fit_all


@settings
class Moved:
    """A small model, what it is trained on first, and what it is moved to."""

    network: TransformerConfig = setting(TransformerConfig(), "the model")
    first: TextConfig = setting(TextConfig(), "what it is trained on first")
    train: TrainConfig = setting(TrainConfig(), "how it is trained first")
    then: PaddedTextConfig = setting(PaddedTextConfig(), "what it is moved to; its tokenizer is that of the first text")


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


def bases(moved: Moved, seeds: Sequence[int], runs: Path, workers: int | None) -> dict[int, FinishedRun]:
    """One model per seed, trained on the first text; kept in the folder of runs."""
    configs = {
        f"base-seed{seed}": RunConfig(model=moved.network, data=moved.first, train=replace(moved.train, seed=seed))
        for seed in seeds
    }
    return dict(zip(seeds, fit_all(configs, runs, workers=workers).values(), strict=True))


def moved_run(moved: Moved, start: FinishedRun, tokenizer: FinishedRun, train: TrainConfig) -> RunConfig:
    """A fine-tuning run that begins with the weights of `start`; the loss is over tokens that are not padding.

    All bases have equal tokenizers: naming one of them for all runs has the data loaded once.
    """
    assert start.folder is not None
    assert tokenizer.folder is not None
    data = replace(moved.then, tokenizer=str(tokenizer.folder / "tokenizer"))
    return RunConfig(model=moved.network, data=data, train=replace(train, start_from=str(start.folder), targets="answers"))
