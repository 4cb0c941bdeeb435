"""The labs in the user's cache: one directory for each, named by a digest of its contents, complete or absent.

labs/KEY/vmlinuz initramfs.gz busybox state lab.json    a lab
labs/KEY/used                                           touched whenever it is used
labs/NAME                                               the KEY of the lab of that name, "kvm" or "xen-bookworm"
labs/.new-*                                             a lab that is being made, locked by its process
roots/NAME/root bin root.json                           programs of a release that run on this host
packages/RELEASE/                                       a release's package lists, and what was downloaded of it
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kgen.errors import OutputError, SpecError
from kgen.host import temporary
from kgen.host.temporary import LOCK, locked_directory
from kgen.lab.recipe import PORTS
from kgen.resources import cache_home

#: The name of the lab that is made of this host's distribution and its QEMU.
DEFAULT = "kvm"
_UNFINISHED = ".new-"
#: An unfinished directory without a lock is removed when nothing was written in it for so many seconds.
_LEFT_SECONDS = 60.0


@dataclass(frozen=True)
class Lab:
    """A lab that has been made."""

    key: str
    #: The inner Linux's release, and the hypervisor inside in its own words.
    linux: str
    qemu: str
    #: The kernel modules that are loaded.
    modules: tuple[str, ...]
    #: The data files that the inner QEMU has.
    firmware: tuple[str, ...]
    #: Where the pieces are from.
    sources: dict[str, str]
    #: Identifies the parts that do not come from packages.
    made_by: str = ""
    #: The system that it holds, and the name that it was made under, "" for one with parts of the user's own.
    system: str = DEFAULT
    name: str = ""
    #: The outer QEMU's arguments, with recipe.HERE in place of ``directory``.
    machine: tuple[str, ...] = ()
    #: What its serial ports carry.
    ports: tuple[str, ...] = PORTS
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

    def touch(self) -> None:
        """Note that the lab is in use."""
        with contextlib.suppress(OSError):
            (self.directory / "used").touch()

    def used(self) -> float:
        """Return when the lab was last used, in seconds since the epoch."""
        times = [path.stat().st_mtime for name in ("used", "lab.json") if (path := self.directory / name).is_file()]
        return max(times, default=0.0)

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
    return _home() / "labs"


def last_used(system: str) -> Lab | None:
    """Return the lab of a system that was used last, of those that have a name; None where there is none."""
    return max((lab for lab in labs() if lab.system == system and lab.name), key=Lab.used, default=None)


def roots() -> Path:
    """Return the directory of the programs' roots. Raises OutputError."""
    return _home() / "roots"


def downloads(release: str) -> Path:
    """Return the directory of what was downloaded of a release; it is made. Raises OutputError."""
    place = _home() / "packages" / release
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from error
    return place


def _home() -> Path:
    home = cache_home()
    if home is None:
        raise OutputError("this user has no home directory to keep labs in", hint="set XDG_CACHE_HOME")
    return home


def load(directory: Path) -> Lab | None:
    """Return the lab in a directory, None where there is none or one of another format."""
    try:
        about: dict[str, Any] = json.loads((directory / "lab.json").read_text(encoding="utf-8"))
        names = ("modules", "firmware", "machine", "ports")
        lists: dict[str, Any] = {name: tuple(about[name]) for name in names if name in about}
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
    """Return the lab of this host's distribution, None where it has not been made."""
    return titled(DEFAULT)


def titled(name: str) -> Lab | None:
    """Return the lab that was made under this name, None where there is none."""
    try:
        key = (root() / name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError, OutputError):
        return None
    return load(root() / key) if key and "/" not in key and not key.startswith(".") else None


def named(key: str) -> Lab | None:
    """Return the lab of that key, None where it has not been made."""
    return load(root() / key)


@contextmanager
def making(place: Path | None = None) -> Iterator[Path]:
    """Yield a new directory for a lab that is being made, or for a root in ``roots()``. It is removed at the end unless
    it was moved.

    What killed processes left is removed first. Raises OutputError where the cache cannot be written.
    """
    if sys.platform == "win32":
        raise SpecError("the lab needs a POSIX system", where="kgen lab")
    here = place or root()
    try:
        here.mkdir(parents=True, exist_ok=True)
        temporary.sweep(here, _UNFINISHED, unlocked_seconds=_LEFT_SECONDS)
        with locked_directory(here, _UNFINISHED) as directory:
            yield directory
    except OSError as error:
        raise _unwritable(error) from error


def publish(lab: Lab) -> Lab:
    """Move a finished lab to its place, and let its name refer to it. A lab of the same key that is there already
    stays, unless it has no saved state."""
    place = root() / lab.key
    there = load(place)
    if there is not None and there.state_of == lab.state_of:
        found = there
    else:
        (lab.directory / LOCK).unlink(missing_ok=True)
        replace_directory(lab.directory, place, lambda: load(place) is not None)
        found = load(place) or lab
    if lab.name:
        former = titled(lab.name)
        staging = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root()))
        (staging / "name").write_text(lab.key + "\n", encoding="utf-8")
        os.replace(staging / "name", root() / lab.name)
        staging.rmdir()
        if former is not None and former.key != lab.key and not names(former.key):
            # made of packages, or by a kgen, that have been replaced since
            shutil.rmtree(former.directory, ignore_errors=True)
    return found


def replace_directory(made: Path, place: Path, published: Callable[[], bool]) -> None:
    """Move a directory to its place. A directory cannot be replaced in one step: an old one is renamed first, to a name
    that a sweep removes. It is no error where another process has ``published`` the same meanwhile."""
    aside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place.parent))
    with contextlib.suppress(OSError):
        place.rename(aside / "old")
    try:
        made.rename(place)
    except OSError:
        if not published():
            raise
    shutil.rmtree(aside, ignore_errors=True)


def names(key: str) -> tuple[str, ...]:
    """Return the names that refer to a lab."""
    found = []
    for path in sorted(root().iterdir()) if root().is_dir() else []:
        with contextlib.suppress(OSError, ValueError):
            if path.is_file() and not path.name.startswith(".") and path.read_text(encoding="utf-8").strip() == key:
                found.append(path.name)
    return tuple(found)


def sweep() -> None:
    """Remove what killed processes left. A process that still works holds its lock. A directory without a lock was left
    between two steps, or its owner is about to remove it."""
    temporary.sweep(root(), _UNFINISHED, unlocked_seconds=_LEFT_SECONDS)


def clean(kept: int = 0) -> int:
    """Remove labs, but for the ``kept`` that were used last; with none kept, everything that can be made again: roots
    and downloads too. Return how many bytes this freed. A run that uses a lab goes on: it has the files open."""
    before = _size(_home())
    for place in (root(), roots()):
        if place.is_dir():
            temporary.sweep(place, _UNFINISHED, unlocked_seconds=_LEFT_SECONDS)
    if kept:
        for lab in sorted(labs(), key=Lab.used, reverse=True)[kept:]:
            for name in names(lab.key):
                (root() / name).unlink(missing_ok=True)
            shutil.rmtree(lab.directory, ignore_errors=True)
        return before - _size(_home())
    for place in (root(), roots(), _home() / "packages"):
        for path in [*place.iterdir()] if place.is_dir() else []:
            if path.name.startswith("."):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return before - _size(_home())


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    return total


def _unwritable(error: OSError) -> OutputError:
    where = str(error.filename or root())
    return OutputError(f"the lab cannot be kept: {error.strerror or error}", where=where, hint="set XDG_CACHE_HOME")
