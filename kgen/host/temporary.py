"""Temporary directories that the next kgen removes when ours was killed: a file in them is locked while we live."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "kgen-"
_LOCK = ".kgen-lock"
#: Those that are there, and the process that made each.
_there: dict[Path, int] = {}


@contextmanager
def scratch(base: str | None = None) -> Iterator[Path]:
    """Yield a new private directory, removed at the end; in the system's place for such, or in ``base``.

    What killed runs have left in that place is removed first, once a process. Raises OSError.
    """
    place = base or tempfile.gettempdir()
    _sweep(place)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        _there[directory] = os.getpid()
        with _locked(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _there.pop(directory, None)


@atexit.register
def _remove_left() -> None:
    """Remove what a daemon thread still uses, which is not told that the program ends."""
    for directory, owner in tuple(_there.items()):
        if owner == os.getpid():
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock that ends with its process; nothing where the system has none."""
    # The file has its name only once it is locked: a sweep cannot take it for a dead owner's.
    unnamed = directory / f"{_LOCK}.new"
    descriptor = os.open(unnamed, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if _lock(descriptor):
            unnamed.rename(directory / _LOCK)
        yield
    finally:
        os.close(descriptor)


@functools.cache
def _sweep(place: str) -> None:
    """Remove our own directories whose owner is dead. One without the file is none of these, or is just being made."""
    if not hasattr(os, "geteuid"):
        return
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = [*Path(place).glob(f"{PREFIX}*")]
    for directory in found:
        with contextlib.suppress(OSError):
            if directory.lstat().st_uid != os.geteuid() or directory.is_symlink():
                continue
            descriptor = os.open(directory / _LOCK, os.O_RDWR)
            try:
                if _lock(descriptor):
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take an open file's lock. Returns whether the system has locks and no other process had it."""
    try:
        import fcntl  # does not exist on every system that builds and judges
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
