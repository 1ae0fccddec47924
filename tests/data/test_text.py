"""Text as training data, end to end."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.config import build, setting, settings
from interp.data import DataConfig, RepeatedConfig, TextConfig, load_corpus, load_data, load_tokenizer, pack
from interp.data.text import with_repeats
from interp.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> str:
    texts = {"train": "alpha beta gamma delta ", "validation": "VALIDATION ", "test": "tttt "}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(text * 5 + str(i) for i in range(90)))
    return str(tmp_path)


def test_splits_are_packed_apart(folder: str) -> None:
    data = load_data(TextConfig(corpus=folder, tokenizer="characters", length=17))
    corpus = load_corpus(folder)
    tokenizer = load_tokenizer("characters", corpus)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(data, split), pack(getattr(corpus, split), tokenizer, length=17))
    capital = tokenizer.get_vocab().get("V", tokenizer.unk_token_id)  # unknown, since only validation has it
    assert capital == tokenizer.unk_token_id
    assert (data.validation == capital).any()
    assert not (data.train == capital).any()
    assert data.d_vocab == max(tokenizer.get_vocab().values()) + 1
    assert data.bos_id == tokenizer.bos_token_id


def test_every_setting_changes_the_data(folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    many = tmp_path_factory.mktemp("many")
    for i in range(80):
        (many / f"{i}.txt").write_text(f"file {i} says {i * i} and {i + 7} again and again\n" * 4)
    base = {"corpus": str(many), "vocab_size": 300, "length": 19, "repeat_share": 0.5}
    changes = {
        "corpus": folder,
        "tokenizer": "characters",
        "vocab_size": 310,
        "length": 20,
        "split_seed": 1,
        "repeat_share": 0.4,
        "repeat_seed": 1,
    }
    prints = {load_data(TextConfig(**base)).fingerprint}
    assert load_data(TextConfig(**base)).fingerprint in prints
    for name, value in changes.items():
        prints.add(load_data(TextConfig(**{**base, name: value})).fingerprint)
    assert len(prints) == 1 + len(changes)


def test_repeats_touch_only_their_share_of_training(folder: str) -> None:
    plain, repeated = (load_data(TextConfig(corpus=folder, length=23, vocab_size=280, repeat_share=share)) for share in (0, 0.3))
    assert torch.equal(plain.validation, repeated.validation)
    assert torch.equal(plain.test, repeated.test)
    changed = int((plain.train != repeated.train).any(dim=1).sum())
    assert 0 < changed <= round(0.3 * len(plain.train))
    assert "30% of training sequences repeat" in repeated.description
    assert "training sequences" not in plain.description


@given(st.integers(3, 40), st.integers(1, 30), st.floats(0, 1), st.integers(0, 99))
def test_repeated_rows_are_bos_and_one_passage_twice(length: int, n_rows: int, share: float, seed: int) -> None:
    tokens = torch.arange(1, n_rows * (length - 1) + 1).view(n_rows, length - 1)  # all different, so a repeat shows
    tokens = torch.cat([torch.zeros(n_rows, 1, dtype=torch.int64), tokens], dim=1)
    before = tokens.clone()
    result = with_repeats(tokens, share=share, seed=seed)
    assert torch.equal(tokens, before)
    assert torch.equal(result, with_repeats(tokens, share=share, seed=seed))
    assert torch.equal(result[:, 0], tokens[:, 0])
    changed = (result != tokens).any(dim=1)
    assert int(changed.sum()) == round(share * n_rows)
    for new, old in zip(result[changed].tolist(), tokens[changed].tolist(), strict=True):
        period = len(set(new[1:]))
        assert (length - 1) / 2 <= period < length - 1
        assert new[1:] == (old[1 : 1 + period] * 2)[: length - 1]


def test_repeats_come_at_different_distances() -> None:
    tokens = torch.arange(200 * 33).view(200, 33)
    periods = {len(set(row)) for row in with_repeats(tokens, share=1.0, seed=0)[:, 1:].tolist()}
    assert periods == set(range(16, 25))


def test_too_short_names_corpus_and_split(tmp_path: Path) -> None:
    for name, text in {"train": "long enough " * 50, "validation": "short", "test": "long enough " * 50}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(DataError, match=r"split 'validation': sequences of 40 tokens: the text has 5 tokens"):
        load_data(TextConfig(corpus=str(tmp_path), tokenizer="characters", length=40))


@pytest.mark.usefixtures("built")
def test_default_corpus_packs(session_cache: Path) -> None:
    data = load_data(TextConfig())
    assert data.d_vocab == 1024
    assert data.train.shape[1] == 128
    assert len(data.train) > 10 * len(data.validation) > 100
    assert int(data.train.max()) < data.d_vocab
    assert any((session_cache / "tokenizers").iterdir())  # $INTERP_CACHE is where things are kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 2}, "length must be at least 3"),
        ({"repeat_share": 1.5}, "repeat_share must lie between 0 and 1"),
        ({"repeat_share": -0.1}, "repeat_share must lie between 0 and 1"),
        ({"lenght": 8}, "Did you mean 'length'"),
    ],
)
def test_impossible_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TextConfig, values)


def test_kind_tells_the_configurations_apart() -> None:
    @settings
    class Run:
        data: DataConfig = setting(RepeatedConfig(), "the data")

    assert build(Run, {"data": {"kind": "repeated", "period": 5}}).data == RepeatedConfig(period=5)
    assert build(Run, {"data": {"kind": "text", "length": 9}}).data == TextConfig(length=9)
    with pytest.raises(ConfigError):
        build(Run, {"data": {"kind": "text", "period": 9}})
    data = load_data(RepeatedConfig(d_vocab=12, period=5, n_train=6, n_validation=4))
    assert data.train.shape == (6, 11)


def test_lines_can_be_documents(tmp_path: Path) -> None:
    file = tmp_path / "samples.txt"
    file.write_text("".join(f"sample {n}\n\n" for n in range(200)))
    whole, lines = (
        TextConfig(corpus=str(file), documents=each, tokenizer="characters", length=12) for each in ("whole", "lines")
    )
    corpus = load_corpus(str(file), documents="lines")
    splits = (corpus.train, corpus.validation, corpus.test)
    assert sorted(line for split in splits for line in split) == sorted(f"sample {n}" for n in range(200))
    data = load_data(lines)
    text = data.tokenizer.decode(data.train[:, 1:].flatten())
    samples = text.split("<|bos|>")[:-1]  # the last one may be cut
    assert samples == list(corpus.train[: len(samples)])
    assert len(samples) > 150
    assert "<|bos|>" not in load_data(whole).tokenizer.decode(load_data(whole).train[:, 1:].flatten())
    assert "a line a document" in data.description


def test_the_column_of_a_dataset_is_chosen(tmp_path: Path) -> None:
    import datasets

    rows = {"question": [f"why {n}?" for n in range(60)], "answer": [f"because {n}" for n in range(60)], "n": list(range(60))}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    corpus = load_corpus(str(tmp_path / "saved"), column="answer")
    assert set(corpus.train + corpus.validation + corpus.test) == set(rows["answer"])
    with pytest.raises(DataError, match="no column 'text' and 2 columns of strings"):
        load_corpus(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="no column 'anwser' of strings; those are question, answer. Did you mean 'answer'"):
        load_corpus(str(tmp_path / "saved"), column="anwser")
    with pytest.raises(DataError, match="text without columns"):
        load_corpus("python-docs", column="text")
