"""The study of the phase change, end to end at a size of seconds; its predictions can hold and fail; a run can be bundled."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp
from experiments import bundle_models
from experiments.phase_change.__main__ import main
from experiments.phase_change.answers import GAIN, headline, lost, verdicts
from experiments.phase_change.config import ONE, SMEARED, TWO, VARIANTS
from experiments.phase_change.measure import SETS, around, nearest_step
from interp.errors import RunFolderError
from interp.provenance import weights_hash
from interp.result import Result
from interp.training import PhaseChange, kept_checkpoints, phase_change, read_provenance

TINY = [
    "seeds=[0,1]",
    "data.tokenizer=characters",
    "data.length=24",
    "model.d_model=12",
    "model.n_heads=2",
    "model.d_head=8",
    "period=5",
    "rows=8",
    "early=4",
    "window=3",
    "train.max_steps=14",
    "train.n_evals=20",
    "train.keep_checkpoints=20",
    "train.eval_sequences=4",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "corpus").mkdir()
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "The old", "clockmaker", "set", "by hand.", "Nobody", "why"]
    for split, start in (("train", 0), ("validation", 3), ("test", 5)):
        lines = [" ".join(words[(start + n * k) % len(words)] for k in range(1, 12)) for n in range(60)]
        (folder / "corpus" / f"{split}.txt").write_text("\n".join(lines))
    places = ["--out", str(folder / "page"), "--runs", str(folder / "runs"), "--workers", "1"]
    main([*places, f"data.corpus={folder / 'corpus'}", *TINY])
    return folder


def test_the_study_ends_in_a_page(done: Path) -> None:
    html = (done / "page" / "index.html").read_text()
    for heading in ("Answers", "When, and what comes with it", "Every head, step by step", "The same text, before and after"):
        assert f">{heading}<" in html
    data = json.loads((done / "page" / "results.json").read_text())
    assert len(data["verdicts"]) == 8
    found = {group: {name: Result.from_json(one) for name, one in parts.items()} for group, parts in data["results"].items()}
    assert found["final"]["induction"].labels_of("variant") == VARIANTS
    assert found["removal"]["gain, random tokens"].labels_of("variant") == SETS
    frames = found["heads over steps"]
    steps = frames["induction"].labels_of("step")
    assert steps[0] == "0"
    assert steps[-1] == "14"
    assert frames["induction"].values.shape == (len(steps), 2, 2)
    (run,) = (done / "runs").glob("two-layers-seed0-*")
    kept = interp.open_checkpoint(run, 14)
    last = interp.head_scores(kept, scores=["induction"], period=5, n_sequences=16, seed=102)
    assert torch.allclose(frames["induction"].values[-1], last.values[0])
    composed = interp.composition_scores(kept, "K").values[0, :, 1]
    assert torch.allclose(frames["K-composition"].values[-1], composed)


def test_a_run_is_bundled_with_chosen_checkpoints_and_a_card(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = (done / "runs").glob("two-layers-seed0-*")
    monkeypatch.setitem(bundle_models.ABOUT, "mine", "a model of <two> layers")
    with pytest.raises(RunFolderError, match="the steps kept are 0, 1, 2"):
        bundle_models.bundle("mine", run, [13_000], tmp_path)
    with pytest.raises(RunFolderError, match="nothing is said about it"):
        bundle_models.bundle("other", run, [], tmp_path)
    place = bundle_models.bundle("mine", run, [0, 14], tmp_path)
    assert kept_checkpoints(place) == (0, 14)
    assert weights_hash(interp.open_checkpoint(place, 14)) == read_provenance(place).weights
    card = bundle_models.card(place, [bundle_models._row("a score", "nats", 1.25, 0.5, None)])
    assert "| a score | 1.250 ± 0.500 nats |" in card
    assert "| checkpoints | 0, 14" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[1,1]"], "one or more different numbers"),
        (["model.n_layers=3"], "two layers of attention"),
        (["model.n_ctx=70"], "four copies of period"),
        (["train.keep_checkpoints=7"], "eight checkpoints"),
        (["early=58"], "two windows must fit"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def over(variants: tuple[str, ...], numbers: tuple[float, ...], baseline: float | None = None) -> Result:
    values = torch.tensor([[number, number] for number in numbers], dtype=torch.float64)
    labels = {"variant": variants, "seed": ("0", "1")}
    return Result(name="made up", values=values, axes=("variant", "seed"), labels=labels, baseline=baseline)


def rise(middle: float, height: float, start: float = 0.02) -> Result:
    steps = torch.logspace(0, 4, 25, dtype=torch.float64).round().unique()
    curve = start + height * torch.sigmoid((steps / middle).log() / 0.15)
    values = torch.stack([curve, curve + 1e-4 * torch.linspace(0, 1, len(steps)).sin()])
    labels = {"seed": ("0", "1"), "step": tuple(str(int(step)) for step in steps)}
    return Result(name="made up", values=values, axes=("seed", "step"), labels=labels, baseline=0.1)


def made(*, good: bool) -> tuple[dict[str, Result], dict[str, PhaseChange], dict[str, Result], dict[str, Result]]:
    """Results under which every prediction holds, or none."""
    names = (TWO, ONE, SMEARED)
    final = {name: over(names, (2.0, 0.1, 1.0)) for name in ("gain, random tokens", "gain, passages")}
    final["induction"] = over(names, (0.9, 0.02, 0.8) if good else (0.1, 0.2, 0.02), 0.03)
    final["induction, tokens in random order"] = over(names, (0.04, 0.04, 0.04))
    final["first token"] = over(names, (0.5, 0.1, 0.5))
    final["in-context learning"] = over(names, (-0.5, -0.1, -0.4) if good else (0.5, -0.1, -0.4))
    flat = rise(100, 0.0)
    changes = {
        "induction": phase_change(rise(100, 0.9) if good else flat),
        "previous token": phase_change(rise(90 if good else 500, 0.9)),
        "K-composition": phase_change(rise(100, 0.2, 0.1)),
    }
    if not good:  # it is there, but wide and late
        wide = replace(rise(100, 0.9))
        steps = torch.tensor([float(step) for step in wide.labels_of("step")], dtype=torch.float64)
        curve = 0.02 + 0.9 * torch.sigmoid((steps / 100).log() / 0.6)
        changes["induction"] = phase_change(replace(wide, values=torch.stack([curve, curve])))
    changes |= {name: phase_change(rise(100 if good else 1000, 2.0)) for name in ("gain, random tokens", "gain, passages")}
    pair = {
        "the circuit's pair": rise(100, 0.2 if good else 0.01, 0.1),
        "other pairs, mean": rise(100, 0.0, 0.1),
    }
    cut = {name: over(SETS, (2.0, 0.2, 1.9, 1.8, 0.3) if good else (2.0, 1.9, 1.0, 0.5, 1.9)) for name in final}
    return final, changes, pair, cut


def test_each_prediction_can_hold_and_can_fail() -> None:
    final, changes, pair, cut = made(good=True)
    assert [card.outcome for card in verdicts(final, changes, pair, cut)] == ["supported"] * 8
    assert "0.90" in headline(final, changes, cut) and "comes with it" in headline(final, changes, cut)
    late = changes | {GAIN: phase_change(rise(1000, 2.0))}
    assert "comes at another time" in headline(final, late, cut)
    assert "cannot be told in every seed" in headline(final, changes | {GAIN: phase_change(rise(100, 0.0))}, cut)
    answers = {card.question: card.answer for card in verdicts(final, changes, pair, cut)}
    assert answers["Is it abrupt?"].startswith("In all 2 seeds the rise")
    assert [card.outcome for card in verdicts(*made(good=False))] == ["refuted"] * 8
    assert all("Predicted: " in card.evidence for card in verdicts(final, changes, pair, cut))


def test_shares_and_steps_by_hand() -> None:
    table = over(SETS, (2.0, 0.5, 2.2, 1.0, 0.0))
    assert lost(table, "induction heads").tolist() == pytest.approx([0.75, 0.75])
    assert lost(table, "as many others, mean").tolist() == pytest.approx([-0.1, -0.1])
    steps = (0, 1, 10, 100, 1000)
    assert [nearest_step(steps, wanted) for wanted in (0, 3, 4, 700, 9e9)] == [0, 1, 10, 1000, 1000]
    assert around({"t10": 15, "t50": 60, "t90": 400}, steps) == {"before": 10, "at half": 100, "after": 1000, "at the end": 1000}
