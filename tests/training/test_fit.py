"""Training: what a run leaves behind, that it can be opened again, and that nothing is half-written."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import interp
from interp.config import as_dict, build
from interp.data import RepeatedConfig, TextConfig, load_data
from interp.errors import ConfigError, DataError, ModelError, ResultError, RunFolderError
from interp.models import AttnAttnConfig, ConvAttnConfig
from interp.training import RunConfig, TrainConfig, fit, fit_all, is_finished, open_run, run_id, timeline
from interp.training.loop import batch_order
from interp.training.steps import eval_steps, learning_rate, make_optimizer, total_steps

TINY = RunConfig(
    model=ConvAttnConfig(d_model=12),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, device="cpu"),
)


def test_a_run_folder_opens_with_the_same_logits(tmp_path: Path) -> None:
    run = fit(TINY, tmp_path / "run", watch={"answer": lambda model: 42.0}, progress=False)
    assert run.folder is not None
    assert is_finished(run.folder)
    assert {file.name for file in run.folder.iterdir()} == {
        "run.json",
        "config.json",
        "model.safetensors",
        "metrics.jsonl",
        "metrics.csv",
        "samples.jsonl",
        "provenance.json",
    }
    tokens = torch.randint(0, 23, (3, 11))
    opened = interp.load_model(run.folder)
    assert torch.equal(opened(tokens), run.model(tokens))
    assert not opened.training
    again = open_run(TINY, run.folder)
    assert again.metrics == run.metrics
    assert [row["step"] for row in run.metrics] == [0, 1, 3, 8]
    assert all(row["answer"] == 42.0 for row in run.metrics)
    assert run.metrics[-1]["tokens"] == 2 * 50 * 11
    config = json.loads((run.folder / "config.json").read_text())
    assert build(RunConfig, config) == replace(TINY, model=replace(TINY.model, d_vocab=23))
    provenance = json.loads((run.folder / "provenance.json").read_text())
    assert provenance["seed"] == 0
    assert provenance["weights"]


def test_text_runs_keep_their_tokenizer(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "validation", "test"):
        (corpus / f"{split}.txt").write_text("\n".join(f"the {split} cat number {n} sat on mat {n % 7}" for n in range(200)))
    data = TextConfig(corpus=str(corpus), tokenizer="characters", length=20)
    run = fit(replace(TINY, data=data, train=replace(TINY.train, max_steps=3)), tmp_path / "run", progress=False)
    opened = interp.load_model(tmp_path / "run")
    tokens = opened.to_tokens("the cat")
    assert tokens[0, 0] == opened.tokenizer.bos_token_id
    assert opened.tokenizer.decode(tokens[0, 1:]) == "the cat"
    assert torch.equal(opened(tokens), run.model(tokens))
    (tmp_path / "run" / "tokenizer" / "tokenizer.json").write_text("{half a")
    with pytest.raises(RunFolderError, match="the tokenizer cannot be read.*Delete the folder"):
        interp.load_model(tmp_path / "run")


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, second = (fit(TINY, progress=False).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fit(replace(TINY, train=replace(TINY.train, seed=1)), progress=False).model.state_dict()
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


def test_training_learns_what_there_is_to_learn() -> None:
    data = RepeatedConfig(d_vocab=23, period=6, n_train=4800, n_validation=32)
    run = fit(
        RunConfig(model=ConvAttnConfig(d_model=24), data=data, train=TrainConfig(epochs=2, lr=1e-2, n_evals=1)), progress=False
    )
    tokens = interp.repeated_tokens(run.model, period=6, seed=5)
    first, second, gain = interp.repeat_loss(run.model, tokens, 6).values.tolist()
    assert gain == pytest.approx(first - second)
    assert second < 0.3
    assert first > 2.5
    assert interp.induction_scores(run.model, tokens, period=6).item() > 0.7


def test_a_frozen_kernel_does_not_move() -> None:
    frozen = fit(replace(TINY, model=ConvAttnConfig(d_model=12, train_kernel=False)), progress=False).model
    trained = fit(TINY, progress=False).model
    from interp.models import build_model

    start = build_model(replace(TINY.model, d_vocab=23), seed=0).conv.conv.weight
    assert torch.equal(frozen.conv.conv.weight, start)
    assert not torch.equal(trained.conv.conv.weight[:, :, 0], start[:, :, 0])
    masked, before = trained.conv.conv.weight[:, :, 2], start[:, :, 2]
    decay = math.prod(1 - learning_rate(TINY.train, step, 8) * TINY.train.weight_decay for step in range(1, 9))
    torch.testing.assert_close(masked, before * decay, msg="the masked tap moves by weight decay alone")


def test_every_row_is_seen_once_per_epoch() -> None:
    order = batch_order(10, 4, seed=3)
    epochs = [torch.cat([next(order) for _ in range(3)]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    again = batch_order(10, 4, seed=3)
    assert torch.equal(torch.cat([next(again) for _ in range(3)]), epochs[0])


def test_the_schedule() -> None:
    config = TrainConfig(lr=2.0, warmup_ratio=0.1)
    rates = [learning_rate(config, step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates == rates[:10] + sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert learning_rate(replace(config, schedule="constant"), 90, 100) == 2.0
    assert learning_rate(replace(config, warmup_ratio=0.0), 1, 100) == 2.0


def test_steps() -> None:
    assert total_steps(TrainConfig(epochs=3, batch_size=16), 50) == 12
    assert total_steps(TrainConfig(epochs=3, batch_size=16, max_steps=5), 50) == 5
    assert eval_steps(1, 5) == {1}
    assert eval_steps(100, 1) == {100}
    assert eval_steps(1000, 4) == {1, 10, 100, 1000}


def test_optimizers_do_as_they_are_told() -> None:
    model = fit(replace(TINY, train=replace(TINY.train, max_steps=1)), progress=False).model
    sgd = make_optimizer(model, TrainConfig(optimizer="sgd", momentum=0.9, lr=0.5))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.9
    start = fit(replace(TINY, train=replace(TINY.train, max_steps=1, warmup_ratio=0.0)), progress=False).model.state_dict()
    other = fit(
        replace(TINY, train=replace(TINY.train, max_steps=1, warmup_ratio=0.0, optimizer="sgd")), progress=False
    ).model.state_dict()
    assert not torch.equal(start["embed.weight"], other["embed.weight"])


def test_a_grid_trains_in_workers_and_opens_what_is_finished(tmp_path: Path) -> None:
    runs = {"a": TINY, "b": replace(TINY, model=AttnAttnConfig(d_model=10))}
    first = fit_all(runs, tmp_path, workers=2, progress=False)
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    second = fit_all(runs, tmp_path, workers=2, progress=False)
    assert list(second) == ["a", "b"]
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}, (
        "nothing was trained again"
    )
    alone = fit(TINY, progress=False)
    for name, tensor in alone.model.state_dict().items():
        torch.testing.assert_close(first["a"].model.state_dict()[name], tensor, msg="a worker trains the same model")
    steps = timeline([second["a"], second["a"]], "validation_loss")
    assert steps.axes == ("seed", "step")
    assert steps.labels_of("step") == ("0", "1", "3", "8")
    with pytest.raises(ResultError, match="Did you mean 'validation_loss'"):
        timeline([second["a"]], "validaton_loss")


def test_run_ids_follow_settings() -> None:
    data, other = load_data(TINY.data), load_data(replace(TINY.data, seed=1))
    assert run_id(TINY, data) == run_id(replace(TINY), data)
    assert run_id(TINY, data) != run_id(replace(TINY, train=replace(TINY.train, lr=2e-2)), data)
    assert run_id(TINY, data) != run_id(TINY, other), "a corpus file that changed must not pass for the old one"


def test_run_ids_follow_what_is_watched() -> None:
    data = load_data(TINY.data)

    class Reads:
        def __init__(self, period: int):
            self.period = period

        def __call__(self, model: object) -> float:
            return float(self.period)

        def read(self, model: object) -> float:
            return float(self.period)

    def closing_over(period: int) -> Callable[[object], float]:
        return lambda model: float(period)

    def recursive(model: object) -> float:
        return recursive(model)

    def ids(watched: Callable) -> str:
        return run_id(TINY, data, {"w": watched})

    for make in (Reads, closing_over, lambda period: Reads(period).read, lambda period: partial(pow, period)):
        assert ids(make(3)) == ids(make(3)), "no address of an object gets in"
        assert ids(make(3)) != ids(make(4))
    assert ids(recursive) == ids(recursive)
    assert ids(max) != ids(min)


def test_an_error_in_a_worker_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fit_all({"a": replace(TINY, data=TextConfig(corpus=str(tmp_path / "nowhere")))}, tmp_path, progress=False)
    broken = replace(TINY, model=replace(TINY.model, n_ctx=4))
    with pytest.raises(ConfigError, match="n_ctx"):
        fit_all({"a": broken}, tmp_path, progress=False)
    assert not any(is_finished(folder) for folder in tmp_path.iterdir())


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"d_vocab.*99.*23"):
        fit(replace(TINY, model=replace(TINY.model, d_vocab=99)), progress=False)
    with pytest.raises(ConfigError, match="device 'cuda:99'"):
        fit(replace(TINY, train=replace(TINY.train, device="cuda:99")), progress=False)
    with pytest.raises(ConfigError, match="momentum 0.5 acts only on sgd"):
        build(TrainConfig, {"momentum": 0.5})
    with pytest.raises(ConfigError, match="not finite"):
        fit(
            replace(TINY, train=TrainConfig(lr=1e30, optimizer="sgd", grad_clip=0.0, epochs=20, warmup_ratio=0.0)), progress=False
        )


def test_damaged_run_folders_are_refused(tmp_path: Path) -> None:
    folder = fit(TINY, tmp_path / "run", progress=False).folder
    assert folder is not None
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(RunFolderError, match="cannot be read"):
        interp.load_model(folder)
    other = fit(replace(TINY, model=ConvAttnConfig(d_model=8)), tmp_path / "other", progress=False).folder
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(RunFolderError, match="do not fit its config: blocks"):
        interp.load_model(folder)
    (folder / "config.json").write_text('{"model": {"kind": "nonsense"}}')
    with pytest.raises(RunFolderError, match="'nonsense'"):
        interp.load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        interp.load_model(folder)
    with pytest.raises(ModelError):
        interp.load_model(tmp_path / "nowhere")


def test_settings_survive_the_round_trip() -> None:
    assert build(RunConfig, as_dict(TINY)) == TINY


def test_the_repeats_in_text_are_spread_over_training(tmp_path: Path) -> None:
    """Equal seed numbers must not make equal streams: the rows chosen to repeat would then all come first."""
    from interp.data.text import with_repeats

    tokens = torch.arange(400 * 9).reshape(400, 9)
    for seed in range(5):
        repeated = (with_repeats(tokens, share=0.5, seed=seed) != tokens).any(1)
        order = torch.cat([rows for rows, _ in zip(batch_order(400, 10, seed), range(40), strict=False)])
        assert 70 < int(repeated[order[:200]].sum()) < 130
