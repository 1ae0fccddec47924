"""Pairs from a file of your own: CSV, JSON or JSON lines. Every row that cannot be used is named, all of them at once."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from interp.data.local import nearest_sibling, read_text
from interp.data.packing import bos_id
from interp.data.pairs.encoding import check_tokenizer, continuation, ids_of, rows_of, single_continuation
from interp.data.pairs.values import PromptPairs
from interp.errors import DataError, nearest

COLUMNS = ("clean", "corrupted", "answer", "wrong")
NAMED = "at "  # begins the name of a column that names a position
MOST_SHOWN = 40


@dataclass(frozen=True)
class _Row:
    """A row as read, where it stands in the file, and what is wrong with it."""

    where: str
    cells: dict[str, Any]
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Pair:
    row: _Row
    clean: str
    corrupted: str
    answer: int
    wrong: int
    length: int
    places: dict[str, int]


def load_pairs(path: str | Path, tokenizer: PreTrainedTokenizerFast, *, bos: bool = True) -> PromptPairs:
    """The pairs of a file, all of one length: columns `clean`, `corrupted`, `answer` and `wrong`, one pair per row.

    The file is UTF-8: .csv with a header, .json (a list of objects) or .jsonl (an object per line). `answer` and `wrong` are
    given as they continue the prompts, usually with a space in front (" Paris"). A column "at NAME" may name a position by a
    piece of the clean prompt, found in it once: its last token gets that name. `bos` puts the tokenizer's BOS token in front
    of every prompt; False leaves the prompts as they are.

    Raises `DataError` naming every row that cannot be used, with what was found and what to do: a cell missing or empty, prompts
    that are equal or of unequal token length, an answer that is not one token behind both prompts, answers that are equal,
    a named piece that is not there once. Also when rows differ in length: `load_pairs_by_length` takes those.
    """
    sets = load_pairs_by_length(path, tokenizer, bos=bos)
    if len(sets) > 1:
        lengths = ", ".join(f"{len(pairs)} of {length}" for length, pairs in sets.items())
        commonest = max(sets, key=lambda length: len(sets[length]))
        others = [text for length, pairs in sets.items() if length != commonest for text, _ in pairs.texts]
        shown = "; ".join(repr(text[:60]) for text in others[:3])
        raise DataError(
            f"pairs {str(path)!r} as one set",
            f"its prompts differ in length: {lengths} tokens. Not of {commonest} are {shown}{' …' if len(others) > 3 else ''}",
            "Call load_pairs_by_length for a set of each length, or reword those prompts",
        )
    return next(iter(sets.values()))


def load_pairs_by_length(path: str | Path, tokenizer: PreTrainedTokenizerFast, *, bos: bool = True) -> dict[int, PromptPairs]:
    """The pairs of a file whose rows may differ in length: a set for each number of tokens, by increasing number.

    The two prompts of one row must still be equally long. All else as in `load_pairs`.
    """
    path = Path(path).expanduser()
    check_tokenizer(f"pairs {str(path)!r}", tokenizer)
    rows = _read(path)
    start = int(bos)
    if bos:
        bos_id(tokenizer)
    columns = sorted({name for row in rows for name in row.cells if name.startswith(NAMED)})
    pairs = [pair for row in rows if (pair := _checked(row, tokenizer, columns)) is not None]
    _raise_faults(path, rows)
    return {
        length + start: _as_set(path, [pair for pair in pairs if pair.length == length], tokenizer, columns, bos)
        for length in sorted({pair.length for pair in pairs})
    }


def _as_set(path: Path, pairs: list[_Pair], tokenizer: PreTrainedTokenizerFast, columns: list[str], bos: bool) -> PromptPairs:
    clean, strings = rows_of(tokenizer, [pair.clean for pair in pairs], bos)
    corrupted, _ = rows_of(tokenizer, [pair.corrupted for pair in pairs], bos)
    return PromptPairs(
        clean=clean,
        corrupted=corrupted,
        answers=torch.tensor([pair.answer for pair in pairs]),
        wrong=torch.tensor([pair.wrong for pair in pairs]),
        positions={name.removeprefix(NAMED): torch.tensor([pair.places[name] for pair in pairs]) + int(bos) for name in columns},
        texts=tuple((pair.clean, pair.corrupted) for pair in pairs),
        strings=strings,
        description=f"pairs from {path.name}",
    )


def _checked(row: _Row, tokenizer: PreTrainedTokenizerFast, columns: list[str]) -> _Pair | None:
    """The pair in a row; None, with the row's faults noted, when it cannot be used."""
    if row.faults:
        return None
    for name in (*COLUMNS, *columns):
        cell = row.cells.get(name)
        if not isinstance(cell, str) or not cell:
            row.faults.append(f"{name!r} is {'missing or empty' if not cell else f'{cell!r}, not text'}: write it in")
    if row.faults:
        return None
    clean, corrupted = row.cells["clean"], row.cells["corrupted"]
    lengths = [len(ids_of(tokenizer, text)) for text in (clean, corrupted)]
    if clean == corrupted:
        row.faults.append("both prompts are the same: change one")
    if lengths[0] != lengths[1]:
        row.faults.append(f"clean has {lengths[0]} tokens and corrupted {lengths[1]}: {_split(tokenizer, clean, corrupted)}")
    answer, wrong = (_answer(row, name, tokenizer) for name in ("answer", "wrong"))
    if answer is not None and answer == wrong:
        row.faults.append(f"answer and wrong are the same token ({row.cells['answer']!r}): give two")
    places = {name: _place(row, name, tokenizer) for name in columns}
    return None if row.faults else _Pair(row, clean, corrupted, answer or 0, wrong or 0, lengths[0], places)


def _answer(row: _Row, name: str, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The one token that an answer is behind both prompts."""
    text = row.cells[name]
    found = {single_continuation(tokenizer, row.cells[prompt], text) for prompt in ("clean", "corrupted")}
    if None not in found and len(found) == 1:
        (token,) = found
        if token != tokenizer.unk_token_id:
            return token
        row.faults.append(f"{name} {text!r} is unknown to this tokenizer: use another word")
        return None
    added = continuation(tokenizer, row.cells["clean"], text)
    spaced = single_continuation(tokenizer, row.cells["clean"], f" {text}") is not None and not text.startswith(" ")
    advice = f"write it {' ' + text!r}" if spaced else "use a word that is one token"
    if added is None:
        told = "merges with the end of the prompt"
    elif len(added) != 1:
        told = f"is {len(added)} tokens {[tokenizer.decode([token]) for token in added]}"
    else:
        told = "is not the same single token behind both prompts"
    row.faults.append(f"{name} {text!r} {told}: {advice}")
    return None


def _place(row: _Row, name: str, tokenizer: PreTrainedTokenizerFast) -> int:
    """The index of the last token of a piece of the clean prompt; 0, with the fault noted, when it is not there once."""
    prompt, piece = row.cells["clean"], row.cells[name]
    if prompt.count(piece) != 1:
        row.faults.append(
            f"{name!r} is {piece!r}, found {prompt.count(piece)} times in the clean prompt: give a piece found once"
        )
        return 0
    last = prompt.index(piece) + len(piece.rstrip()) - 1
    spans = tokenizer(
        prompt, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, truncation=False, padding=False
    )["offset_mapping"]
    return next((place for place, (start, stop) in enumerate(spans) if start <= last < stop), len(spans) - 1)


def _split(tokenizer: PreTrainedTokenizerFast, clean: str, corrupted: str) -> str:
    """Where two prompts begin to differ, as tokens."""
    parts = [[tokenizer.decode([token]) for token in ids_of(tokenizer, text)] for text in (clean, corrupted)]
    same = next((i for i, (a, b) in enumerate(zip(*parts, strict=False)) if a != b), min(map(len, parts)))
    shown = " against ".join(repr(tokens[same : same + 4]) for tokens in parts)
    return f"they part at token {same}, {shown}; choose words of equal length"


def _read(path: Path) -> list[_Row]:
    asked = f"pairs {str(path)!r}"
    if not path.is_file():
        raise DataError(asked, "there is no such file", f"{nearest_sibling(path)}Give a .csv, .json or .jsonl file")
    readers = {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_lines}
    if path.suffix.lower() not in readers:
        raise DataError(asked, f"it ends in {path.suffix!r}", f"{nearest(path.suffix, readers)}Files end in {', '.join(readers)}")
    rows = list(readers[path.suffix.lower()](asked, read_text(path).removeprefix("\ufeff")))
    if not rows:
        raise DataError(asked, "it has no rows", "Write one row per pair")
    known = set().union(*(row.cells for row in rows))
    missing = [name for name in COLUMNS if name not in known]
    strange = [name for name in sorted(known) if name not in COLUMNS and not name.startswith(NAMED)]
    if (missing or strange) and not any(row.faults for row in rows):
        hints = "".join(nearest(name, known - set(COLUMNS)) for name in missing)
        told = f"it lacks {missing}" if missing else f"it has columns {strange}, which mean nothing here"
        raise DataError(asked, told, f"{hints}Columns are {', '.join(COLUMNS)}, and 'at NAME' for a named position")
    return rows


def _read_csv(asked: str, text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise DataError(asked, f"its header names a column twice ({header})", "Name each once")
        before = reader.line_num
        for cells in reader:
            row = _Row(f"line {before + 1}", dict(zip(header, cells, strict=False)))
            before = reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                row.faults.append(f"it has {len(cells)} cells for {len(header)} columns: quote cells that hold commas")
            yield row
    except csv.Error as error:
        raise DataError(asked, f"it is not CSV near line {reader.line_num} ({error})", "Mend its quotes") from None


def _read_json(asked: str, text: str) -> Iterator[_Row]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise DataError(asked, f"it is not JSON ({error})", "Give a list of objects, or name lines of objects .jsonl") from None
    if not isinstance(entries, list):
        raise DataError(asked, f"it holds a {type(entries).__name__}, not a list", "Give a list of objects, one per pair")
    for number, entry in enumerate(entries, start=1):
        yield _json_row(f"entry {number}", entry)


def _read_lines(asked: str, text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            yield _Row(f"line {number}", {}, [f"it is not JSON ({error}): write one object per line"])
            continue
        yield _json_row(f"line {number}", entry)


def _json_row(where: str, entry: Any) -> _Row:
    if isinstance(entry, dict):
        return _Row(where, entry)
    return _Row(where, {}, [f"it is a {type(entry).__name__}, not an object: write {{…}}"])


def _raise_faults(path: Path, rows: list[_Row]) -> None:
    bad = [row for row in rows if row.faults]
    if not bad:
        return
    lines = [f"{row.where}: {'; '.join(row.faults)}" for row in bad[:MOST_SHOWN]]
    rest = [f"and {len(bad) - MOST_SHOWN} more"] if len(bad) > MOST_SHOWN else []
    told = "\n  ".join([f"{len(bad)} of {len(rows)} rows cannot be used", *lines, *rest])
    raise DataError(f"pairs {str(path)!r}", told + "\n", "Mend or remove those rows")
