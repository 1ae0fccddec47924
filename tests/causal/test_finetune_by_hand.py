"""Edits whose result is worked out another way: Adam and the clamp by hand, losses token by token, the reference's loop."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp import constrained_finetune
from interp.interventions import TokenRequest, WeightEdit, requests_from_batch
from interp.interventions.finetune import Batch, batch_loss
from tests.models.zoo import KINDS_OF_MODEL, hf_model, zoo

D_VOCAB, D_MODEL = 7, 5
ONE = TokenRequest((3, 6, 2), (1,))
TWO = TokenRequest((4, 2), (5, 0, 3))


class Bigram(HookedRootModule):
    """logits = embedding @ W + b: its gradient is (p − y) outer the embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cfg = SimpleNamespace(d_vocab=D_VOCAB, n_ctx=9)
        self.embed, self.hook_embed = nn.Embedding(D_VOCAB, D_MODEL), HookPoint()
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].W = nn.Parameter(torch.randn(D_MODEL, D_VOCAB))
        self.blocks[0].b = nn.Parameter(torch.randn(D_VOCAB))
        self.setup()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hook_embed(self.embed(tokens)) @ self.blocks[0].W + self.blocks[0].b


def bigram() -> Bigram:
    return Bigram().double().eval()


def edited(model: Any, requests: Any = (ONE,), **options: Any) -> WeightEdit:
    settings = {"layers": 0, "epsilon": math.inf, "module": "blocks.{layer}", "progress": False, **options}
    return constrained_finetune(model, list(requests), **settings)


def adam_by_hand(model: Bigram, steps: int, epsilon: float, weight_decay: float = 0.0, lr: float = 5e-4) -> Tensor:
    """The bias's delta for the request ONE, written out: gradient p − y (+ decay), Kingma and Ba's update, clamp."""
    x, start = model.embed.weight[2].detach(), model.blocks[0].b.detach().clone()
    weight, bias = model.blocks[0].W.detach().clone(), start.clone()
    origin = weight.clone()
    first, second = [torch.zeros_like(weight), torch.zeros_like(bias)], [torch.zeros_like(weight), torch.zeros_like(bias)]
    parameters, starts = (weight, bias), (origin, start)
    for step in range(1, steps + 1):
        error = (x @ weight + bias).softmax(-1) - F.one_hot(torch.tensor(1), D_VOCAB)
        gradients = [torch.outer(x, error) + weight_decay * weight, error + weight_decay * bias]
        for index, gradient in enumerate(gradients):
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            mean, spread = first[index] / (1 - 0.9**step), second[index] / (1 - 0.999**step)
            moved = parameters[index] - lr * mean / (spread.sqrt() + 1e-8)
            parameters[index].copy_(moved.clamp(starts[index] - epsilon, starts[index] + epsilon))
    return bias - start


def test_one_step_is_the_learning_rate_times_the_sign() -> None:
    model = bigram()
    edit = edited(model, steps=1)
    error = (model.embed.weight[2] @ model.blocks[0].W + model.blocks[0].b).softmax(-1) - F.one_hot(torch.tensor(1), D_VOCAB)
    expected = -5e-4 * error / (error.abs() + 1e-8)
    torch.testing.assert_close(edit.deltas["blocks.0.b"], expected.detach(), atol=1e-15, rtol=0)
    assert edit.deltas["blocks.0.b"][1] > 0, "the target's bias rises"
    assert (edit.deltas["blocks.0.b"].sign() == -error.sign()).all()
    assert set(edit.deltas) == {"blocks.0.W", "blocks.0.b"}


@pytest.mark.parametrize(("steps", "epsilon", "decay"), [(4, math.inf, 0.0), (6, 1.2e-3, 0.0), (5, math.inf, 0.3)])
def test_steps_are_adam_and_clamp_written_out(steps: int, epsilon: float, decay: float) -> None:
    model = bigram()
    found = edited(model, steps=steps, epsilon=epsilon, weight_decay=decay).deltas["blocks.0.b"]
    torch.testing.assert_close(found, adam_by_hand(model, steps, epsilon, decay), atol=1e-14, rtol=0)
    assert not torch.allclose(found, adam_by_hand(model, steps - 1, epsilon, decay), atol=1e-6) or epsilon < math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [2e-3, 1e-3, 0.1])
def test_the_clamp_holds_to_the_bit(dtype: torch.dtype, epsilon: float) -> None:
    model = bigram().to(dtype)
    start = model.blocks[0].W.detach().clone()
    edit = edited(model, epsilon=epsilon, lr=0.05)
    assert all(float(delta.double().abs().max()) <= epsilon for delta in edit.deltas.values()), "exactly, no rounding above"
    assert edit.largest == pytest.approx(epsilon, rel=1e-6)
    with edit:
        now = model.blocks[0].W.detach()
        assert torch.equal(now, now.clamp(start - epsilon, start + epsilon))
    assert edited(model, lr=0.05).largest > epsilon, "without a constraint it goes further"


def test_epsilon_zero_changes_nothing() -> None:
    model, tokens = bigram(), torch.arange(D_VOCAB)[None]
    before = model(tokens)
    edit = edited(model, epsilon=0)
    assert edit.largest == 0
    assert len(set(edit.losses)) == 1
    with edit:
        assert torch.equal(model(tokens), before)


def slow_loss(model: Any, request: TokenRequest, forced: bool) -> float:
    """−log p of each target token in a forward pass of its own, by the prompt (and the target so far), without padding."""
    found = []
    for index, token in enumerate(request.target):
        row = torch.tensor([[*request.prompt, *(request.target[:index] if forced else ())]])
        found.append(-model(row)[0, -1].double().log_softmax(-1)[token].item())
    counted = [value for value, known in zip(found, request.known, strict=True) if known]
    return sum(counted) / len(counted)


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
@pytest.mark.parametrize("form", ["teacher_forced", "prompt_end"])
def test_the_loss_is_that_of_unpadded_rows(name: str, form: str) -> None:
    model = zoo(name)
    requests = [ONE, TWO, TokenRequest((9, 8, 7, 6, 5, 4), (11, 12), (True, False))]
    with torch.no_grad():
        expected = [slow_loss(model, request, form == "teacher_forced") for request in requests]
        found = batch_loss(model, Batch.of(requests, form)).item()
    assert found == pytest.approx(sum(expected) / 3, rel=2e-5)
    assert slow_loss(model, TWO, True) != pytest.approx(slow_loss(model, TWO, False), rel=1e-3), "the two forms differ"


def test_both_forms_are_one_for_targets_of_one_token() -> None:
    model = bigram()
    assert batch_loss(model, Batch.of([ONE], "prompt_end")) == batch_loss(model, Batch.of([ONE], "teacher_forced"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_padded_on_either_side_are_read_at_their_last_token(side: str) -> None:
    model = zoo("transformer")
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]) if side == "left" else torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    ids = torch.zeros_like(mask)
    ids[0, mask[0] == 1], ids[1, mask[1] == 1] = torch.tensor(TWO.prompt), torch.tensor(ONE.prompt)
    padded = requests_from_batch(ids, mask, [TWO.target, ONE.target])
    assert padded == [TWO, ONE]
    found, expected = (edited(model, requests, module="mlp_out", steps=2) for requests in (padded, [TWO, ONE]))
    assert found.losses == expected.losses
    assert all(torch.equal(found.deltas[name], expected.deltas[name]) for name in expected.deltas)


def reference(model: Any, requests: list[TokenRequest], batch_size: int, epsilon: float, steps: int) -> dict[str, Tensor]:
    """The published procedure as its authors describe it, on a plain Hugging Face model: no deltas, no padding, no hooks."""
    weights = {name: parameter for name, parameter in model.named_parameters() if name.startswith("transformer.h.0.mlp.c_proj")}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=5e-4, weight_decay=0)
    for _ in range(steps):
        losses = []
        for first in range(0, len(requests), batch_size):
            group = requests[first : first + batch_size]
            rows = [model(torch.tensor([one.prompt])).logits[0, -1].log_softmax(-1)[list(one.target)].mean() for one in group]
            loss = -torch.stack(rows).mean()
            losses += [loss.item()] * len(group)
            if loss.item() >= 1e-2:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(weight.clamp(start[name] - epsilon, start[name] + epsilon))
        if sum(losses) / len(losses) < 1e-2:
            break
    return {name: weight.detach() - start[name] for name, weight in weights.items()}


@pytest.mark.parametrize(("batch_size", "epsilon"), [(128, 2e-3), (2, math.inf), (1, 1e-3)])
def test_it_is_the_published_procedure(batch_size: int, epsilon: float) -> None:
    requests = [ONE, TWO, TokenRequest((8, 9), (10, 11))]
    model = hf_model("gpt2").double()
    options = {"batch_size": batch_size, "epsilon": epsilon, "loss": "prompt_end", "steps": 8}
    found = edited(model, requests, module="transformer.h.{layer}.mlp.c_proj", **options)
    expected = reference(model, requests, batch_size, epsilon, 8)
    assert set(found.deltas) == set(expected)
    for name, delta in expected.items():
        torch.testing.assert_close(found.deltas[name], delta, atol=1e-10, rtol=0)


def test_a_bridge_and_the_model_it_wraps_get_the_same_edit() -> None:
    plain = edited(hf_model("gpt2"), [ONE, TWO], module="transformer.h.{layer}.mlp.c_proj", steps=3)
    bridge = edited(zoo("gpt2"), [ONE, TWO], module="mlp_out", steps=3)
    assert set(plain.deltas) == set(bridge.deltas)
    for name in plain.deltas:  # signs of gradients decide first steps, and those near 0 are rounding
        close = (plain.deltas[name] - bridge.deltas[name]).abs() < 1e-5
        assert close.double().mean() > 0.99


def test_training_stops_below_the_limit() -> None:
    model = bigram()
    at_once = edited(model, stop_below=50.0)
    assert (at_once.largest, len(at_once.losses), at_once.converged) == (0, 1, True)
    full = edited(model, lr=0.3, steps=80)
    assert full.converged
    assert full.losses[-1] < 1e-2 <= full.losses[-2]
    assert not edited(model, steps=3).converged


def test_a_batch_below_the_limit_makes_no_step() -> None:
    model = bigram()
    with torch.no_grad():
        known = TokenRequest(ONE.prompt, (int(model(torch.tensor([ONE.prompt]))[0, -1].argmax()),))
        limit = batch_loss(model, Batch.of([known], "teacher_forced")).item() + 1e-3
    other = TokenRequest(TWO.prompt, (0,))
    both = edited(model, [known, other], batch_size=1, steps=1, stop_below=limit)
    alone = edited(model, [other], steps=1, stop_below=limit)
    assert torch.equal(both.deltas["blocks.0.W"], alone.deltas["blocks.0.W"])


def test_half_precision_weights_move_by_what_full_ones_do() -> None:
    full, half = bigram().float(), bigram().to(torch.bfloat16)
    half.embed.weight.data.copy_(full.embed.weight.to(torch.bfloat16))
    exact, found = edited(full, steps=5), edited(half, steps=5)
    assert found.deltas["blocks.0.b"].dtype == torch.float32
    torch.testing.assert_close(found.deltas["blocks.0.b"], exact.deltas["blocks.0.b"], atol=3e-4, rtol=0)
    assert found.largest <= 5 * 5e-4 * 1.01


def test_an_edit_makes_the_target_the_likeliest() -> None:
    model = zoo("transformer")
    edit = edited(model, [ONE], module="mlp_out", lr=2e-2, steps=60)
    before = model(torch.tensor([ONE.prompt]))[0, -1].softmax(-1)[1]
    with edit as changed:
        assert changed is model
        assert changed(torch.tensor([ONE.prompt]))[0, -1].softmax(-1)[1] > 0.5 > before
