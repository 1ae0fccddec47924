"""Tokenizers: lossless, deterministic, cached, deaf to special tokens written in text, and saved so that others can open them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interp.data import Corpus, encode_documents, encode_text, load_tokenizer, pack
from interp.data.tokenizers import vocabulary_size
from interp.errors import DataError

VOCAB = 280
HOSTILE = "a <|bos|><|unk|> b\n\n  c <|bos|>"
TRAIN = (
    "from pathlib import Path; from interp.data import Corpus, load_tokenizer\n"
    "train = tuple(f'document {n}: the cat sat on mat {n % 7}\\nand the dog sat on log {n % 5}' for n in range(40))\n"
    "corpus = Corpus(name='c', train=train, validation=(), test=(), fingerprint='f')\n"
    f"print(load_tokenizer('bpe', corpus, vocab_size={VOCAB}, cache_dir=CACHE).backend_tokenizer.to_str(), end='')"
)


@pytest.fixture
def bpe(corpus: Corpus) -> PreTrainedTokenizerFast:
    return load_tokenizer("bpe", corpus, vocab_size=VOCAB)


@pytest.fixture
def characters(corpus: Corpus) -> PreTrainedTokenizerFast:
    return load_tokenizer("characters", corpus)


def foreign(folder: Path, *, far: int = 19, **special: str) -> str:
    """A word-level tokenizer saved in `folder` as another project might: with special tokens and a gap in its ids."""
    vocabulary = {"cat": 0, "dog": 1, "<sep>": 2, "<unk>": 3, "<": 4, "sep": 5, ">": 6, "far": far}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special).save_pretrained(folder)
    return str(folder)


class TestBpe:
    def test_every_text_comes_back(self, bpe: PreTrainedTokenizerFast) -> None:
        @given(st.text())
        def check(text: str) -> None:
            assert bpe.decode(bpe.encode(text)) == text
            (ids,) = encode_documents([text], bpe)
            assert bpe.decode(ids) == text
            assert bpe.bos_token_id not in ids

        check()

    def test_merges_are_learnt_from_training_text_alone(self, corpus: Corpus, bpe: PreTrainedTokenizerFast) -> None:
        assert len(bpe.encode("document")) < 4  # in training
        assert len(bpe.encode("zebra")) == 5  # only in test: one token for each byte
        other = replace(corpus, validation=corpus.train, test=("zebra " * 999,), fingerprint="other")
        assert load_tokenizer("bpe", other, vocab_size=VOCAB).get_vocab() == bpe.get_vocab()

    def test_has_the_size_asked_for(self, bpe: PreTrainedTokenizerFast) -> None:
        assert vocabulary_size(bpe) == len(bpe) == VOCAB

    def test_stops_early_on_a_small_text(self, corpus: Corpus) -> None:
        assert VOCAB < len(load_tokenizer("bpe", corpus, vocab_size=5000)) < 300

    def test_same_in_another_process_with_another_number_of_threads(self, bpe: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "17"}
        code = TRAIN.replace("CACHE", repr(str(tmp_path)))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == bpe.backend_tokenizer.to_str()

    def test_too_small_a_vocabulary(self, corpus: Corpus) -> None:
        assert len(load_tokenizer("bpe", corpus, vocab_size=257)) == 257
        with pytest.raises(DataError, match=r"vocab_size=256: byte-level BPE needs 257"):
            load_tokenizer("bpe", corpus, vocab_size=256)


class TestBpeCache:
    def test_is_used_and_keyed_by_corpus_and_size(
        self, corpus: Corpus, bpe: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load_tokenizer("bpe", corpus, vocab_size=VOCAB, cache_dir=tmp_path)
        load_tokenizer("bpe", corpus, vocab_size=VOCAB + 1, cache_dir=tmp_path)
        load_tokenizer("bpe", replace(corpus, fingerprint="other"), vocab_size=VOCAB, cache_dir=tmp_path)
        assert len(list((tmp_path / "tokenizers").iterdir())) == 3
        monkeypatch.setattr("interp.data.tokenizers._train_bpe", lambda *_: pytest.fail("trained although cached"))
        cached = load_tokenizer("bpe", corpus, vocab_size=VOCAB, cache_dir=tmp_path)
        assert cached.backend_tokenizer.to_str() == bpe.backend_tokenizer.to_str()

    def test_damaged_file_is_rebuilt(self, corpus: Corpus, bpe: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        load_tokenizer("bpe", corpus, vocab_size=VOCAB, cache_dir=tmp_path)
        (path,) = (tmp_path / "tokenizers").iterdir()
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], whole.replace(b'"merges"', b'"mergez"'), b""):
            path.write_bytes(damaged)
            again = load_tokenizer("bpe", corpus, vocab_size=VOCAB, cache_dir=tmp_path)
            assert again.backend_tokenizer.to_str() == bpe.backend_tokenizer.to_str()
            assert path.read_bytes() == whole


class TestCharacters:
    def test_a_token_for_each_training_character(self, corpus: Corpus, characters: PreTrainedTokenizerFast) -> None:
        text = corpus.train[3]
        ids = characters.encode(text)
        assert len(ids) == len(text)
        assert characters.decode(ids) == text
        assert vocabulary_size(characters) == len(set("".join(corpus.train))) + 2

    def test_unseen_characters_are_unknown_one_by_one(self, characters: PreTrainedTokenizerFast) -> None:
        unknown = characters.unk_token_id
        assert [i == unknown for i in characters.encode("üücZ\n")] == [True, True, False, True, False]


@pytest.mark.parametrize("name", ["bpe", "characters"])
class TestOurs:
    def test_special_tokens_in_text_are_spelt_out(self, corpus: Corpus, name: str) -> None:
        tokenizer = load_tokenizer(name, corpus, vocab_size=VOCAB)
        for ids in (
            tokenizer.encode(HOSTILE),
            *encode_documents([HOSTILE], tokenizer),
            encode_text(tokenizer, HOSTILE)[0, 1:].tolist(),
        ):
            assert tokenizer.bos_token_id not in ids
            assert len(ids) == len(HOSTILE) or name == "bpe"
        rows = pack([HOSTILE] * 9, tokenizer, length=11)
        assert (rows[:, 0] == tokenizer.bos_token_id).all()
        stream_bos = int((rows[:, 1:] == tokenizer.bos_token_id).sum())
        assert stream_bos <= 8  # the separators between nine documents, not the eighteen written in them

    def test_saved_and_opened_again(self, corpus: Corpus, name: str, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(name, corpus, vocab_size=VOCAB)
        tokenizer.save_pretrained(tmp_path)
        for again in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path), corpus)):
            for text in (*corpus.train[:5], *corpus.validation, HOSTILE):
                assert again.encode(text) == tokenizer.encode(text)
                assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text))
            assert (again.bos_token_id, again.unk_token_id) == (tokenizer.bos_token_id, tokenizer.unk_token_id)
            assert vocabulary_size(again) == vocabulary_size(tokenizer)


class TestHuggingFace:
    def test_folder_opens_with_its_own_ids(self, corpus: Corpus, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(foreign(tmp_path, bos_token="<sep>"), corpus, vocab_size=5)
        assert encode_documents(["dog cat far mouse"], tokenizer) == [[1, 0, 19, 3]]
        assert (tokenizer.bos_token_id, vocabulary_size(tokenizer)) == (2, 20)

    def test_its_special_tokens_in_text_are_spelt_out(self, corpus: Corpus, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(foreign(tmp_path, bos_token="<sep>"), corpus)
        assert encode_documents(["cat <sep> dog"], tokenizer) == [[0, 4, 5, 6, 1]]

    @pytest.mark.parametrize("role", ["eos_token", "cls_token"])
    def test_without_bos_another_takes_its_place(self, corpus: Corpus, tmp_path: Path, role: str) -> None:
        assert load_tokenizer(foreign(tmp_path, **{role: "<sep>"}), corpus).bos_token_id == 2

    def test_without_any_a_new_one_is_added(self, corpus: Corpus, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(foreign(tmp_path), corpus)
        assert tokenizer.bos_token == "<|bos|>"
        assert (tokenizer.bos_token_id, vocabulary_size(tokenizer)) == (8, 20)

    def test_new_bos_never_shares_the_id_of_another_token(self, corpus: Corpus, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="it gives two tokens the same id"):
            load_tokenizer(foreign(tmp_path, far=8), corpus)

    def test_folder_without_tokenizer(self, corpus: Corpus, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"tokenizer folder .*cannot be opened"):
            load_tokenizer(str(tmp_path), corpus)

    @pytest.mark.parametrize(("spec", "hint"), [("gpt2", ""), ("charaters", "Did you mean 'characters'"), ("owner/name", "")])
    def test_offline_names_what_works(self, corpus: Corpus, spec: str, hint: str) -> None:
        with pytest.raises(DataError, match=rf"tokenizer '{spec}': .*HF_HUB_OFFLINE.*{hint}.*Use 'bpe' or 'characters'"):
            load_tokenizer(spec, corpus)

    @pytest.mark.parametrize("spec", ["no/such/folder", "./x", ""])
    def test_missing_folder(self, corpus: Corpus, spec: str) -> None:
        with pytest.raises(DataError, match=r"there is no such folder"):
            load_tokenizer(spec, corpus)
