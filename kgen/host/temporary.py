"""Temporary directories that the next kgen removes when this one was killed: a file in them is locked while it
lives."""

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

from kgen.errors import MachineError

PREFIX = "kgen-"
#: sockaddr_un on Linux holds 108 bytes with the terminating zero, elsewhere fewer (104 on the BSDs and macOS).
MAX_SOCKET_PATH = 103
#: The file in such a directory that is locked while its owner lives.
LOCK = ".kgen-lock"
#: The directories that exist, and the process that made each.
_there: dict[Path, int] = {}


@contextmanager
def scratch(base: str | None = None) -> Iterator[Path]:
    """Yield a new private directory, removed at the end; in the system's temporary directory, or in ``base``.

    What killed runs have left there is removed first, once in each process. Raises OSError.
    """
    place = base or tempfile.gettempdir()
    _sweep_once(place)
    with locked_directory(place, PREFIX) as directory:
        yield directory


@contextmanager
def socket_scratch(name: str) -> Iterator[Path]:
    """Yield a directory as ``scratch`` does, in which a socket of that name has a path short enough.

    Raises OSError, and MachineError where there is no such directory."""
    for base in (None, "/tmp"):
        with scratch(base) as directory:
            if len(os.fsencode(directory / name)) <= MAX_SOCKET_PATH:
                yield directory
                return
    raise MachineError("no directory has a path short enough for a socket", hint="set TMPDIR to a short path")


@contextmanager
def locked_directory(place: str | Path, prefix: str) -> Iterator[Path]:
    """Yield a new directory in ``place`` that only this user may enter: locked while kgen lives, removed at the end.
    Raises OSError."""
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
    """Remove directories that a daemon thread still uses: it does not notice the end of the program."""
    for directory, owner in tuple(_there.items()):
        if owner == os.getpid():
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a lock that ends with the process; do nothing where the system has no locks."""
    # The file gets its name only after it is locked: no sweep mistakes it for a dead owner's.
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

    A directory without a lock file is another program's, or is just being made: it stays. With ``unlocked_seconds`` it
    stays until nothing was written in it for so long.
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
    """Lock an open file. Return whether the system has locks and no other process had this one."""
    try:
        import fcntl  # does not exist on every system that builds and judges
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
