"""Opening a corpus by name or path: three splits of plain text, and a fingerprint of what is in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp.data.cache import stable_hash
from interp.data.documents import hold_out, into_lines
from interp.data.hub import read_hub
from interp.data.local import TEXT_SUFFIXES, missing, nearest_sibling, read_local, saved_by_datasets
from interp.data.python_docs import python_docs
from interp.data.python_source import python_source
from interp.data.tokens import SPLITS
from interp.errors import DataError, nearest

CORPORA: Mapping[str, str] = {
    "python-docs": "the documentation inside the running Python, about 2 MB; needs no network",
    "python-source": "the standard library's code without that documentation, about 7 MB; needs no network",
    "wikitext-2-raw-v1": "WikiText-2, raw form, from Salesforce/wikitext on the Hugging Face Hub",
}
"""The corpora with a name of their own. All others are a path, or `owner/name[:configuration]` on the Hub."""

_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<config>[^/:]+))?")


@dataclass(frozen=True)
class Corpus:
    """Three splits of documents. `fingerprint` is a hash of all their texts and order, the same on every machine."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    fingerprint: str

    @property
    def n_characters(self) -> dict[str, int]:
        """Characters in each split."""
        return {split: sum(map(len, getattr(self, split))) for split in SPLITS}


def load_corpus(
    name: str,
    *,
    split_seed: int = 0,
    cache_dir: str | Path | None = None,
    documents: Literal["whole", "lines"] = "whole",
    column: str | None = None,
) -> Corpus:
    """Open a corpus: a name in `CORPORA`, a text file, a folder of text files or saved dataset, or `owner/name[:configuration]`.

    The corpus' own splits are respected. A missing validation or test split is held out of train by whole documents (about 5 %
    each, chosen by a hash of the document's name and `split_seed`), or from contiguous blocks of lines when there are too few
    documents. Blank lines are dropped, and where splits are held out, all but the first of equal documents. With
    `documents="lines"` every line is a document. `column` names the column of a dataset that holds the text (default: `text`, or
    the only one of strings). Everything is held in memory.

    Raises `DataError` when the corpus is missing, empty, not UTF-8, too short to split, on a Hub that cannot be reached, or when
    it has no such column.
    """
    found = _read(name, cache_dir, column)
    if documents == "lines":
        found = {split: into_lines(texts) for split, texts in found.items()}
    asked = f"corpus {name!r}"
    if not any(text for _, text in found["train"]):
        raise DataError(asked, "it has no text, only blank lines if any", "Give one with at least a few lines of text")
    splits = {split: [text for _, text in texts] for split, texts in found.items()}
    absent = [split for split in SPLITS if split not in found]
    if absent:
        train, held = hold_out(found["train"], absent, seed=split_seed, asked=asked)
        splits |= {"train": train, **held}
    return _corpus(name, splits)


def _read(name: str, cache_dir: str | Path | None, column: str | None) -> dict[str, list[tuple[str, str]]]:
    path = Path(name).expanduser()
    is_local = name not in CORPORA and bool(name) and path.exists()
    if column is not None and (name in ("python-docs", "python-source") or (is_local and not saved_by_datasets(path))):
        raise DataError(f"column {column!r} of corpus {name!r}", "it is text without columns", "Leave column at null")
    if name == "python-docs":
        return {"train": python_docs(cache_dir)}
    if name == "python-source":
        return {"train": python_source(cache_dir)}
    if name == "wikitext-2-raw-v1":
        return read_hub("Salesforce/wikitext", name, column)
    if is_local:
        return read_local(path, column)
    is_file_name = path.suffix.lower() in TEXT_SUFFIXES
    hub = _HUB_NAME.fullmatch(name)
    if hub and not is_file_name and not nearest_sibling(path):
        return read_hub(hub["name"], hub["config"], column)
    if is_file_name or "/" in name:
        raise missing(path)
    raise DataError(
        f"corpus {name!r}",
        "there is no corpus, file or folder of that name",
        f"{nearest(name, CORPORA)}Use one of {', '.join(CORPORA)}, a path, or owner/name[:configuration] on the Hugging Face Hub",
    )


def _corpus(name: str, splits: Mapping[str, Sequence[str]]) -> Corpus:
    for split in SPLITS:
        if not splits[split]:
            raise DataError(f"corpus {name!r}", f"its split {split!r} has no text", "Add text to it, or leave that split out")
    contents = [part for split in SPLITS for part in (split, str(len(splits[split])), *splits[split])]
    train, validation, test = (tuple(splits[split]) for split in SPLITS)
    return Corpus(name=name, train=train, validation=validation, test=test, fingerprint=stable_hash(*contents))
