"""Temporary directories that the next kgen removes when ours was killed: a file in them is locked while we live."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "kgen-"
#: The file in such a directory that is locked while its owner lives.
LOCK = ".kgen-lock"
#: Those that are there, and the process that made each.
_there: dict[Path, int] = {}


@contextmanager
def scratch(base: str | None = None) -> Iterator[Path]:
    """Yield a new private directory, removed at the end; in the system's place for such, or in ``base``.

    What killed runs have left in that place is removed first, once a process. Raises OSError.
    """
    place = base or tempfile.gettempdir()
    _sweep_once(place)
    with locked_directory(place, PREFIX) as directory:
        yield directory


@contextmanager
def locked_directory(place: str | Path, prefix: str) -> Iterator[Path]:
    """A new directory in ``place`` that only we may enter, locked while we live, gone at the end. Raises OSError."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
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
    unnamed = directory / f"{LOCK}.new"
    descriptor = os.open(unnamed, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if _lock(descriptor):
            unnamed.rename(directory / LOCK)
        yield
    finally:
        os.close(descriptor)


@functools.cache
def _sweep_once(place: str) -> None:
    sweep(place, PREFIX)


def sweep(place: str | Path, prefix: str, *, unlocked_seconds: float | None = None) -> None:
    """Remove our own directories in ``place`` whose owner is dead.

    One without a lock file is none of these, or is just being made: it stays, or where ``unlocked_seconds`` is given,
    it stays until it has been left alone for so long.
    """
    if not hasattr(os, "geteuid"):
        return
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = [*Path(place).glob(f"{prefix}*")]
    for directory in found:
        with contextlib.suppress(OSError):
            about = directory.lstat()
            if about.st_uid != os.geteuid() or directory.is_symlink():
                continue
            try:
                descriptor = os.open(directory / LOCK, os.O_RDWR)
            except FileNotFoundError:
                if unlocked_seconds is not None and time.time() - about.st_mtime > unlocked_seconds:
                    shutil.rmtree(directory, ignore_errors=True)
                continue
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
