"""Ablation: equal to slow obvious loops, neutral when it should be, and gone when its block ends."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import interp
from interp import metrics
from interp.errors import ConfigError, DataError, InterpError, ModelError, SiteError
from interp.interventions import (
    MODES,
    Freeze,
    Replace,
    SetPattern,
    Zero,
    ablate_together,
    ablated,
    ablation_effects,
    ablation_sweep,
    capture,
    cumulative_ablation,
)
from interp.interventions.modes import derangement, drawn
from interp.interventions.patterns import FORMS
from interp.models import AttnAttn, ConvAttn
from interp.sites import Site

D_VOCAB, D_MODEL, N_HEADS, BATCH, POS = 19, 10, 2, 5, 6


def tokens_of(batch: int = BATCH, seed: int = 0) -> torch.Tensor:
    return torch.randint(D_VOCAB, (batch, POS), generator=torch.Generator().manual_seed(seed))


def attention_model(dtype: torch.dtype = torch.float64) -> AttnAttn:
    torch.manual_seed(1)
    return AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS, residual=True, positions=True).to(dtype).eval()


def conv_model() -> ConvAttn:
    torch.manual_seed(2)
    return ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS, positions=True).double().eval()


def answers() -> metrics.Metric:
    return metrics.logit_diff(torch.arange(BATCH), torch.arange(BATCH) + BATCH)


def slow_effect(
    model: AttnAttn, tokens: torch.Tensor, row: int, site: Site, *, mode: str, reference: torch.Tensor | None
) -> float:
    """One example at a time, one hook at a time, straight from the definitions; only the choice of other examples is shared."""
    pool = tokens if reference is None else reference
    outputs = model.run_with_cache(pool)[1][site.hook_name]
    if mode == "resample":
        others = derangement(len(tokens), 7) if reference is None else drawn(len(pool), len(tokens), 7)
        new = outputs[others[row]]
    else:
        new = {"zero": 0 * outputs, "mean": outputs.mean((0, 1)), "position_mean": outputs.mean(0)}[mode].expand_as(outputs)[0]

    def hook(activation: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        activation = activation.clone()
        if site.head is None:
            activation[0] = new
        else:
            activation[0, :, site.head] = new[:, site.head]
        return activation

    logits = model.run_with_hooks(tokens[row : row + 1], fwd_hooks=[(site.hook_name, hook)])
    score = [float(out[0, -1, row] - out[0, -1, row + BATCH]) for out in (logits, model(tokens[row : row + 1]))]
    return score[0] - score[1]


@pytest.mark.parametrize("mode", ["zero", "mean", "position_mean", "resample"])
@pytest.mark.parametrize("referred", [False, True])
@torch.no_grad()
def test_a_sweep_equals_the_slow_loop(mode: str, referred: bool) -> None:
    if mode == "zero" and referred:
        return
    model, tokens = attention_model(), tokens_of()
    reference = tokens_of(8, seed=5) if referred else None
    options = {"mode": mode, "reference": reference, "seed": 7, "batch_size": 2, "progress": False}
    heads = ablation_effects(model, tokens, answers(), **options)
    layers = ablation_effects(model, tokens, answers(), "layers", **options)
    for row in range(BATCH):
        for layer in range(2):
            for head in range(N_HEADS):
                slow = slow_effect(model, tokens, row, Site("z", layer, head=head), mode=mode, reference=reference)
                assert float(heads.values[row, layer, head]) == pytest.approx(slow, abs=1e-12)
            slow = slow_effect(model, tokens, row, Site("attn_out", layer), mode=mode, reference=reference)
            assert float(layers.values[row, layer]) == pytest.approx(slow, abs=1e-12)
    mean = ablation_sweep(model, tokens, answers(), **options)
    torch.testing.assert_close(mean.values, heads.values.mean(0))
    torch.testing.assert_close(mean.stderr, heads.values.std(0) / BATCH**0.5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("components", ["heads", "layers", "conv", "taps"])
def test_no_result_depends_on_the_batch_size(mode: str, components: str) -> None:
    if mode in FORMS and components != "heads":
        return
    model, tokens = conv_model(), tokens_of()
    whole = ablation_effects(model, tokens, answers(), components, mode=mode, progress=False)
    assert whole.values.abs().max() > 1e-3
    for size in (1, 3):
        parts = ablation_effects(model, tokens, answers(), components, mode=mode, batch_size=size, progress=False)
        torch.testing.assert_close(parts.values, whole.values, atol=1e-12, rtol=0)
        assert parts.provenance.tokens == whole.provenance.tokens


@pytest.mark.parametrize("mode", ["zero", "mean", "uniform"])
def test_ablated_equals_the_sweep_and_run_sees_it(mode: str) -> None:
    model, tokens = attention_model(), tokens_of()
    sweep = ablation_effects(model, tokens, metrics.loss(), mode=mode, progress=False)
    intact = metrics.metric_values(model, tokens, metrics.loss()).values
    for layer, head in [(0, 1), (1, 0)]:
        with ablated(model, heads=[(layer, head)], mode=mode):
            inside = metrics.metric_values(model, tokens, metrics.loss()).values
        torch.testing.assert_close(inside - intact, sweep.values[:, layer, head], atol=1e-12, rtol=0)
        with ablated(model, heads=[(layer, head)], mode=mode, **({"reference": tokens} if mode == "mean" else {})):
            batched = metrics.metric_values(model, tokens, metrics.loss(), batch_size=2).values
        torch.testing.assert_close(batched - intact, sweep.values[:, layer, head], atol=1e-12, rtol=0)


def test_edits_that_change_nothing_are_bit_equal() -> None:
    model, tokens = attention_model(torch.float32), tokens_of()
    intact = model(tokens)
    sites = [
        Site("z", 0),
        Site("z", 1, head=1),
        Site("pattern", 0, head=0),
        Site("resid_pre", 1, position=3),
        Site("attn_out", 0),
    ]
    kept = capture(model, tokens, sites, batch_size=2)
    read = metrics.as_metric(lambda logits, tokens: (logits == intact).flatten(1).all(1))
    edits = [*(Replace(site, values) for site, values in kept.items()), Freeze(kept), Freeze(kept, tokens)]
    assert metrics.metric_values(model, tokens, read, edits).values.all()
    assert metrics.metric_values(
        model, tokens[:2], lambda logits, _: (logits == model(tokens[:2])).flatten(1).all(1), [Freeze(kept, tokens)]
    ).values.all()
    alone = torch.full((BATCH, 1), 4)
    for form in FORMS:  # a single token can only attend to itself
        with ablated(model, heads=[(0, 0), (1, 1)], mode=form):
            ablation = model(alone)
        assert torch.equal(ablation, model(alone))
    same = tokens[:1].repeat(4, 1)
    with ablated(model, heads=[(0, 0)], mode="resample"):
        resampled = model(same)
    assert torch.equal(resampled, model(same)), "every other example is the same one"


def test_edits_reach_the_part_named_and_no_other() -> None:
    model, tokens = attention_model(), tokens_of()
    row = torch.eye(POS, dtype=torch.float64)[1]
    cases = [
        (Zero(Site("z", 1, head=1, position=-2)), (slice(None), -2, 1), 0.0),
        (Replace(Site("resid_pre", 1, position=2), torch.ones(D_MODEL)), (slice(None), 2), 1.0),
        (Replace(Site("pattern", 1, head=0, position=3), row), (slice(None), 0, 3), row),
    ]
    for edit, index, value in cases:
        site = Site(edit.site.kind, 1)
        expected = capture(model, tokens, [site])[site]
        expected[index] = value
        seen = []
        metrics.metric_values(model, tokens, metrics.loss(), [edit, _Seen(site, seen)])
        assert torch.equal(seen[0], expected)


class _Seen(interp.Intervention):
    def __init__(self, site: Site, seen: list):
        self.site, self.seen = site, seen

    def sites(self, model: object) -> list[Site]:
        return [self.site]

    def edit(self, activation: torch.Tensor, site: Site, tokens: torch.Tensor) -> torch.Tensor:
        self.seen.append(activation.clone())
        return activation


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("n_query", "n_key"), [(1, 1), (6, 6), (1, 5), (3, 8)])
def test_set_patterns_are_causal_and_their_rows_sum_to_one(form: str, n_query: int, n_key: int) -> None:
    site = Site("pattern", 0, head=1)
    before = torch.rand(2, 3, n_query, n_key, dtype=torch.float64)
    after = SetPattern(site, form).edit(before.clone(), site, torch.zeros(2, n_key, dtype=torch.long))
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    torch.testing.assert_close(after[:, 1].sum(-1), torch.ones(2, n_query).double(), atol=1e-6, rtol=0)
    assert after[:, 1].triu(n_key - n_query + 1).abs().max() == 0
    reached = (after[:, 1] > 0).sum(-1)
    assert torch.equal(
        reached, torch.arange(n_key - n_query, n_key).expand(2, -1) + 1 if form == "uniform" else torch.ones(2, n_query)
    )


@pytest.mark.parametrize("n", [2, 3, 10, 257])
def test_other_examples_are_never_oneself(n: int) -> None:
    for seed in range(20):
        others = derangement(n, seed)
        assert sorted(others.tolist()) == list(range(n))
        assert (others != torch.arange(n)).all()
    assert torch.equal(derangement(n, 3), derangement(n, 3))
    assert sorted(drawn(n, n, 1).tolist()) == list(range(n))
    assert drawn(2, n, 1).max() <= 1


def hooks_on(model: HookedRootModule) -> int:
    points = model.hook_dict.values()
    return sum(len(point._forward_hooks) for point in points) + len(model._forward_hooks) + len(model._forward_pre_hooks)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["block", "hook"])
def test_everything_is_as_before_whatever_happens(error: type[BaseException], place: str) -> None:
    model, tokens = conv_model().train(), tokens_of()
    model.unembed.eval()
    calls: list[int] = []
    model.hook_dict["hook_conv"].add_hook(lambda t, hook: calls.append(1))
    intact, weights = model(tokens), {name: value.clone() for name, value in model.state_dict().items()}
    modes, before = [module.training for module in model.modules()], hooks_on(model)
    with ablated(model, heads=[(0, 1)]):
        assert not torch.equal(model(tokens), intact)
    assert hooks_on(model) == before

    def fail(activation: torch.Tensor, hook: HookPoint) -> None:
        raise error("on purpose")

    with pytest.raises(error, match="on purpose"), ablated(model, taps=[-1], mode="resample"), ablated(model, heads=[(0, 1)]):
        assert not torch.equal(model(tokens), intact)
        if place == "block":
            raise error("on purpose")
        with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", fail)]):
            model(tokens)
    assert hooks_on(model) == before
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    calls.clear()
    assert torch.equal(model(tokens), intact)
    assert len(calls) == 1, "the user's own hook is still there"


def test_an_exception_is_not_replaced_by_one_about_silent_hooks() -> None:
    with pytest.raises(ZeroDivisionError), ablated(attention_model(), heads=[(0, 0)], mode="zero"):
        1 / 0


def test_blocks_nest() -> None:
    model, tokens = attention_model(), tokens_of()
    with ablated(model, heads=[(0, 1), (1, 0)], mode="zero"):
        both = model(tokens)
    with ablated(model, heads=[(0, 1)], mode="zero"):
        outer = model(tokens)
        with ablated(model, heads=[(1, 0)], mode="zero"):
            assert torch.equal(model(tokens), both)
        assert torch.equal(model(tokens), outer)
    with ablated(model, heads=[(0, 1), (0, 1)], mode="zero"):
        assert torch.equal(model(tokens), outer), "naming a head twice is naming it once"
    fresh = conv_model()  # whose sites nobody tried to write before: the inner block tries its own under the outer one
    with ablated(fresh, taps=[-1], mode="zero"), ablated(fresh, heads=[(0, 1)], mode="zero"):
        nested = fresh(tokens)
    with ablated(fresh, taps=[-1], heads=[(0, 1)], mode="zero"):
        assert torch.equal(fresh(tokens), nested)


def test_gradients_flow_through_an_ablation() -> None:
    model, tokens = attention_model(), tokens_of()
    with ablated(model, heads=[(1, 0)], mode="zero"):
        model(tokens).square().sum().backward()
    gradient = model.blocks[1].attn.W_V.grad
    assert gradient[0].abs().max() == 0 < gradient[1].abs().max()


class Uneven(HookedRootModule):
    """A user's own module: no cfg, two layers, with one and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.unembed = nn.Embedding(D_VOCAB, 6), nn.Linear(6, D_VOCAB)
        self.blocks = nn.ModuleList(nn.ModuleDict({"attn": nn.ModuleDict({"hook_z": HookPoint()})}) for _ in range(2))
        self.setup()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block, heads in zip(self.blocks, (1, 3), strict=True):
            x = block["attn"]["hook_z"](x.unflatten(-1, (heads, -1))).flatten(-2)
        return self.unembed(x)


def test_a_users_own_module_with_uneven_layers() -> None:
    model, tokens = Uneven().eval(), tokens_of()
    sweep = ablation_sweep(model, tokens, metrics.loss(), mode="zero", progress=False)
    assert sweep.values.isnan().tolist() == [[False, True, True], [False, False, False]]
    curves = cumulative_ablation(model, tokens, metrics.loss(), [(1, 2), (0, 0)], draws=2, progress=False)
    assert curves.values.shape == (3, 2)
    with pytest.raises(SiteError, match="3 entries"), ablated(model, heads=[(1, 3)], mode="zero"):
        model(tokens)


def test_undefined_examples_are_counted_and_left_out() -> None:
    model, tokens = attention_model(), tokens_of()
    clean = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    corrupted = clean - torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0])
    metric = metrics.normalized(answers(), clean, corrupted)
    result = ablation_sweep(model, tokens, metric, mode="zero", progress=False)
    plain = ablation_effects(model, tokens, answers(), mode="zero", progress=False)
    assert metric.undefined == 2 and result.count == 3 and "2 of 5 examples" in result.description
    scaled = torch.stack([plain.values[0], plain.values[2] / 2, plain.values[4]])
    torch.testing.assert_close(result.values, scaled.mean(0))
    torch.testing.assert_close(result.stderr, scaled.std(0) / 3**0.5)


def test_what_cannot_be_done_is_refused_with_what_can() -> None:
    model, conv, tokens = attention_model(), conv_model(), tokens_of()

    def entering(match: str, error: type[Exception], target: nn.Module = model, **options: object) -> None:
        with pytest.raises(error, match=match), ablated(target, **options):
            pytest.fail("the block was entered")

    entering(r"layers \[0, 1\]", SiteError, heads=[(2, 0)])
    entering("heads 0 to 1", SiteError, heads=[(0, 2)])
    entering("heads 0 to 1", SiteError, heads=[(0, -1)])
    entering("no 'mlp_out'", SiteError, mlps=[0])
    entering("no 'conv'", SiteError, conv=True)
    entering("only a ConvAttn", ModelError, taps=[-1])
    entering(r"offsets \[-1, 0\]", SiteError, conv, taps=[1])
    entering("parts of it", InterpError, conv, conv=True, taps=[-1])
    entering("nothing was named", InterpError)
    entering("Did you mean 'resample'", ConfigError, heads=[(0, 0)], mode="resampled")
    entering("only heads have", ConfigError, layers=[0], mode="uniform")
    entering("takes nothing", ConfigError, heads=[(0, 0)], mode="zero", reference=tokens)
    entering("has to come first", InterpError, heads=[(0, 0)], mode="frozen")
    with pytest.raises(ConfigError, match="Did you mean 'heads'"):
        ablation_sweep(model, tokens, metrics.loss(), "head", progress=False)
    with pytest.raises(DataError, match="5 entries"):
        ablation_sweep(model, tokens[:3], answers(), progress=False)
    with pytest.raises(DataError, match="no other example"):
        ablation_sweep(model, tokens[:1], metrics.loss(), mode="resample", progress=False)
    with pytest.raises(DataError, match="each head once"):
        cumulative_ablation(model, tokens, metrics.loss(), [(0, 0), (0, 0)], progress=False)
    with pytest.raises(DataError, match="at least one set"):
        ablate_together(model, tokens, metrics.loss(), [], progress=False)


def test_an_ablation_that_did_not_happen_is_an_error() -> None:
    model, conv, tokens = attention_model(), conv_model(), tokens_of()
    with pytest.raises(SiteError, match="never passed there"), ablated(model, heads=[(0, 0)], mode="zero"):
        pass
    with (
        pytest.raises(DataError, match="row 1 of the batch is not among"),
        ablated(model, heads=[(0, 0)], mode="frozen", reference=tokens[:1]),
    ):
        model(tokens)
    with (
        pytest.raises(SiteError, match="values are"),
        ablated(model, heads=[(0, 0)], mode="position_mean", reference=tokens[:, :4]),
    ):
        model(tokens)
    with pytest.raises(SiteError, match="changed by another"), ablated(conv, taps=[-1]), ablated(conv, taps=[0]):
        conv(tokens)
    with pytest.raises(SiteError, match="changed by another"), ablated(conv, conv=True), ablated(conv, taps=[0]):
        conv(tokens)


def test_the_progress_bar_shows_the_time_left_and_can_be_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    model, tokens = attention_model(), tokens_of()
    ablation_sweep(model, tokens, metrics.loss(), progress=False)
    assert capsys.readouterr() == ("", "")
    ablation_sweep(model, tokens, metrics.loss(), batch_size=2)
    shown = capsys.readouterr()
    assert shown.out == "" and "12/12" in shown.err and "<" in shown.err
    signatures = [inspect.signature(function).parameters for function in (ablation_sweep, ablation_effects)]
    assert list(signatures[0]) == list(signatures[1])


def test_a_mean_over_one_entry_is_refused_since_it_would_ablate_nothing() -> None:
    model, tokens = AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS), tokens_of()
    for mode, given in (("position_mean", tokens[:1]), ("mean", tokens[:1, :1])):
        with pytest.raises(DataError, match="nothing would be ablated"), ablated(model, heads=[(0, 1)], mode=mode):
            model(given)
        with ablated(model, heads=[(0, 1)], mode=mode, reference=tokens):
            model(tokens[:1] if mode == "position_mean" else given)
    with pytest.raises(DataError, match="nothing would be ablated"):
        ablation_sweep(model, tokens[:1], metrics.loss(), mode="position_mean", progress=False)


@pytest.mark.parametrize("mode", ["position_mean", "resample"])
def test_a_reference_of_another_length_is_refused(mode: str) -> None:
    """Also of one position, which would be broadcast to all."""
    model, tokens = AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS), tokens_of()
    for length in (1, POS - 1):
        with pytest.raises(DataError, match="same length"):
            ablation_sweep(model, tokens, metrics.loss(), mode=mode, reference=tokens[:, :length], progress=False)


@pytest.mark.parametrize("mode", MODES)
def test_empty_sets_and_references(mode: str) -> None:
    model, tokens = AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS), tokens_of()
    assert ablate_together(model, tokens, metrics.loss(), [[]], mode=mode, progress=False).values.tolist() == [0.0]
    with pytest.raises(InterpError):
        ablate_together(model, tokens, metrics.loss(), [[(0, 0)]], mode=mode, reference=tokens[:0], progress=False)


@pytest.mark.usefixtures("unchecked")
def test_heads_are_pairs_and_the_rest_are_lists() -> None:
    model, tokens = AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS), tokens_of()
    for heads in ((0, 1), [3], [(0, 1, 2)], [("a", 0)], 3):
        with pytest.raises(SiteError, match=r"a pair \(layer, head\)"), ablated(model, heads=heads):
            pass
        with pytest.raises(SiteError, match=r"a pair \(layer, head\)"):
            ablate_together(model, tokens, metrics.loss(), [heads], progress=False)
    for named in ({"layers": 1}, {"mlps": 0}, {"taps": -1}):
        with pytest.raises(InterpError, match="Give a list"), ablated(model, **named):
            pass


def test_a_sweep_states_its_provenance_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are hashed once, not for every cell; what is stated is that of the whole sweep."""
    from interp import provenance

    calls: list[nn.Module] = []
    hashed = provenance.weights_hash
    monkeypatch.setattr(provenance, "weights_hash", lambda model: calls.append(model) or hashed(model))
    model, tokens = AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS), tokens_of()
    swept = ablation_sweep(model, tokens, metrics.loss(), batch_size=2, seed=4, progress=False)
    assert len(calls) == 1
    measured = metrics.metric_values(model, tokens, metrics.loss(), batch_size=2)
    assert len(calls) == 2
    for result in (swept, measured):
        assert result.provenance.weights == hashed(model)
        assert result.provenance.tokens == provenance.tensor_hash(tokens)
    assert swept.provenance.seed == 4


@pytest.mark.parametrize("told", [1, 3])
def test_a_cfg_that_gives_another_number_of_heads_is_refused(told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = attention_model()
    assert ablation_sweep(model, tokens_of(), answers(), mode="zero", progress=False).values.shape == (2, N_HEADS)
    config = SimpleNamespace(**vars(model.cfg) | {"n_heads": told})
    monkeypatch.setattr(type(model), "cfg", config)
    with pytest.raises(ModelError, match=f"z has {N_HEADS} of them and the model's cfg.n_heads is {told}"):
        ablation_sweep(model, tokens_of(), answers(), mode="zero", progress=False)
