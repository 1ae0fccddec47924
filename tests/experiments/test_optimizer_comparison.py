"""The optimizer study, end to end at a size of seconds, and the mistakes a user can make."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.optimizer_comparison.__main__ import main
from experiments.optimizer_comparison.answers import BEFORE, headline, verdicts
from experiments.optimizer_comparison.config import ADAM, ADAMW, MOMENTUM, MUON, OPTIMIZERS, QUICK, SGD, grid, searched, tuned
from experiments.optimizer_comparison.measure import best_rates
from interp.result import Result

TINY = [
    "seeds=[0]",
    "search_seed=2",
    "rates=3",
    "timed_steps=2",
    "moved.network.d_model=16",
    "moved.network.n_layers=1",
    "moved.first.tokenizer=characters",
    "moved.train.max_steps=3",
    "moved.train.n_evals=2",
    "moved.then.n_train=24",
    "moved.then.n_held_out=8",
    "train.epochs=2",
]


@pytest.fixture
def corpora(tmp_path: Path) -> list[str]:
    for name, words in (("first", "alpha beta gamma delta"), ("then", "def return gamma beta alpha del")):
        folder = tmp_path / name
        folder.mkdir()
        for split in ("train", "validation", "test"):
            lines = [" ".join(words.split()[(n * k) % 4] for k in range(1, 3 + n % 9)) for n in range(200)]
            (folder / f"{split}.txt").write_text("\n".join(lines))
    return [f"moved.first.corpus={tmp_path / 'first'}", f"moved.then.corpus={tmp_path / 'then'}"]


def test_the_study_ends_in_a_page(tmp_path: Path, corpora: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1", *corpora, *TINY])
    assert capsys.readouterr().out.rstrip().endswith(f"The report is at {tmp_path / 'page' / 'index.html'}")
    html = (tmp_path / "page" / "index.html").read_text()
    for heading in ("Answers", "The search for learning rates", "Training", "Time per step"):
        assert f">{heading}<" in html
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert len(data["verdicts"]) == 7
    found = {name: Result.from_json(result) for name, result in data["results"]["results"].items()}
    assert found["test loss"].values.shape == (6, 1)
    assert found["search"].values.shape == (5, 3)
    assert found["padding"].values[:2].tolist() == [0, 0]
    assert float(found["padding"].values[3]) > 0
    assert torch.allclose(found["test perplexity"].values, found["test loss"].values.exp())
    epochs = {name: Result.from_json(result) for name, result in data["results"]["perplexity by epoch"].items()}
    assert {result.labels_of("step") for result in epochs.values()} == {("0", "1", "2")}
    starts = torch.stack([result.values[:, 0] for result in epochs.values()])
    assert torch.equal(starts, starts[:1].expand_as(starts)), "in each seed all begin at the same model"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[]"], "one or more different numbers"),
        (["seeds=[1,1]"], "one or more different numbers"),
        (["seeds=[9]"], "without search_seed"),
        (["rates=4"], "rates must be odd"),
        (["train.max_steps=3"], "set train.epochs"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_every_optimizer_gets_as_many_rates_over_the_same_range() -> None:
    for name, (_, _, middle) in OPTIMIZERS.items():
        rates = grid(QUICK, name)
        assert len(rates) == len(set(rates)) == QUICK.rates
        assert rates[QUICK.rates // 2] == middle
        assert rates[-1] / rates[0] == pytest.approx(QUICK.factor ** (QUICK.rates - 1), rel=0.01)
    assert len(searched(QUICK)) == QUICK.rates * len(OPTIMIZERS)
    trains = {replace(tuned(QUICK, name, 0.5, 7, 100), optimizer="adamw", momentum=0.0) for name in OPTIMIZERS}
    assert len(trains) == 1, "but for the optimizer all is equal"
    assert next(iter(trains)).eval_every == 7


def results(**losses: float) -> dict[str, Result]:
    names = (BEFORE, *OPTIMIZERS)
    values = torch.tensor([[losses.get(name.split(",")[-1].strip(), 3.0)] * 2 for name in names], dtype=torch.float64)
    labels = {"variant": names, "seed": ("0", "1")}
    loss = Result(name="test loss", values=values, axes=("variant", "seed"), labels=labels)
    search = torch.tensor([[3.0, 2.0, 4.0]] * 5)
    times = torch.ones(5, 2, 3)
    return {
        "test loss": loss,
        "test perplexity": replace(loss, values=values.exp()),
        "search": Result(name="search", values=search, axes=("variant", "rate"), labels={"variant": tuple(OPTIMIZERS)}),
        "time per step": Result(name="t", values=times, axes=("variant", "part", "step"), labels={"variant": tuple(OPTIMIZERS)}),
        "padding": Result(name="padding", values=torch.tensor([0.0, 0.0, 1e-7, 0.5]), axes=("quantity",)),
    }


def test_a_failed_prediction_is_called_refuted() -> None:
    rates = dict.fromkeys(OPTIMIZERS, 0.1)
    none = [card.outcome for card in verdicts(results(before=3.1), rates)]
    assert none == ["refuted", "refuted", "supported", "refuted", "refuted", "supported", "supported"]
    held = results(before=4.0, SGD=3.1, momentum=3.1, Adam=3.1)
    held["time per step"].values[list(OPTIMIZERS).index(MUON), 1] = 4.0
    assert {card.outcome for card in verdicts(held, rates)} == {"supported"}
    held["search"].values[0] = torch.tensor([1.0, 2.0, 3.0])
    held["padding"].values[1] = 1e-9
    assert [card.outcome for card in verdicts(held, rates)][-2:] == ["refuted", "refuted"]
    assert "AdamW lies at its grid's edge" in verdicts(held, rates)[-2].answer
    assert all(name in headline(held) for name in (ADAMW, SGD, MOMENTUM, ADAM, MUON))


def test_the_best_rate_has_the_lowest_loss() -> None:
    study = replace(QUICK, rates=3)
    search = results()["search"]
    assert best_rates(search, study) == {name: middle for name, (_, _, middle) in OPTIMIZERS.items()}
