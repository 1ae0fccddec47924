"""The page about one model: its verdicts on models with known answers, its numbers, and what it says where a model refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import DataError
from interp.models import ConvAttnConfig, build_model
from interp.models.constructed import PERIOD, induction_circuit, position_not_content
from interp.models.recurrent import RecurrentConfig
from interp.pages import answers, measuring
from interp.pages.heads import induction_heads, other_sets, strongest
from interp.pages.measuring import Asked, Refused, averaged, measured
from interp.pages.overview import overview
from interp.pages.reading import example_of, fitting_period, spelled
from interp.pages.sections import patching_section
from interp.report import Page, Verdict, render_page, write_page
from interp.report.blocks import Prose
from interp.result import Result
from tests.models.zoo import hf_bridge, zoo


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "N_SCORED", 8)
    monkeypatch.setattr(measuring, "N_PAIRS", 6)


def cards(page: Page) -> list[Verdict]:
    return [block for block in page.sections[0].blocks if isinstance(block, Verdict)]


def told(page: Page) -> str:
    """All prose of the page."""
    return "\n".join(block.text for section in page.sections for block in section.blocks if isinstance(block, Prose))


def test_a_model_with_an_induction_head_from_its_page_to_its_bytes(tmp_path: Path) -> None:
    told_by = {"name": "conv-attn", "command": "interp report conv-attn"}
    page = overview(interp.load_model("conv-attn"), period=8, **told_by, progress=False)
    first, second = cards(page)
    assert page.question.startswith("One induction head: L0H0. Are they the cause") and page.question.endswith(second.answer)
    assert (first.outcome, second.outcome) == ("supported", "supported")
    assert "L0H0" in first.answer and "too few other heads" in second.evidence
    assert "not shown" not in told(page), "it refuses nothing"
    results = page.results
    assert set(results) >= {"scores", "null", "ablation", "cause", "patched heads", "smear", "kernel statistics", "following"}
    effect = results["cause"]
    assert isinstance(effect, Result)
    assert float(effect.values[1, 0]) == pytest.approx(results["ablation"].item(), abs=1e-5)  # type: ignore[union-attr]
    assert abs(float(effect.values[0, 0])) < 0.2, "there is nothing to copy in the first copy"

    path = write_page(page, tmp_path / "a")
    assert "interp report conv-attn" in path.read_text()
    again = overview(interp.load_model("conv-attn"), period=8, **told_by, progress=False)
    write_page(again, tmp_path / "b")
    for file in ("index.html", "results.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    verdicts = json.loads((tmp_path / "b" / "results.json").read_text())["verdicts"]
    assert [card["outcome"] for card in verdicts] == ["supported", "supported"]


def test_a_fixed_distance_is_not_taken_for_induction() -> None:
    made = position_not_content()
    asked = Asked(made.model, torch.zeros(1, 9, dtype=torch.long), PERIOD, 0, 8)
    found = measured(asked, progress=False)
    assert float(found["scores"].values[0].max()) == pytest.approx(1.0), "the score alone would be taken in"
    card = answers.has_induction_heads(found)
    assert card.outcome == "refuted"
    assert answers.headline(answers.verdicts(found)) == "No head passes for an induction head."
    assert isinstance(found["cause"], Refused) and answers.are_the_cause(found).outcome == "not tested"


def test_the_wired_circuit_has_one_and_not_it_alone_matters() -> None:
    """Without its previous-token head the induction head has nothing to go by: a random draw costs as much."""
    made = induction_circuit()
    asked = Asked(made.model, torch.arange(9)[None], PERIOD, 0, 8)
    found = measured(asked, progress=False)
    assert induction_heads(found["scores"], found["null"]) == [(1, 0)]
    assert found["cause"].labels_of("set")[0] == "induction heads"
    assert answers.are_the_cause(found).outcome == "mixed"


def effects(first: tuple, second: tuple, noise: float, shared: float = 0.0) -> dict[str, Result]:
    """Four sequences with these mean effects; `noise` is each set's own, `shared` is common to all sets of a sequence."""
    means = torch.tensor([first, second], dtype=torch.float64)
    own = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = noise * (own - own.mean(0)) / own.std(0)
    common = torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None, None] * shared
    of_sets = Result(
        name="effects of sets",
        values=means + own + common,
        axes=("example", "copy", "set"),
        labels={"set": ("induction heads", "L0H0", "L0H1")},
        description="effect; induction heads: L1H0; L0H0: L0H0; L0H1: L0H1",
    )
    return {"effects of sets": of_sets, "cause": averaged(of_sets)}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ((0.0, 0.0, 0.1), (2.0, 0.3, 0.5), "supported"),
        ((0.0, 0.0, 0.1), (2.0, 0.3, 2.5), "mixed"),  # another head costs more
        ((0.0, 0.0, 0.1), (2.0, 0.3, 1.99), "mixed"),  # another head costs less, but within two standard errors
        ((2.2, 0.0, 0.1), (2.0, 0.3, 0.5), "mixed"),  # the first copy suffers as much
        ((1.99, 0.0, 0.1), (2.0, 0.3, 0.5), "mixed"),
        ((0.0, 0.0, 0.1), (0.09, 0.0, 0.0), "refuted"),  # less than a tenth of a nat
        ((0.0, 0.0, 0.1), (-2.0, 0.3, 0.5), "refuted"),
    ],
)
def test_the_second_verdict_by_its_rule(first: tuple, second: tuple, outcome: str) -> None:
    found = effects(first, second, noise=0.02)
    card = answers.are_the_cause(found)
    assert card.outcome == outcome
    assert (
        "Mean ablation of L1H0" in card.evidence
        and "every other head, 2 in all" in card.evidence
        and "random" not in card.evidence
    )
    noisy = effects(first, second, noise=3.0)
    assert answers.are_the_cause(noisy).outcome == "refuted", "within two standard errors of nothing"


def test_the_second_verdict_pairs_by_sequence_and_names_its_worst_control() -> None:
    """What sequences have in common widens each effect's error and not that of their difference."""
    found = effects((0.0, 0.0, 0.0), (2.0, 0.3, 1.5), noise=0.01, shared=0.8)
    scores = torch.zeros(3, 2, 2, dtype=torch.float64)
    scores[1, 0, 1], scores[2, 0, 1] = 0.93, 4.0
    table = Result(
        name="scores",
        values=scores,
        axes=("score", "layer", "head"),
        labels={"score": ("induction", "previous_token", "entropy")},
    )
    card = answers.are_the_cause(found | {"scores": table})
    assert float(found["cause"].stderr[1, 0]) > 0.4  # type: ignore[index]
    assert card.outcome == "supported", card.evidence
    assert "the most without L0H1, whose best score is previous_token 0.93; difference to it +0.5 ±" in card.evidence
    close = effects((0.0, 0.0, 0.0), (2.0, 0.3, 1.99), noise=0.02, shared=0.8)
    assert answers.are_the_cause(close).answer == "Not they alone: L0H1 costs nearly as much."


@pytest.mark.parametrize(("gap", "shown"), [(1.0, True), (0.05, False)])
def test_patching_is_shown_where_the_answers_of_a_pair_clearly_differ(
    gap: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap decides, not whether the clean answer is above 0: recovery is a share of the gap."""
    values = {True: torch.tensor([-5.0, 5.0, -4.0, 4.0, -5.0, 5.0]), False: torch.tensor([9.0, 9.0, 9.0, 9.0, 9.0, 9.0])}[shown]
    noise = torch.tensor([0.1, -0.1, 0.2, -0.2, 0.1, -0.1])
    told = iter([values, values - gap + noise])
    monkeypatch.setattr(
        measuring.metrics, "metric_values", lambda *_, **__: Result(name="metric", values=next(told), axes=("example",))
    )
    asked = Asked(interp.load_model("attn-attn-supplied"), torch.zeros(1, 9, dtype=torch.long), 8, 0, 8)
    found: dict[str, Any] = {"answer gap": measuring._answer_gap(asked, {})}
    assert found["answer gap"].item() == pytest.approx(gap, abs=1e-5)
    names = ("patched heads", "patched positions")
    for name, site in zip(names, ("z", "resid_pre"), strict=True):
        try:
            found[name] = measuring._patched(asked, found, site, progress=False)
        except DataError as error:
            found[name] = Refused(error.truth)
    section = patching_section(found)
    assert [isinstance(found[name], Result) for name in names] == [shown, shown]
    words = section.lead + "".join(block.text for block in section.blocks if isinstance(block, Prose))
    assert f"clean minus corrupted, is {gap:.3g} ± 0.0" in words and "over 6 pairs" in words
    assert ("not 2 standard errors above 0" in words) != shown


def test_readings_token_by_token_against_slow_loops() -> None:
    model = interp.load_model("attn-attn-supplied")
    tokens = torch.tensor([[0, 5, 6, 7, 5, 6, 9, 5]])
    found = measured(Asked(model, tokens, 8, 0, 4), progress=False)
    pattern = interp.attention_patterns(model, tokens).at(layer=1, head=0).values
    wanted = []
    for i, token in enumerate(tokens[0].tolist()):
        followers = [j + 1 for j in range(i) if tokens[0, j] == token]
        wanted.append(sum(float(pattern[i, j]) for j in followers) if followers else float("nan"))
    torch.testing.assert_close(found["following"].values, torch.tensor(wanted).double(), equal_nan=True, atol=1e-6, rtol=0)

    with torch.no_grad():
        shares = model(tokens)[0].double().softmax(-1)
    guesses = found["next tokens"]
    for place, share in enumerate(shares):
        best = sorted(range(len(share)), key=lambda token, share=share: -float(share[token]))[:5]
        assert guesses.texts[place] == [f"t{token}" for token in best]
        torch.testing.assert_close(guesses.probabilities.values[place], share[best], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "own", "recurrent"])
def test_what_a_model_refuses_is_said(kind: str) -> None:
    made: Any = {"bert": lambda: hf_bridge("bert"), "recurrent": lambda: build_model(RecurrentConfig(d_model=12, d_vocab=53))}
    model = made.get(kind, lambda: zoo(kind))()
    page = overview(model, progress=False)
    assert render_page(page)
    reasons = told(page)
    assert "Kernels: not shown, because" in reasons
    expected = {
        "gpt2": "no head passes",
        "bert": "attention looks ahead",
        "own": "no head passes",
        "recurrent": "Scores: not shown",
    }
    assert expected.get(kind, "no head passes") in reasons
    assert cards(page)[1].outcome == "not tested"


def test_what_is_shown_token_by_token() -> None:
    bare, text = interp.load_model("conv-attn"), interp.load_model("conv-attn-text")
    row, what = example_of(bare, None, 4, 0)
    assert (row.shape, what) == ((1, 9), "4 random tokens, said twice")
    assert spelled(bare, row[0])[0] == "BOS" and spelled(bare, row[0])[1].startswith("t")
    row, what = example_of(text, None, 4, 0)
    assert what == "a sentence, said twice", "its small tokenizer makes too much of the whole passage"
    half = (row.shape[1] - 1) // 2
    assert row[0, -half + 2 :].tolist() == row[0, 3 : half + 1].tolist()
    row, what = example_of(text, "hello " * 200, 4, 0)
    assert row.shape == (1, 64) and what.endswith("(its first 64 tokens)")
    for wrong in ("x", torch.tensor([[3]])):
        with pytest.raises(DataError):
            example_of(bare, wrong, 4, 0)
    with pytest.raises(DataError, match="the vocabulary has 64"):
        overview(bare, torch.tensor([0, 64, 1]), progress=False)


def test_a_model_without_room_for_repeats_is_shown_what_it_was_given() -> None:
    model = build_model(ConvAttnConfig(d_vocab=9, d_model=8, n_ctx=6))
    with pytest.raises(DataError, match="this model has 6"):
        overview(model, progress=False)
    page = overview(model, torch.tensor([0, 3, 4, 3, 4]), progress=False)
    assert render_page(page)
    assert "Scores: not shown, because they need 101 positions and this model has 6" in told(page)
    assert "token losses" in page.results and "following" not in page.results


def test_periods_and_other_sets() -> None:
    model = interp.load_model("conv-attn")
    assert fitting_period(model) == 25
    assert fitting_period(model, trained_length=33) == 8
    with pytest.raises(DataError, match="reads 4 positions"):
        fitting_period(model, trained_length=4)
    others = [(0, head) for head in range(5)]
    drawn = other_sets(others, 2, 8, seed=0)
    assert len({tuple(heads) for heads in drawn.values()}) == len(drawn) == 8 and "random 8" in drawn
    assert drawn == other_sets(others, 2, 8, seed=0) != other_sets(others, 2, 8, seed=1)
    assert other_sets(others, 6, 8, seed=0) == {}
    assert other_sets(others[:2], 2, 8, seed=0) == {"L0H0 + L0H1": others[:2]}
    assert list(other_sets(others, 1, 8, seed=0)) == ["L0H0", "L0H1", "L0H2", "L0H3", "L0H4"], "all there are, by their names"
    values = Result(name="x", values=torch.tensor([[float("nan"), 2.0], [3.0, 1.0]]), axes=("layer", "head"))
    assert strongest(values, 2) == [(1, 0), (0, 1)] and strongest(values, 1, largest=False) == [(1, 1)]
