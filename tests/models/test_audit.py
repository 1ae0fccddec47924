"""The audit's table against what is known of each kind of model, and against what `run` then accepts."""

from typing import Any

import pytest
import torch

from interp.errors import DataError, SiteError
from interp.models import audit
from interp.models.audit import NO_SITE, THROUGH_ATTN_OUT
from interp.sites import KINDS, Site
from tests.models.zoo import BRIDGES, KINDS_OF_MODEL, N_LAYERS, TL, Edits, audited, logits, own_model, read, tokens, zoo


def edit(model: Any, site: Site) -> None:
    logits(model, Edits(lambda x: x, site))


every_kind = pytest.mark.parametrize("name", KINDS_OF_MODEL)

ATTENTION = {"q", "k", "v", "attn_scores", "pattern", "z", "attn_out", "resid_pre", "resid_post", "embed"}
MLP = {"mlp_out", "mlp_pre", "mlp_post"}
NORM = ("hook_scale", "hook_normalized")


def norms(*names: str) -> set[str]:
    return {f"blocks.{layer}.{name}.{hook}" for layer in range(N_LAYERS) for name in names for hook in NORM}


ROTARY_AND_GATED = {
    f"blocks.{layer}.{hook}"
    for layer in range(N_LAYERS)
    for hook in ("attn.hook_rot_q", "attn.hook_rot_k", "mlp.hook_pre_linear")
}
WRITABLE = {
    "native": ATTENTION - {"attn_scores"} - ({"pattern"} if TL < (4, 0) else set()) | MLP | {"resid_mid", "pos_embed"},
    "gpt2": ATTENTION | MLP | {"resid_mid", "pos_embed"},
    "gpt2-compatible": ATTENTION | MLP | {"resid_mid", "pos_embed"},
    "llama": ATTENTION | MLP | {"resid_mid"},
    "neox": ATTENTION | MLP,
    "hooked-transformer": ATTENTION | MLP | {"resid_mid", "pos_embed"},
    "conv-attn": ATTENTION | {"conv", "pos_embed"},
    "attn-attn": ATTENTION,
    "smeared-key": ATTENTION | {"blocks.0.attn.hook_k_unsmeared"},
    "transformer": ATTENTION | MLP | {"resid_mid", "pos_embed"} | norms("ln1", "ln2") | {f"ln_final.{hook}" for hook in NORM},
    "transformer-post": ATTENTION | MLP | norms("ln_mid", "ln_post") | ROTARY_AND_GATED,
    "own": ATTENTION | {"resid_mid", "mlp_out"},
}
READ_ONLY = {"native": {"pattern"}, "transformer-post": {"resid_mid"}}


@every_kind
def test_what_can_be_written_in_each_kind_of_model(name: str) -> None:
    found = audited(name)
    assert {site.kind for site in found.writable()} == WRITABLE[name]
    for layer in range(zoo(name).cfg.n_layers):
        assert {site.kind for site in found.writable() if site.layer in (None, layer)} == WRITABLE[name]
    readable = {site.kind for site in found.readable()}
    assert readable == WRITABLE[name] | READ_ONLY.get(name, set())


@every_kind
def test_run_accepts_what_the_audit_says_and_nothing_else(name: str) -> None:
    model = zoo(name)
    for report in audited(name).reports:
        if report.site.layer:
            continue
        for can, attempt in ((report.readable, read), (report.writable, edit)):
            if can:
                attempt(model, report.site)
            else:
                assert report.note
                with pytest.raises(SiteError):
                    attempt(model, report.site)


@pytest.mark.parametrize("name", BRIDGES)
def test_the_route_of_resid_mid_is_told(name: str) -> None:
    note = audited(name)[Site("resid_mid", 1)].note
    assert note == (NO_SITE if name == "neox" else THROUGH_ATTN_OUT)


def test_sites_of_a_users_own_names_are_tried_too() -> None:
    silent = audited("own")[Site("hook_silent")]
    assert silent.exists and silent.fires == 0 and not silent.readable and "never fires" in silent.note


def test_a_hook_that_fires_twice_and_one_whose_result_is_not_used() -> None:
    model = own_model()
    first, second = model.blocks
    second.attn = first.attn  # shared: its hook points fire in both layers
    first.hook_mlp_out.forward = lambda x: x
    first.mlp.register_forward_hook(lambda module, inputs, output: output * 0)
    model.setup()
    found = audit(model, tokens())
    assert found[Site("z", 0)].fires == 2 and "fires 2 times" in found[Site("z", 0)].note
    assert found[Site("mlp_out", 0)].writable


def test_a_layer_without_effect_is_writable_all_the_same() -> None:
    """Weights of zero (a head that does nothing) are not a dropped edit."""
    model = own_model()
    with torch.no_grad():
        model.blocks[1].attn.W_O.zero_()
    found = audit(model)
    assert found[Site("z", 1)].writable and found[Site("pattern", 1)].writable
    zeroed = logits(model, Edits(lambda x: x * 0, Site("pattern", 1)))
    torch.testing.assert_close(zeroed, logits(model))


def test_given_sites_only_and_a_look_at_the_result() -> None:
    found = audit(zoo("gpt2"), tokens(), sites=[Site("z", 1), Site("conv"), Site("blocks.0.ln2.hook_in")])
    assert [report.exists for report in found.reports] == [True, False, True]
    frame = found.to_frame()
    assert list(frame.columns) == ["kind", "layer", "exists", "fires", "readable", "writable", "note"]
    assert frame.layer.isna().tolist() == [False, True, True]
    with pytest.raises(SiteError, match="not among the sites"):
        found[Site("q", 0)]


def test_the_table_puts_equal_layers_together() -> None:
    text = str(audited("gpt2"))
    assert len(text.splitlines()) == 2 + len(KINDS)
    row = next(line for line in text.splitlines() if line.startswith("resid_mid"))
    assert row.split()[:6] == ["resid_mid", f"0-{N_LAYERS - 1}", "yes", "yes", "yes", "yes"]
    html = audited("own")._repr_html_()
    assert "hook_silent" in html and "never fires in this model&#x27;s forward pass" in html


def test_without_a_known_vocabulary_tokens_are_needed() -> None:
    model = own_model()
    del model.cfg.d_vocab
    with pytest.raises(DataError, match="how large its vocabulary is"):
        audit(model)
    assert audit(model, tokens()).writable()
