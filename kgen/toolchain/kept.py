"""What is made from the same input in every process, kept in the user's cache: whole or not at all, and never a kernel.

An entry is named by a digest of all that it was made from, and starts with the digest of its own bytes: one that was
damaged, or that another user put there, is made anew. A cache that cannot be read or written costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from kgen.resources import cache_home

#: Entries that are kept, the newest. A version of kgen needs some forty.
KEPT = 300
_DIGEST_BYTES = hashlib.sha256().digest_size
#: Of an entry that is being written; one that a killed process left is removed with the old ones.
_UNFINISHED = ".new-"


def directory() -> Path | None:
    """Return where entries are kept, None where the user has no such place."""
    home = cache_home()
    return home / "parts" if home else None


def key_of(*parts: str | bytes) -> str:
    """Return the name of what is made from these parts alone."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def toolchain_digest() -> str:
    """Return what identifies the code that makes bytes from assembly text. Raises OSError where it cannot be read."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return key_of(*(data for path in files for data in (path.name, path.read_bytes())))


def kept(key: str, make: Callable[[], bytes]) -> bytes:
    """Return the entry of that key, which ``make`` makes where there is none."""
    data = load(key)
    if data is None:
        data = make()
        save(key, data)
    return data


def load(key: str) -> bytes | None:
    """Return the entry of that key, None where there is none that is whole and ours."""
    place = directory()
    if place is None:
        return None
    try:
        with (place / key).open("rb") as file:
            if hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            data = file.read()
    except OSError:
        return None
    digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


def save(key: str, data: bytes) -> None:
    """Keep an entry, if that is possible."""
    place = directory()
    if place is None:
        return
    unfinished = place / f"{_UNFINISHED}{secrets.token_hex(8)}"
    try:
        _make_room(place)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with open(descriptor, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(unfinished, place / key)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@functools.cache
def _make_room(place: Path) -> None:
    """Make the directory, and remove the oldest entries; once a process. Raises OSError."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    entries = sorted(os.scandir(place), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in entries[KEPT:]:
        with contextlib.suppress(OSError):
            os.unlink(entry.path)
