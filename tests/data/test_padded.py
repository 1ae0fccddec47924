"""Code as a corpus, and rows of whole lines with padding that counts nowhere."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.data import CORPORA, PaddedTextConfig, load_corpus, load_data, padded_rows
from interp.data.python_docs import python_docs
from interp.data.python_source import python_source, without_docstrings
from interp.errors import ConfigError, DataError
from interp.models import TransformerConfig
from interp.probes import perplexity
from interp.training import RunConfig, TrainConfig, fit
from interp.training.objectives import Batch, mean_loss, training_batch


def test_docstrings_go_and_code_stays() -> None:
    source = '''"""Module."""

import os  # kept
def f(x): "one line"; return x
class A:
    """Two
    lines.""" # after
    name = "no docstring"
    async def g(self):
        """é""";  return """kept"""
    def h(self):
        "last"
'''
    kept = without_docstrings(source).split("\n")
    assert kept == [
        "import os  # kept",
        "def f(x): ; return x",
        "class A:",
        "     # after",
        '    name = "no docstring"',
        "    async def g(self):",
        '        ;  return """kept"""',
        "    def h(self):",
    ]
    assert without_docstrings("") == ""
    with pytest.raises(SyntaxError):
        without_docstrings("def")


def test_no_paragraph_of_the_documentation_stands_in_the_code() -> None:
    code = python_source()
    names = {name for name, _ in code}
    assert {"json.decoder", "argparse"} <= names
    joined = " ".join("\n".join(text for _, text in code).split())
    documents = [text for name, text in python_docs() if name in names]
    paragraphs = [" ".join(line.split()) for text in documents for line in text.split("\n") if " the " in line][::150]
    shared = [paragraph for paragraph in paragraphs if paragraph in joined]
    assert len(paragraphs) > 50
    assert len(shared) / len(paragraphs) < 0.02, shared[:3]
    assert "python-source" in CORPORA
    with pytest.raises(DataError, match="text without columns"):
        load_corpus("python-source", column="x")


def spelled(data: object, row: int) -> str:
    tokens, real = data.train[row], data.answers["train"][row]  # type: ignore[attr-defined]
    return data.tokenizer.decode(tokens[real])  # type: ignore[attr-defined]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    for split, n in (("train", 40), ("validation", 6), ("test", 6)):
        (tmp_path / f"{split}.txt").write_text("\n".join("ab" * (1 + number % 5) + str(number % 10) for number in range(n)))
    return str(tmp_path)


def test_rows_hold_whole_lines(corpus: str) -> None:
    data = load_data(PaddedTextConfig(corpus=corpus, tokenizer="characters", length=14))
    assert data.answers is not None
    lines = [line for row in range(len(data.train)) for line in spelled(data, row).splitlines()]
    assert lines == (Path(corpus) / "train.txt").read_text().split("\n")
    assert bool((data.train[:, 0] == data.bos_id).all())
    assert not bool(data.answers["train"][:, 0].any())
    assert bool((data.train[~data.answers["train"]] == data.bos_id).all())
    steps = data.answers["train"][:, 1:].int().diff(dim=1)
    assert int(steps.max()) <= 0, "padding stands on the right alone"
    assert "padding" in data.description


def test_long_lines_are_cut_and_the_number_of_rows_is_limited(corpus: str) -> None:
    data = load_data(PaddedTextConfig(corpus=corpus, tokenizer="characters", length=5, n_train=7, n_held_out=3))
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 3, 3)
    assert spelled(data, 4) == "abab"
    tokens, real = padded_rows([], data.tokenizer, length=5, most=3)  # type: ignore[arg-type]
    assert tokens.shape == real.shape == (0, 5)
    with pytest.raises(ConfigError, match="n_train"):
        PaddedTextConfig(n_train=0)


def test_what_stands_in_the_padding_changes_no_bit(corpus: str) -> None:
    source = PaddedTextConfig(corpus=corpus, tokenizer="characters", length=14)
    config = RunConfig(
        model=TransformerConfig(d_model=12, n_layers=1, n_heads=3, n_ctx=14),
        data=source,
        train=TrainConfig(epochs=1, batch_size=8, n_evals=2, targets="answers", device="cpu", sample_tokens=0),
    )
    data = load_data(source)
    assert data.answers is not None
    other = {split: torch.where(data.answers[split], getattr(data, split), 2) for split in ("train", "validation")}
    for tokens in other.values():
        tokens[:, 0] = data.bos_id
    changed = replace(data, **other)
    runs = [fit(config, data=each, progress=False) for each in (data, changed)]
    for mine, theirs in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert runs[0].metrics[-1]["answer_loss"] == runs[1].metrics[-1]["answer_loss"]
    for name in ("validation_loss", "validation_accuracy"):
        assert runs[0].metrics[-1][name] == runs[1].metrics[-1][name]
    everything = replace(config, train=replace(config.train, targets="all"))
    with pytest.raises(ConfigError, match="rows end in padding, which would be trained on.*Set train.targets=answers"):
        fit(everything, data=data, progress=False)
    counting = [fit(everything, data=replace(each, padded=False), progress=False).metrics[-1] for each in (data, changed)]
    assert counting[0]["answer_loss"] != counting[1]["answer_loss"], "the control: padding that counts changes the run"
    assert counting[0]["validation_loss"] != counting[1]["validation_loss"]
    batch = training_batch(config.train, data, torch.arange(8), 1)
    with torch.no_grad():
        loss = mean_loss("autoregressive", runs[0].model(batch.inputs), batch, batch.n_counted)
        alone = 0.0
        for row, real in zip(batch.tokens, data.answers["train"][:8], strict=True):
            whole = row[None, : 1 + int(real.sum())]
            alone += float(mean_loss("autoregressive", runs[0].model(whole), Batch(whole, whole, None), 1))
    assert float(loss) == pytest.approx(alone / batch.n_counted, abs=1e-5)
    mask = data.answers["validation"].clone()
    mask[:, 0] = True
    by_probe = perplexity(runs[0].model, data.validation, attention_mask=mask).values[0, 0].item()
    assert runs[0].metrics[-1]["validation_loss"] == pytest.approx(by_probe, abs=1e-6)
