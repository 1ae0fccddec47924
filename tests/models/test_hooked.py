"""Hook points for plain modules: a homemade attention classifier, a Hugging Face GPT-2 and a BERT-like encoder, untouched."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.errors import DataError, ModelError, SiteError
from interp.models import HookedModule, Input, Output, audit, hooked
from interp.models.audit import NO_SITE
from interp.running import edited
from interp.sites import Site
from tests.models.zoo import D_HEAD, D_MODEL, D_VOCAB, N_CTX, N_HEADS, N_LAYERS, Edits, hf_model, logits, read, tokens, zoo

N_CLASSES = 5


class HomemadeAttention(nn.Module):
    """As people write it: returns (context, weights), heads side by side in the context."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(D_MODEL, D_MODEL) for _ in range(3))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (layer(x).unflatten(-1, (N_HEADS, D_HEAD)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        weights = self.softmax(q @ k.transpose(-1, -2))
        context = (weights @ v).transpose(1, 2).flatten(2)
        return context, weights


class Classifier(nn.Module):
    """One attention layer over the whole sequence, the mean over positions, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.attention = nn.Embedding(D_VOCAB, D_MODEL), HomemadeAttention()
        self.never_called, self.classes = nn.Linear(D_MODEL, 2), nn.Linear(D_MODEL, N_CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        context, _ = self.attention(self.embedding(ids))
        return self.classes(context.mean(1))


def classifier() -> Classifier:
    torch.manual_seed(7)
    return Classifier().eval()


HOMEMADE: dict[str, Any] = {
    "embed": "embedding",
    "q": Output("attention.query", heads=N_HEADS),
    "k": Output("attention.key", heads=N_HEADS),
    "v": Output("attention.value", heads=N_HEADS),
    "pattern": "attention.softmax",
    "z": Output("attention", index=0, heads=N_HEADS),
    "returned_weights": Output("attention", index=1),
}
HF_ATTENTION = "bert.encoder.layer.{layer}.attention"
BERT: dict[str, Any] = {
    "embed": "bert.embeddings",
    "resid_pre": Input("bert.encoder.layer.{layer}"),
    "q": Output(f"{HF_ATTENTION}.self.query", heads=N_HEADS),
    "k": Output(f"{HF_ATTENTION}.self.key", heads=N_HEADS),
    "v": Output(f"{HF_ATTENTION}.self.value", heads=N_HEADS),
    "pattern": Output(f"{HF_ATTENTION}.self", index=1),
    "z": Output(f"{HF_ATTENTION}.self", index=0, heads=N_HEADS),
    "attn_out": f"{HF_ATTENTION}.output.dense",
    "mlp_out": "bert.encoder.layer.{layer}.output.dense",
    "resid_post": "bert.encoder.layer.{layer}",
}
GPT2: dict[str, Any] = {
    "embed": "transformer.wte",
    "pos_embed": "transformer.wpe",
    "resid_pre": Input("transformer.h.{layer}"),
    **{
        kind: Output("transformer.h.{layer}.attn.c_attn", columns=(place * D_MODEL, (place + 1) * D_MODEL), heads=N_HEADS)
        for place, kind in enumerate("qkv")
    },
    "pattern": Output("transformer.h.{layer}.attn", index=1),
    "z": Input("transformer.h.{layer}.attn.c_proj", heads=N_HEADS),
    "attn_out": Output("transformer.h.{layer}.attn", index=0),
    "mlp_pre": "transformer.h.{layer}.mlp.c_fc",
    "mlp_post": Input("transformer.h.{layer}.mlp.c_proj"),
    "mlp_out": "transformer.h.{layer}.mlp",
    "resid_post": "transformer.h.{layer}",
}
CASES = {"classifier": (classifier, HOMEMADE), "bert": (lambda: hf_model("bert"), BERT), "gpt2": (lambda: hf_model("gpt2"), GPT2)}
every_case = pytest.mark.parametrize("case", CASES)


def made(case: str) -> tuple[nn.Module, HookedModule]:
    build, sites = CASES[case]
    module = build()
    return module, hooked(module, sites)


def output(module: nn.Module) -> Tensor:
    with torch.no_grad():
        found = module(tokens())
    return found if isinstance(found, Tensor) else found.logits


@every_case
def test_the_module_is_unchanged_and_works_on(case: str) -> None:
    module = CASES[case][0]()
    before, names = output(module), [name for name, _ in module.named_modules()]
    model = hooked(module, CASES[case][1])
    assert torch.equal(logits(model), before)
    logits(model, Edits(lambda x: x * 2, Site("z", 0) if case != "bert" else Site("resid_post", 0)))
    assert torch.equal(output(module), before)
    assert [name for name, _ in module.named_modules()] == names
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
    assert not any(each.training for each in module.modules())


def test_the_mode_of_the_module_is_kept() -> None:
    module = classifier()
    module.attention.train()
    hooked(module, HOMEMADE)
    assert module.attention.training and not module.training


@every_case
def test_the_wrapper_passes_the_audit(case: str) -> None:
    """Attention weights that are only returned can be read, not written; all else both."""
    found = audit(made(case)[1])
    only_returned = {"classifier": {"returned_weights"}, "bert": {"pattern"}, "gpt2": {"pattern"}}[case]
    for report in found.reports:
        if report.note != NO_SITE:
            assert report.readable and report.writable == (report.site.kind not in only_returned), report
    assert {site.kind for site in found.readable()} == set(CASES[case][1])


def test_an_edit_of_weights_that_are_only_returned_raises() -> None:
    with pytest.raises(SiteError, match="editing pattern layer 1: the model drops"):
        logits(made("gpt2")[1], Edits(lambda x: x * 0, Site("pattern", 1)))


def test_gpt2_reads_and_edits_are_those_of_the_bridge() -> None:
    """The same weights opened by TransformerLens are the reference."""
    _, model = made("gpt2")
    bridge = zoo("gpt2")
    sites = [site for site in audit(model).readable() if site.kind != "pos_embed"]
    theirs = read(bridge, *sites)
    for site, ours in read(model, *sites).items():
        torch.testing.assert_close(ours, theirs[site], rtol=1e-4, atol=1e-5, msg=str(site))
    for site in (Site("z", 1), Site("k", 0), Site("v", 1), Site("resid_pre", 1), Site("mlp_post", 0)):
        edit = Edits(lambda x: x.flip(-1) * 0.5, site)
        torch.testing.assert_close(logits(model, edit), logits(bridge, edit), rtol=1e-4, atol=1e-5, msg=str(site))


def test_probes_on_wrapped_modules() -> None:
    model, bridge = made("gpt2")[1], zoo("gpt2")
    ids = interp.repeated_tokens(bridge, n_sequences=3, period=6)
    ours, theirs = (interp.induction_scores(each, ids, period=6).values for each in (model, bridge))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert interp.key_smear(made("classifier")[1], n_examples=4, length=5).values.shape == (1, N_HEADS)


def test_reads_in_the_homemade_layer_worked_out_by_hand() -> None:
    module, model = made("classifier")
    found = read(model, *(Site(kind, 0) for kind in "qkvz"), Site("pattern", 0), Site("returned_weights"))
    with torch.no_grad():
        context, weights = module.attention(module.embedding(tokens()))
    assert torch.equal(found[Site("z", 0)], context.unflatten(-1, (N_HEADS, D_HEAD)))
    assert torch.equal(found[Site("pattern", 0)], weights) and torch.equal(found[Site("returned_weights")], weights)
    v = torch.einsum("bhqk,bkhe->bqhe", weights, found[Site("v", 0)])
    torch.testing.assert_close(v, found[Site("z", 0)])


def test_an_edit_of_the_pattern_and_of_a_head_worked_out_by_hand() -> None:
    module, model = made("classifier")

    def first_key(pattern: Tensor) -> Tensor:
        return torch.zeros_like(pattern).index_fill(-1, torch.tensor([0]), 1.0)

    with torch.no_grad():
        expected = module.classes(module.attention.value(module.embedding(tokens()))[:, 0])
    torch.testing.assert_close(logits(model, Edits(first_key, Site("pattern", 0))), expected)

    def no_head_2(z: Tensor) -> Tensor:
        z[:, :, 2] = 0
        return z

    mutilated = copy.deepcopy(module)
    with torch.no_grad():
        mutilated.classes.weight[:, 2 * D_HEAD : 3 * D_HEAD] = 0
    torch.testing.assert_close(logits(model, Edits(no_head_2, Site("z", 0))), output(mutilated))


def test_gradients_flow_through() -> None:
    _, model = made("classifier")
    kept: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        kept.append(x.detach().requires_grad_())
        return kept[0]

    with edited(model, [Edits(leaf, Site("z", 0))]):
        metric = model(tokens())[:, 3].sum()
    (gradient,) = torch.autograd.grad(metric, kept)
    weight = model.wrapped.classes.weight[3].unflatten(0, (N_HEADS, D_HEAD)) / tokens().shape[1]
    torch.testing.assert_close(gradient, weight.expand_as(gradient))


def test_what_is_known_of_the_shape() -> None:
    config = made("bert")[1].cfg
    assert (config.n_layers, config.n_heads, config.d_vocab, config.n_ctx) == (N_LAYERS, N_HEADS, D_VOCAB, N_CTX)
    config = made("classifier")[1].cfg
    assert (config.n_layers, config.n_heads, config.d_vocab, config.n_ctx, config.dtype) == (
        1,
        N_HEADS,
        D_VOCAB,
        None,
        torch.float32,
    )
    given = hooked(classifier(), {"z": Output("attention", 0, N_HEADS)}, d_vocab=7, n_ctx=9, n_heads=2).cfg
    assert (given.n_heads, given.d_vocab, given.n_ctx) == (2, 7, 9)


def test_an_unknown_vocabulary_is_said_and_not_guessed() -> None:
    module = classifier()
    module.another = nn.Embedding(3, 4)
    with pytest.raises(DataError, match="how large its vocabulary is"):
        interp.induction_scores(hooked(module, HOMEMADE))


class SequenceFirst(nn.Module):
    """Positions before examples inside, heads before positions, one attention map without a head axis, a mapping returned."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.turn, self.split, self.mean = nn.Embedding(D_VOCAB, D_MODEL), Turn(), Split(), Means()

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        turned = self.turn(self.embedding(ids))
        split = self.split(turned.transpose(0, 1))
        return {"scores": self.mean(split)["context"].sum(1)}


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) * 1


class Split(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (N_HEADS, D_HEAD)).transpose(1, 2)


class Means(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        n = x.shape[2]
        return {"weights": torch.full((len(x), n, n), 1 / n), "context": x.mean(2)}


def test_layouts_mappings_and_a_function_for_the_logits() -> None:
    module = SequenceFirst().eval()
    sites = {
        "resid_pre": Output("turn", layout="pos batch d_model"),
        "v": Output("split", layout="batch head pos d_head"),
        "pattern": Output("mean", index="weights", heads=1),
        "means": Output("mean", index="context"),
    }
    model = hooked(module, sites, logits=lambda found: found["scores"])
    found = read(model, Site("resid_pre", 0), Site("v", 0), Site("pattern", 0), Site("means"))
    x = module.embedding(tokens()).detach()
    assert torch.equal(found[Site("resid_pre", 0)], x)
    assert torch.equal(found[Site("v", 0)], x.unflatten(-1, (N_HEADS, D_HEAD)))
    assert found[Site("pattern", 0)].shape == (3, 1, 11, 11)
    assert [report.writable for report in audit(model).reports if report.exists] == [True, True, False, True]

    def second_head(v: Tensor) -> Tensor:
        v[:, :, 1] *= 3
        return v

    expected = x.unflatten(-1, (N_HEADS, D_HEAD)).mean(1)
    expected[:, 1] *= 3
    torch.testing.assert_close(logits(model, Edits(second_head, Site("v", 0))), expected.sum(1))


def test_wrong_paths_list_near_names() -> None:
    with pytest.raises(ModelError, match=r"'attention.querry': there is none.*Did you mean 'attention.query'.*attention.softmax"):
        hooked(classifier(), {"q": "attention.querry"})
    with pytest.raises(ModelError, match=r"layr\.\{layer\}'.*bert.encoder.layer.\{layer\}"):
        hooked(hf_model("bert"), {"resid_post": "bert.encoder.layr.{layer}"})
    with pytest.raises(ModelError, match="'embed' has no layers"):
        hooked(hf_model("bert"), {"embed": "bert.encoder.layer.{layer}"})
    with pytest.raises(ModelError, match="no sites"):
        hooked(classifier(), {})
    with pytest.raises(ModelError, match="that name is taken"):
        hooked(classifier(), {"forward": "attention"})


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (
            {"z": Output("attention", index=2, heads=N_HEADS)},
            r"returns a tuple of 2 \(a tensor \(3, 11, 24\), .*no tensor at index 2",
        ),
        ({"z": Output("attention", heads=N_HEADS)}, "no tensor at index None"),
        ({"z": Output("attention", index=0)}, r"shape \(3, 11, 24\), which does not fit the axes \(batch pos head d_head\)"),
        ({"z": Output("attention", index=0, heads=7)}, r"shape \(3, 11, 24\), which does not fit"),
        ({"pattern": Output("attention", index=1, heads=1)}, r"shape \(3, 4, 11, 11\), which does not fit"),
        ({"embed": "never_called"}, "'never_called' is not called in the forward pass"),
        ({"embed": Output("embedding", columns=(0, 25))}, r"columns \(0, 25\): the last axis .* has 24 of them"),
        ({"embed": Output("embedding", columns=(22, 30))}, r"columns \(22, 30\)"),
        ({"embed": Output("embedding", columns=(30, 40))}, r"columns \(30, 40\)"),
        ({"embed": Output("embedding", columns=(6, 6))}, r"0 ≤ start < stop ≤ 24"),
        ({"embed": Output("embedding", columns=(-6, 24))}, r"columns \(-6, 24\)"),
        (HOMEMADE | {"z": Output("attention", index=0, heads=3)}, r"site z layer 0 of a module with n_heads=4: .* has 3 heads"),
        (HOMEMADE | {"k": Output("attention.key", heads=3)}, r"has 3 heads, which do not divide among them"),
    ],
)
def test_sites_that_do_not_fit(sites: dict, message: str) -> None:
    model = hooked(classifier(), sites)
    with pytest.raises(SiteError, match=message):
        logits(model)
    assert not any(each._forward_hooks for each in model.wrapped.modules())


def test_attention_weights_that_are_none() -> None:
    model = hf_model("bert")
    model.set_attn_implementation("sdpa")
    with pytest.raises(SiteError, match="attn_implementation='eager'"):
        logits(hooked(model, {"pattern": Output(f"{HF_ATTENTION}.self", index=1)}))


def test_logits_that_are_not_found() -> None:
    with pytest.raises(ModelError, match="returns a BaseModelOutput.*logits="):
        logits(hooked(hf_model("bert").bert, {"embed": "embeddings"}))


def test_a_submodule_used_twice_is_not_read_as_one() -> None:
    module = classifier()
    module.classes = nn.Sequential(module.attention.query, nn.Linear(D_MODEL, N_CLASSES)).eval()
    with pytest.raises(SiteError, match="fires 2 times"):
        read(hooked(module, {"other": "attention.query"}), Site("other"))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_module_or_no_place_is_refused() -> None:
    for module, sites in ((3, {"z": "a"}), (Classifier(), ["embedding"]), (Classifier(), {"embed": None})):
        with pytest.raises(ModelError):
            hooked(module, sites)
    with pytest.raises(ModelError, match="Did you mean 'pattern'"):
        hooked(Classifier(), {"patern": Output("{layer}", index=1)})


@pytest.mark.parametrize("n_heads", [3, 5])
def test_a_wrong_number_of_heads_is_refused_by_whatever_reads_them(n_heads: int) -> None:
    model = hooked(classifier(), HOMEMADE, n_heads=n_heads)
    last = interp.metrics.from_callable(lambda logits, ids: logits[:, 0])
    for measure in (
        lambda: interp.ablation_sweep(model, tokens(), last, mode="zero", progress=False),
        lambda: interp.key_smear(model, n_examples=2, length=6),
        lambda: logits(model),
    ):
        with pytest.raises(SiteError, match=f"n_heads={n_heads}: .* has 4 heads"):
            measure()


def test_keys_that_a_group_of_heads_shares_fit() -> None:
    model = hooked(classifier(), {"k": Output("attention.key", heads=2), "z": Output("attention", index=0, heads=N_HEADS)})
    assert read(model, Site("k", 0))[Site("k", 0)].shape[2] == 2
    assert interp.key_smear(model, n_examples=2, length=6).values.shape == (1, N_HEADS)


class _Blocks(nn.Module):
    """Two layers of homemade attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(D_VOCAB, D_MODEL), nn.Embedding(N_CTX, D_MODEL)
        self.layers = nn.ModuleList(HomemadeAttention() for _ in range(2))
        self.classes = nn.Sequential(nn.Linear(D_MODEL, D_MODEL), nn.Linear(D_MODEL, N_CLASSES))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + layer(x)[0]
        return self.classes(x.mean(1))


def test_one_layer_of_several_is_not_taken_for_the_only_one() -> None:
    module = _Blocks().eval()
    for path in ("layers.0.softmax", "layers.1.softmax"):
        with pytest.raises(ModelError, match=r"one layer, and 2 layers have it. Write 'layers.\{layer\}.softmax'"):
            hooked(module, {"pattern": path})
    with pytest.raises(ModelError, match="'blocks.1.attn.hook_pattern'"):
        hooked(module, {"pattern": "layers.1.softmax"})
    both = read(hooked(module, {"pattern": "layers.{layer}.softmax"}), Site("pattern", 0), Site("pattern", 1))
    alone = hooked(module, {"blocks.1.attn.hook_pattern": "layers.1.softmax"})
    assert torch.equal(read(alone, Site("pattern", 1))[Site("pattern", 1)], both[Site("pattern", 1)])
    assert not torch.equal(both[Site("pattern", 0)], both[Site("pattern", 1)])
    assert hooked(module, {"mlp_out": "classes.1", "seen": "layers.0.softmax"}), "the maps of a Sequential are no layers"


def test_a_module_without_submodules_says_so() -> None:
    with pytest.raises(ModelError, match="hooking submodule 'foo': this module has no submodules. Give the module that holds it"):
        hooked(nn.Linear(2, 3), {"pattern": "foo"})


def test_what_is_not_known_of_a_hooked_module_is_named_where_it_is_given() -> None:
    model = hooked(_Blocks().eval(), {"pattern": "layers.{layer}.softmax"})
    with pytest.raises(DataError, match=r"how large its vocabulary is.*interp.hooked\(…, d_vocab=…\)"):
        interp.induction_scores(model)
    with pytest.raises(ModelError, match="weights of a HookedModule: they are not where.*no blocks.layer..attn.W_O.*head_scores"):
        interp.copying_scores(model)
    known = hooked(model.wrapped, {"pattern": "layers.{layer}.softmax"}, d_vocab=D_VOCAB, n_ctx=N_CTX)
    found = interp.head_scores(known, period=3, scores=["entropy"], bidirectional=True)
    assert found.values.shape == (1, 2, N_HEADS)
