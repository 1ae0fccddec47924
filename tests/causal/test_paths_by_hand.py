"""Paths and edges whose effect is known: on the circuit wired by hand, and from plain weights."""

import torch
from torch import Tensor

import interp
from interp import Site, metrics
from interp.interventions.edges import Edge, name_of, site_of, wiring
from interp.models import AttnAttn
from tests.causal.plain_toys import D_VOCAB, N_HEADS, POS, attended, circuit_prompts, toy


def test_the_one_path_of_the_constructed_circuit() -> None:
    """A key that forgot which token came before it: only the previous-token head, into the key, brings it back."""
    model, clean, _, corrupted, metric = circuit_prompts()
    nothing = 10 / 19
    for kind, restored in {"q": nothing, "k": 10.0, "v": nothing, "z": 10.0}.items():
        found = interp.path_patching(model, clean, corrupted, metric, Site(kind, 1, head=0), progress=False)
        assert found.axes == ("layer", "head") and abs(found.baseline - nothing) < 1e-5
        torch.testing.assert_close(
            found.values.float(), torch.tensor([[restored, nothing], [nothing, nothing]]), atol=1e-5, rtol=0
        )
    direct = interp.path_patching(model, clean, corrupted, metric, Site("logits"), progress=False, values="recovery")
    torch.testing.assert_close(direct.values.float(), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), atol=1e-5, rtol=0)


def test_the_copied_token_goes_straight_into_the_value() -> None:
    model, clean, corrupted, _, metric = circuit_prompts()
    for kind, restored in {"q": 0.0, "k": 0.0, "v": 10.0}.items():
        options = {"senders": "input", "progress": False}
        found = interp.path_patching(model, clean, corrupted, metric, Site(kind, 1, head=0), **options)
        assert found.axes == () and abs(found.item() - restored) < 1e-4
    noising = interp.path_patching(
        model, clean, corrupted, metric, Site("v", 1), senders="input", direction="noising", values="recovery", progress=False
    )
    assert abs(noising.item()) < 1e-6 and noising.baseline == 1.0


def test_three_edges_and_no_others_carry_it() -> None:
    model, clean, _, corrupted, metric = circuit_prompts()
    found = interp.edge_patching(model, clean, corrupted, metric, progress=False)
    assert {(row.sender, row.receiver) for row in found.to_frame().itertuples() if row.value > 1e-3} == {
        ("input", "L0H0.v"),
        ("L0H0", "L1H0.k"),
        ("L1H0", "logits"),
    }


def outputs(
    model: AttnAttn, tokens: Tensor, edge: Edge | None = None, other: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What every sender writes, and the logits, by plain loops; the receiver of `edge` reads its sender from `other`."""
    wrote = {"input": model.embed(tokens)}
    last = wrote
    for layer in range(2):
        now = {}
        for head in range(N_HEADS):
            reads = {}
            for kind in "qkv":
                seen = wrote if model.config.residual else last
                swapped = edge is not None and name_of(edge.receiver) == f"L{layer}H{head}.{kind}"
                reads[kind] = sum(other[u] if swapped and u == name_of(edge.sender) else x for u, x in seen.items())
            now[f"L{layer}H{head}"] = attended(model, layer, head, reads)
        wrote, last = wrote | now, now
    seen = wrote if model.config.residual else last
    at_end = edge is not None and name_of(edge.receiver) == "logits"
    final = sum(other[u] if at_end and u == name_of(edge.sender) else x for u, x in seen.items())
    return wrote | {"logits": model.unembed(final)}


def test_every_edge_equals_a_loop_over_plain_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    clean, corrupted = (torch.randint(D_VOCAB, (2, POS), generator=generator) for _ in range(2))
    metric = metrics.logit_diff([1, 2], [3, 5])
    for residual in (True, False):
        model = toy(residual)
        with torch.no_grad():
            source, base = outputs(model, clean), outputs(model, corrupted)
            before = metric(base["logits"], corrupted)
            found = interp.edge_patching(model, clean, corrupted, metric, progress=False, batch_size=9)
            edges = wiring(model, clean).edges
            assert len(edges) == (9 + 36 + 7 if residual else 9 + 27 + 3) == int((~found.values.isnan()).sum())
            for edge in edges:
                after = metric(outputs(model, corrupted, edge, source)["logits"], corrupted)
                place = {axis: found.labels[axis].index(name_of(site)) for axis, site in vars(edge).items()}
                assert abs(found.at(**place).item() - float((after - before).mean())) < 1e-12


def test_without_a_residual_stream_paths_skip_no_layer() -> None:
    model = toy(residual=False)
    clean, corrupted = (torch.randint(D_VOCAB, (3, POS), generator=torch.Generator().manual_seed(i)) for i in range(2))
    metric = metrics.logit_diff(1, 2)
    direct = interp.path_patching(model, clean, corrupted, metric, Site("logits"), values="effect", progress=False).values
    # float64 rounding (4e-17): a batch of other rows is another matrix product, whose sums may be taken in another order
    assert bool((direct[0].abs() < 1e-15).all()) and bool((direct[1].abs() > 1e-6).all())
    into_second = interp.path_patching(
        model, clean, corrupted, metric, Site("z", 1), senders="input", values="effect", progress=False
    )
    assert into_second.item() == 0


def test_names_and_sites_are_the_same_thing() -> None:
    names = ("input", "L0H1", "MLP12", "L3H10.q", "L0H0.k", "L1H2.v", "logits")
    assert [name_of(site_of(name)) for name in names] == list(names)
    assert str(Edge.of("L0H1", "L1H0.k")) == "L0H1 -> L1H0.k"
