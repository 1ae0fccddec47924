"""Texts with a polarity: the generated rule checked by a second reading, every source, and what goes wrong with each."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch

from interp.data import sentiment
from interp.data.sentiment import (
    CUES,
    NEGATION,
    SentimentConfig,
    cue_count,
    encode_padded,
    load_sentiment,
    word_tokenizer,
)
from interp.errors import ConfigError, DataError

REAL = Path(__file__).parents[3] / "shared/data/movie_reviews.zip"


def test_labels_follow_from_cues_and_negations() -> None:
    data = load_sentiment(SentimentConfig(n_texts=400))
    for part in (data.train, data.validation, data.test):
        for text, label in zip(part.texts, part.labels.tolist(), strict=True):
            words = text.split()
            total = 0
            for place, word in enumerate(words):
                turned = place > 0 and words[place - 1] == NEGATION
                total += CUES.get(word, 0) * (-1 if turned else 1)
            assert total != 0 and label == int(total > 0), text
    labels = torch.cat([data.train.labels, data.validation.labels, data.test.labels])
    assert int(labels.sum()) == 200, "balanced"
    whole = data.train
    alone = sum(cue_count(t) == n for t, n in zip(whole.texts, whole.labels.tolist(), strict=True)) / len(whole.texts)
    assert 0.6 < alone < 0.85, "cue words alone tell much, and not all"


def test_splits_share_nothing_and_follow_from_the_settings() -> None:
    data, again, other = (load_sentiment(SentimentConfig(n_texts=200, seed=seed)) for seed in (3, 3, 4))
    parts = [set(part.texts) for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [160, 20, 20]
    assert len(set().union(*parts)) == 200
    assert data.fingerprint == again.fingerprint != other.fingerprint
    assert data.test.texts == again.test.texts


def test_tokens_are_words_and_padding_is_zero() -> None:
    data = load_sentiment(SentimentConfig(n_texts=100))
    tokenizer = word_tokenizer(data)
    ids = encode_padded(tokenizer, ["good plot", "a very very dull and zzz story", "Good"], 5)
    assert ids.shape == (3, 5)
    assert ids[0, 2:].tolist() == [0, 0, 0] and not (ids[1] == 0).any()
    assert ids[0, 0] == ids[2, 0], "case does not matter"
    assert encode_padded(tokenizer, ["zzz"], 3).tolist() == [[1]]
    assert 0 not in encode_padded(tokenizer, ["[PAD] [UNK] <b>\x00 \u202e"], 9)[0].tolist(), "no text spells padding"
    assert len(word_tokenizer(data, 10)) == 10
    for texts, length in (([], 3), (["a"], 0), (["   "], 3)):
        with pytest.raises(DataError):
            encode_padded(tokenizer, texts, length)
    with pytest.raises(DataError, match="padding and unknown"):
        word_tokenizer(data, 2)


def write(folder: Path, n: int = 15) -> Path:
    for kind in ("neg", "pos"):
        (folder / "reviews" / kind).mkdir(parents=True)
        for number in range(n):
            (folder / "reviews" / kind / f"{number}.txt").write_text(f"{kind} review {number} caf\u00e9", encoding="utf-8")
    return folder / "reviews"


def test_a_folder_and_its_zip_give_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for file in sorted(folder.rglob("*.txt")):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("reviews/README", "not a review")
    first, second = (load_sentiment(SentimentConfig(source=str(path))) for path in (folder, tmp_path / "r.zip"))
    assert first.fingerprint == second.fingerprint
    assert first.classes == ("neg", "pos") and len(first.train.texts) == 24
    assert all(
        text.startswith(first.classes[label]) for text, label in zip(first.train.texts, first.train.labels.tolist(), strict=True)
    )


def test_a_set_saved_by_datasets(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "fine"])})
    rows = {"sentence": [f"text {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)}).save_to_disk(str(tmp_path / "set"))
    data = load_sentiment(SentimentConfig(source=str(tmp_path / "set")))
    assert data.classes == ("bad", "fine") and len(data.train.texts) == 32
    assert all(
        int(text.split()[1]) % 2 == label for text, label in zip(data.train.texts, data.train.labels.tolist(), strict=True)
    )
    with pytest.raises(DataError, match="Did you mean 'sentence'"):
        load_sentiment(SentimentConfig(source=str(tmp_path / "set"), text_column="sentense"))


def test_what_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentiment, "why_unreachable", lambda: "the network is down")
    with pytest.raises(DataError, match="Did you mean 'polarity'"):
        load_sentiment(SentimentConfig(source="polarty"))
    with pytest.raises(DataError, match="the network is down"):
        load_sentiment(SentimentConfig(source="someone/some-set"))
    with pytest.raises(DataError, match="no such file"):
        load_sentiment(SentimentConfig(source="/nowhere/reviews.zip"))
    (tmp_path / "bad.zip").write_text("no zip")
    with pytest.raises(DataError, match="cannot be read"):
        load_sentiment(SentimentConfig(source=str(tmp_path / "bad.zip")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no .txt file"):
        load_sentiment(SentimentConfig(source=str(tmp_path / "empty")))
    with pytest.raises(DataError, match="6 different texts"):
        load_sentiment(SentimentConfig(source=str(write(tmp_path, n=3))))
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(DataError, match="pip install nltk"):
        load_sentiment(SentimentConfig(source="movie_reviews"))
    with pytest.raises(ConfigError):
        SentimentConfig(n_texts=3)


def test_real_reviews() -> None:
    if not REAL.exists():
        pytest.skip("the real reviews are not here (../shared/data/movie_reviews.zip)")
    data = load_sentiment(SentimentConfig(source=str(REAL)))
    assert [len(part.texts) for part in (data.train, data.validation, data.test)] == [1600, 200, 200]
    assert data.classes == ("neg", "pos")
