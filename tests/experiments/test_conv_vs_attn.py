"""The first study, end to end at a size of seconds, and the mistakes a user can make."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.conv_vs_attn.__main__ import main
from experiments.conv_vs_attn.answers import headline, verdicts
from experiments.conv_vs_attn.config import CONV, QUICK, REPEATS, repeated_runs, text_runs
from experiments.conv_vs_attn.measure import induction_on_repeats, repeated_passages
from interp.cli import run_study
from interp.models import ConvAttn
from interp.result import Result

TINY = [
    "seeds=[0]",
    "repeated.data.n_train=64",
    "repeated.data.n_validation=8",
    "repeated.train.n_evals=2",
    "text.train.max_steps=3",
    "text.train.n_evals=2",
    "text.data.tokenizer=characters",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "The old", "clockmaker", "set", "by hand.", "Nobody", "why"]
    for split, start in (("train", 0), ("validation", 3), ("test", 5)):
        lines = [" ".join(words[(start + n * k) % len(words)] for k in range(1, 12)) for n in range(120)]
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return folder


def test_the_study_ends_in_a_page(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    words = [*places, f"text.data.corpus={corpus}", *TINY]
    main(words)
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(f"The report is at {tmp_path / 'page' / 'index.html'}")
    html = (tmp_path / "page" / "index.html").read_text()
    for heading in ("Answers", "Repeated random tokens: the kernel", "Text: scores", "Attention on a passage", "Provenance"):
        assert f">{heading}<" in html
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert len(data["verdicts"]) == 8
    induction = Result.from_json(data["results"]["repeated tokens"]["induction"])
    assert induction.axes == ("variant", "seed")
    assert induction.values.shape == (7, 1)
    assert len(list((tmp_path / "runs").rglob("*.safetensors"))) == 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["text.data.corpus=/nowhere/at/all"], "/nowhere/at/all"),
        (["passage=/nowhere.txt"], "cannot be read"),
        (["text.data.length=2000000"], "Use a longer text or a shorter length"),
    ],
)
def test_mistakes_end_in_one_line(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_study(main, ["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[]"], "seeds must be one or more different numbers"),
        (["seeds=[1,1]"], "seeds must be one or more different numbers"),
        (["text.test_period=64"], "text: test_period must be at least 2 and below data.length, 64"),
        (["repeated.test_period=8"], "repeated: test_period must be at least 2 and below the shortest repeat trained on, 8"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_models_reach_as_far_as_their_data() -> None:
    long = replace(QUICK, text=replace(QUICK.text, data=replace(QUICK.text.data, length=700)))
    assert {run.model.n_ctx for run in text_runs(long).values()} == {700}


def test_a_passage_must_be_short_enough(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("The same. " + "Other words. " * 60 + "The same.")
    assert run_study(main, ["--runs", str(tmp_path), f"passage={tmp_path / 'p.txt'}", f"text.data.corpus={corpus}", *TINY]) == 1
    assert "the models read up to 512. Give a shorter one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"], "refused before anything is trained"


def test_a_passage_must_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("One thing. Another thing.")
    assert run_study(main, [f"passage={tmp_path / 'p.txt'}"]) == 1
    assert "begin with 'One thing.' and end with 'Another thing.'" in capsys.readouterr().err


def test_variants_differ_in_one_thing() -> None:
    repeated, text, seed = repeated_runs(QUICK), text_runs(QUICK), QUICK.seeds[0]
    assert len({run.model for run in repeated.values()}) == 6
    assert len({(run.model, run.data) for run in repeated.values()}) == 7
    assert text[CONV, seed].model == text[CONV + REPEATS, seed].model
    assert text[CONV, seed].data == replace(text[CONV + REPEATS, seed].data, repeat_share=0.0)
    assert {run.train for run in repeated.values()} == {replace(QUICK.repeated.train, seed=seed) for seed in QUICK.seeds}


def table(name: str, values: dict[str, float], baseline: float | None = None) -> Result:
    return Result(
        name=name,
        values=torch.tensor([[v, v] for v in values.values()], dtype=torch.float64),
        axes=("variant", "seed"),
        labels={"variant": tuple(values), "seed": ("0", "1")},
        baseline=baseline,
    )


def study_results(induction: float) -> tuple[dict[str, Result], dict[str, Result]]:
    names = list(dict.fromkeys(variant for variant, _ in repeated_runs(QUICK)))
    words = list(dict.fromkeys(variant for variant, _ in text_runs(QUICK)))
    first = {
        key: table(key, dict.fromkeys(names, 0.0), 0.1)
        for key in ("smear", "smear, two back", "gain", "induction, trained length")
    }
    first["induction"] = table("induction", dict.fromkeys(names, induction), 0.1)
    second = {key: table(key, dict.fromkeys(words, 0.0), 0.1) for key in ("induction", "gain", "itself", "earlier copy")}
    return first, second


def test_a_failed_prediction_is_called_refuted() -> None:
    cards = {card.question: card.outcome for card in verdicts(*study_results(induction=0.0))}
    assert cards["Which architecture attends to what followed last time, and what does a repeat gain it?"] == "refuted"
    assert cards["Is it really the convolution? Mask the previous tap."] == "refuted", (
        "without the effect there is nothing to remove"
    )
    assert cards["Does ConvAttn learn induction from text?"] == "not tested", (
        "no model learned it, so the run was too short to say"
    )
    everywhere = {card.question: card.outcome for card in verdicts(*study_results(induction=0.9))}
    assert everywhere["Is it really the convolution? Mask the previous tap."] == "refuted"
    assert everywhere["Does AttnAttn do it once it has positions and a residual stream?"] == "refuted", "it does it without, too"
    words = {card.question: card.answer for card in verdicts(*study_results(induction=0.0))}
    assert not any(word in answer for answer in words.values() for word in ("falls", "rises")), "no direction is hard-coded"
    assert words["Which change brings it?"].startswith("Not the one predicted")
    assert all(card.evidence.startswith("Predicted: ") for card in verdicts(*study_results(induction=0.0)))
    assert "0.90" in headline(*study_results(induction=0.9))


def test_passages_are_held_out_text_said_twice() -> None:
    class Data:
        test = torch.arange(40).reshape(4, 10)

    rows = repeated_passages(Data(), period=4)  # type: ignore[arg-type]
    assert rows[1].tolist() == [10, 11, 12, 13, 14, 11, 12, 13, 14]


def test_the_best_head_is_scored_on_other_sequences() -> None:
    model = ConvAttn(d_vocab=30, d_model=12, n_heads=4)
    score = induction_on_repeats(model, period=5)
    assert 0 < score < 0.5
