"""The attention study, end to end at a size of seconds, and the mistakes a user can make."""

import json
import math
from pathlib import Path

import pytest
import torch

from experiments.attention_ablation.__main__ import main
from experiments.attention_ablation.answers import headline, rank_correlation, recovered, verdicts
from experiments.attention_ablation.config import INTACT, MODES, inferred, trained
from experiments.attention_ablation.measure import BASE, RESTORED
from interp.result import Result
from tests.experiments.test_optimizer_comparison import corpora  # noqa: F401

TINY = [
    "seeds=[0]",
    "floor_rows=48",
    "sweep_rows=4",
    "sweep_length=4",
    "moved.network.d_model=16",
    "moved.first.tokenizer=characters",
    "moved.train.max_steps=3",
    "moved.train.n_evals=2",
    "moved.then.n_train=24",
    "moved.then.n_held_out=8",
    "train.epochs=2",
]


def test_the_study_ends_in_a_page(tmp_path: Path, corpora: list[str], capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    main(["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1", *corpora, *TINY])
    assert capsys.readouterr().out.rstrip().endswith(f"The report is at {tmp_path / 'page' / 'index.html'}")
    html = (tmp_path / "page" / "index.html").read_text()
    for heading in ("Answers", "With attention, without, and from when on", "Validation perplexity by epoch"):
        assert f">{heading}<" in html
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert len(data["verdicts"]) == 8
    found = {name: Result.from_json(result) for name, result in data["results"]["results"].items()}
    assert found["test loss"].values.shape == (11, 1)
    assert found["floors"].values.shape == (2, 2, 2)
    assert found["heads"].values.shape == (2, 1, 2, 4)
    assert found["MLPs"].values.shape == (3, 1, 2)
    assert found["removal"].values[:, 0].tolist() == [0] * 4
    epochs = {name: Result.from_json(result) for name, result in data["results"]["perplexity by epoch"].items()}
    assert {result.labels_of("step") for result in epochs.values()} == {("0", "1", "2")}
    for mode in MODES:
        start = epochs[trained(mode)].values[:, 0]
        assert torch.allclose(start, epochs[inferred(mode)].values[:, 0]), "before the first step both are the base, ablated"
        assert not torch.allclose(start, epochs[INTACT].values[:, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[1,1]"], "one or more different numbers"),
        (["sweep_length=65"], "sweep_length must not exceed"),
        (["floor_rows=3"], "exceed floor_rows"),
        (["train.eval_every=3"], "set train.epochs"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def results(*, good: bool) -> dict[str, Result]:
    """Results under which every prediction holds, or none but those of constant tables."""
    losses = {BASE: 4.0, INTACT: 3.0, RESTORED: 4.5, **{inferred(mode): 5.0 for mode in MODES}}
    losses |= {trained("zero"): 3.7, trained("uniform"): 3.6, trained("random"): 3.65, trained("previous"): 3.3}
    values = torch.tensor(
        [
            [loss if good else 4.0 + 0.1 * (name == inferred("zero")) + 0.08 * (name == trained("zero"))] * 2
            for name, loss in losses.items()
        ]
    )
    seeds = ("0", "1")
    heads = torch.arange(8.0).reshape(2, 4).repeat(2, 2, 1, 1)
    if not good:
        heads[1] = heads[1].flip(-1, -2)
    mlps = torch.tensor([1.0, 1.0, 2.0 if good else 0.5])[:, None, None].expand(3, 2, 2)
    return {
        "test loss": Result(
            name="test loss", values=values, axes=("variant", "seed"), labels={"variant": tuple(losses), "seed": seeds}
        ),
        "floors": Result(
            name="floors", values=torch.tensor([[[5.0, 4.9], [3.8, 2.0]]]), axes=("counted in", "order", "quantity")
        ),
        "heads": Result(
            name="heads", values=heads, axes=("variant", "seed", "layer", "head"), labels={"variant": (BASE, INTACT)}
        ),
        "MLPs": Result(
            name="MLPs", values=mlps, axes=("variant", "seed", "layer"), labels={"variant": (BASE, INTACT, trained("zero"))}
        ),
        "removal": Result(name="removal", values=torch.tensor([[0.0 if good else 1e-9, 2.0]] * 4), axes=("mode", "when")),
    }


def test_each_prediction_can_hold_and_can_fail() -> None:
    assert [card.outcome for card in verdicts(results(good=True))] == ["supported"] * 8
    assert [card.outcome for card in verdicts(results(good=False))] == ["refuted"] * 8
    assert "3.30" in headline(results(good=True))
    assert all("Predicted: " in card.evidence for card in verdicts(results(good=True)))


def test_what_is_won_back_by_hand() -> None:
    assert recovered(results(good=True)["test loss"], "zero").tolist() == pytest.approx([0.65, 0.65])
    assert recovered(results(good=True)["test loss"], "previous").tolist() == pytest.approx([0.85, 0.85])


def test_rank_correlation_by_hand() -> None:
    order = torch.tensor([3.0, 1.0, 2.0, 9.0])
    assert rank_correlation(order, order.exp()) == pytest.approx(1)
    assert rank_correlation(order, -order) == pytest.approx(-1)
    assert rank_correlation(order, torch.tensor([3.0, 2.0, 1.0, 9.0])) == pytest.approx(0.8)
    assert math.isfinite(rank_correlation(order, torch.zeros(4)))
