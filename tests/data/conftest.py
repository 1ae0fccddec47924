"""Every test here is offline, and caches into a folder of its own session."""

import hashlib
import sys
from pathlib import Path

import pytest

from interp.data import Corpus, load_corpus

Built = tuple[Corpus, Corpus, set[str]]


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interp-cache")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("INTERP_CACHE", str(session_cache))


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """A small corpus whose validation split holds characters and words that training lacks."""
    train = tuple(f"document {n}: the cat sat on mat {n % 7}\nand the dog sat on log {n % 5}" for n in range(40))
    validation, test = ("the ünseen cat <|bos|> sat",), ("zebra",)
    fingerprint = hashlib.sha256("".join(train).encode()).hexdigest()[:32]
    return Corpus(name="cats", train=train, validation=validation, test=test, fingerprint=fingerprint)


@pytest.fixture(scope="session")
def built(session_cache: Path) -> Built:
    """`python-docs` built afresh, the same read from the cache, and the modules that building it imported."""
    assert not (session_cache / "corpora").exists()
    before = set(sys.modules)
    fresh = load_corpus("python-docs", cache_dir=session_cache)
    imported = set(sys.modules) - before
    return fresh, load_corpus("python-docs", cache_dir=session_cache), imported
