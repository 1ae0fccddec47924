"""Whatever happens during an edit, the model is as it was; and no mistake in its settings passes for "no effect"."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from interp import ablated, constrained_finetune, run
from interp.errors import ConfigError, DataError, InterpError, ModelError
from interp.interventions import EditRequest, TokenRequest, requests_from_batch
from interp.models import Transformer
from tests.models.zoo import BRIDGES, KINDS_OF_MODEL, hf_model, zoo

ASK = TokenRequest((3, 6, 2), (1,))
MODULES = {"own": "blocks.{layer}.mlp.2", "conv-attn": "blocks.{layer}.attn.W_V", "attn-attn": "blocks.{layer}.attn.W_V"}


def module_of(name: str) -> str:
    return MODULES.get(name, "attn_out" if name == "smeared-key" else "mlp_out")


def edited(model: Any, **options: Any) -> Any:
    asked = {"requests": [ASK], "layers": [1], "epsilon": 1e-3, "steps": 2, "progress": False, **options}
    return constrained_finetune(model, asked.pop("requests"), **asked)


def small(**options: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(d_vocab=11, d_model=8, n_heads=2, d_mlp=12, n_ctx=9, **options)


def state(model: Any) -> dict[str, Any]:
    grads = {name: (p.requires_grad, p.grad, p.data.clone(), p.data_ptr()) for name, p in model.named_parameters()}
    return {"weights": grads, "modes": [module.training for module in model.modules()], "grad": torch.is_grad_enabled()}


def same(one: dict, other: dict) -> None:
    assert one["modes"] == other["modes"]
    assert one["grad"] == other["grad"]
    assert one["weights"].keys() == other["weights"].keys()
    for name, (flag, grad, data, place) in one["weights"].items():
        now = other["weights"][name]
        assert (flag, place) == (now[0], now[3]), name
        assert grad is now[1], name
        assert torch.equal(data, now[2]), name


def unlike(model: Any) -> Any:
    """Modes, flags and gradients of every sort, so that what is put back shows."""
    model.train()
    model.blocks[0].eval()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 3 != 0)
        if parameter.requires_grad and index % 2:
            parameter.grad = torch.full_like(parameter, 7.0)
    return model


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_a_model_of_any_kind_is_bit_equal_afterwards(name: str) -> None:
    model = zoo(name)
    layers = [0] if name in ("conv-attn", "smeared-key") else [1]
    before = state(model)
    edit = edited(model, layers=layers, module=module_of(name), epsilon=math.inf)
    same(before, state(model))
    tokens = torch.tensor([ASK.prompt])
    logits = model(tokens)
    with edit:
        assert not torch.equal(model(tokens), logits)
    same(before, state(model))
    assert torch.equal(model(tokens), logits)


@pytest.mark.parametrize("fails", [False, True])
def test_mode_flags_and_gradients_are_put_back(fails: bool) -> None:
    model = unlike(small(dropout=0.2))
    before = state(model)
    seen: list[tuple[list[str], bool]] = []

    def watch(module: Any, inputs: Any, output: Any) -> None:
        seen.append(([name for name, p in model.named_parameters() if p.requires_grad], model.dropout.training))
        if fails and len(seen) == 2:
            raise RuntimeError("stop here")

    handle = model.register_forward_hook(watch)
    if fails:
        with pytest.raises(RuntimeError, match="stop here"):
            edited(model, steps=5)
    else:
        edited(model)
    handle.remove()
    same(before, state(model))
    assert seen[0] == (["blocks.1.mlp.W_out", "blocks.1.mlp.b_out"], False), "only these get gradients, in eval mode"


def test_it_works_where_gradients_are_off() -> None:
    model = small().eval()
    expected = edited(model)
    with torch.no_grad():
        found = edited(model)
    with torch.inference_mode():
        inside = edited(model)
        inside.apply().revert()
    for name, delta in expected.deltas.items():
        assert torch.equal(delta, found.deltas[name])
        assert torch.equal(delta, inside.deltas[name])


def test_a_model_under_ablation_is_edited_under_it() -> None:
    model = small().eval()
    with ablated(model, heads=[(0, 0)], mode="zero"):
        under = edited(model)
    assert under.losses[0] != edited(model).losses[0]


def test_edits_go_on_and_off_in_order() -> None:
    model = small().eval()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = edited(model), edited(model, requests=[TokenRequest((5,), (4,))])
    first.apply()
    second.apply()
    for name, delta in first.deltas.items():
        expected = (before[name] + delta) + second.deltas[name]
        assert torch.equal(dict(model.named_parameters())[name], expected)
    with pytest.raises(InterpError, match="later edits first"):
        first.revert()
    assert first.applied
    second.revert()
    first.revert()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with pytest.raises(InterpError, match="not applied"):
        first.revert()
    with pytest.raises(InterpError, match="applied already"), first:
        first.apply()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "the block's own edit came off"


def test_keep_leaves_it_on() -> None:
    model = small().eval()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    edit = edited(model, keep=True)
    assert edit.applied
    assert "on" in repr(edit)
    assert not torch.equal(model.blocks[1].mlp.W_out, before["blocks.1.mlp.W_out"])
    edit.revert()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "epsilon", [None, "1e-3", True, math.nan, -1e-3, -math.inf, [1e-3], torch.tensor(1e-3), 1j, float, False]
)
def test_an_epsilon_that_is_no_bound_is_an_error(epsilon: Any) -> None:
    with pytest.raises(ConfigError, match=r"largest change allowed"):
        edited(small(), epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [1, 0, np.float64(1e-3), np.float32(0.5)])
@pytest.mark.usefixtures("unchecked")
def test_a_number_of_another_type_bounds_as_well(epsilon: Any) -> None:
    assert edited(small(), epsilon=epsilon, lr=3.0, steps=2).largest <= float(epsilon)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": [2]}, ModelError, r"layers \[0, 1\]"),
        ({"layers": []}, ModelError, "no layer numbers"),
        ({"layers": [-1]}, ModelError, "no layer numbers"),
        ({"layers": "0"}, ModelError, "no layer numbers"),
        ({"layers": True}, ModelError, "no layer numbers"),
        ({"module": "mlp_ou"}, ModelError, "Did you mean 'mlp_out'"),
        ({"module": "blocks.{layer}.mlp.W_ou"}, ModelError, r"blocks\.\{layer\}\.mlp\.W_out"),
        ({"module": None}, ModelError, "the words are"),
        ({"loss": "prompt_ends"}, ConfigError, "Did you mean 'prompt_end'"),
        ({"steps": 0}, ConfigError, "steps 0"),
        ({"steps": 2.5}, ConfigError, "steps 2.5"),
        ({"lr": 0}, ConfigError, "lr 0"),
        ({"lr": math.nan}, ConfigError, "lr nan"),
        ({"lr": "5e-4"}, ConfigError, "lr '5e-4'"),
        ({"weight_decay": -1.0}, ConfigError, "weight_decay"),
        ({"stop_below": None}, ConfigError, "stop_below"),
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"requests": []}, DataError, "there is none"),
        ({"requests": ASK}, DataError, "Give a list"),
        ({"requests": {"prompt": "{}", "subject": "a", "target_new": "b"}}, DataError, "Give a list"),
        ({"requests": [3]}, DataError, "it is a int"),
        (
            {"requests": [{"prompt": "{} is", "subjekt": "a", "target_new": "b"}]},
            DataError,
            "'subjekt' is none of its keys. Did you mean 'subject'",
        ),
        ({"requests": [EditRequest("{} is", "a", "b")]}, DataError, "has no tokenizer"),
        ({"requests": [TokenRequest((1, 11), (2,))]}, DataError, "vocabulary"),
        ({"requests": [TokenRequest((1,), (11,))]}, DataError, "vocabulary"),
        ({"requests": [TokenRequest((1,) * 9, (2, 3))]}, DataError, "context"),
    ],
)
def test_mistakes_are_told(options: dict, error: type, message: str) -> None:
    model = small().eval()
    before = state(model)
    with pytest.raises(error, match=message):
        edited(model, **options)
    same(before, state(model))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("prompt", "subject", "target"),
    [("is in", "a", "b"), ("{} and {}", "a", "b"), ("{}", "", "b"), ("{}", "a", " "), ("{}", None, "b"), (3, "a", "b")],
)
def test_requests_that_say_nothing_are_refused(prompt: Any, subject: Any, target: Any) -> None:
    with pytest.raises(DataError):
        EditRequest(prompt, subject, target)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "parts",
    [((), (1,)), ((1,), ()), ((1.5,), (1,)), ((True,), (1,)), ((-1,), (1,)), ((1,), (2,), (False,)), ((1,), (2,), (True, True))],
)
def test_ids_that_say_nothing_are_refused(parts: Any) -> None:
    with pytest.raises(DataError):
        TokenRequest(*parts)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mask", [[[1, 0, 1]], [[0, 0, 0]], [[2, 1, 1]], [[1, 1, 1, 1]]])
def test_a_mask_with_holes_is_refused(mask: list) -> None:
    with pytest.raises(DataError):
        requests_from_batch(torch.tensor([[1, 2, 3]]), torch.tensor(mask), [[1]])


def test_weights_that_the_model_does_not_use_are_an_error() -> None:
    model = zoo("gpt2")  # its bridge computes with split q, k and v: the joint matrix is a copy that nothing reads
    with pytest.raises(ModelError, match=r"attn\.qkv\.weight.*does not depend"):
        edited(model, module="transformer.h.{layer}.attn.qkv")
    edited(model, module="transformer.h.{layer}.attn.q")


@pytest.mark.parametrize("name", BRIDGES)
def test_words_mean_the_same_on_every_bridge(name: str) -> None:
    shapes = {word: edited(zoo(name), module=word).deltas for word in ("mlp_out", "mlp_in", "attn_out")}
    assert {tuple(sorted(next(iter(deltas.values())).shape)) for word, deltas in shapes.items() if "mlp" in word} == {(24, 40)}
    assert all(next(iter(deltas.values())).numel() == 24 * 24 for word, deltas in shapes.items() if word == "attn_out")


def test_a_loss_that_is_not_a_number_stops_it() -> None:
    model = small().eval()
    with torch.no_grad():
        model.unembed.bias[3] = math.nan
    before = model.blocks[1].mlp.W_out.detach().clone()
    with pytest.raises(ModelError, match="loss is nan at step 0"):
        edited(model)
    assert torch.equal(model.blocks[1].mlp.W_out, before)


def test_models_that_do_not_predict_the_next_token_are_refused() -> None:
    with pytest.raises(ModelError, match="next token"):
        edited(small(causal=False))
    with pytest.raises(ModelError, match="next token"):
        edited(hf_model("bert"), module="bert.encoder.layer.{layer}.output.dense")
    with pytest.raises(ModelError, match="neither a hooked model"):
        edited(torch.nn.Linear(3, 3))


def test_an_edited_model_is_measured_as_any_other() -> None:
    model, tokens = small().eval(), torch.tensor([ASK.prompt])
    from tests.models.zoo import OUTPUT, Reads

    edit, before, after = edited(model, epsilon=math.inf, lr=0.1), Reads(OUTPUT), Reads(OUTPUT)
    first = run(model, tokens, [before])["reads"]
    with edit:
        second = run(model, tokens, [after])["reads"]
    assert first.provenance.weights != second.provenance.weights
    assert not torch.equal(before.found[OUTPUT], after.found[OUTPUT])
