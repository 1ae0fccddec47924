"""What a training step computes: against loops written out, in parts, in several processes, and as each setting says."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.config import build
from interp.data import RepeatedConfig, load_data
from interp.errors import ConfigError
from interp.models import AttnAttnConfig, ConvAttnConfig, build_model
from interp.models.transformer import TransformerConfig
from interp.probes.loss import cross_entropy
from interp.training import Callback, FinishedRun, RunConfig, TrainConfig, Training, fit
from interp.training.engine import make_engine
from interp.training.loop import batch_order
from interp.training.objectives import masked, mean_loss, token_losses, training_batch
from interp.training.readings import validation_numbers
from interp.training.steps import kept_steps, learning_rate, reading_steps

TINY = RunConfig(
    model=ConvAttnConfig(d_model=12),
    data=RepeatedConfig(d_vocab=23, period=5, n_train=50, n_validation=9),
    train=TrainConfig(epochs=2, batch_size=16, n_evals=3, lr=1e-2, device="cpu"),
)
ROOT = Path(__file__).parents[2]


def changed(config: RunConfig, **train: Any) -> RunConfig:
    return replace(config, train=replace(config.train, **train))


def weights(run: FinishedRun) -> dict[str, Tensor]:
    return dict(run.model.state_dict())


def close(first: FinishedRun, second: FinishedRun, atol: float) -> None:
    for name, tensor in weights(first).items():
        torch.testing.assert_close(weights(second)[name], tensor, atol=atol, rtol=1e-4, msg=name)


def test_it_is_the_loop_one_would_write() -> None:
    data, steps = load_data(TINY.data), 8
    model = build_model(replace(TINY.model, d_vocab=23), seed=0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, fused=True)
    losses, order = [], batch_order(50, 16, seed=0)
    for step in range(1, steps + 1):
        tokens = data.train[next(order)]
        optimizer.param_groups[0]["lr"] = learning_rate(TINY.train, step, steps)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    run = fit(TINY, progress=False)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights(run)[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    assert [row.get("train_loss") for row in run.metrics[1:]] == pytest.approx(
        [losses[0], sum(losses[1:3]) / 2, sum(losses[3:]) / 5]
    )


def test_parts_add_up_to_the_batch() -> None:
    whole, parts = (
        fit(changed(TINY, optimizer="sgd", lr=0.5), progress=False),
        fit(changed(TINY, optimizer="sgd", lr=0.5, accumulate=3), progress=False),
    )
    close(whole, parts, atol=1e-6)
    assert not torch.equal(weights(whole)["embed.weight"], weights(parts)["embed.weight"]), "the control: it was in parts"
    more = fit(changed(TINY, optimizer="sgd", lr=0.5, accumulate=16), progress=False)  # the last batch has 2 sequences
    close(whole, more, atol=1e-6)


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(TINY, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_answers_count_when_asked() -> None:
    data = load_data(TINY.data)
    assert data.answers is not None
    rows = torch.tensor([3, 1, 4])
    batch = training_batch(replace(TINY.train, targets="answers"), data, rows, step=1)
    tokens, logits = data.train[rows], torch.randn(3, 11, 23)
    known = data.answers["train"][rows].clone()
    known[:, 0] = False
    by_hand = [-logits[row, pos - 1].log_softmax(-1)[tokens[row, pos]] for row, pos in known.nonzero().tolist()]
    assert batch.n_counted == len(by_hand)
    found = mean_loss("autoregressive", logits, batch, batch.n_counted)
    torch.testing.assert_close(found, torch.stack(by_hand).mean())
    run = fit(changed(TINY, targets="answers"), progress=False)
    assert not torch.equal(weights(run)["embed.weight"], weights(fit(TINY, progress=False))["embed.weight"])
    with pytest.raises(ConfigError, match="targets=answers: the data has none"):
        fit(changed(TINY, targets="answers"), data=replace(data, answers=None), progress=False)


def test_answers_are_read_on_validation() -> None:
    data = load_data(TINY.data)
    model = build_model(replace(TINY.model, d_vocab=23), seed=0)
    row = validation_numbers(model, data, TINY.train)
    assert data.answers is not None
    known = data.answers["validation"][:, 1:]
    with torch.no_grad():
        logits = model(data.validation)
    losses = cross_entropy(logits, data.validation)
    hits = logits[:, :-1].argmax(-1) == data.validation[:, 1:]
    assert row["answer_loss"] == pytest.approx(float(losses[known].mean()), rel=1e-5)
    assert row["answer_accuracy"] == pytest.approx(float(hits[known].float().mean()))
    assert row["validation_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert row["loss_above_floor"] == pytest.approx(row["answer_loss"] - float(data.floor or 0.0))
    without = validation_numbers(model, replace(data, answers=None), TINY.train)
    assert "answer_loss" not in without


@pytest.mark.parametrize("rows", ["all", "one"])
def test_a_reading_of_a_model_that_computes_nan_is_nan(rows: str) -> None:
    loaded = load_data(TINY.data)
    zeros = torch.zeros_like(loaded.validation)  # the largest of NaN logits is said to be id 0, which is wanted here
    data = replace(loaded, validation=zeros.index_fill(0, torch.tensor([4]), 7))
    model = build_model(replace(TINY.model, d_vocab=23), seed=0)
    with torch.no_grad():
        model.embed.weight[7 if rows == "one" else slice(None)] = torch.nan
    readings = [validation_numbers(model, data, TINY.train)]
    encoder = build_model(replace(MASKED.model, d_vocab=24), seed=0)
    with torch.no_grad():
        encoder.embed.weight[7 if rows == "one" else slice(None)] = torch.nan
    readings.append(validation_numbers(encoder, data, MASKED.train))
    for row in readings:
        assert {name for name, value in row.items() if not math.isnan(value)} == set()


MASKED = RunConfig(
    model=TransformerConfig(d_model=16, n_heads=2, n_layers=1, causal=False),
    data=TINY.data,
    train=replace(TINY.train, objective="masked", mask_share=0.3),
)


def test_masks() -> None:
    tokens = torch.arange(400 * 9).reshape(400, 9) % 23
    batch = masked(tokens, 23, 0.3, seed=1)
    assert batch.counted is not None
    assert not batch.counted[:, 0].any(), "BOS stays"
    assert torch.equal(batch.inputs == 23, batch.counted)
    assert torch.equal(batch.inputs[~batch.counted], tokens[~batch.counted])
    assert 0.27 < float(batch.counted[:, 1:].float().mean()) < 0.33
    assert torch.equal(masked(tokens, 23, 0.3, seed=1).inputs, batch.inputs)
    assert not torch.equal(masked(tokens, 23, 0.3, seed=2).inputs, batch.inputs)
    assert masked(tokens[:1, :2], 23, 1e-9, seed=0).n_counted == 1, "at least one"
    logits = torch.randn(400, 9, 24)
    rows, places = batch.counted.nonzero().T
    by_hand = torch.nn.functional.cross_entropy(logits[rows, places], tokens[rows, places])
    torch.testing.assert_close(mean_loss("masked", logits, batch, batch.n_counted), by_hand)


def test_masked_language_modelling_learns_and_sees_both_sides() -> None:
    run = fit(changed(MASKED, epochs=50, lr=3e-2, n_evals=1), progress=False)
    assert run.model.cfg.d_vocab == 24
    assert run.metrics[-1]["train_loss"] < run.metrics[0]["validation_loss"] - 0.5
    with pytest.raises(ConfigError, match="conv_attn sees only the tokens before a mask.*causal=false"):
        fit(replace(MASKED, model=TINY.model), progress=False)
    with pytest.raises(ConfigError, match="sees the token that it is to predict"):
        fit(replace(TINY, model=MASKED.model), progress=False)
    with pytest.raises(ConfigError, match="d_vocab.*23 tokens and a mask"):
        fit(replace(MASKED, model=replace(MASKED.model, d_vocab=23)), progress=False)


def test_half_precision() -> None:
    full, half = fit(TINY, progress=False), fit(changed(TINY, precision="bfloat16"), progress=False)
    assert weights(half)["embed.weight"].dtype == torch.float32
    assert half.metrics[-1]["train_loss"] == pytest.approx(full.metrics[-1]["train_loss"], abs=0.05)
    assert half.metrics[-1]["train_loss"] != full.metrics[-1]["train_loss"]
    assert half.metrics[0]["validation_loss"] == full.metrics[0]["validation_loss"], "readings are in float32"
    logits = torch.randn(2, 4, 7).bfloat16()
    assert token_losses("autoregressive", logits, torch.ones(2, 4, dtype=torch.int64)).dtype == torch.float32
    with pytest.raises(ConfigError, match="float16.*works on a GPU only"):
        fit(changed(TINY, precision="float16"), progress=False)


def test_early_stopping_waits_for_so_many_readings() -> None:
    few = RunConfig(
        model=AttnAttnConfig(d_model=24), data=replace(TINY.data, n_train=4), train=replace(TINY.train, lr=3e-2, epochs=300)
    )
    run = fit(replace(few, train=replace(few.train, n_evals=20, eval_every=5, patience=4)), progress=False)
    losses = [row["validation_loss"] for row in run.metrics]
    assert run.metrics[-1]["step"] < 300
    assert losses.index(min(losses)) == len(losses) - 1 - 4
    assert all(row["step"] % 5 == 0 for row in run.metrics)


def test_the_line_and_the_readings() -> None:
    config = TrainConfig(lr=2.0, warmup_ratio=0.1, schedule="linear")
    rates = [learning_rate(config, step, 100) for step in range(1, 101)]
    assert rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert all(before - after == pytest.approx(2.0 / 90) for before, after in zip(rates[10:-1], rates[11:], strict=True))
    assert reading_steps(TrainConfig(eval_every=4), 10) == {4, 8, 10}
    assert kept_steps(TrainConfig(), 1000) == frozenset()
    assert kept_steps(TrainConfig(keep_checkpoints=1), 1000) == {0}
    assert kept_steps(TrainConfig(keep_checkpoints=5), 1000) == {0, 1, 10, 100, 1000}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mask_share": 0.5}, "mask_share 0.5 acts only on the masked objective"),
        ({"objective": "masked", "targets": "answers"}, "targets=answers acts only on the autoregressive"),
        ({"n_evals": 7, "eval_every": 3}, "n_evals 7 does nothing when eval_every is set"),
        ({"batch_size": 4, "accumulate": 5}, "accumulate 5 is more parts than batch_size 4"),
        ({"precision": "fp16"}, "precision"),
        ({"patience": 0}, "patience"),
    ],
)
def test_settings_that_contradict(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(TrainConfig, values)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="names 2 devices and there is one process. Start.*torchrun --nproc-per-node 2"):
        make_engine(TrainConfig(device="cuda:0,cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="each takes the GPU of its number. Use auto, cpu or cuda:0,cuda:1"):
        make_engine(TrainConfig(device="cuda:1"))


TWO = """
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from experiments.worked_examples.training_corrupt_inputs import CorruptInputs
from experiments.worked_examples.training_freeze_layers import FreezeLayers
from interp.config import build
from interp.training import RunConfig, fit

config = build(RunConfig, json.loads(Path(sys.argv[1]).read_text()))
run = fit(config, sys.argv[2], callbacks=[CorruptInputs(0.2), FreezeLayers(0.4)], progress=False)
print(json.dumps([torch.distributed.get_world_size(), torch.distributed.get_rank(), len(run.metrics)]), flush=True)
"""


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    from experiments.worked_examples.training_corrupt_inputs import CorruptInputs
    from experiments.worked_examples.training_freeze_layers import FreezeLayers
    from interp import load_model
    from interp.config import as_dict

    config = RunConfig(
        model=AttnAttnConfig(d_model=12, n_layers=3, residual=True, positions=True),
        data=replace(TINY.data, n_train=31),
        train=replace(TINY.train, batch_size=15, accumulate=2, optimizer="sgd", lr=0.3, targets="answers"),
    )  # the last batch has 1 sequence: one process is left without
    (tmp_path / "config.json").write_text(json.dumps(as_dict(config)))
    (tmp_path / "script.py").write_text(TWO)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "script.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path / "config.json"), str(tmp_path / "two")],
        capture_output=True, check=False, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = sorted(json.loads(row) for row in re.findall(r"\[\d.*?\]", done.stdout))  # lines of two processes may run together
    one = fit(config, callbacks=[CorruptInputs(0.2), FreezeLayers(0.4)], progress=False)
    assert said == [[2, 0, len(one.metrics)], [2, 1, len(one.metrics)]]
    two = load_model(tmp_path / "two").state_dict()
    start = build_model(replace(config.model, d_vocab=23), seed=0).state_dict()
    for name, tensor in weights(one).items():
        torch.testing.assert_close(two[name], tensor, atol=2e-6, rtol=1e-4, msg=name)
    assert not torch.allclose(start["embed.weight"], two["embed.weight"], atol=1e-3), "the control: it moved"
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    for row, expected in zip(rows, one.metrics, strict=True):
        for name in ("step", "samples", "tokens", "train_loss", "validation_loss", "answer_loss"):
            assert row.get(name, 0.0) == pytest.approx(expected.get(name, 0.0), rel=1e-5), name


class Recorder(Callback):
    """Keeps what it was called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, training: Training) -> None:
        self.calls.append(f"start {training.step}")

    def before_forward(self, training: Training) -> None:
        assert all(parameter.grad is None for parameter in training.model.parameters())
        self.calls.append(f"before {training.step}")

    def after_backward(self, training: Training) -> None:
        assert all(parameter.grad is not None for parameter in training.model.parameters())
        self.calls.append("backward")

    def after_step(self, training: Training) -> None:
        self.calls.append("step")

    def on_eval(self, training: Training, row: dict[str, Any]) -> dict[str, float]:
        self.calls.append(f"eval {training.step}")
        return {"double": 2 * row["validation_loss"]}

    def on_end(self, training: Training) -> None:
        self.calls.append("end")


def test_callbacks_are_called_in_order() -> None:
    recorder = Recorder()
    run = fit(changed(TINY, max_steps=2, n_evals=1), callbacks=[recorder], progress=False)
    step = ["before 1", "backward", "step"], ["before 2", "backward", "step"]
    assert recorder.calls == ["start 0", "eval 0", *step[0], *step[1], "eval 2", "end"]
    assert all(row["double"] == 2 * row["validation_loss"] for row in run.metrics)
    assert weights(run)["embed.weight"].equal(weights(fit(changed(TINY, max_steps=2, n_evals=1), progress=False))["embed.weight"])


def test_callbacks_that_cannot_work(unchecked: None) -> None:
    class Mistyped(Callback):
        def after_stp(self, training: Training) -> None:
            raise AssertionError

    class Shape(Callback):
        def on_batch(self, training: Training, inputs: Tensor) -> Tensor:
            return inputs[:, 1:]

    class Twice(Callback):
        def on_eval(self, training: Training, row: dict[str, Any]) -> dict[str, float]:
            return {"validation_loss": 0.0}

    class Infinite(Callback):
        def on_eval(self, training: Training, row: dict[str, Any]) -> dict[str, float]:
            return {"undefined": float("nan"), "ratio": float("inf")}

    class Frozen(Callback):
        def before_forward(self, training: Training) -> None:
            training.model.requires_grad_(False)

    for callback, said in (
        (Mistyped(), "Mistyped.after_stp: the loop never calls.*Did you mean 'after_step'"),
        (Shape(), r"Shape.on_batch: it returned int64 of shape \(16, 10\)"),
        (Twice(), "Twice.on_eval: a reading already has validation_loss"),
        (Infinite(), "Infinite.on_eval: ratio is infinite at step 0"),
        (Frozen(), "every parameter is frozen"),
        (Frozen, "callback Frozen: it is no instance"),
    ):
        with pytest.raises(ConfigError, match=said):
            fit(TINY, callbacks=[callback], progress=False)  # type: ignore[list-item]
