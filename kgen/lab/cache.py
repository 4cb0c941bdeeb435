"""The labs in the user's cache: one directory for each, named by a digest of its contents, complete or absent.

labs/KEY/vmlinuz initramfs.gz busybox state lab.json    a lab
labs/default                                            the KEY of the distribution's lab
labs/.new-*                                             a lab that is being made, locked by its process
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
#: How many labs of users' own kernels are kept, the newest ones. Each takes some 200 MB.
KEPT = 4
_UNFINISHED = ".new-"
#: An unfinished directory without a lock is removed when nothing was written in it for so many seconds.
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
        """The state of the outer machine when the inner Linux was ready, in QEMU's migration format."""
        return self.directory / "state"

    def size(self) -> int:
        """Return how many bytes the lab takes on disk."""
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
    """Return all labs."""
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
    """Yield a new directory for a lab that is being made. It is removed at the end unless ``publish`` has moved it.

    What killed processes left is removed first. Raises OutputError where the cache cannot be written.
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
    """Move a finished lab to its place. A lab of the same key that is there already stays, unless it has no saved
    state."""
    place = root() / lab.key
    there = load(place)
    if there is not None and there.state_of == lab.state_of:
        found = there
    else:
        (lab.directory / LOCK).unlink(missing_ok=True)
        # A directory cannot be replaced in one step: the old one is renamed first, to a name that a sweep removes.
        aside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root()))
        with contextlib.suppress(OSError):
            place.rename(aside / "old")
        try:
            lab.directory.rename(place)
        except OSError:
            # another process has published it meanwhile
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
            # made of packages, or by a kgen, that have been replaced since
            shutil.rmtree(former.directory, ignore_errors=True)
    else:
        standard = default()
        own = [entry for entry in labs() if standard is None or entry.key != standard.key]
        own.sort(key=lambda entry: (entry.directory / "lab.json").stat().st_mtime)
        for old in own[:-KEPT]:
            shutil.rmtree(old.directory, ignore_errors=True)
    return found


def sweep() -> None:
    """Remove what killed processes left. A process that still works holds its lock. A directory without a lock was left
    between two steps, or its owner is about to remove it."""
    temporary.sweep(root(), _UNFINISHED, unlocked_seconds=_LEFT_SECONDS)


def clean() -> int:
    """Remove all labs and return how many bytes this freed. A run that uses a lab goes on: it has the files open."""
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
