"""Reaching the Hugging Face Hub, and turning its datasets into documents. Without a network it says so within seconds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from interp.data.documents import into_articles
from interp.errors import DataError, nearest

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}

PROBE_SECONDS = 5.0
"""How long to wait for the Hub's first answer. Its own clients retry for 24 s (datasets) or 49 s (transformers) first."""


def why_unreachable() -> str | None:
    """None when the Hub answers, otherwise the reason it cannot be used, found by one request without retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    switches = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "").upper() in _TRUE]
    if switches or constants.HF_HUB_OFFLINE:
        return f"offline mode is on ({switches[0] if switches else 'HF_HUB_OFFLINE'})"
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:  # the client library behind the session has changed twice; any failure means the same here
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__}: {error})"
    return None


@contextmanager
def only_cached() -> Iterator[None]:
    """Inside, Hugging Face libraries use what they have on disk and never wait for the network."""
    import datasets
    from huggingface_hub import constants

    # `datasets` has no argument for this, only the switches read from the environment when each library was imported.
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def read_hub(name: str, config: str | None, column: str | None = None) -> dict[str, list[tuple[str, str]]]:
    """`{split: [(document name, text), …]}` of dataset `owner/name`, downloaded once by `datasets` and then cached by it.

    Raises `DataError` when the Hub cannot be reached and the dataset is not cached (after at most a few seconds), or when there
    is no such dataset or configuration.
    """
    import datasets

    asked = f"dataset {name!r}" + (f" (configuration {config!r})" if config else "")
    reason = why_unreachable()
    try:
        if reason is None:
            found = datasets.load_dataset(name, config)
        else:
            with only_cached():
                found = datasets.load_dataset(name, config)
    except Exception as error:  # the Hub's client raises a dozen types, some of them plain OSError and ValueError
        raise _cannot_open(asked, reason, error) from error
    return dataset_documents(found, asked, column)


def dataset_documents(dataset: Any, asked: str, column: str | None = None) -> dict[str, list[tuple[str, str]]]:
    """Documents of a `Dataset` or `DatasetDict` by split; a lone `Dataset`, or a single split of any name, counts as `train`.

    The text is in `column`, by default `text` or the only column of strings. Splits are taken by their exact names
    (validation also as valid, val or dev); further ones are left aside.
    """
    if not isinstance(dataset, dict):
        return {"train": _rows(dataset, asked, column)}
    if len(dataset) == 1:
        return {"train": _rows(next(iter(dataset.values())), asked, column)}
    if "train" not in dataset:
        raise DataError(asked, f"it has no split 'train', only {', '.join(dataset)}", "Save the splits wanted with save_to_disk")
    found = {split: [name for name in names if name in dataset] for split, names in _SPLIT_NAMES.items()}
    return {split: _rows(dataset[names[0]], asked, column) for split, names in found.items() if names}


def _rows(rows: Any, asked: str, column: str | None) -> list[tuple[str, str]]:
    columns = [name for name, feature in rows.features.items() if getattr(feature, "dtype", "") in ("string", "large_string")]
    if column is None and "text" not in columns and len(columns) != 1:
        truth = f"it has no column 'text' and {len(columns)} columns of strings ({', '.join(columns) or 'none'})"
        raise DataError(asked, truth, "Name the wanted one as column")
    if column is not None and column not in columns:
        truth = f"it has no column {column!r} of strings; those are {', '.join(columns) or 'none'}"
        raise DataError(asked, truth, f"{nearest(column, columns)}Name one of them, or leave column at null")
    column = column or ("text" if "text" in columns else columns[0])
    articles = into_articles(text for text in rows[column] if text is not None)
    return [(f"document {number}", text) for number, text in enumerate(articles)]


def _cannot_open(asked: str, reason: str | None, error: Exception) -> DataError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if reason is not None:
        detail = "" if isinstance(error, ConnectionError) else f" ({said})"
        return DataError(
            asked,
            f"no folder has that name, the Hugging Face Hub cannot be reached, and its cache here lacks it{detail}; {reason}",
            "Use 'python-docs', which needs no network, or the path of a text file, a folder of them, or a saved dataset",
        )
    return DataError(
        asked,
        f"the Hugging Face Hub did not give it ({said})",
        "Write it as owner/name or owner/name:configuration, as on its page on huggingface.co",
    )
