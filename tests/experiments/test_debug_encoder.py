"""The study of planted bugs, end to end at a size of seconds, and its verdicts on results that fail."""

import json
from pathlib import Path

import pytest

from experiments.debug_encoder.__main__ import main
from experiments.debug_encoder.answers import VARIANTS, Found, verdicts
from experiments.debug_encoder.planted import BUGS
from interp.cli import run_study
from interp.probes.health import Diagnosis
from interp.probes.health_checks import Finding
from interp.result import Result

TINY = [
    "seeds=[0]",
    "data.n_texts=120",
    "encoder.d_model=16",
    "train.epochs=1",
    "hugging_face.train.epochs=1",
    "calibration_seeds=1",
]


def test_the_study_ends_in_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1", *TINY])
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(f"The report is at {tmp_path / 'page' / 'index.html'}")
    html = (tmp_path / "page" / "index.html").read_text()
    for heading in ("Answers", "Bug, symptom, evidence", "What the attention maps show", "The practical way", "Provenance"):
        assert f">{heading}<" in html
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert len(data["verdicts"]) == 6
    hits = Result.from_json(data["results"]["planted bugs found"])
    assert hits.labels_of("bug") == tuple(bug.name for bug in BUGS)
    assert int(Result.from_json(data["results"]["false alarms"]).values[:, 0].sum()) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.source=/nowhere.zip"], "/nowhere.zip"),
        (["hugging_face.model=/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_mistakes_end_in_one_line(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_study(main, ["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), *TINY, *words]) == 1
    error = capsys.readouterr().err
    assert "error: " in error and message in error
    assert not (tmp_path / "page").exists()


def diagnosis(*checks: str) -> Diagnosis:
    return Diagnosis(tuple(Finding(name, "layer 0", "evidence", "cause", 1.0, 0.0) for name in checks), {}, {})


def found(seen: bool, alarm: bool, correct: float, broken: float) -> Found:
    return Found(
        planted={bug.name: [diagnosis(bug.expected[0]) if seen else diagnosis()] for bug in BUGS},
        healthy={"kind": [diagnosis("dead units") if alarm else diagnosis()]},
        trained={name: [diagnosis(*next((bug.expected for bug in BUGS if bug.name == name and seen), ()))] for name in VARIANTS},
        accuracy={name: [correct if name == "correct" else broken] * 2 for name in VARIANTS},
        floor=0.7,
        floor_name="Adding up cue words",
        hf_accuracy=0.9,
        hf_before=("dead units",) if alarm else (),
        hf_after=(),
        hf_name="a model",
    )


def test_verdicts_follow_the_numbers() -> None:
    def outcomes(*arguments: object) -> list[str]:
        return [card.outcome for card in verdicts(found(*arguments))]  # type: ignore[arg-type]

    assert outcomes(True, False, 0.9, 0.6) == ["supported"] * 4 + ["refuted", "supported"]
    assert outcomes(True, False, 0.9, 0.85)[3:5] == ["refuted", "supported"]
    assert outcomes(True, False, 0.7, 0.5)[3:5] == ["not tested"] * 2, "the correct one learnt nothing to lose"
    assert outcomes(False, False, 0.9, 0.6)[:3] == ["refuted", "supported", "refuted"]
    assert outcomes(True, True, 0.9, 0.6)[1] == "refuted" and outcomes(True, True, 0.9, 0.6)[5] == "refuted"
