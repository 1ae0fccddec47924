"""Packing, against a slow loop that says what it should do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.data import REPEATED_PASSAGE, Corpus, encode_documents, encode_text, encode_texts, load_tokenizer, pack
from interp.errors import DataError


def slow_pack(documents: list[list[int]], bos: int, length: int) -> list[list[int]]:
    stream: list[int] = []
    for document in documents:
        if document:
            stream += ([bos] if stream else []) + document
    rows = []
    while len(stream) >= length - 1:
        rows.append([bos, *stream[: length - 1]])
        stream = stream[length - 1 :]
    return rows


def test_equals_the_slow_loop(corpus: Corpus) -> None:
    tokenizer = load_tokenizer("bpe", corpus, vocab_size=270)

    @settings(max_examples=60)
    @given(st.lists(st.text(max_size=25), max_size=12), st.integers(2, 9))
    def check(texts: list[str], length: int) -> None:
        expected = slow_pack([tokenizer.encode(text) for text in texts], tokenizer.bos_token_id, length)
        if expected:
            rows = pack(texts, tokenizer, length=length)
            assert rows.dtype == torch.int64
            assert rows.tolist() == expected
        else:
            with pytest.raises(DataError, match="Use a longer text or a shorter length"):
                pack(texts, tokenizer, length=length)

    check()


def test_batches_of_documents_do_not_show(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer("characters", corpus)
    whole = pack(corpus.train, tokenizer, length=23)
    monkeypatch.setattr("interp.data.packing._CHARACTERS_AT_ONCE", 100)
    assert torch.equal(pack(corpus.train, tokenizer, length=23), whole)


def test_too_short_gives_the_numbers(corpus: Corpus) -> None:
    tokenizer = load_tokenizer("characters", corpus)
    assert pack(["cat", "dog"], tokenizer, length=8).shape == (1, 8)
    with pytest.raises(DataError, match=r"sequences of 9 tokens: the text has 7 tokens in 2 documents, and one sequence needs 8"):
        pack(["cat", "dog"], tokenizer, length=9)
    with pytest.raises(DataError, match=r"sequences of 1 tokens"):
        pack(["cat"], tokenizer, length=1)


def test_tokenizer_without_bos_is_refused(corpus: Corpus) -> None:
    tokenizer = load_tokenizer("characters", corpus)
    tokenizer.bos_token = None
    assert encode_text(tokenizer, "cat", bos=False).shape == (1, 3)
    with pytest.raises(DataError, match="this tokenizer has none"):
        pack(["cat"], tokenizer, length=3)


def test_encode_text_is_bos_and_the_documents_ids(corpus: Corpus) -> None:
    tokenizer = load_tokenizer("bpe", corpus, vocab_size=270)
    (ids,) = encode_documents([REPEATED_PASSAGE], tokenizer)
    assert encode_text(tokenizer, REPEATED_PASSAGE).tolist() == [[tokenizer.bos_token_id, *ids]]
    assert encode_text(tokenizer, REPEATED_PASSAGE, bos=False).tolist() == [ids]
    with pytest.raises(DataError, match="no tokens"):
        encode_text(tokenizer, "")


@pytest.mark.usefixtures("unchecked")
def test_encode_texts_is_encode_text_row_by_row(corpus: Corpus) -> None:
    tokenizer = load_tokenizer("characters", corpus)
    both = encode_texts(tokenizer, ["cat", "dog"])
    assert both.tolist() == [encode_text(tokenizer, text)[0].tolist() for text in ("cat", "dog")]
    assert both[:, 1:].tolist() == encode_texts(tokenizer, ["cat", "dog"], bos=False).tolist()
    with pytest.raises(DataError, match="2 texts as one batch: they have 4, 3 tokens"):
        encode_texts(tokenizer, ["cat", "do"])
    with pytest.raises(DataError, match="a str is given. Give a list"):
        encode_texts(tokenizer, "cat")
    with pytest.raises(DataError, match="it is given as a list"):
        encode_text(tokenizer, ["cat", "dog"])  # type: ignore[arg-type]


def test_the_passage_ends_as_it_began() -> None:
    sentences = [f"{part}." for part in REPEATED_PASSAGE.removesuffix(".").split(". ")]
    assert sentences[0] == sentences[-1]
    assert len(set(sentences)) == len(sentences) - 1
    assert len(sentences) > 2
    assert 20 <= len(REPEATED_PASSAGE.split()) <= 60
