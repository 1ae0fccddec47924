"""Optimizers: what each moves, that a killed run goes on bit-equal, and where training starts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp
from interp.config import as_dict
from interp.data import RepeatedConfig
from interp.errors import ConfigError, RunFolderError
from interp.models import ConvAttnConfig, TransformerConfig, build_model
from interp.training import Callback, RunConfig, StepLosses, TrainConfig, Training, fit, read_step_losses, run_id
from interp.training.muon import Together, can_be_fused
from interp.training.steps import make_optimizer

TINY = RunConfig(
    model=TransformerConfig(d_model=12, n_layers=1, n_heads=3, n_ctx=11),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, device="cpu", sample_tokens=0),
)


def changed(**settings: object) -> RunConfig:
    return replace(TINY, train=replace(TINY.train, **settings))  # type: ignore[arg-type]


def after_one_step(optimizer: str, build: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights after one step with the same gradients: by our optimizer, and by `build`, an expression over (name, parameter)."""
    models = [build_model(replace(TINY.model, d_vocab=23), seed=3) for _ in range(2)]
    config = TrainConfig(optimizer=optimizer, lr=0.02, weight_decay=0.1)  # type: ignore[arg-type]
    named = dict(models[1].named_parameters())
    theirs = eval(build, {"torch": torch, "named": named})  # noqa: S307
    for model, optimizers in ((models[0], [make_optimizer(models[0], config)]), (models[1], theirs)):
        model(torch.arange(22).reshape(2, 11)).square().mean().backward()
        for each in optimizers:
            each.step()
    return [p.detach() for p in models[0].parameters()], [p.detach() for p in models[1].parameters()]


MATRICES = "[p for n, p in named.items() if n.startswith('blocks.0.mlp') and p.ndim == 2]"
OTHERS = "[p for n, p in named.items() if not (n.startswith('blocks.0.mlp') and p.ndim == 2)]"


@pytest.mark.parametrize(
    ("optimizer", "build"),
    [
        ("adamw", "[torch.optim.AdamW(named.values(), lr=0.02, weight_decay=0.1, fused=True)]"),
        ("adam", "[torch.optim.Adam(named.values(), lr=0.02, weight_decay=0.1, fused=True)]"),
        ("sgd", "[torch.optim.SGD(named.values(), lr=0.02, weight_decay=0.1)]"),
        (
            "muon",
            f"[torch.optim.Muon({MATRICES}, lr=0.02, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'), "
            f"torch.optim.AdamW({OTHERS}, lr=0.02, weight_decay=0.1, fused=True)]",
        ),
    ],
)
def test_each_is_torchs_own(optimizer: str, build: str) -> None:
    ours, theirs = after_one_step(optimizer, build)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    other, _ = after_one_step("sgd" if optimizer != "sgd" else "adamw", build)
    assert not all(torch.equal(a, b) for a, b in zip(other, theirs, strict=True))


def test_a_fused_step_is_taken_only_where_it_is_right() -> None:
    """A weight of its own, one turned round, and a part of a larger one: torch's fused step is right on the first alone."""

    def stepped(weight: torch.Tensor, fused: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(weight)
        weight.grad = torch.arange(1.0 - weight.numel() / 2, 1 + weight.numel() / 2).view(weight.shape)
        torch.optim.AdamW([weight], lr=0.1, fused=fused).step()
        return weight.detach().clone()

    weights = {
        "own": lambda: torch.ones(6, 8),
        "turned": lambda: torch.ones(8, 6).t(),
        "part": lambda: torch.ones(6, 24)[:, 8:16],
    }
    right = {name: torch.allclose(stepped(make(), True), stepped(make(), False)) for name, make in weights.items()}
    assert (
        {name: can_be_fused([make()]) for name, make in weights.items()} == right == {"own": True, "turned": False, "part": False}
    )


def test_muons_step_is_an_orthogonal_matrix_of_adamws_size() -> None:
    model = build_model(replace(TINY.model, d_vocab=23))
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.0))
    name, matrix = next((n, p) for n, p in model.named_parameters() if p.ndim == 2 and ".mlp." in n)
    before = matrix.detach().clone()
    model(torch.arange(22).reshape(2, 11)).square().mean().backward()
    optimizer.step()
    sizes = torch.linalg.svdvals(matrix.detach() - before) / (0.01 * 0.2 * max(before.shape) ** 0.5)
    assert 0.1 < float(sizes.min()) <= float(sizes.max()) < 1.4, f"{name}: {sizes}"  # 1 if it were exact; small ones grow slowly


def test_muon_gives_every_weight_to_one_part_and_needs_matrices() -> None:
    model = build_model(replace(TINY.model, d_vocab=23))
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon"))
    assert isinstance(optimizer, Together)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.5, 0.5]
    with pytest.raises(ConfigError, match="closure"):
        optimizer.step(lambda: 0.0)
    assert "Muon" in repr(optimizer)
    bare = build_model(ConvAttnConfig(d_model=12, d_vocab=23))
    with pytest.raises(ConfigError, match="has no trained matrices .* inside its blocks"):
        make_optimizer(bare, TrainConfig(optimizer="muon"))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_every_optimizer_learns(optimizer: str) -> None:
    losses = [row["validation_loss"] for row in fit(changed(optimizer=optimizer, epochs=20), progress=False).metrics]
    assert losses[-1] < losses[0] - 0.01


class Stop(Callback):
    """Fails at a step, as a kill would."""

    def __init__(self, step: int):
        self.step = step

    def after_step(self, training: Training) -> None:
        if training.step == self.step and (training.folder / "kill").exists():  # type: ignore[operator]
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_killed_run_goes_on_bit_equal(optimizer: str, tmp_path: Path) -> None:
    config = changed(optimizer=optimizer, checkpoint_steps=2, checkpoint_seconds=None)
    whole = fit(config, tmp_path / "whole", callbacks=[Stop(5), StepLosses()], progress=False)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "kill").touch()
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "cut", callbacks=[Stop(5), StepLosses()], progress=False)
    (tmp_path / "cut" / "kill").unlink()
    again = fit(config, tmp_path / "cut", callbacks=[Stop(5), StepLosses()], progress=False)
    pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(read_step_losses(tmp_path / "whole"), read_step_losses(tmp_path / "cut"))


def test_step_losses_average_to_the_readings(tmp_path: Path) -> None:
    run = fit(TINY, tmp_path / "run", callbacks=[StepLosses()], progress=False)
    losses = read_step_losses(tmp_path / "run")
    assert len(losses) == run.metrics[-1]["step"] == 8
    steps = [int(row["step"]) for row in run.metrics]
    for before, after, row in zip(steps, steps[1:], run.metrics[1:], strict=False):
        assert row["train_loss"] == pytest.approx(float(losses[before:after].mean()), abs=1e-6)
    with pytest.raises(RunFolderError, match=r"Train with StepLosses\(\)"):
        read_step_losses(tmp_path)


def test_training_starts_from_a_run(tmp_path: Path) -> None:
    first = fit(TINY, tmp_path / "first", progress=False)
    second = fit(changed(start_from=str(tmp_path / "first"), seed=5), tmp_path / "second", progress=False)
    assert second.metrics[0]["validation_loss"] == first.metrics[-1]["validation_loss"]
    assert second.metrics[-1]["validation_loss"] != first.metrics[-1]["validation_loss"]
    fresh = fit(changed(seed=5), progress=False)
    assert fresh.metrics[0]["validation_loss"] != second.metrics[0]["validation_loss"]
    assert json.loads((tmp_path / "second" / "config.json").read_text())["train"]["start_from"] == str(tmp_path / "first")
    reopened = interp.load_model(tmp_path / "first")
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), reopened.parameters(), strict=True)), "left alone"


def test_the_weights_started_from_are_part_of_a_runs_identity(tmp_path: Path) -> None:
    from interp.data import load_data
    from interp.models.saved import save_model

    data, config = load_data(TINY.data), changed(start_from=str(tmp_path / "first"))
    for seed in (1, 2):
        save_model(build_model(replace(TINY.model, d_vocab=23), seed=seed), tmp_path / "first")
        if seed == 1:
            before = run_id(config, data)
            fit(config, tmp_path / "run", progress=False)
    assert run_id(config, data) != before
    with pytest.raises(RunFolderError, match="differs in its starting weights"):
        fit(config, tmp_path / "run", progress=False)


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    fit(TINY, tmp_path / "first", progress=False)
    other = replace(changed(start_from=str(tmp_path / "first")), model=replace(TINY.model, d_model=24))
    with pytest.raises(ConfigError, match="d_model is 12 there and 24 here"):
        fit(other, progress=False)
    with pytest.raises(ConfigError, match="no finished run folder and no bundled model.*Did you mean 'attn-attn'"):
        fit(changed(start_from="atn-attn"), progress=False)
    with pytest.raises(ConfigError, match="no finished run folder"):
        fit(changed(start_from=str(tmp_path)), progress=False)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from interp.data import PaddedTextConfig, TextConfig

    text = tmp_path / "corpus.txt"
    text.write_text("\n".join(f"abcdefgh {number} fed cab" for number in range(300)))
    base = replace(TINY, data=TextConfig(corpus=str(text), tokenizer="characters", length=11))
    fit(base, tmp_path / "first", progress=False)
    (tmp_path / "other.txt").write_text(text.read_text().replace("a", "z"))
    moved = replace(base, train=replace(TINY.train, start_from=str(tmp_path / "first"), targets="answers"))
    wrong = PaddedTextConfig(corpus=str(tmp_path / "other.txt"), tokenizer="characters", length=11)
    with pytest.raises(ConfigError, match="its tokenizer gives other ids"):
        fit(replace(moved, data=wrong), progress=False)
    right = replace(wrong, tokenizer=str(tmp_path / "first" / "tokenizer"))
    assert fit(replace(moved, data=right), progress=False).metrics[-1]["answer_loss"] > 0


def test_the_defaults_start_fresh_with_adamw() -> None:
    settings = as_dict(TrainConfig())
    assert (settings["optimizer"], settings["start_from"]) == ("adamw", None)
