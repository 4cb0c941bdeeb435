"""The distribution's packages: found, downloaded and unpacked, never installed, and without root."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import PlatformUnavailable
from kgen.host.process import finish

#: Kernels by Debian's and Ubuntu's names, the one that boots fastest first. All are metapackages.
KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64", "linux-image-virtual", "linux-image-generic")
BUSYBOX = ("busybox-static",)
#: What a metapackage's parts are called. Debian's kernels from 7.2 on are split: linux-image-* depends on
#: linux-binary-*, which holds the kernel, and on linux-modules-*.
_KERNEL_PARTS = ("linux-image-", "linux-binary-", "linux-modules-")
_ASK_SECONDS = 60.0
_DOWNLOAD_SECONDS = 900.0
_UNPACK_SECONDS = 300.0
HINT = "give --kernel (and --modules) of your own"


@dataclass(frozen=True)
class Package:
    """One package as the distribution's lists have it."""

    name: str
    version: str
    #: Of its file, in bytes.
    size: int
    depends: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} {self.version} ({self.size / (1 << 20):.1f} MiB)"


class Apt:
    """apt-get without root. ``work`` is a directory for package lists of our own, where the system has none."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._options: tuple[str, ...] = ()
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise PlatformUnavailable(f"there is no {program} to get the distribution's packages with", hint=HINT)

    def find(self, names: Sequence[str]) -> Package:
        """Return the first of these packages that the lists have; they are fetched if need be.

        Raises PlatformUnavailable where there is none.
        """
        found = self._known(names)
        if found is None:
            self._update()
            found = self._known(names)
        if found is None:
            raise PlatformUnavailable(f"the distribution has no package {' or '.join(names)}", hint=HINT)
        return found

    def kernel(self) -> tuple[Package, ...]:
        """Return the packages that hold a Linux kernel and its modules: what the metapackage depends on."""
        wanted = list(self.find(KERNELS).depends)
        found: list[Package] = []
        while wanted:
            name = wanted.pop(0)
            if name.startswith(_KERNEL_PARTS) and name not in [entry.name for entry in found]:
                package = self.find([name])
                found.append(package)
                wanted += package.depends
        return tuple(found)

    def download(self, packages: Sequence[Package], progress: Callable[[int], None]) -> Path:
        """Fetch package files and return their directory. ``progress`` is called with the bytes that have arrived.

        Raises PlatformUnavailable with apt-get's own words.
        """
        into = self._work / "packages"
        into.mkdir(exist_ok=True)

        def look() -> None:
            progress(sum(path.stat().st_size for path in into.rglob("*") if path.is_file()))

        # with the version: by now the lists may have another one
        names = [f"{package.name}={package.version}" for package in packages]
        command = ["apt-get", *self._options, "-q", "download", *names]
        done = finish(command, _DOWNLOAD_SECONDS, cwd=into, meanwhile=look)
        if done.status != 0 and not self._options:
            # lists that are older than the archive
            self._update()
            fresh = [self.find([package.name]) for package in packages]
            return self.download(fresh, progress)
        if done.status != 0:
            raise PlatformUnavailable(f"apt-get download failed: {_reason(done.text)}", hint=HINT)
        look()
        return into

    def unpack(self, directory: Path, into: Path) -> None:
        """Unpack every package file of a directory. Raises PlatformUnavailable."""
        into.mkdir(exist_ok=True)
        for path in sorted(directory.glob("*.deb")):
            done = finish(["dpkg-deb", "--extract", str(path), str(into)], _UNPACK_SECONDS)
            if done.status != 0:
                raise PlatformUnavailable(f"{path.name} cannot be unpacked: {_reason(done.text)}", hint=HINT)

    def _known(self, names: Sequence[str]) -> Package | None:
        return next((found for name in names if (found := self._show(name))), None)

    def _show(self, name: str) -> Package | None:
        command = ["apt-cache", *self._options, "show", "--no-all-versions", name]
        done = finish(command, _ASK_SECONDS)
        return parse(done.text) if done.status == 0 else None

    def _update(self) -> None:
        """Fetch package lists of our own. Raises PlatformUnavailable."""
        lists = self._work / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (lists / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self._options = (
            *("-o", f"Dir::State::lists={lists / 'lists'}"),
            *("-o", f"Dir::Cache={lists / 'cache'}"),
            *("-o", "APT::Sandbox::User="),
        )
        done = finish(["apt-get", *self._options, "-q", "update"], _DOWNLOAD_SECONDS)
        if done.status != 0:
            raise PlatformUnavailable(
                f"apt-get update failed: {_reason(done.text)}", hint=f"is there a network? or {HINT}"
            )


def parse(text: str) -> Package | None:
    """Return the first package that ``apt-cache show`` prints, None where the fields are missing."""
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", text.partition("\n\n")[0], re.MULTILINE))
    if not {"Package", "Version", "Size"} <= fields.keys() or not fields["Size"].isdigit():
        return None
    depends = re.split(r"[,|]", fields.get("Depends", ""))
    names = tuple(entry.split()[0].partition(":")[0] for entry in depends if entry.strip())
    return Package(fields["Package"], fields["Version"], int(fields["Size"]), names)


def _reason(text: str) -> str:
    """Return the last error that apt printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("E:", "Err:", "dpkg-deb: error"))]
    return (complaints or lines or ["no reason given"])[-1]
