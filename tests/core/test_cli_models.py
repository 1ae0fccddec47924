"""The commands on a model: their numbers are the library's, mistakes have code 2, files are whole or not there."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp
from interp.cli import inputs, texts
from interp.cli.main import main
from interp.models.constructed import smeared_induction

MODEL, TWO_LAYERS, TEXT = "conv-attn", "attn-attn-supplied", "conv-attn-text"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_scores_are_those_of_the_library(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    period = (1 + 2 * 16 - 1) // 4  # four copies fit into what it was trained on
    wanted = interp.head_scores(interp.load_model(TWO_LAYERS), period=period)
    rows = printed(capsys, "score", TWO_LAYERS, "--out", "s.json", "--batch-size", "5")
    assert len(rows) == wanted.values.numel()
    for row in rows:
        cell = wanted.at(score=wanted.labels_of("score").index(row["score"]), layer=row["layer"], head=row["head"])
        assert row["value"] == pytest.approx(cell.item(), abs=1e-6)
    saved = interp.Result.load("s.json")
    torch.testing.assert_close(saved.values, wanted.values, atol=1e-6, rtol=0)
    assert saved.provenance.tokens == wanted.provenance.tokens

    assert main(["score", TWO_LAYERS, "--scores", "entropy,induction", "--top", "1", "--csv"]) == 0
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (first["score"], second["score"]) == ("entropy", "induction")
    assert float(first["value"]) == pytest.approx(float(wanted.values[-1].min()), abs=1e-6), "the most focused"
    assert float(second["value"]) == pytest.approx(float(wanted.values[0].max()), abs=1e-6)


def test_ablations_together_and_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    model = interp.load_model(TWO_LAYERS)
    tokens = interp.repeated_tokens(model, period=7, n_sequences=6, seed=2)
    metric = interp.metrics.loss(range(9, 15))
    words = ["ablate", TWO_LAYERS, "--period", "7", "--sequences", "6", "--seed", "2", "--batch-size", "4"]
    sweep = interp.ablation_sweep(model, tokens, metric, progress=False)
    rows = printed(capsys, *words)
    assert [abs(row["effect"]) for row in rows] == sorted((abs(row["effect"]) for row in rows), reverse=True)
    assert all(row["effect"] == pytest.approx(float(sweep.values[row["layer"], row["head"]]), abs=1e-5) for row in rows)

    (row,) = printed(capsys, *words, "--heads", "0.0,1.0", "--mode", "zero")
    before = interp.metrics.metric_values(model, tokens, metric).values
    with interp.ablated(model, heads=[(0, 0), (1, 0)], mode="zero"):
        after = interp.metrics.metric_values(model, tokens, metric).values
    assert (row["before"], row["after"]) == pytest.approx((float(before.mean()), float(after.mean())), abs=1e-5)
    assert row["stderr"] == pytest.approx(float((after - before).double().std() / 6**0.5), rel=1e-4)
    (row,) = printed(capsys, *words, "--layers", "0", "--mode", "mean")
    alone = interp.ablation_sweep(model, tokens, metric, "layers", progress=False)
    assert row["effect"] == pytest.approx(float(alone.values[0]), abs=1e-5)


def test_patching_finds_the_copied_token(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["patch", TWO_LAYERS, "--site", "resid_pre", "--period", "6"]
    rows = printed(capsys, *words, "--positions", "source,prefix", "--n", "5")
    assert {(row["layer"], row["position"]): round(row["value"], 3) for row in rows} == {
        (0, "source"): 1.0, (1, "source"): 1.0, (0, "prefix"): 0.0, (1, "prefix"): 0.0,
    }  # fmt: skip
    rows = printed(capsys, *words, "--over", "layer,position", "--n", "3")
    assert [rows[place]["position"] for place in (0, 1)] == ["6 source", "6 source"]
    assert len(rows) == 2 * 12


def test_pairs_from_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.csv").write_text('clean,corrupted,answer,wrong\n12,13,.,","\n')
    (row,) = printed(capsys, "patch", TEXT, "--pairs", "p.csv", "--values", "metric", "--checkpoint", "cells")
    pairs = interp.data.load_pairs("p.csv", interp.load_model(TEXT).tokenizer)
    wanted = interp.activation_patching(interp.load_model(TEXT), pairs.clean, pairs.corrupted, pairs.metric(), progress=False)
    assert row["value"] == pytest.approx(wanted.item(), abs=1e-5)
    assert Path("cells").exists()


def test_smear_with_its_control(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = printed(capsys, "smear", MODEL, "--examples", "8")
    assert row["lag 1"] == pytest.approx(interp.key_smear(interp.load_model(MODEL), n_examples=8).item(), abs=1e-5)
    assert row["lag 2"] == 0.0


def test_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", MODEL, "--prompt", "0 7 3 9 7", "--tokens", "3"]
    assert main(words) == 0
    assert capsys.readouterr().out == "0 7 3 9 7 3 9 7\n", "it goes on with the repeat"
    (row,) = printed(capsys, *words)
    assert (row["new_tokens"], len(row["log_probs"])) == ([3, 9, 7], 3)
    (without,) = printed(capsys, *words, "--ablate", "0.0")
    assert without["new_tokens"] != row["new_tokens"], "without its head it cannot"


def test_the_audit_and_its_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys, "audit", MODEL, "--page", "a")
    found = {(row["kind"], row["layer"]): row["writable"] for row in rows}
    assert found["z", 0] and not found["mlp_out", 0]
    assert "interp audit conv-attn --page a --json" in Path("a/index.html").read_text()


def test_a_page_of_one_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", TWO_LAYERS, "--scores", "induction", "--page", "x"]) == 0
    saved = json.loads(Path("x/results.json").read_text())
    assert saved["command"] == "interp score attn-attn-supplied --scores induction --page x"
    assert list(saved["results"]) == ["head_scores"]


def test_a_text_is_cut_into_rows_that_begin_with_bos(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interp.load_model(TEXT)
    text = "one two three one two three one two three"
    Path("t.txt").write_text(text)
    row = texts.encode(model, text)
    bos, ids = model.tokenizer.bos_token_id, model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row.tolist() == [[bos, *ids]]
    tokens, told = texts.cut(row, model, 8, 2, "t")
    assert tokens.tolist() == [[bos, *ids[:7]], [bos, *ids[7:14]]]
    assert told == f"2 of {len(ids) // 7} sequences of 8 tokens of t"
    assert torch.equal(texts.cut(row, model, None, 9, "t")[0], row), "shorter than a sequence: as it is"

    wanted = interp.head_scores(model, tokens, scores=["previous_token"]).values.item()
    words = ["score", TEXT, "--scores", "previous_token", "--length", "8", "--sequences", "2", "--text"]
    (found,) = printed(capsys, *words, "t.txt")
    assert found["value"] == pytest.approx(wanted, abs=1e-6)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert printed(capsys, *words, "-") == [found]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "conv-atn"], "Did you mean 'conv-attn'"),
        (["score", MODEL, "--scores", "inductoin"], "Did you mean 'induction'"),
        (["score", MODEL, "--text", "t.tx"], "Did you mean 't.txt'"),
        (["score", MODEL, "--text", "bytes.txt"], "byte 1 is not UTF-8"),
        (["score", MODEL, "--prompt", "hello"], "no tokenizer, so it reads numbers"),
        (["score", MODEL, "--prompt", "1 64"], "the vocabulary has 64"),
        (["score", MODEL, "--prompt", "1 2", "--period", "3"], "it is for random tokens, and would do nothing"),
        (["score", MODEL, "--length", "9"], "it is for a text, and would do nothing"),
        (["score", MODEL, "--period", "200"], "Give period="),
        (["score", MODEL, "--page", "t.txt/x"], "not a folder that can be written to"),
        (["score", "."], "it is no model folder"),
        (["ablate", MODEL, "--heads", "0.1"], "layers have heads 0 to 0"),
        (["ablate", MODEL, "--heads", "0.0", "--components", "mlps"], "ablated together, once"),
        (["ablate", MODEL, "--mode", "man"], "Did you mean 'mean'"),
        (["ablate", MODEL, "--mlps", "0"], "has no 'mlp_out'"),
        (["ablate", TWO_LAYERS, "--taps=-1"], "only a ConvAttn has a kernel"),
        (["patch", MODEL, "--site", "resid_pree"], "Did you mean 'resid_pre'"),
        (["patch", MODEL, "--site", "z", "--layers", "3"], "has 'z' at layers"),
        (["patch", MODEL, "--positions", "sorce"], "Did you mean 'source'"),
        (["patch", MODEL, "--pairs", "ioi"], "a fast tokenizer"),
        (["patch", MODEL, "--pairs", "ioi", "--period", "4"], "it would do nothing"),
        (["patch", MODEL, "--pairs", "inductions"], "Did you mean 'induction'"),
        (["sample", MODEL, "--prompt", "1 2", "--ablate", "4.0"], "at layers"),
        (["sample", MODEL, "--prompt", "1 2", "--temperature", "0"], "temperature 0.0: it divides the logits"),
        (["sample", MODEL, "--prompt", "1 2", "--top-p", "1.5"], "it is a probability"),
        (["sample", MODEL, "--prompt", "1 2", "--samples", "2"], "greedy continuations are all the same"),
    ],
)
def test_mistakes_end_in_one_message_and_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    def no_network(*_: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "nowhere")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Path("t.txt").write_text("words")
    Path("bytes.txt").write_bytes(b"a\xff")
    assert main(words) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err)
    assert said.out == "" and "Traceback" not in said.err
    assert sorted(path.name for path in here.iterdir()) == ["bytes.txt", "t.txt"]


def test_an_interrupt_leaves_no_file(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.interventions.sweeps.measured_values", interrupted)
    assert main(["ablate", MODEL, "--out", "a.json", "--page", "a"]) == 130
    assert "every file that was written is whole" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_calibration_and_its_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = smeared_induction(0.5)
    wrong = replace(right, name="wrong", expected={**right.expected, "key_smear": ((0.4,),)})
    monkeypatch.setattr("interp.models.constructed.all_constructed", lambda: (right, wrong))
    rows = printed(capsys, "calibrate", "smeared_ind")
    assert len(rows) == 8 and all(row["passed"] and row["model"] == "smeared_induction(0.5)" for row in rows)
    assert main(["calibrate", "wrong"]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("7 of 8 rows passed\n")
    assert "1 of 8 rows are not within their tolerance: key_smear on wrong" in said.err
    assert main(["calibrate", "smeared_inductoin"]) == 2
    assert "Did you mean 'smeared_induction'" in capsys.readouterr().err


def test_undefined_values_are_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys, "score", MODEL, "--prompt", "0 1 2 3 4", "--scores", "induction,first_token")
    assert [row["value"] is None for row in rows] == [True, False], "nothing repeats, so there is no induction row"


def test_repeats_fit_what_a_model_was_trained_on() -> None:
    assert inputs.trained_length(MODEL) == 33
    assert inputs.trained_length(TEXT) == 64
    assert inputs.usual_period(MODEL, interp.load_model(MODEL)) == 8
    assert inputs.usual_period("elsewhere", interp.load_model(MODEL)) == 25
    assert set(inputs.bundled_names()) == set(interp.bundled_models())
