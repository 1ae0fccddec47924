"""The study of planted bugs, end to end at a size of seconds, and its verdicts on results that fail."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.debug_encoder import train
from experiments.debug_encoder.__main__ import calibration_batch, main, padded_batch
from experiments.debug_encoder.answers import VARIANTS, Found, verdicts
from experiments.debug_encoder.baseline import bag_of_words
from experiments.debug_encoder.config import QUICK, HuggingFace, Training
from experiments.debug_encoder.planted import BUGS
from experiments.debug_encoder.train import Encoded, Job, fine_tune, hugging_face_model, train_all, with_sites
from interp.cli import run_study
from interp.data.sentiment import Labelled, SentimentConfig, encode_padded, load_sentiment, word_tokenizer
from interp.errors import ModelError
from interp.models.encoder import EncoderConfig
from interp.probes.health import Diagnosis, diagnose
from interp.probes.health_checks import Finding
from interp.result import Result
from tests.training.tiny import published

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


def test_a_language_model_can_be_the_classifier(tmp_path: Path) -> None:
    """GPT-2 has no padding of its own, reads up to 40 tokens here, and is found its way through without being described."""
    data = load_sentiment(SentimentConfig(n_texts=60))
    study = replace(QUICK, hugging_face=HuggingFace(model=str(published(tmp_path)), train=Training(epochs=1, batch_size=16)))
    model, tokenizer, described = hugging_face_model(study, None, data)
    assert tokenizer.pad_token_id == model.config.pad_token_id == tokenizer.eos_token_id
    assert described == f"{tmp_path.name}, pretrained"
    reached, held_out = fine_tune(model, tokenizer, data, study)
    assert len(reached) == 1 and 0 <= held_out <= 1
    tokens = encode_padded(tokenizer, data.test.texts, 16)
    assert diagnose(with_sites(model, tokenizer.pad_token_id), tokens, pad_id=tokenizer.pad_token_id).healthy
    with pytest.raises(ModelError, match="does not read 48 tokens.*Set length lower"):
        hugging_face_model(replace(study, length=48), None, data)


def test_trained_encoders_are_kept_and_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(0, 9, (20, 8), generator=torch.Generator().manual_seed(0))
    part = Encoded(tokens, tokens[:, 0] % 2)
    job = Job("correct", 3, EncoderConfig(d_vocab=9, d_model=8, n_heads=2, n_ctx=8), Training(epochs=1), part, part)
    ((first, reached),) = train_all([job], 1, tmp_path)
    monkeypatch.setattr(train, "train_encoder", lambda job: pytest.fail("it was trained again"))
    ((again, same),) = train_all([job], 1, tmp_path)
    assert same == reached
    assert torch.equal(again(tokens), first(tokens))
    others = [
        replace(job, seed=4),
        replace(job, how=Training(epochs=2)),
        replace(job, train=Encoded(tokens.flip(0), part.labels)),
    ]
    assert len({each.id for each in (job, *others)}) == 4


def test_calibration_cuts_long_texts_to_different_lengths() -> None:
    long = torch.ones(50, 30, dtype=torch.long)
    assert (calibration_batch(long, 12) != 0).sum(1).unique().tolist() == list(range(4, 13))
    mixed = long.masked_fill(torch.arange(30) > 20, 0)
    assert torch.equal(calibration_batch(mixed, 30), padded_batch(mixed)), "short ones are taken as they are"


def test_words_are_counted() -> None:
    """The generated texts turn some cue words round: counting gets most right, and cannot get all."""
    data = load_sentiment(SentimentConfig(n_texts=600))
    assert 0.6 < bag_of_words(word_tokenizer(data, 4096), data) < 0.9
    turned = replace(data, test=Labelled(data.test.texts, 1 - data.test.labels))
    assert bag_of_words(word_tokenizer(data, 4096), turned) < 0.4, "the labels are read"


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
        bag_of_words=0.8,
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
