"""What can be done with run folders: verified, plotted, opened at a step, tracked, pushed and pulled."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from experiments.worked_examples.training_corrupt_inputs import CorruptInputs
from experiments.worked_examples.training_freeze_layers import FreezeLayers
from experiments.worked_examples.training_largest_parameter import LargestParameter
from interp.data import RepeatedConfig, TextConfig, load_data
from interp.errors import ConfigError, ResultError, RunFolderError
from interp.models import AttnAttnConfig, ConvAttnConfig, build_model
from interp.probes.loss import cross_entropy
from interp.seeds import seed_for
from interp.training import (
    Callback,
    FinishedRun,
    RunConfig,
    TrainConfig,
    Training,
    fit,
    kept_checkpoints,
    open_checkpoint,
    plot_metrics,
    pull_run,
    push_run,
    verify_run,
)

TINY = RunConfig(
    model=ConvAttnConfig(d_model=12),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, device="cpu", keep_checkpoints=3),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return fit(TINY, tmp_path_factory.mktemp("runs") / "tiny", progress=False)


def copy_of(run: FinishedRun, place: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run.folder or "", place / "copy"))


def test_the_folder_holds_tables_and_samples(finished: FinishedRun) -> None:
    folder = finished.folder
    assert folder is not None
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 3, 8]
    assert [int(row["samples"]) for row in rows] == [0, 16, 48, 100]
    assert rows[0]["train_loss"] == ""
    assert float(rows[-1]["validation_loss"]) == finished.metrics[-1]["validation_loss"]
    assert float(rows[-1]["seconds"]) >= float(rows[1]["seconds"]) > 0
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(row["step"], row["epoch"]) for row in samples] == [(4, 1), (8, 2)]
    data = load_data(TINY.data)
    prompt = data.validation[:1, :2]
    with torch.no_grad():
        tokens = prompt
        for _ in range(32):
            tokens = torch.cat([tokens, finished.model(tokens)[:, -1:].argmax(-1)], dim=1)
    assert data.symbols is not None
    assert samples[-1]["prompt"] == " ".join(data.symbols[i] for i in prompt[0])
    assert samples[-1]["text"] == " ".join(data.symbols[i] for i in tokens[0, 2:])


def test_text_is_spelled(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "validation", "test"):
        (corpus / f"{split}.txt").write_text("\n".join(f"the {split} cat number {n} sat on mat {n % 7}" for n in range(60)))
    data = TextConfig(corpus=str(corpus), tokenizer="characters", length=20)
    run = fit(replace(TINY, data=data, train=replace(TINY.train, max_steps=3)), tmp_path / "run", progress=False)
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert row["step"] == 3
    assert "the" in row["prompt"]
    kept = open_checkpoint(tmp_path / "run", 3)
    assert kept.tokenizer.decode(kept.to_tokens("cat")[0, 1:]) == "cat"
    assert torch.equal(kept.embed.weight, run.model.embed.weight)


def test_kept_checkpoints(finished: FinishedRun) -> None:
    folder = finished.folder
    assert folder is not None
    assert kept_checkpoints(folder) == (0, 1, 8)
    start = build_model(replace(TINY.model, d_vocab=23), seed=0)
    assert torch.equal(open_checkpoint(folder, 0).embed.weight, start.embed.weight)
    assert torch.equal(open_checkpoint(folder, 8).embed.weight, finished.model.embed.weight)
    assert not torch.equal(open_checkpoint(folder, 1).embed.weight, start.embed.weight)
    with pytest.raises(RunFolderError, match="the steps kept are 0, 1, 8. Did you mean 8"):
        open_checkpoint(folder, 7)
    with pytest.raises(RunFolderError, match="no copies were kept"):
        open_checkpoint(folder / "nowhere", 7)


def test_verifying(finished: FinishedRun, tmp_path: Path) -> None:
    found = verify_run(finished.folder or "")
    recorded, measured, difference = found.values.tolist()
    assert recorded == measured == finished.metrics[-1]["validation_loss"]
    assert difference == 0.0
    with pytest.raises(RunFolderError, match="fingerprint.*was trained on"):
        verify_run(finished.folder or "", data=load_data(replace(TINY.data, seed=1)))
    copy = copy_of(finished, tmp_path)
    weights = load_file(copy / "model.safetensors")
    save_file(weights | {"embed.weight": weights["embed.weight"] + 0.1}, copy / "model.safetensors")
    with pytest.raises(RunFolderError, match=r"validation loss is \d.*was recorded"):
        verify_run(copy)
    (copy / "config.json").write_text('{"model": {"kind": "conv_attn", "widht": 3}}')
    with pytest.raises(RunFolderError, match="cannot be read.*widht"):
        verify_run(copy)
    with pytest.raises(RunFolderError, match="settings of"):
        verify_run(tmp_path / "nowhere")


def test_curves(finished: FinishedRun) -> None:
    other_seed = fit(replace(TINY, train=replace(TINY.train, seed=1)), progress=False)
    other_rate = fit(replace(TINY, train=replace(TINY.train, lr=0.02)), progress=False)
    runs = [finished.folder or "", other_seed, other_rate]
    figure = plot_metrics(runs, ["validation_loss", "train_loss"], x="tokens", log_x=False)
    first, second = figure.axes
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["train.lr=0.01", "train.lr=0.02"]
    line = first.lines[0]
    mean = [(a["validation_loss"] + b["validation_loss"]) / 2 for a, b in zip(finished.metrics, other_seed.metrics, strict=True)]
    assert line.get_ydata().tolist() == pytest.approx(mean)
    assert line.get_xdata().tolist() == [row["tokens"] for row in finished.metrics]
    assert len(first.collections) == 1, "one band: two seeds of one setting"
    assert len(second.lines[0].get_xdata()) == 3, "there is no training loss before the first step"
    assert plot_metrics([finished]).axes[0].lines[0].get_xdata().tolist() == [1, 3, 8], "step 0 has no logarithm"
    with pytest.raises(ResultError, match="Did you mean 'validation_loss'"):
        plot_metrics([finished], "validation_los")
    with pytest.raises(ResultError, match="nothing"):
        plot_metrics([])


def test_the_hub(finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import huggingface_hub

    hub = tmp_path / "hub"

    class Api:
        def create_repo(self, repo: str, **options: Any) -> str:
            assert options["private"] is True
            return f"https://hub/{repo}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, ignore_patterns: list[str], **options: Any) -> None:
            shutil.copytree(folder_path, hub / repo_id, ignore=shutil.ignore_patterns(*ignore_patterns))

    def download(repo: str, **options: Any) -> str:
        if not (hub / repo).exists():
            raise ConnectionError("no route to the hub")
        return str(hub / repo)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert finished.folder is not None
    (finished.folder / "checkpoint.pt").touch()
    assert push_run(finished.folder, "me/tiny") == "https://hub/me/tiny"
    (finished.folder / "checkpoint.pt").unlink()
    place = pull_run("me/tiny")
    assert not (place / "checkpoint.pt").exists()
    assert verify_run(place).values[2] == 0
    with pytest.raises(RunFolderError, match="cannot be downloaded.*no route"):
        pull_run("me/other")
    with pytest.raises(RunFolderError, match="holds no finished run"):
        push_run(tmp_path, "me/tiny")
    monkeypatch.setattr(Api, "create_repo", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("offline")))
    with pytest.raises(RunFolderError, match="cannot be reached or refuses.*offline"):
        push_run(finished.folder, "me/tiny")


def test_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = replace(TINY, train=replace(TINY.train, tracker="wandb", max_steps=2))
    with pytest.raises(ConfigError, match="writes into the run folder, and there is none"):
        fit(tracked, progress=False)
    logged: list[tuple[int, dict[str, Any]]] = []

    class Run:
        def log(self, row: dict[str, Any], step: int) -> None:
            logged.append((step, row))

        def finish(self) -> None:
            logged.append((-1, {}))

    import wandb

    def init(**options: Any) -> Run:
        assert options["mode"] == "offline"
        assert options["name"] == "run"
        assert options["config"]["train"]["lr"] == 0.01
        return Run()

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", init)
    run = fit(tracked, tmp_path / "run", progress=False)
    assert [step for step, _ in logged] == [0, 1, 2, -1]
    assert logged[2][1] == {name: value for name, value in run.metrics[-1].items() if name != "step"}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'interp\[tensorboard\]'"):
        fit(replace(TINY, train=replace(TINY.train, tracker="tensorboard")), tmp_path / "other", progress=False)


LAYERS = replace(TINY, model=AttnAttnConfig(d_model=12, n_layers=4, residual=True))


class Moves(Callback):
    """Notes how far each layer moved in each step, and whether it was frozen."""

    def __init__(self) -> None:
        self.moved: list[tuple[bool, float]] = []

    def before_forward(self, training: Training) -> None:
        self.before = [block.attn.W_Q.detach().clone() for block in training.model.blocks]

    def after_step(self, training: Training) -> None:
        for block, before in zip(training.model.blocks, self.before, strict=True):
            weight = block.attn.W_Q
            self.moved.append((not weight.requires_grad, float((weight.detach() - before).abs().max())))


def test_frozen_layers_do_not_move() -> None:
    moves = Moves()
    run = fit(LAYERS, callbacks=[FreezeLayers(0.5), moves], progress=False)
    frozen = [moved for was_frozen, moved in moves.moved if was_frozen]
    free = [moved for was_frozen, moved in moves.moved if not was_frozen]
    assert len(frozen) > 8 < len(free)
    assert max(frozen) == 0.0, "with momentum and weight decay, exactly"
    assert min(free) > 0.0
    assert all(parameter.requires_grad for parameter in run.model.parameters())

    class ZeroGradients(Callback):
        def after_backward(self, training: Training) -> None:
            if training.step > 1:
                for parameter in training.model.blocks.parameters():
                    parameter.grad.zero_()

    control = Moves()
    fit(LAYERS, callbacks=[ZeroGradients(), control], progress=False)
    assert min(moved for _, moved in control.moved) > 0.0, "the control: a zero gradient does not freeze"


def test_inputs_are_corrupted_and_targets_are_not() -> None:
    data = load_data(TINY.data)
    from interp.training.loop import batch_order

    tokens = data.train[next(batch_order(50, 16, seed=0))]
    torch.manual_seed(seed_for("training", 0))
    chosen = torch.rand(tokens.shape) < 0.4
    chosen[:, 0] = False
    corrupted = torch.where(chosen, torch.randint_like(tokens, 23), tokens)
    model = build_model(replace(TINY.model, d_vocab=23), seed=0)
    losses = torch.nn.functional.cross_entropy(model(corrupted)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    row = fit(TINY, callbacks=[CorruptInputs(0.4)], progress=False).metrics[1]
    assert row["train_loss"] == pytest.approx(losses.item(), rel=1e-6)
    assert row["train_loss"] != pytest.approx(cross_entropy(model(tokens), tokens).mean().item(), rel=1e-4)

    class InPlace(Callback):
        def on_batch(self, training: Training, inputs: torch.Tensor) -> torch.Tensor:
            inputs[:] = 0
            return inputs

    fit(TINY, data=data, callbacks=[InPlace()], progress=False)
    assert torch.equal(data.train, load_data(TINY.data).train), "an edit in place reaches neither data nor targets"


def test_the_largest_parameter_is_tracked() -> None:
    largest = LargestParameter(every=3)
    run = fit(TINY, callbacks=[largest, LargestParameter(every=100)], progress=False)
    assert [step for step, _ in largest.seen] == [3, 6]
    every = LargestParameter(every=1)
    fit(TINY, callbacks=[every], progress=False)
    assert every.seen[-1][1] == max(float(weight.detach().abs().max()) for weight in run.model.parameters())
    assert dict(every.seen)[6] == dict(largest.seen)[6]


def test_a_probe_is_watched(tmp_path: Path) -> None:
    watch = {"induction": lambda model: interp.induction_scores(model, period=5, seed=1).values.max()}
    run = fit(TINY, watch=watch, progress=False)
    assert run.metrics[-1]["induction"] == pytest.approx(float(watch["induction"](run.model)))
