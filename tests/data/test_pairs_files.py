"""Pairs from files: every row that cannot be used is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.data.pairs import load_pairs, load_pairs_by_length
from interp.errors import DataError

PIECES = ["<|bos|>", "The", " cat", " dog", " of", " Paris", " Rome", " is", " in", " sat", " New", " York", ",", ".", "Rome"]
GOOD = [
    {"clean": "The cat is in", "corrupted": "The dog is in", "answer": " Paris", "wrong": " Rome"},
    {"clean": "The dog sat in", "corrupted": "The cat sat in", "answer": " Rome", "wrong": " Paris"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words with their space, single letters for all else."""
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {piece.replace(" ", "Ġ"): number for number, piece in enumerate(dict.fromkeys([*PIECES, *letters, "é"]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="~"))
    backend.model.continuing_subword_prefix = ""  # type: ignore[attr-defined]
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|bos|>")


def write(folder: Path, rows: Any, suffix: str = ".json") -> Path:
    path = folder / f"pairs{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif suffix == ".csv":
        lines = [",".join(rows[0])] + [",".join(f'"{cell}"' for cell in row.values()) for row in rows]
        path.write_text("\n".join(lines))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_the_three_forms_say_the_same(suffix: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = load_pairs(write(tmp_path, GOOD, suffix), tokenizer)
    assert pairs.clean.shape == (2, 5)
    assert pairs.texts == (("The cat is in", "The dog is in"), ("The dog sat in", "The cat sat in"))
    assert pairs.strings[0] == ("<|bos|>", "The", " cat", " is", " in")
    assert [tokenizer.decode([token]) for token in pairs.answers.tolist()] == [" Paris", " Rome"]
    assert torch.equal(pairs.answers, pairs.wrong.flip(0))
    assert pairs.labels == ("0 <|bos|>", "1 The", "2", "3", "4 end")
    plain = load_pairs(tmp_path / f"pairs{suffix}", tokenizer, bos=False)
    assert torch.equal(plain.clean, pairs.clean[:, 1:])


def test_a_column_names_a_position(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [GOOD[0] | {"at subject": " cat"}, GOOD[1] | {"at subject": "dog"}]
    assert load_pairs(write(tmp_path, rows), tokenizer).position("subject").tolist() == [2, 2]
    assert load_pairs(write(tmp_path, rows), tokenizer, bos=False).position("subject").tolist() == [1, 1]
    rows[1]["at subject"] = "The dog "  # a piece of several tokens ends at its last letter
    assert load_pairs(write(tmp_path, rows), tokenizer).position("subject").tolist() == [2, 2]
    for piece, times in ((" bird", 0), ("s", 2)):
        rows[1]["at subject"] = piece
        row = rows[1] | {"clean": "The dog is sat", "corrupted": "The cat is sat"}
        with pytest.raises(DataError, match=rf"entry 2: 'at subject' is '{piece}', found {times} times"):
            load_pairs(write(tmp_path, [rows[0], row]), tokenizer)


def test_every_bad_row_is_named_at_once(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    bad = [
        GOOD[0] | {"corrupted": "The dog is New York in"},
        GOOD[0] | {"answer": "Paris"},
        GOOD[0] | {"answer": " New York"},
        GOOD[0] | {"wrong": " Paris"},
        GOOD[0] | {"corrupted": GOOD[0]["clean"]},
        GOOD[0] | {"clean": ""},
        {"clean": "The cat is in", "corrupted": 7, "answer": " Paris"},
        GOOD[0] | {"answer": "é"},
    ]
    with pytest.raises(DataError) as caught:
        load_pairs(write(tmp_path, [GOOD[0], *bad, GOOD[1]]), tokenizer)
    lines = str(caught.value).splitlines()
    assert "8 of 10 rows cannot be used" in lines[0]
    told = [
        "entry 2: clean has 4 tokens and corrupted 6: they part at token 1, [' cat', ' is', ' in'] against [' dog', ' is'",
        "entry 3: answer 'Paris' is 5 tokens ['P', 'a', 'r', 'i', 's']: write it ' Paris'",
        "entry 4: answer ' New York' is 2 tokens [' New', ' York']: use a word that is one token",
        "entry 5: answer and wrong are the same token (' Paris')",
        "entry 6: both prompts are the same",
        "entry 7: 'clean' is missing or empty",
        "entry 8: 'corrupted' is 7, not text: write it in; 'wrong' is missing or empty",
        "entry 9: answer 'é'",
    ]
    for line, wanted in zip(lines[1:], told, strict=False):
        assert line.strip().startswith(wanted), line
    assert "Mend or remove" in lines[-1]


def test_rows_of_different_lengths(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    longer = {"clean": "The cat of Rome is in", "corrupted": "The dog of Rome is in", "answer": " Paris", "wrong": " Rome"}
    path = write(tmp_path, [GOOD[0], longer, GOOD[1]])
    with pytest.raises(
        DataError, match=r"2 of 5, 1 of 7 tokens. Not of 5 are 'The cat of Rome is in'. Call load_pairs_by_length"
    ):
        load_pairs(path, tokenizer)
    sets = load_pairs_by_length(path, tokenizer)
    assert {length: len(pairs) for length, pairs in sets.items()} == {5: 2, 7: 1}
    assert sets[5].texts == tuple((row["clean"], row["corrupted"]) for row in GOOD)
    assert all(pairs.clean.shape[1] == length for length, pairs in sets.items())


def test_lines_are_those_of_the_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "\ufeffclean,corrupted,answer,wrong\nThe cat is in,The dog is in, Paris, Rome\n\n"
        '"The cat\nis in","The dog\nis in",Paris, Rome\n'
        "The cat is, in,The dog is, in, Paris, Rome\n",
        encoding="utf-8",
    )
    with pytest.raises(DataError) as caught:
        load_pairs(path, tokenizer)
    assert "line 4: answer 'Paris'" in str(caught.value), "the record that begins there"
    assert "line 7: it has 6 cells for 4 columns: quote cells" in str(caught.value)
    lines = tmp_path / "pairs.jsonl"
    lines.write_text(json.dumps(GOOD[0]) + "\n\n{broken\n[1]\n")
    with pytest.raises(DataError) as caught:
        load_pairs(lines, tokenizer)
    assert "line 3: it is not JSON" in str(caught.value)
    assert "line 4: it is a list, not an object" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("pairs.txt", b"", "ends in '.txt'"),
        ("pairs.csv", b"", "no rows"),
        ("pairs.csv", b"clean,corrupted,answer,wrong\n", "no rows"),
        ("pairs.csv", b"clean,corupted,answer,wrong\na,b,c,d\n", "Did you mean 'corupted'"),
        ("pairs.csv", b"clean,corrupted,answer,wrong,note\na,b,c,d,e\n", r"columns \['note'\]"),
        ("pairs.csv", b"clean,clean,answer,wrong\na,b,c,d\n", "names a column twice"),
        ("pairs.csv", b'clean,corrupted,answer,wrong\n"a,b,c,d\n', "not CSV near line"),
        ("pairs.csv", "clean,corrupted,answer,wrong\né,b,c,d\n".encode("latin1"), "not UTF-8"),
        ("pairs.json", b"{", "not JSON"),
        ("pairs.json", b'{"clean": 1}', "holds a dict"),
        ("pairs.json", b"[]", "no rows"),
        ("pairs.json", b"[3]", "entry 1: it is a int"),
    ],
)
def test_files_that_are_no_pairs(
    name: str, content: bytes, told: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=told):
        load_pairs(path, tokenizer)


def test_a_missing_file_names_its_neighbour(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match="Did you mean 'pairs.json'"):
        load_pairs(tmp_path / "pair.json", tokenizer)


def test_special_tokens_in_a_prompt_are_spelt_out(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{**GOOD[0], "clean": "<|bos|> cat is in", "corrupted": "<|bos|> dog is in"}]
    pairs = load_pairs(write(tmp_path, rows), tokenizer)
    assert (pairs.clean == tokenizer.bos_token_id).sum() == 1, "the one in front"
