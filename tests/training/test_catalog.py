"""Run folders are found by name, time, setting and metric; damaged and unfinished ones are told apart."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import interp
from interp.data import CopyConfig
from interp.errors import ConfigError, RunFolderError
from interp.models import AttnAttnConfig, ConvAttnConfig
from interp.training import RunConfig, TrainConfig, fit
from interp.training.catalog import Runs, find_runs

DATA = CopyConfig(n_symbols=5, length=3, n_train=32, n_validation=8)
TRAIN = TrainConfig(max_steps=2, batch_size=16, n_evals=2, device="cpu", keep_checkpoints=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real runs, and copies of the second with other settings, times and states."""
    folder = tmp_path_factory.mktemp("runs")
    fit(RunConfig(model=AttnAttnConfig(d_model=8), data=DATA, train=TRAIN), folder / "a-1", progress=False)
    fit(RunConfig(model=ConvAttnConfig(d_model=8), data=DATA, train=TRAIN), folder / "deep" / "b-2", progress=False)
    for name, lr, corpus, started in (("c-3", 1e-2, "wiki-a", "2020-01-02T03:04:05+00:00"), ("d-4", 1e-5, "wiki-b", None)):
        copy = shutil.copytree(folder / "deep" / "b-2", folder / name)
        config = json.loads((copy / "config.json").read_text())
        config["train"]["lr"], config["data"]["corpus"] = lr, corpus
        config["model"]["masked_taps"] = [-1] if name == "c-3" else []
        (copy / "config.json").write_text(json.dumps(config))
        if started is None:
            (copy / "run.json").unlink()
        else:
            (copy / "run.json").write_text(json.dumps({"started": started}))
    with (folder / "d-4" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 3, "validation_l')  # being written
    (folder / "d-4" / "provenance.json").unlink()
    shutil.copytree(folder / "a-1", folder / "e-5")
    (folder / "e-5" / "config.json").write_text('{"model": ')
    (folder / "notes").mkdir()
    (folder / "notes" / "config.json").write_text("{}")
    return folder


def names(found: Runs) -> list[str]:
    return [run.name for run in found]


def test_every_run_folder_is_found_once_in_the_order_of_its_start(runs: Path) -> None:
    found = find_runs(runs)
    assert names(found)[0] == "c-3"
    assert sorted(names(found)) == ["a-1", "b-2", "c-3", "d-4", "e-5"], "no copies of the model inside a run, no other folders"
    assert names(found)[-1] == "d-4", "its start is not known"
    assert {run.name: run.state for run in found} == {
        "a-1": "finished",
        "b-2": "finished",
        "c-3": "finished",
        "d-4": "unfinished",
        "e-5": "damaged",
    }
    assert names(find_runs(runs / "deep" / "b-2")) == ["b-2"], "the folder itself"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["model.kind=conv_attn"], {"b-2", "c-3", "d-4"}),
        (["model.kind!=conv_attn"], {"a-1"}),
        (["lr<1e-3"], {"a-1", "b-2", "d-4"}),
        (["train.lr <= 1e-5"], {"d-4"}),
        (["lr>=1e-2"], {"c-3"}),
        (["train.lr=0.00001"], {"d-4"}),
        (["masked_taps=[-1]"], {"c-3"}),
        (["patience=null", "model.kind=attn_attn"], {"a-1"}),
        (["corpus=wiki-*"], {"c-3", "d-4"}),
        (["corpus=wiki"], set()),
        (["residual=false", "lr>1e-3"], {"c-3"}),
        (["n_layers=true"], set()),
        (["state=unfinished"], {"d-4"}),
        (["2020-01-02T03"], {"c-3"}),
        (["started<2021"], {"c-3"}),
        (["d-"], {"d-4"}),
        (["step=2", "a-1"], {"a-1"}),
        (["validation_loss>0", "b-"], {"b-2"}),
        (["validation_loss>1e9"], set()),
        (["kind=copy"], None),
    ],
)
def test_runs_are_found_by_name_time_setting_and_metric(runs: Path, filters: list[str], expected: set[str] | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="it may be data.kind or model.kind. Write it in full"):
            find_runs(runs, *filters)
    else:
        assert set(names(find_runs(runs, *filters))) == expected


def test_a_setting_is_never_mistaken_for_a_metric(runs: Path) -> None:
    """Readings have the learning rate of their step, which is not the run's."""
    run = find_runs(runs, "c-3").one()
    assert run.values["train.lr"] == 1e-2
    assert run.values["last_lr"] != 1e-2
    assert "lr" not in run.values


def test_a_found_run_opens_with_its_model(runs: Path) -> None:
    run = find_runs(runs, "b-2").one().open()
    tokens = torch.randint(0, 7, (2, 8))
    assert torch.equal(run.model(tokens), interp.load_model(runs / "deep" / "b-2")(tokens))
    assert run.config.data == DATA
    for name, state in (("d-4", "unfinished"), ("e-5", "damaged")):
        with pytest.raises(RunFolderError, match=f"the run is {state}"):
            find_runs(runs, name).one().open()
    with pytest.raises(RunFolderError, match="5 were found: c-3, "):
        find_runs(runs).one()
    with pytest.raises(RunFolderError, match="0 were found. Change"):
        find_runs(runs, "nothing of that name").one()


def test_the_table_has_what_varies_and_the_last_metrics(runs: Path) -> None:
    found = find_runs(runs, "model.kind=conv_attn")
    table = found.to_frame()
    assert list(table.columns)[:3] == ["name", "started", "state"]
    assert set(table.columns) >= {"train.lr", "data.corpus", "model.masked_taps", "step", "validation_loss", "folder"}
    assert "train.batch_size" not in table.columns
    rows = {row["name"]: row for row in found.to_rows()}
    assert rows["c-3"]["model.masked_taps"] == [-1]
    assert rows["b-2"]["data.corpus"] is None
    assert rows["d-4"]["step"] == 2, "the line that is being written is left out"
    chosen = found.sorted_by("-lr").to_frame(["name", "lr", "masked_taps"])
    assert chosen.to_dict("list") == {
        "name": ["c-3", "b-2", "d-4"],
        "train.lr": [1e-2, 3e-4, 1e-5],
        "model.masked_taps": ["[-1]", "[]", "[]"],
    }
    assert names(found.sorted_by("data.corpus")) == ["c-3", "d-4", "b-2"], "runs without it come last"
    assert names(found.sorted_by("-data.corpus")) == ["d-4", "c-3", "b-2"]
    assert repr(found).startswith("3 runs\n")
    assert "c-3" in found._repr_html_()
    assert (repr(Runs([])), list(Runs([]).to_frame().columns)) == ("0 runs", [])
    assert isinstance(found[:2], Runs)


def test_wrong_names_are_told(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'lrr' of a run: .*Did you mean 'lr'"):
        find_runs(runs, "lrr=3")
    with pytest.raises(ConfigError, match="Did you mean 'validation_loss'"):
        find_runs(runs).sorted_by("validaton_loss")
    with pytest.raises(ConfigError, match="seed' of a run: it may be data.seed or train.seed"):
        find_runs(runs).to_frame(["seed"])
    with pytest.raises(RunFolderError, match="no such folder. Did you mean 'notes'"):
        find_runs(runs / "note")
    assert len(find_runs(tmp_path)) == 0
