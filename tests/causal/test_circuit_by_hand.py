"""Circuits on the model wired by hand, and against a loop over plain weights."""

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import DataError
from interp.interventions.edges import Edge, name_of
from tests.causal.plain_toys import D_VOCAB, N_HEADS, POS, attended, circuit_prompts, toy

KNOWN = (Edge.of("input", "L0H0.v"), Edge.of("L0H0", "L1H0.k"), Edge.of("L1H0", "logits"))


def test_the_known_edges_are_faithful_and_nothing_less_is() -> None:
    model, clean, _, corrupted, metric = circuit_prompts()
    edges = interp.wiring(model, clean).edges
    circuits = {
        "known": KNOWN,
        "all": edges,
        "all but the known": [edge for edge in edges if edge not in KNOWN],
        "none": [],
        **{f"without {edge}": [other for other in KNOWN if other != edge] for edge in KNOWN},
    }
    found = interp.circuit_values(model, clean, corrupted, metric, circuits, values="recovery", progress=False)
    expected = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, atol=1e-6, rtol=0)
    assert found.labels["circuit"] == tuple(circuits)


def test_the_curve_of_exact_edges_beats_random_ones() -> None:
    model, clean, _, corrupted, metric = circuit_prompts()
    scores = interp.edge_patching(model, clean, corrupted, metric, progress=False)
    assert set(interp.top_edges(scores, 3)) == set(KNOWN)
    curve = interp.circuit_curve(model, clean, corrupted, metric, scores, sizes=[1, 3, 8], draws=3, seed=1, progress=False)
    assert curve.axes == ("curve", "size", "quantity") and curve.labels["curve"] == ("top", "random 1", "random 2", "random 3")
    top, random = curve.values[0], curve.values[1:]
    torch.testing.assert_close(top[:, 0], torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(top[:, 1], torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(random[:, :2, 0].abs().max()) < 0.1  # three random edges never carry it
    assert torch.equal(curve.baseline, random.mean(0)) and curve.provenance.seed == 1
    again = interp.circuit_curve(model, clean, corrupted, metric, scores, sizes=[1, 3, 8], draws=3, seed=1, progress=False)
    assert torch.equal(again.values, curve.values)


def test_a_saturated_attribution_misses_the_circuit_and_the_curve_shows_it() -> None:
    """The control: at the corrupted run the softmax is flat in the clean direction, so one gradient ranks other edges first."""
    model, clean, _, corrupted, metric = circuit_prompts()
    exact = interp.edge_patching(model, clean, corrupted, metric, progress=False)
    guessed = interp.edge_attribution(model, clean, corrupted, metric, direction="noising", progress=False)
    assert set(interp.top_edges(guessed, 3)) != set(interp.top_edges(exact, 3))
    curve = interp.circuit_curve(model, clean, corrupted, metric, guessed, sizes=[3], draws=1, progress=False)
    assert float(curve.values[0, 0, 0]) < 0.1


def masked(model: torch.nn.Module, clean: Tensor, corrupted: Tensor, kept: set[str]) -> Tensor:
    """The logits by plain loops: every receiver adds up its senders, kept ones from this run, others from the corrupted one."""
    off: dict[str, Tensor] = {}
    live: dict[str, Tensor] = {}
    for wrote, tokens in ((off, corrupted), (live, clean)):
        wrote["input"] = model.embed(tokens)
        last = ["input"]
        for layer in range(2):
            seen = list(wrote) if model.config.residual else last
            now = {}
            for head in range(N_HEADS):

                def mixed(receiver: str, seen: list[str] = seen, wrote: dict[str, Tensor] = wrote) -> Tensor:
                    return sum(wrote[u] if wrote is off or f"{u} -> {receiver}" in kept else off[u] for u in seen)

                here = f"L{layer}H{head}"
                now[here] = attended(model, layer, head, {kind: mixed(f"{here}.{kind}") for kind in "qkv"})
            wrote.update(now)
            last = list(now)
    seen = list(live) if model.config.residual else last
    return model.unembed(sum(live[u] if f"{u} -> logits" in kept else off[u] for u in seen))


@pytest.mark.parametrize("residual", [True, False])
def test_circuits_equal_a_loop_over_plain_weights(residual: bool) -> None:
    model, generator = toy(residual), torch.Generator().manual_seed(1)
    clean, corrupted = (torch.randint(D_VOCAB, (2, POS), generator=generator) for _ in range(2))
    metric = interp.metrics.logit_diff([1, 2], [3, 5])
    edges = interp.wiring(model, clean).edges
    draws = [[edge for edge in edges if float(torch.rand((), generator=generator)) < share] for share in (0.2, 0.5, 0.9)]
    with torch.no_grad():
        expected = [metric(masked(model, clean, corrupted, set(map(str, circuit))), clean).mean() for circuit in draws]
    for batch_size in (1, 64):
        found = interp.circuit_values(model, clean, corrupted, metric, draws, batch_size=batch_size, progress=False)
        torch.testing.assert_close(found.values, torch.stack(expected), atol=1e-12, rtol=0)


def test_ranking_edges_refuses_what_it_cannot_rank() -> None:
    model, clean, _, corrupted, metric = circuit_prompts()
    scores = interp.edge_patching(model, clean, corrupted, metric, KNOWN, progress=False)
    assert {name_of(edge.sender) for edge in interp.top_edges(scores, 3)} == {"input", "L0H0", "L1H0"}
    for n in (4, -1, True):
        with pytest.raises(DataError, match="Give a number"):
            interp.top_edges(scores, n)
    with pytest.raises(DataError, match="axes"):
        interp.top_edges(scores.at(sender=0), 1)
    for sizes in ([], [1, 1]):
        with pytest.raises(DataError, match="different numbers"):
            interp.circuit_curve(model, clean, corrupted, metric, scores, sizes=sizes, progress=False)
    with pytest.raises(DataError, match="control"):
        interp.circuit_curve(model, clean, corrupted, metric, scores, sizes=[1], draws=0, progress=False)
    with pytest.raises(DataError, match="there are none"):
        interp.circuit_values(model, clean, corrupted, metric, [], progress=False)
