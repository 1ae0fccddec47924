"""Path patching and circuits on every kind of model, held to slow loops of plain runs."""

from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp import Intervention, Site, metrics
from interp.errors import ConfigError, DataError, InterpError, ModelError, SiteError
from interp.interventions import Replace, wiring
from interp.interventions.edges import Edge, Wiring, name_of
from interp.running import measure
from interp.sites import layers_with
from tests.models.zoo import BATCH, KINDS_OF_MODEL, N_HEADS, OUTPUT, TL, Reads, hf_bridge, own_model, tokens, zoo

POST = "transformer-post"  # norms what a sublayer adds: no plain sum
SUMS = [kind for kind in KINDS_OF_MODEL if kind.values != (POST,)]


def some_of(kinds: Sequence[Any], *names: str) -> list[Any]:
    return [kind for kind in kinds if kind.values[0] in names]


METRIC = metrics.logit_diff(torch.tensor([[3], [4], [5]]), torch.tensor([[6], [7], [8]]))


def prompts() -> tuple[Tensor, Tensor]:
    clean = tokens()
    corrupted = clean.clone()
    corrupted[:, 3] = corrupted[:, 3] % 50 + 2
    return clean, corrupted


def read(model: Any, *sites: Site, edits: Sequence[Intervention] = (), ids: Tensor) -> dict[Site, Tensor]:
    probe = Reads(*dict.fromkeys(sites))
    measure(model, ids, [probe], edits)
    return probe.found


def edges_known(model: Any) -> Wiring:
    return wiring(model, torch.cat([ids[:1] for ids in prompts()]))


def slow_path(model: Any, runs: tuple[Tensor, Tensor], sender: Site, receivers: list[Site], through: str) -> Tensor:
    """The metric of each example by two plain runs with every other head replaced."""
    base, source = runs
    heads = [Site("z", layer) for layer in layers_with(model, "z")]
    mlps = [Site("mlp_out", layer) for layer in layers_with(model, "mlp_out")] if through == "nothing" else []
    written = Site(sender.kind, sender.layer)
    held = read(model, *heads, *mlps, written, ids=base)
    other = read(model, written, ids=source)[written]
    part = (slice(None), slice(None)) + (() if sender.head is None else (sender.head,))

    def first_run(receiver: Site) -> Tensor:
        edits = [Replace(site, held[site]) for site in [*heads, *mlps] if site != receiver]
        edits += [] if receiver == sender else [Replace(sender, other[part])]  # nothing reads itself
        found = read(model, receiver, edits=edits, ids=base)[receiver]
        return found if receiver.head is None else found[:, :, receiver.head]

    if receivers == [OUTPUT]:
        return METRIC(first_run(OUTPUT), base)
    edits = [Replace(receiver, first_run(receiver)) for receiver in receivers]
    return METRIC(read(model, OUTPUT, edits=edits, ids=base)[OUTPUT], base)


def receivers_to_try(model: Any) -> list[list[Site]]:
    last = layers_with(model, "z")[-1]
    others = (
        [Site("mlp_out", 0), Site("v", last)] if layers_with(model, "mlp_out") else [Site("k", last), Site("v", last, head=0)]
    )
    return [others, [Site("q", last, head=1)], [OUTPUT]]


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_paths_equal_the_slow_loop(name: str) -> None:
    model, (clean, corrupted) = zoo(name), prompts()
    seen = 0
    ways = cycle([("mlps", "denoising"), ("nothing", "noising")])
    for receivers, (through, direction) in zip(receivers_to_try(model), ways, strict=False):
        base, source = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
        mlps = [Site("mlp_out", 0)] if layers_with(model, "mlp_out") else []
        senders = [Site("resid_pre", 0), Site("z", 0, head=2), *mlps]
        found = interp.path_patching(
            model, clean, corrupted, METRIC, receivers, senders=senders, through=through, direction=direction, progress=False,
            batch_size=7,
        )  # fmt: skip
        assert found.axes == ("sender",) and found.labels["sender"] == tuple(map(name_of, senders)) and found.count == BATCH
        untouched = METRIC(read(model, OUTPUT, ids=base)[OUTPUT], base)
        for sender, value in zip(senders, found.values, strict=True):
            slow = slow_path(model, (base, source), sender, receivers, through)
            assert abs(float(value) - float(slow.mean())) < 2e-6
            seen += bool((slow - untouched).abs().max() > 1e-4)
    assert seen >= 2


@pytest.mark.parametrize("name", some_of(SUMS, "gpt2", "llama", "neox", "hooked-transformer", "attn-attn", "own"))
def test_circuits_equal_a_run_per_receiver(name: str) -> None:
    """Receiver after receiver in a run of its own, each reading corrupted stream + Σ over kept edges of (live − corrupted)."""
    model, (clean, corrupted) = zoo(name), prompts()
    graph = edges_known(model)
    generator = torch.Generator().manual_seed(0)
    kept = {edge for edge in graph.edges if float(torch.rand((), generator=generator)) < 0.6}
    found = interp.circuit_values(model, clean, corrupted, METRIC, {"some": list(kept)}, progress=False)
    slow = METRIC(slow_circuit(model, graph, clean, corrupted, kept), clean)
    assert abs(found.item() - float(slow.double().mean())) < 5e-6


def slow_circuit(model: Any, graph: Wiring, clean: Tensor, corrupted: Tensor, kept: set[Edge]) -> Tensor:
    everything = [Site(kind, layer) for layer in graph.layers for kind in ("resid_pre", "q", "k", "v", "z", "attn_out")]
    last = Site("resid_post", graph.layers[-1])
    off = read(model, *everything, *(Site("mlp_out", layer) for layer in graph.mlps), last, ids=corrupted)
    live = {Site("resid_pre", 0): read(model, Site("resid_pre", 0), ids=clean)[Site("resid_pre", 0)] - off[Site("resid_pre", 0)]}

    def mixture(stream: Tensor, receiver: Site) -> Tensor:
        return stream + sum(live[edge.sender] for edge in kept if edge.receiver == receiver)

    for layer in graph.layers:
        pre, heads = Site("resid_pre", layer), {}
        for receiver in graph.receivers:
            if receiver.layer == layer and receiver.kind != "mlp_out":
                site = Site(receiver.kind, layer)
                alone = read(model, site, edits=[Replace(pre, mixture(off[pre], receiver))], ids=clean)[site]
                heads[receiver] = alone[:, :, receiver.head]
        z = read(model, Site("z", layer), edits=[Replace(*item) for item in heads.items()], ids=clean)[Site("z", layer)]
        live |= {Site("z", layer, head=head): out for head, out in enumerate(graph.written(layer, z - off[Site("z", layer)]))}
        if layer in graph.mlps:
            mlp, attn = Site("mlp_out", layer), Site("attn_out", layer)
            if layer in graph.parallel:
                edits = [Replace(pre, mixture(off[pre], mlp))]
            else:  # the MLP reads resid_pre + attn_out
                edits = [Replace(pre, off[pre]), Replace(attn, mixture(off[attn], mlp))]
            live[mlp] = read(model, mlp, edits=edits, ids=clean)[mlp] - off[mlp]
    return read(model, OUTPUT, edits=[Replace(last, mixture(off[last], OUTPUT))], ids=clean)[OUTPUT]


@pytest.mark.parametrize("name", some_of(SUMS, "gpt2", "llama", "neox", "hooked-transformer", "attn-attn", "own"))
def test_all_edges_are_clean_none_corrupted_and_one_cut_is_edge_patching(name: str) -> None:
    model, (clean, corrupted) = zoo(name), prompts()
    edges = edges_known(model).edges
    some = edges[:: max(1, len(edges) // 6)]
    circuits = {"all": edges, "none": [], **{str(cut): [edge for edge in edges if edge != cut] for cut in some}}
    found = interp.circuit_values(model, clean, corrupted, METRIC, circuits, progress=False, values="recovery").values
    torch.testing.assert_close(found[:2], torch.tensor([1.0, 0.0], dtype=torch.float64), atol=2e-5, rtol=0)
    values = interp.circuit_values(model, clean, corrupted, METRIC, circuits, progress=False).values
    exact = interp.edge_patching(
        model, clean, corrupted, METRIC, some, direction="noising", values="metric", progress=False
    ).to_frame()
    by_edge = {f"{row.sender} -> {row.receiver}": row.value for row in exact.dropna(subset=["value"]).itertuples()}
    expected = torch.tensor([by_edge[str(edge)] for edge in some], dtype=torch.float64)
    torch.testing.assert_close(values[2:], expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("name", SUMS)
def test_the_wiring_is_the_model_s(name: str) -> None:
    model = zoo(name)
    graph = edges_known(model)
    n_kv = 2 if name == "llama" else N_HEADS
    assert all(heads == (N_HEADS, n_kv, n_kv) for heads in graph.heads.values())
    assert graph.parallel == (frozenset({0, 1}) if name == "neox" else frozenset())
    assert graph.residual == (name not in ("attn-attn", "smeared-key"))
    last = graph.layers[-1]
    if graph.mlps:
        reads_own_layer = Site("z", last, head=0) in graph.upstream(Site("mlp_out", last))
        assert reads_own_layer == (name != "neox")
        assert Site("mlp_out", last) in graph.upstream(OUTPUT) and Site("mlp_out", last) not in graph.upstream(
            Site("mlp_out", last)
        )


@pytest.mark.skipif(TL < (4, 0), reason="TransformerLens 3 freezes the scale of the norm: not the exact path")
def test_direct_paths_agree_with_transformerlens() -> None:
    from transformer_lens.patching import get_act_patch_direct_path_all_sources

    model, (clean, corrupted) = hf_bridge("gpt2"), prompts()
    caches = [model.run_with_cache(ids)[1] for ids in (clean, corrupted)]
    found = interp.edge_patching(model, clean, corrupted, METRIC, values="metric", progress=False)
    for kind in ("q", "k", "v"):
        theirs = get_act_patch_direct_path_all_sources(
            model, corrupted, *caches, lambda logits: METRIC(logits, corrupted).mean(), component=kind, verbose=False
        )
        for head, to in product(range(N_HEADS), range(N_HEADS)):
            place = {
                "sender": found.labels["sender"].index(f"L0H{head}"),
                "receiver": found.labels["receiver"].index(f"L1H{to}.{kind}"),
            }
            assert abs(found.at(**place).item() - float(theirs[0, head, 1, to])) < 1e-6


def test_double_precision_is_exact_and_batches_do_not_matter() -> None:
    model, (clean, corrupted) = own_model().double(), prompts()
    graph = edges_known(model)
    found = interp.circuit_values(model, clean, corrupted, METRIC, [graph.edges, []], progress=False, values="recovery")
    torch.testing.assert_close(found.values, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0)
    for function, args in ((interp.path_patching, (Site("v", 1, head=2),)), (interp.edge_patching, (graph.edges[-6:],))):
        runs = [function(model, clean, corrupted, METRIC, *args, batch_size=size, progress=False) for size in (2, 64)]
        torch.testing.assert_close(runs[0].values, runs[1].values, atol=1e-12, rtol=0, equal_nan=True)
        torch.testing.assert_close(runs[0].stderr, runs[1].stderr, atol=1e-12, rtol=0, equal_nan=True)


def test_positions_narrow_senders_and_receivers() -> None:
    """The only changed position carries all of an input's effect; no other position carries any."""
    model, (clean, corrupted) = zoo("own"), prompts()
    options = {"progress": False, "values": "effect"}
    senders = [Site("resid_pre", 0), *(Site("resid_pre", 0, position=place) for place in (2, 3))]
    whole, before, there = interp.path_patching(model, clean, corrupted, METRIC, Site("v", 1), senders=senders, **options).values
    assert before == 0 and there == whole != 0
    early = interp.path_patching(model, clean, corrupted, METRIC, Site("v", 1, position=2), senders="input", **options)
    assert early.item() == 0


def test_pairs_without_a_metric_are_left_out_and_counted() -> None:
    model, (clean, corrupted) = zoo("own"), prompts()

    def broken(logits: Tensor, ids: Tensor) -> Tensor:
        return torch.where(ids[:, 0] == clean[1, 0], torch.nan, logits[:, -1, 3])

    found = interp.path_patching(model, clean, corrupted, broken, OUTPUT, progress=False, batch_size=1)
    assert found.count == BATCH - 1 and "1 of 3" in found.description and bool(found.values.isfinite().all())
    everywhere = interp.path_patching(
        model, clean, corrupted, lambda logits, ids: logits[:, 0, 0] * torch.nan, OUTPUT, progress=False
    )
    assert everywhere.count == 0 and bool(everywhere.values.isnan().all()) and everywhere.baseline is None
    with pytest.raises(DataError, match="no gap to give a share of"):
        interp.path_patching(model, clean, clean, METRIC, OUTPUT, values="recovery", progress=False)


BAD_PATHS: list[tuple[dict[str, Any], type[InterpError], str]] = [
    ({"receivers": []}, SiteError, "none were given"),
    ({"receivers": Site("pattern", 0)}, SiteError, "one of q, k, v"),
    ({"receivers": Site("q", 9)}, SiteError, "layers"),
    ({"receivers": Site("q", 1, head=17)}, SiteError, "entries"),
    ({"receivers": [Site("q", 1), Site("logits")]}, SiteError, "alone"),
    ({"receivers": "logits"}, SiteError, "Give a Site"),
    ({"senders": "head"}, ConfigError, "Did you mean 'heads'"),
    ({"senders": []}, SiteError, "none were given"),
    ({"senders": [Site("resid_pre", 1)]}, SiteError, "first block"),
    ({"senders": [Site("z", 0, head=11)]}, SiteError, "entries"),
    ({"through": "mlp"}, ConfigError, "Did you mean 'mlps'"),
    ({"direction": "noise"}, ConfigError, "noising"),
    ({"values": "effects"}, ConfigError, "Did you mean 'effect'"),
    ({"batch_size": 0}, DataError, "positive"),
    ({"corrupted": tokens(2)}, DataError, "equal length"),
    ({"clean": tokens(0)}, DataError, "tokens"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("asked", "error", "said"), BAD_PATHS, ids=[case[2] for case in BAD_PATHS])
def test_what_does_not_exist_is_refused(asked: dict[str, Any], error: type[InterpError], said: str) -> None:
    clean, corrupted = prompts()
    given = {"clean": clean, "corrupted": corrupted, "metric": METRIC, "receivers": Site("q", 1), "progress": False, **asked}
    with pytest.raises(error, match=said):
        interp.path_patching(zoo("own"), **given)


def test_edges_are_refused_where_the_stream_is_not_a_sum() -> None:
    clean, corrupted = prompts()
    with pytest.raises(ModelError, match="plain sum"):
        edges_known(zoo(POST))
    model = own_model()
    model.blocks[1].hook_resid_post.add_perma_hook(lambda x, hook: 1.5 * x)
    with pytest.raises(ModelError, match="not resid_pre"):
        interp.edge_patching(model, clean, corrupted, METRIC, progress=False)
    model = own_model()
    model.blocks[0].hook_attn_out.add_perma_hook(lambda x, hook: x / x.norm(dim=-1, keepdim=True))
    with pytest.raises(ModelError, match="attn_out of layer 0"):
        interp.circuit_values(model, clean, corrupted, METRIC, [[]], progress=False)
    model = own_model()
    model.blocks[0].attn.W_O = torch.nn.Parameter(model.blocks[0].attn.W_O.flip(0))
    model.blocks[0].attn.hook_z.add_perma_hook(lambda x, hook: x.flip(2))
    interp.edge_patching(model, clean, corrupted, METRIC, [], progress=False)
    with pytest.raises(SiteError, match="not among"):
        interp.edge_patching(zoo("own"), clean, corrupted, METRIC, [Edge.of("L1H0", "L0H0.q")], progress=False)
    with pytest.raises(SiteError, match="it is none"):
        Edge.of("head 3", "logits")


def test_the_model_is_left_as_it_was() -> None:
    model, (clean, corrupted) = own_model().train(), prompts()
    before = read(model, OUTPUT, ids=clean)[OUTPUT]

    def broken(logits: Tensor, ids: Tensor) -> Tensor:
        raise KeyboardInterrupt

    for metric in (METRIC, broken):
        try:
            interp.path_patching(model, clean, corrupted, metric, Site("v", 1), progress=False)
            interp.circuit_values(model, clean, corrupted, metric, [[]], progress=False)
        except KeyboardInterrupt:
            assert metric is broken
    assert model.training and not any(point._forward_hooks for point in model.hook_dict.values())
    assert torch.equal(read(model, OUTPUT, ids=clean)[OUTPUT], before)
