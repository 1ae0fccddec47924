"""Published models, fine-tuned: as by a plain loop over Hugging Face's own model, resumed, saved, and refused with reasons."""

import multiprocessing
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import interp
from interp.data import PaddedTextConfig, RepeatedConfig, TextConfig, load_data
from interp.errors import ConfigError, ModelError, RunFolderError
from interp.models import PretrainedConfig, TransformerConfig, build_model
from interp.models.saved import count_parameters, save_model
from interp.provenance import weights_hash
from interp.training import AblatedAttention, Callback, RunConfig, TrainConfig, Training, fit, fit_all, run_id
from interp.training.loop import batch_order
from interp.training.steps import learning_rate, make_optimizer, total_steps
from tests.training.tiny import published, write_text

HOW = TrainConfig(
    targets="answers", epochs=2, batch_size=8, lr=3e-3, n_evals=3, eval_sequences=16, sample_tokens=0, grad_clip=0, device="cpu"
)  # fmt: skip
KINDS = ("gpt2", "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {kind: published(root / kind, kind) for kind in KINDS} | {"text": write_text(root)}


def config(folders: dict[str, Path], kind: str = "gpt2", **train: Any) -> RunConfig:
    path = str(folders[kind])
    data = PaddedTextConfig(corpus=str(folders["text"]), tokenizer=path, length=20, n_train=40, n_held_out=16)
    return RunConfig(model=PretrainedConfig(path=path), data=data, train=replace(HOW, **train))


def plain_loop(described: RunConfig) -> nn.Module:
    """Hugging Face's own model under torch's AdamW, one obvious step after the other."""
    import transformers as hf

    model = hf.AutoModelForCausalLM.from_pretrained(described.model.path, attn_implementation="eager").train()
    data, train = load_data(described.data), described.train
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=train.weight_decay)
    batches, steps = batch_order(len(data.train), train.batch_size, train.seed), total_steps(train, len(data.train))
    for step in range(1, steps + 1):
        rows = next(batches)
        labels = data.train[rows].masked_fill(~data.answers["train"][rows], -100)  # type: ignore[index]
        optimizer.param_groups[0]["lr"] = learning_rate(train, step, steps)
        optimizer.zero_grad()
        model(data.train[rows], labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_trained_as_by_a_plain_loop_and_opened_bit_equal(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    described = config(folders, kind)
    run = fit(described, tmp_path / "run", progress=False)
    tokens, plain = load_data(described.data).test[:3], plain_loop(described)
    with torch.no_grad():
        ours, theirs = run.model(tokens), plain(tokens).logits
        moved = float((ours - interp.load_model(folders[kind])(tokens)).abs().max())
        assert float((ours - theirs).abs().max()) < 1e-3 * moved, "within rounding of a training that moved the logits far more"
        hidden = shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
        opened = interp.load_model(hidden)
        assert torch.equal(opened(tokens), ours)
    assert weights_hash(opened) == weights_hash(run.model)
    for text in ("def f(x)", " return"):
        assert opened.to_tokens(text).tolist() == run.model.to_tokens(text).tolist()
    assert opened.cfg.d_vocab == run.model.cfg.d_vocab
    assert float(interp.verify_run(hidden).values[2]) == 0
    scores = interp.head_scores(opened, period=6, n_sequences=2)
    assert scores.values.shape[1:] == (2, opened.cfg.n_heads)


def test_a_fused_step_on_queries_keys_and_values_would_be_wrong(folders: dict[str, Path]) -> None:
    """They are views into one weight, which torch's fused Adam on the CPU takes to be a whole one."""

    def stepped(fused: bool | None, name: str = "adamw") -> torch.Tensor:
        model = build_model(config(folders).model)
        trained = list(model.parameters())
        optimizer = make_optimizer(model, replace(HOW, optimizer=name))
        if fused is not None:
            optimizer = torch.optim.AdamW(trained, lr=HOW.lr, weight_decay=HOW.weight_decay, fused=fused)
        model(torch.arange(14)[None]).logsumexp(-1).sum().backward()
        optimizer.step()
        return model.blocks[0].attn.W_Q.detach()

    assert torch.equal(stepped(None), stepped(False))
    assert not torch.allclose(stepped(True), stepped(False), atol=1e-4), "fused is right by now: it may be used again"
    assert not torch.equal(stepped(None, "muon"), stepped(None)), "queries are matrices inside the blocks"


class KillAt(Callback):
    """Kills the process once, after a step."""

    def __init__(self, step: int):
        self.step = step

    def after_step(self, training: Training) -> None:
        marker = training.folder / "was-killed"  # type: ignore[operator]
        if training.step == self.step and not marker.exists():
            marker.touch()
            signal.raise_signal(signal.SIGKILL)


def train_until_killed(described: RunConfig, folder: Path) -> None:
    torch.set_num_threads(1)
    fit(described, folder, callbacks=[AblatedAttention("uniform", layers=[1]), KillAt(8)], progress=False)


def test_killed_and_started_again_it_ends_bit_equal(folders: dict[str, Path], tmp_path: Path) -> None:
    """With dropout, and with attention ablated while it trains."""
    dropping = {**folders, "gpt2": published(tmp_path / "dropping", dropout=0.2)}
    described = config(dropping, checkpoint_steps=3, checkpoint_seconds=None, momentum=0.5, optimizer="sgd", lr=0.1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interp.training.fit", "interp.models", "torch._dynamo"])
    process = context.Process(target=train_until_killed, args=(described, tmp_path / "run"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    steps: list[int] = []
    callbacks = [AblatedAttention("uniform", layers=[1]), KillAt(8)]
    again = fit(described, tmp_path / "run", callbacks=callbacks, on_step=lambda: steps.append(1), progress=False)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "was-killed").touch()
    whole = fit(described, tmp_path / "whole", callbacks=callbacks, progress=False)
    assert len(steps) == 4, "steps 7 to 10"
    assert weights_hash(again.model) == weights_hash(whole.model)
    assert [row["validation_loss"] for row in again.metrics] == [row["validation_loss"] for row in whole.metrics]
    other = fit(replace(described, train=replace(described.train, seed=1)), callbacks=callbacks[:1], progress=False)
    assert weights_hash(other.model) != weights_hash(whole.model)


def test_a_run_goes_on_from_another_and_knows_what_was_published(folders: dict[str, Path], tmp_path: Path) -> None:
    first = fit(config(folders, max_steps=2), tmp_path / "first", progress=False)
    second = fit(config(folders, max_steps=2, start_from=str(tmp_path / "first")), progress=False)
    assert second.metrics[0]["validation_loss"] == first.metrics[-1]["validation_loss"]
    copy = shutil.copytree(folders["gpt2"], tmp_path / "copy")
    described = replace(config(folders), model=PretrainedConfig(path=str(copy)))
    data = load_data(described.data)
    before = run_id(described, data)
    published(copy, dropout=0.5)  # the same weights, another configuration
    assert run_id(described, data) != before, "other files under the same path are another run"


def test_every_weight_counts_once(folders: dict[str, Path], tmp_path: Path) -> None:
    import transformers as hf

    for kind in KINDS:
        theirs = hf.AutoModelForCausalLM.from_pretrained(folders[kind])
        model = build_model(config(folders, kind).model)
        assert count_parameters(model) == sum(weight.numel() for weight in theirs.parameters())
        save_model(model, tmp_path / kind)
        stored = (tmp_path / kind / "model.safetensors").stat().st_size
        assert stored < 1.2 * (folders[kind] / "model.safetensors").stat().st_size
    assert count_parameters(toy := build_model(TransformerConfig(d_vocab=30, n_heads=2))) == sum(
        p.numel() for p in toy.parameters()
    )


def test_what_does_not_fit_is_refused_before_anything_is_trained(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = config(folders)

    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            fit_all({"a": replace(described, **changes)}, tmp_path / "runs", progress=False)
        assert not (tmp_path / "runs").exists()

    refused(ConfigError, "padding, which would be trained on.*targets=answers", train=replace(HOW, targets="all"))
    refused(
        ConfigError,
        "other ids than the model's. Set data.tokenizer=",
        data=TextConfig(corpus=str(folders["text"]), vocab_size=270),
    )
    refused(ConfigError, "up to 40 tokens and sequences have 44", data=replace(described.data, length=44))
    all_tokens = replace(HOW, targets="all")
    refused(ConfigError, "it has 290 tokens and the data 299", data=RepeatedConfig(d_vocab=299), train=all_tokens)
    refused(ConfigError, "sees only the tokens before a mask", train=replace(HOW, targets="all", objective="masked"))
    refused(ModelError, "a model of interp's own.*train.start_from", model=PretrainedConfig(path="conv-attn"))
    from huggingface_hub import HfApi, constants

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    told = "no folder 'gpt2'.*Hub cannot be reached.*give a folder"
    refused(ModelError, told, model=PretrainedConfig(path="gpt2"))


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path: Path) -> None:
    import transformers as hf

    shape = hf.BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
    hf.BertForMaskedLM(shape).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="depends on later tokens. Give a causal language model"):
        build_model(PretrainedConfig(path=str(tmp_path)))


def test_a_damaged_run_folder_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(build_model(config(folders).model), tmp_path)
    (tmp_path / "architecture" / "config.json").write_text("{}")
    with pytest.raises(RunFolderError, match="its architecture cannot be read"):
        interp.load_model(tmp_path)
