"""Corpora from this machine: a text file, a folder of them, or a folder saved by `datasets`."""

import re
from collections.abc import Mapping
from pathlib import Path

from interp.data.documents import into_articles
from interp.data.hub import dataset_documents
from interp.errors import DataError, nearest

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".py", ".tex"})
"""What counts as text in a folder; a single file may have any name."""

_SPLIT_NAMES = {
    "train": re.compile(r"train(ing)?(?![a-z])"),
    "validation": re.compile(r"(validation|valid|val|dev)(?![a-z])"),
    "test": re.compile(r"test(?![a-z])"),
}


def split_of(name: str) -> str | None:
    """`train`, `validation` or `test` for a name that begins with one of them (or with `valid`, `val`, `dev`), else None."""
    return next((split for split, pattern in _SPLIT_NAMES.items() if pattern.match(name.lower())), None)


def read_local(path: Path, column: str | None = None) -> dict[str, list[tuple[str, str]]]:
    """`{split: [(document name, text), …]}` from a file or folder; always with `train`, the others only where files name them.

    Raises `DataError` for a file that is not UTF-8 (with the byte where it stops being so) or a folder without text.
    """
    if path.is_file():
        return {"train": _documents(path.name, read_text(path))}
    if saved_by_datasets(path):
        return _read_saved(path, column)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_text(file.relative_to(path))]
    if not files:
        raise DataError(
            f"corpus {str(path)!r}", "the folder holds no text files", f"Files must end in {', '.join(sorted(TEXT_SUFFIXES))}"
        )
    texts = {file.relative_to(path).as_posix(): read_text(file) for file in files}
    return _by_split(path, {name: _documents(name, text) for name, text in texts.items()})


def saved_by_datasets(path: Path) -> bool:
    """Whether `path` is a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file())


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises `DataError` naming the file and, for other encodings, the offending byte."""
    asked = f"text file {str(path)!r}"
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        truth = f"it is not UTF-8: byte 0x{byte:02x} at offset {error.start} ({error.reason})"
        raise DataError(asked, truth, "Convert it, for example with: iconv -f latin1 -t utf-8") from None
    except OSError as error:
        raise DataError(asked, f"it cannot be read ({error.strerror})", "Check the file and its permissions") from None


def missing(path: Path) -> DataError:
    """The error for a path that does not exist, with the nearest name in its folder."""
    folder = path.parent
    truth = "no such file or folder" + ("" if folder.is_dir() else f", and its folder {str(folder)!r} is missing too")
    return DataError(
        f"corpus {str(path)!r}", truth, f"{nearest_sibling(path)}Check the path; it is read from {str(Path.cwd())!r}"
    )


def nearest_sibling(path: Path) -> str:
    """'Did you mean …? ' for the closest name in the folder of a missing `path`, or ''."""
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else ""


def _is_text(relative: Path) -> bool:
    return relative.suffix.lower() in TEXT_SUFFIXES and not any(part.startswith(".") for part in relative.parts)


def _documents(name: str, text: str) -> list[tuple[str, str]]:
    articles = into_articles([text])
    return [(f"{name} {number}", article) for number, article in enumerate(articles)]


def _by_split(path: Path, files: Mapping[str, list[tuple[str, str]]]) -> dict[str, list[tuple[str, str]]]:
    """Splits by the files' names when one of them says train; otherwise every file belongs to `train`."""
    split_by_file = {name: split_of(name) for name in files}
    if "train" not in split_by_file.values():
        return {"train": [document for documents in files.values() for document in documents]}
    strays = [name for name, split in split_by_file.items() if split is None]
    if strays:
        shown = ", ".join(strays[:3]) + (" …" if len(strays) > 3 else "")
        raise DataError(
            f"corpus {str(path)!r}",
            f"some files are named train…, so names decide the split, but {len(strays)} name none ({shown})",
            "Begin every file's name with train, validation or test, or none with train; or move the others away",
        )
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, documents in files.items():
        splits.setdefault(str(split_by_file[name]), []).extend(documents)
    return splits


def _read_saved(path: Path, column: str | None) -> dict[str, list[tuple[str, str]]]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # damaged folders surface as Arrow, JSON, key and type errors alike
        raise DataError(
            f"saved dataset {str(path)!r}",
            f"it cannot be opened ({type(error).__name__}: {error})",
            "Save it again with save_to_disk",
        ) from error
    return dataset_documents(saved, f"saved dataset {str(path)!r}", column)
