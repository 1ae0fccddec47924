"""Settings: overrides from the command line, and what a mistake is told."""

from dataclasses import replace

import pytest

from interp.cli import run_study, study_command
from interp.config import as_dict, build, describe_fields, override, read_yaml
from interp.errors import ConfigError, DataError
from interp.training import RunConfig, TrainConfig


def test_overrides_are_typed() -> None:
    changed = override(RunConfig(), ["train.lr=1e-3", "model.d_model=24", "model.masked_taps=[-1]", "train.max_steps=null"])
    assert changed.train.lr == 1e-3
    assert changed.model.d_model == 24
    assert changed.model.masked_taps == (-1,)
    assert RunConfig().model.d_model != 24, "the original is untouched"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.lrr=1", r"'train.lrr'.*given 1.*Did you mean 'lr'.*Settings here: .*weight_decay"),
        ("trian.lr=1", r"unknown setting 'trian'.*the group lr.*Did you mean 'train'"),
        ("train.lr=fast", r"train.lr.*number.*given 'fast'"),
        ("train.lr=-1", r"train.lr.*greater than 0.*given -1"),
        ("train.epochs=1.5", r"train.epochs.*given 1.5"),
        ("train.optimizer=lion", r"'adamw', 'sgd', 'adam' or 'muon'.*given 'lion'"),
        ("train.lr", "not of the form key=value"),
        ("train.lr=[", "cannot be read"),
        ("train.lr.x=1", r"train.lr: .*valid number.*given the group x"),
        ("train=3", r"train: .*given 3"),
        ("lr=1", r"unknown setting 'lr'.*Did you mean 'train.lr'"),
        ("train.optimizer=adamv", r"Did you mean 'adam'"),
        ("lrr=1", r"unknown setting 'lrr'.*Did you mean 'train.lr'"),
        ("train..lr=1", "not of the form key=value"),
        ("=1", "not of the form key=value"),
        ("data.kind=repaeted", r"data: there is no data of kind 'repaeted'. Did you mean 'repeated'.*text"),
        ("data.perod=3", r"'data.perod'.*Did you mean 'period'.*Settings of repeated: .*period"),
        ("data.kind=[text]", r"data: there is no data of kind \['text'\].*Kinds: "),
        ("data=text", r"data: .*settings of a registered data.*given 'text'"),
        ("model.kernle=3", r"'model.kernle'.*Did you mean 'kernel'.*Settings of conv_attn: .*kernel"),
        ("model.kind=conv_atn", r"conv_atn.*Did you mean 'conv_attn'"),
    ],
)
def test_mistakes_are_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(RunConfig(), [assignment])


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)lr.*batch_sise.*Did you mean 'batch_size'"):
        build(TrainConfig, {"lr": -1, "batch_sise": 3}, source="file.yaml")


def test_mistakes_in_python_are_told_the_same_way() -> None:
    with pytest.raises(ConfigError, match=r"^TrainConfig: lr: .*greater than 0.*Did you mean 'batch_size'"):
        TrainConfig(lr=-1, batch_sise=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="momentum 0.5 acts only on sgd"):
        replace(TrainConfig(), momentum=0.5)
    with pytest.raises(ConfigError, match=r"^command line: train: momentum 0.5 .* momentum at 0\. Correct"):
        override(RunConfig(), ["train.momentum=0.5"])


def test_every_setting_is_explained() -> None:
    rows = describe_fields(RunConfig())
    assert {"model.kernel", "data.period", "train.lr"} <= {name for name, _, _ in rows}
    assert [name for name, _, text in rows if not text and not name.endswith("kind")] == []


def test_settings_are_plain_json() -> None:
    assert as_dict(RunConfig())["model"]["masked_taps"] == []


def test_a_study_command(capsys: pytest.CaptureFixture[str]) -> None:
    presets = {"quick": TrainConfig(epochs=1), "full": TrainConfig()}
    command = study_command("experiments.some_study", "Why?", presets, ["--preset", "full", "lr=0.5", "--out", "a b"])
    assert command.config == TrainConfig(lr=0.5)
    assert str(command.runs) == "runs/some_study"
    assert command.command == "python -m experiments.some_study --preset full lr=0.5 --out 'a b'"
    with pytest.raises(SystemExit) as stop:
        study_command("experiments.some_study", "Why?", presets, ["epoch=3"])
    assert stop.value.code == 2
    assert "Did you mean 'epochs'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        study_command("experiments.some_study", "Why?", presets, ["--out", f"{__file__}/page"])
    assert "test_config.py is not a folder that can be written to" in capsys.readouterr().err
    mixed = study_command("experiments.some_study", "Why?", presets, ["lr=0.5", "--out", "a b", "epochs=3"])
    assert mixed.config == TrainConfig(lr=0.5, epochs=3), "settings may stand before and after an option"
    with pytest.raises(SystemExit):
        study_command("experiments.some_study", "Why?", presets, ["--help"])
    text = capsys.readouterr().out
    assert "epochs = quick: 1 | full: 10" in text
    assert "passes over the training data" in text


def test_a_study_ends_with_words_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(argv: object) -> None:
        raise DataError("corpus 'x'", "it is empty", "Give another")

    def interrupted(argv: object) -> None:
        raise KeyboardInterrupt

    assert run_study(fails) == 1
    assert capsys.readouterr().err == "error: corpus 'x': it is empty. Give another\n"
    assert run_study(interrupted) == 130
    assert run_study(lambda argv: None) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2E5", -2e5),
        (".5", 0.5),
        ("7", 7),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2026-11-21", "2026-11-21"),
        ("010", "010"),
        ("true", True),
        ("null", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ("[1e-3, [no, ~]]", [0.001, ["no", None]]),
    ],
)
def test_words_are_read_as_people_mean_them(text: str, value: object) -> None:
    assert read_yaml(text, "a text") == value
    assert type(read_yaml(text, "a text")) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "'a' is set twice"),
        ("a: 1\n b: 2", r"^file.yaml: it cannot be read at line 2"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
        ("a: [1", "cannot be read"),
        ("? [1, 2]\n: 3", "cannot be read"),
        ("\x00", "cannot be read"),
        ("a: &a [*a]", "cannot be read"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(text, "file.yaml")


def test_contradicting_overrides_are_refused() -> None:
    with pytest.raises(ConfigError, match="train.lr is set twice"):
        override(RunConfig(), ["train.lr=1", "train.lr=2"])
    with pytest.raises(ConfigError, match="'train.lr', a part of this group, is set too"):
        override(RunConfig(), ["train={}", "train.lr=2"])
