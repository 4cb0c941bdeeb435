"""Where labs are kept: one directory a lab in the user's cache, named by what went into it, whole or not there.

labs/KEY/vmlinuz initramfs.gz busybox state lab.json    a lab
labs/default                                            the KEY of the distribution's lab
labs/.new-*                                             one that is being made, locked by its maker
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kgen.errors import OutputError, SpecError
from kgen.host import temporary
from kgen.host.temporary import LOCK, locked_directory
from kgen.resources import cache_home

DEFAULT = "default"
#: Labs of people's own kernels that are kept, the newest: each takes some 200 MB.
KEPT = 4
_UNFINISHED = ".new-"
#: A directory in the making that has no lock is removed when nothing was written there for so many seconds.
_LEFT_SECONDS = 60.0


@dataclass(frozen=True)
class Lab:
    """A lab that has been made."""

    key: str
    #: The inner versions.
    linux: str
    qemu: str
    #: The kernel modules that are loaded.
    modules: tuple[str, ...]
    #: The data files that the inner QEMU has.
    firmware: tuple[str, ...]
    #: Where the pieces are from.
    sources: dict[str, str]
    #: Identifies the parts that kgen and the inner QEMU add to it.
    made_by: str = ""
    #: Identifies the outer machine that saved ``state``.
    state_of: str = ""
    #: How long each stage took.
    seconds: dict[str, float] = field(default_factory=dict)
    directory: Path = Path()

    @property
    def kernel(self) -> Path:
        """The inner Linux."""
        return self.directory / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """Its root file system."""
        return self.directory / "initramfs.gz"

    @property
    def busybox(self) -> Path:
        """Its shell and tools; other labs are made with it too."""
        return self.directory / "busybox"

    @property
    def state(self) -> Path:
        """The outer machine as it was when the inner Linux was ready, as QEMU migrates one."""
        return self.directory / "state"

    def size(self) -> int:
        """Return bytes that the lab takes on disk."""
        return sum(path.stat().st_size for path in self.directory.iterdir() if path.is_file())

    def save(self) -> None:
        """Write lab.json, which makes the directory a lab."""
        about = {name: value for name, value in asdict(self).items() if name != "directory"}
        unfinished = self.directory / f".lab.json.{os.getpid()}"
        unfinished.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, self.directory / "lab.json")


def root() -> Path:
    """Return the directory of all labs.

    Raises OutputError where the user has no place for a cache, as in many containers.
    """
    home = cache_home()
    if home is None:
        raise OutputError("this user has no home directory to keep labs in", hint="set XDG_CACHE_HOME")
    return home / "labs"


def load(directory: Path) -> Lab | None:
    """Return the lab in a directory, None where there is none or one of another format."""
    try:
        about: dict[str, Any] = json.loads((directory / "lab.json").read_text(encoding="utf-8"))
        lists = {name: tuple(about[name]) for name in ("modules", "firmware")}
        lab = Lab(**{**about, **lists}, directory=directory)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return lab if lab.kernel.is_file() and lab.initramfs.is_file() else None


def labs() -> tuple[Lab, ...]:
    """Return every lab there is."""
    with contextlib.suppress(OSError, OutputError):
        found = (load(path) for path in sorted(root().iterdir()) if path.is_dir() and not path.name.startswith("."))
        return tuple(lab for lab in found if lab is not None)
    return ()


def default() -> Lab | None:
    """Return the distribution's lab, None where it has not been made."""
    try:
        key = (root() / DEFAULT).read_text(encoding="utf-8").strip()
    except (OSError, ValueError, OutputError):
        return None
    return load(root() / key) if key and "/" not in key and not key.startswith(".") else None


def named(key: str) -> Lab | None:
    """Return the lab of that key, None where it has not been made."""
    return load(root() / key)


@contextmanager
def making() -> Iterator[Path]:
    """Yield a new directory for a lab that is being made. It is removed at the end unless ``publish`` took it.

    What a killed maker left is removed first. Raises OutputError where the cache cannot be written.
    """
    if sys.platform == "win32":
        raise SpecError("the lab needs a POSIX system", where="kgen lab")
    try:
        root().mkdir(parents=True, exist_ok=True)
        sweep()
        with locked_directory(root(), _UNFINISHED) as directory:
            yield directory
    except OSError as error:
        raise _unwritable(error) from error


def publish(lab: Lab, *, is_default: bool) -> Lab:
    """Give a finished lab its place; one of the same key that came first stays, unless it has no saved state."""
    place = root() / lab.key
    there = load(place)
    if there is not None and there.state_of == lab.state_of:
        found = there
    else:
        (lab.directory / LOCK).unlink(missing_ok=True)
        # A directory cannot be replaced in one step: the old one steps aside under a name that is swept.
        aside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root()))
        with contextlib.suppress(OSError):
            place.rename(aside / "old")
        try:
            lab.directory.rename(place)
        except OSError:
            # another run was quicker
            if load(place) is None:
                raise
        shutil.rmtree(aside, ignore_errors=True)
        found = load(place) or lab
    if is_default:
        former = default()
        staging = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root()))
        (staging / DEFAULT).write_text(lab.key + "\n", encoding="utf-8")
        os.replace(staging / DEFAULT, root() / DEFAULT)
        staging.rmdir()
        if former is not None and former.key != lab.key:
            # made of packages or by a kgen that have been replaced
            shutil.rmtree(former.directory, ignore_errors=True)
    else:
        standard = default()
        own = [entry for entry in labs() if standard is None or entry.key != standard.key]
        own.sort(key=lambda entry: (entry.directory / "lab.json").stat().st_mtime)
        for old in own[:-KEPT]:
            shutil.rmtree(old.directory, ignore_errors=True)
    return found


def sweep() -> None:
    """Remove what killed makers left. One that still works holds its lock; what has none was left between two steps, or
    is about to be removed by its owner."""
    temporary.sweep(root(), _UNFINISHED, unlocked_seconds=_LEFT_SECONDS)


def clean() -> int:
    """Remove every lab; the bytes that this freed. A run that uses one goes on: it has its files open."""
    freed = sum(path.stat().st_size for path in root().rglob("*") if path.is_file()) if root().is_dir() else 0
    sweep()
    for path in [*root().iterdir()] if root().is_dir() else []:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return freed


def _unwritable(error: OSError) -> OutputError:
    where = str(error.filename or root())
    return OutputError(f"the lab cannot be kept: {error.strerror or error}", where=where, hint="set XDG_CACHE_HOME")
