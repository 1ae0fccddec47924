"""Texts that are slow to build, kept on disk: written whole or not at all, and rebuilt when damaged."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder to cache in: `cache_dir`, else `$INTERP_CACHE`, else `~/.cache/interp`. Nothing is created."""
    chosen = cache_dir or os.environ.get("INTERP_CACHE") or Path("~/.cache/interp")
    return Path(chosen).expanduser()


def cached_text(path: Path, build: Callable[[], str]) -> str:
    """The text kept at `path`, or the one `build()` gives, which is then kept.

    A cache is only a speed-up: a file that cannot be read or does not match its own checksum is rebuilt, and a folder that
    cannot be written to costs nothing but the time of the next build.
    """
    kept = _read(path)
    if kept is not None:
        return kept
    text = build()
    _write(path, text)
    return text


def stable_hash(*parts: str) -> str:
    """32 hex digits that depend on the parts and on where one ends and the next begins; equal on every machine."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]


def _read(path: Path) -> str | None:
    try:
        checksum, _, data = path.read_bytes().partition(b"\n")
        return data.decode("utf-8") if hashlib.sha256(data).hexdigest().encode() == checksum else None
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    data = text.encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
