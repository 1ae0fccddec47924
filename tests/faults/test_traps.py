"""The ten measured traps of TransformerLens (notes/transformerlens.md, section 0): for each, tests that fail if we fall in."""

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import SiteError
from interp.running import edited
from interp.sites import Site
from tests.models.zoo import (
    D_MODEL,
    KINDS_OF_MODEL,
    N_HEADS,
    N_LAYERS,
    OUTPUT,
    TL,
    Edits,
    OwnBlock,
    OwnModel,
    Reads,
    audited,
    logits,
    read,
    tokens,
    zoo,
)

every_kind = pytest.mark.parametrize("name", KINDS_OF_MODEL)
with_resid_mid = pytest.mark.parametrize(
    "name",
    [
        kind
        for kind in KINDS_OF_MODEL
        if kind.values[0] in ("native", "gpt2", "gpt2-compatible", "llama", "hooked-transformer", "own")
    ],
)


def after_mlp(model: object, layer: int, resid_mid: Tensor) -> Tensor:
    """resid_post from the block's own parts: the reference for writes to resid_mid."""
    block = model.blocks[layer]
    with torch.no_grad():
        return resid_mid + (block.mlp(block.ln2(resid_mid)) if hasattr(block, "ln2") else block.mlp(resid_mid))


@with_resid_mid
@pytest.mark.parametrize("layer", range(N_LAYERS))
@pytest.mark.parametrize("spelled", ["kind", "hook name"])
def test_1_a_write_to_resid_mid_reaches_the_residual_stream(name: str, layer: int, spelled: str) -> None:
    model = zoo(name)
    site = Site("resid_mid", layer) if spelled == "kind" else Site(f"blocks.{layer}.hook_resid_mid")
    new = torch.randn(3, 11, D_MODEL, generator=torch.Generator().manual_seed(0))
    edit = Edits(lambda activation: new, site)
    found = read(model, Site("resid_post", layer), Site("resid_mid", layer), Site("attn_out", layer), edits=[edit])
    torch.testing.assert_close(found[Site("resid_mid", layer)], new, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[Site("resid_post", layer)], after_mlp(model, layer, new), rtol=1e-5, atol=2e-5)
    unedited = read(model, Site("attn_out", layer))[Site("attn_out", layer)]
    assert torch.equal(found[Site("attn_out", layer)], unedited)  # what attention wrote is not what was put in its place


@with_resid_mid
def test_1_the_same_under_grad_and_no_grad(name: str) -> None:
    model, outputs = zoo(name), []
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled), edited(model, [Edits(lambda x: x.flip(1), Site("resid_mid", 0))]):
            outputs.append(model(tokens()).detach())
    with torch.enable_grad():
        outputs.append(logits(model, Edits(lambda x: x.flip(1), Site("resid_mid", 0))))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_1_entries_that_are_not_edited_stay_bit_equal() -> None:
    def one_entry(resid_mid: Tensor) -> Tensor:
        resid_mid[:, 7] += 1
        return resid_mid

    site = Site("resid_mid", 0)
    before, after = read(zoo("gpt2"), site)[site], read(zoo("gpt2"), site, edits=[Edits(one_entry, site)])[site]
    assert torch.equal(before[:, :7], after[:, :7]) and torch.equal(before[:, 8:], after[:, 8:])
    torch.testing.assert_close(after[:, 7], before[:, 7] + 1, rtol=1e-5, atol=1e-5)


def test_1_resid_mid_of_parallel_blocks_is_refused() -> None:
    with pytest.raises(SiteError, match="no 'resid_mid'"):
        logits(zoo("neox"), Edits(lambda x: x, Site("resid_mid", 0)))


class ForkedBlock(OwnBlock):
    """What a bridge does: resid_mid's hook stands on the MLP's branch alone. `scale` breaks resid_mid = resid_pre + attn_out."""

    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        mid = x + self.scale * self.hook_attn_out(self.attn(x))
        return self.hook_resid_post(mid + self.hook_mlp_out(self.mlp(self.hook_resid_mid(mid))))


class ParallelBlock(OwnBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        mlp = self.hook_mlp_out(self.mlp(self.hook_resid_mid(x)))
        return self.hook_resid_post(x + self.hook_attn_out(self.attn(x)) + mlp)


class UnevenBlock(OwnBlock):
    """The MLP sees resid_pre + attn_out, the stream goes on with half of attn_out."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        attn = self.hook_attn_out(self.attn(x))
        return self.hook_resid_post(x + 0.5 * attn + self.hook_mlp_out(self.mlp(self.hook_resid_mid(x + attn))))


def forked(block: type, scale: float = 1.0) -> OwnModel:
    model = OwnModel()
    model.blocks = torch.nn.ModuleList(block() for _ in range(N_LAYERS))
    for each in model.blocks:
        each.scale = scale
    model.setup()
    return model.eval()


def test_1_a_fork_of_ones_own_is_seen_and_mended() -> None:
    model, new = forked(ForkedBlock), torch.randn(3, 11, D_MODEL)
    found = read(model, Site("resid_post", 1), edits=[Edits(lambda x: new, Site("resid_mid", 1))])
    torch.testing.assert_close(found[Site("resid_post", 1)], after_mlp(model, 1, new), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model", [forked(ForkedBlock, scale=0.5), forked(ParallelBlock), forked(UnevenBlock)], ids=["scaled", "parallel", "uneven"]
)
def test_1_a_fork_that_attn_out_cannot_mend_is_refused(model: OwnModel) -> None:
    unedited = logits(model)
    with pytest.raises(SiteError, match="resid_mid layer 1.*only a part of the model"):
        logits(model, Edits(lambda x: x, Site("resid_mid", 1)))
    assert torch.equal(logits(model), unedited)
    assert not interp.models.audit(model)[Site("resid_mid", 1)].writable


@pytest.mark.parametrize("kind", ["attn_scores", "pattern"])
def test_2_edits_that_the_native_bridge_drops_raise(kind: str) -> None:
    model, site = zoo("native"), Site(kind, 1)
    if kind == "pattern" and TL >= (4, 0):
        uniform = Edits(lambda pattern: torch.full_like(pattern, 1 / pattern.shape[-1]), site)
        v, z = Site("v", 1), Site("z", 1)
        found = read(model, v, z, edits=[uniform])
        torch.testing.assert_close(found[z], found[v].mean(1, keepdim=True).expand_as(found[z]))
        return
    for _ in range(2):  # also when it has been tried before
        with pytest.raises(SiteError, match=f"editing {kind} layer 1: the model drops"):
            logits(model, Edits(lambda activation: activation * 0, site))


def test_2_scores_that_are_the_pattern_cannot_be_read_as_scores() -> None:
    with pytest.raises(SiteError, match="after the softmax"):
        read(zoo("native"), Site("attn_scores", 0))


@pytest.mark.parametrize("name", [kind for kind in KINDS_OF_MODEL if kind.values[0] != "native"])
def test_2_elsewhere_scores_are_scores_and_edits_of_them_count(name: str) -> None:
    model, scores, pattern = zoo(name), Site("attn_scores", 0), Site("pattern", 0)
    found = read(model, scores, pattern)
    torch.testing.assert_close(found[scores].softmax(-1), found[pattern])
    after = read(model, pattern, edits=[Edits(lambda x: 2 * x, scores)])[pattern]
    torch.testing.assert_close(after, (2 * found[scores]).softmax(-1))


@every_kind
def test_3_probes_and_edits_get_the_site_asked_for_once(name: str) -> None:
    """A hook's own name may be another; in compatibility mode a hook point has two, and both may be asked for."""
    model, sites = zoo(name), tuple(audited(name).readable())
    probe, edits = Reads(*sites), []

    class Counts(Edits):
        def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
            edits.append(site)
            return activation

    interp.run(model, tokens(), [probe], [Counts(lambda x: x, *audited(name).writable())])
    assert sorted(probe.seen, key=str) == sorted(sites, key=str)
    assert sorted(edits, key=str) == sorted(audited(name).writable(), key=str)


def test_3_two_names_of_one_hook_point_are_one_place() -> None:
    model, z = zoo("gpt2"), Site("z", 1)
    twins = [name for name, point in model.hook_dict.items() if point is model.hook_dict[z.hook_name] and name != z.hook_name]
    assert twins
    twin = Site(twins[0])
    before = read(model, z)[z]
    found = read(model, z, twin, edits=[Edits(lambda x: x + 1, z), Edits(lambda x: x * 2, twin)])
    assert torch.equal(found[z], (before + 1) * 2) and torch.equal(found[twin], found[z])


@every_kind
def test_4_gradients_flow_through_an_edit(name: str) -> None:
    """On bridges the tensor that a hook sees is not the one used unless it is handed back: the gradient must be the true one."""
    model, z, leaves = zoo(name), Site("z", 0), []

    def leaf(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return leaves[-1]

    with edited(model, [Edits(leaf, z)]):
        metric = model(tokens())[:, -1, 5].sum()
    (gradient,) = torch.autograd.grad(metric, leaves)
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-2

    def at(offset: float) -> float:
        return float(logits(model, Edits(lambda x: x + offset * direction, z))[:, -1, 5].double().sum())

    measured = (at(step) - at(-step)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(measured, rel=2e-2, abs=5e-3)


@every_kind
@pytest.mark.parametrize("do", ["read", "edit"])
@pytest.mark.parametrize("site", [Site("hook_nowhere"), Site("blocks.0.attn.hook_result"), Site("q", 7)], ids=str)
def test_5_unknown_and_silent_sites_raise(name: str, do: str, site: Site) -> None:
    model = zoo(name)
    with pytest.raises(SiteError, match="has no '|at layers|never fires|refuses"):
        read(model, site) if do == "read" else logits(model, Edits(lambda x: x, site))
    assert logits(model).isfinite().all()


@pytest.mark.parametrize(
    ("name", "site"), [("own", Site("hook_silent")), ("neox", Site("pos_embed")), ("llama", Site("pos_embed"))]
)
def test_5_a_hook_point_that_exists_but_never_fires_raises(name: str, site: Site) -> None:
    for attempt in (lambda: read(zoo(name), site), lambda: logits(zoo(name), Edits(lambda x: x, site))):
        with pytest.raises(SiteError, match="never fires"):
            attempt()


@pytest.mark.parametrize("name", [kind for kind in KINDS_OF_MODEL if kind.values[0] in ("gpt2", "native", "hooked-transformer")])
def test_6_a_norm_that_fires_for_q_k_and_v_is_not_read_three_times(name: str) -> None:
    site = Site("blocks.0.ln1.hook_scale")
    if name == "hooked-transformer":
        with pytest.raises(SiteError, match="fires 3 times"):
            read(zoo(name), site)
    else:
        assert read(zoo(name), site)[site].shape == (3, 11, 1)


@every_kind
def test_7_an_edit_in_the_last_layer_still_runs_the_first(name: str) -> None:
    """start_at_layer saves nothing on a bridge, or raises, or is ignored: `run` never relies on it."""
    first, last = Site("resid_pre", 0), Site("resid_post", zoo(name).cfg.n_layers - 1)
    found = read(zoo(name), first, OUTPUT, edits=[Edits(lambda x: x * 2, last)])
    assert found[first].shape == (3, 11, D_MODEL) and found[OUTPUT].shape[:2] == (3, 11)


def test_8_toys_return_a_cache_as_transformers_do() -> None:
    _, cache = zoo("conv-attn").run_with_cache(tokens())
    assert cache["pattern", 0].shape == (3, N_HEADS, 11, 11)


@pytest.mark.parametrize("name", ["own", "attn-attn"])
def test_8_scores_need_no_cache_object(name: str) -> None:
    assert interp.previous_token_scores(zoo(name), tokens()).values.shape == (N_LAYERS, N_HEADS)


@every_kind
def test_9_induction_scores_need_neither_tokenizer_nor_gpu_nor_a_large_vocabulary(name: str) -> None:
    assert zoo(name).cfg.d_vocab < 100
    assert interp.induction_scores(zoo(name), period=5, n_sequences=2).values.isfinite().all()


@every_kind
def test_10_one_forward_pass_no_graph_no_output(name: str, capfd: pytest.CaptureFixture) -> None:
    model, calls = zoo(name), []
    site = Site("z", 0)
    logits(model, Edits(lambda x: x, site))  # the first edit of a site is tried first
    handle = model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        with torch.enable_grad():
            found = read(model, OUTPUT, site, edits=[Edits(lambda x: x, site)], batch_size=2)
    finally:
        handle.remove()
    assert calls == [False, False] and not any(tensor.requires_grad for tensor in found.values())
    out, err = capfd.readouterr()
    assert out + err == ""
