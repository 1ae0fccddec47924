"""Analysis leaves a model, the caller's tensors and the caller's hooks as they were, also when it is broken off."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import InterpError, SiteError
from interp.models import audit
from interp.running import edited
from interp.sites import Site
from tests.models.zoo import (
    BRIDGES,
    KINDS_OF_MODEL,
    Edits,
    OwnAttention,
    OwnModel,
    Reads,
    hf_bridge,
    logits,
    own_model,
    read,
    tokens,
    zoo,
)

every_kind = pytest.mark.parametrize("name", KINDS_OF_MODEL)
Z = Site("z", 0)


def state(model: Any) -> dict[str, Any]:
    """All that analysis must not change."""
    config = {key: repr(value) for key, value in vars(model.cfg).items()} if hasattr(model.cfg, "__dict__") else {}
    points = {id(point): point for point in model.hook_dict.values()}.values()
    return {
        "modes": [module.training for root in (model, getattr(model, "original_model", model)) for module in root.modules()],
        "hooks": [[len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)] for m in model.modules()],
        "lens hooks": [[handle.user_hook if hasattr(handle, "user_hook") else handle for handle in p.fwd_hooks] for p in points],
        "requires grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "weights": [parameter.detach().clone() for parameter in model.parameters()],
        "versions": [parameter._version for parameter in model.parameters()],
        "level": model.context_level,
        "config": config,
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b


def unchanged(model: Any, before: dict[str, Any]) -> None:
    after = state(model)
    for what, was in before.items():
        assert same(was, after[what]) if not isinstance(was, dict) else was == after[what], what


def raising(error: BaseException) -> Callable[[Tensor], Tensor]:
    def function(activation: Tensor) -> Tensor:
        raise error

    return function


@every_kind
@pytest.mark.parametrize("train", [False, True])
def test_run_and_audit_leave_everything_as_it_was(name: str, train: bool) -> None:
    model = zoo(name)
    frozen = next(iter(model.parameters()))
    try:
        model.train(train)
        next(iter(model.modules())).training = True  # a mixed mode must come back mixed
        frozen.requires_grad_(False)
        with torch.no_grad():
            model(tokens())  # transformers puts recording hooks of its own on a model when it is first called
        before = state(model)
        logits(model, Edits(lambda x: x * 2, Z))
        audit(model)
        unchanged(model, before)
    finally:
        frozen.requires_grad_(True)
        model.eval()


def test_a_model_in_train_mode_is_run_in_eval_mode() -> None:
    model = hf_bridge("gpt2")
    expected = logits(model)
    model.train()
    with torch.no_grad():
        assert not torch.equal(model(tokens()), expected)  # dropout
    assert torch.equal(logits(model, Edits(lambda x: x, Z)), expected)


@every_kind
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["exception", "interrupt"])
@pytest.mark.parametrize("where", ["edit", "read", "edited"])
def test_also_after_an_exception_or_an_interrupt(name: str, error: BaseException, where: str) -> None:
    model = zoo(name)
    logits(model, Edits(lambda x: x, Z))
    before = state(model)
    broken = Edits(raising(error), Z)
    with pytest.raises(type(error)):
        if where == "edit":
            logits(model, broken)
        elif where == "edited":
            with edited(model, [broken]):
                model(tokens())
        else:

            class Broken(Reads):
                def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
                    raise error

            interp.run(model, tokens(), [Broken(Z)])
    unchanged(model, before)
    assert logits(model).isfinite().all()


@every_kind
def test_a_users_own_hooks_survive_stay_active_and_are_not_called_by_trials(name: str) -> None:
    model, seen = zoo(name), []
    point = model.hook_dict[Site("resid_pre", 0).hook_name]

    def double(activation: Tensor, hook: Any) -> Tensor:
        seen.append(activation.shape)
        return activation * 2

    plain = logits(model)
    try:
        for permanent in (True, False):
            point.add_hook(double, is_permanent=permanent)
        with torch.no_grad():
            expected = model(tokens())
        assert not torch.allclose(plain, expected)
        seen.clear()
        assert torch.equal(logits(model, Edits(lambda x: x, Site("k", 0))), expected)  # a site that no other test tries first
        assert len(seen) == 2
        audit(model)
        assert len(seen) == 2
        assert len(point.fwd_hooks) == 2
    finally:
        point.remove_hooks("fwd", including_permanent=True)
    assert torch.equal(logits(model), plain)


@every_kind
def test_edits_do_not_reach_the_callers_cache(name: str) -> None:
    model = zoo(name)
    cache = read(model, Z)
    kept = cache[Z].clone()

    def add_in_place(activation: Tensor) -> Tensor:
        return activation.add_(1)

    logits(model, Edits(lambda activation: cache[Z], Z), Edits(add_in_place, Z))
    assert torch.equal(cache[Z], kept)


class InPlace(OwnModel):
    """A model that changes what it has passed through a hook point."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.hook_embed(self.embed(tokens))
        x += 1
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


def test_the_model_does_not_get_to_change_the_callers_tensor_nor_a_reading() -> None:
    model, embed = InPlace().eval(), Site("embed")
    mine = torch.zeros(3, 11, 24)
    found = read(model, embed, edits=[Edits(lambda activation: mine, embed)])
    assert (mine == 0).all() and (found[embed] == 0).all()


def test_a_probe_that_changes_the_activation_is_refused() -> None:
    class Careless(Reads):
        def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
            return activation.zero_()

    for name in ("own", "gpt2"):
        with pytest.raises(InterpError, match="changed the activation"):
            interp.run(zoo(name), tokens(), [Careless(Z)])


@pytest.mark.parametrize("wrong", [lambda x: x[:, :3], lambda x: None, lambda x: 0.0])
def test_an_edit_must_return_a_tensor_of_the_same_shape(wrong: Callable) -> None:
    with pytest.raises(SiteError, match="editing z layer 0"):
        logits(zoo("own"), Edits(wrong, Z))


def test_nested_in_a_users_hooks_context() -> None:
    model = zoo("own")
    with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: x * 0)]):
        inside = logits(model, Edits(lambda x: x, Z))
        assert torch.equal(inside[0], inside[1])  # all tokens look alike while the user's hook is there
        assert torch.equal(logits(model), inside)
    assert not torch.equal(logits(model), inside)


@pytest.mark.parametrize("name", ["own", "gpt2"])
def test_run_and_audit_inside_edited(name: str) -> None:
    """Sites are tried for the first time while other edits stand on the model: neither may disturb the other."""
    model = own_model() if name == "own" else hf_bridge("gpt2")
    outer, inner = Edits(lambda x: x * 2, Z), Edits(lambda x: x + 1, Site("mlp_out", 0))
    together = logits(model, outer, inner)
    fresh = copy.deepcopy(model)
    with edited(fresh, [outer]):
        assert torch.equal(logits(fresh, inner), together)
        assert audit(fresh).writable() == audit(model).writable()
        assert torch.equal(logits(fresh, inner, batch_size=2), logits(model, outer, inner, batch_size=2))
    assert torch.equal(logits(fresh), logits(model))


@pytest.mark.parametrize("name", BRIDGES)
def test_flags_are_not_set(name: str) -> None:
    model = zoo(name)
    flags = {flag: getattr(model.cfg, flag, None) for flag in ("use_attn_result", "use_split_qkv_input", "use_attn_in")}
    read(model, Z)
    audit(model)
    assert {flag: getattr(model.cfg, flag, None) for flag in flags} == flags


def test_a_new_model_is_tried_anew() -> None:
    """What is known of one model is not taken for another of the same class."""
    logits(own_model(), Edits(lambda x: x, Z))
    unused = own_model()
    unused.blocks[0].attn.forward = lambda x: (OwnAttention.forward(unused.blocks[0].attn, x), torch.zeros_like(x))[1]
    with pytest.raises(SiteError, match="the model drops"):
        logits(unused, Edits(lambda x: x, Z))
