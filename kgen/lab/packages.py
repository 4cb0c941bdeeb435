"""The distribution's packages: found, downloaded and unpacked, never installed, and without root."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import KgenError, OutputError, PlatformUnavailable
from kgen.host.process import Finished, finish
from kgen.lab.release import Release

#: Kernels by Debian's and Ubuntu's names, the one that boots fastest first. All are metapackages.
KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64", "linux-image-virtual", "linux-image-generic")
BUSYBOX = ("busybox-static",)
#: What a metapackage's parts are called. Debian's kernels from 7.2 on are split: linux-image-* depends on
#: linux-binary-*, which holds the kernel, and on linux-modules-*.
_KERNEL_PARTS = ("linux-image-", "linux-binary-", "linux-modules-")
#: A kernel of one version for virtual machines; signed ones have no "-unsigned" at their end.
_LINE = re.compile(r"linux-image-\d[^ ]*-cloud-amd64")
#: What ``apt-get --print-uris`` prints of a file: its address, its name, its size in bytes.
_URI = re.compile(r"^'[^']+' (\S+_\S+_\S+\.deb) (\d+) ", re.MULTILINE)
#: The age at which lists of a release are fetched again.
LISTS_SECONDS = 24 * 3600.0
#: How many packages one apt-get downloads: a command line is finite.
_AT_ONCE = 200
#: What programs print on a full disk.
_FULL = "No space left on device"
#: What apt prints of a release that the archive does not carry.
_NO_RELEASE = re.compile("(does not have|no longer has) a Release file")
_ASK_SECONDS = 60.0
_DOWNLOAD_SECONDS = 900.0
_UNPACK_SECONDS = 300.0
HINT = "give --kernel (and --modules) of your own"


class NoSuchRelease(PlatformUnavailable):
    """The archive answers, and does not carry the release: any more, or yet."""


@dataclass(frozen=True)
class Package:
    """One package as the distribution's lists have it."""

    name: str
    version: str
    #: Of its file, in bytes.
    size: int
    depends: tuple[str, ...] = ()

    def in_directory(self, place: Path) -> Path | None:
        """Return its file in a directory of apt's, None where it is not there."""
        return next(place.glob(f"{self.name}_{self.version.replace(':', '%3a')}_*.deb"), None)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} {self.version} ({self.size / (1 << 20):.1f} MiB)"


class Apt:
    """apt-get without root: it looks packages up, resolves what they depend on, and downloads them.

    ``work`` is a directory for what it writes. Without a ``release`` it uses the lists of this host, and lists of its
    own in ``work`` where the system has none. With one it uses nothing of this host but apt's settings of the network:
    lists and files stay in ``work`` for the next time.
    """

    def __init__(self, work: Path, release: Release | None = None) -> None:
        self._work = work
        self._release = release
        self._options: tuple[str, ...] = ()
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise PlatformUnavailable(f"there is no {program} to get the distribution's packages with", hint=HINT)
        if release is not None:
            self._options = self._private(release)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing ``work``."""
        with (self._work / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def updated(self) -> bool:
        """Whether the release's lists have been fetched."""
        mark = self._work / "updated"
        try:
            return self._release is not None and mark.read_text(encoding="utf-8") == self._release.source
        except OSError:
            return False

    def update(self, *, always: bool = False) -> None:
        """Fetch the release's lists where there are none, where they are a day old, or ``always``.

        Where old lists cannot be fetched again they serve, but not if ``always``. Raises NoSuchRelease,
        PlatformUnavailable with apt's own words, also where a signature is wrong, OutputError for a full disk.
        """
        assert self._release is not None
        mark = self._work / "updated"
        there = self.updated
        if there and not always and time.time() - mark.stat().st_mtime < LISTS_SECONDS:
            return
        done = self._apt_get("update", _DOWNLOAD_SECONDS)
        if done.status == 0:
            mark.write_text(self._release.source, encoding="utf-8")
        elif always or not there:
            if not there:
                # lists of which no signature was believed must not be used the next time
                mark.unlink(missing_ok=True)
                shutil.rmtree(self._work / "lists", ignore_errors=True)
            text = done.text if done.status is not None else f"it took longer than {_DOWNLOAD_SECONDS:g} s"
            raise _failed(self._release.archive, text, where=self._where(), hint="is there a network?")

    def closure(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Return the packages of these names and all that they depend on. Raises PlatformUnavailable."""
        done = self._apt_get("install", _ASK_SECONDS, "--print-uris", "--no-install-recommends", "-y", *names)
        found = tuple(map(_of_uri, _URI.findall(done.text)))
        if done.status != 0 or not found:
            raise PlatformUnavailable(f"{' '.join(names)}: {_reason(done.text)}", where=self._where())
        return found

    def missing(self, packages: Sequence[Package]) -> list[Package]:
        """Return the packages whose files are not there yet."""
        return [package for package in packages if package.in_directory(self._work / "files") is None]

    def fetch(self, packages: Sequence[Package], progress: Callable[[int], None]) -> tuple[Path, ...]:
        """Download the files of packages that are ``missing``, and return those of all. ``progress`` is called with the
        bytes that have arrived. apt holds each against the signed lists. Raises PlatformUnavailable."""
        place = self._work / "files"
        place.mkdir(parents=True, exist_ok=True)
        wanted = self.missing(packages)
        arriving = self._work / "arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir()

        def look() -> None:
            with contextlib.suppress(OSError):
                progress(sum(path.stat().st_size for path in arriving.iterdir()))

        for start in range(0, len(wanted), _AT_ONCE):
            names = [f"{package.name}={package.version}" for package in wanted[start : start + _AT_ONCE]]
            command = ["apt-get", *self._options, "-q", "download", *names]
            done = finish(command, _DOWNLOAD_SECONDS, cwd=arriving, meanwhile=look)
            if done.status != 0 and not self._options:
                # lists that are older than the archive
                self._update()
                return self.fetch([self.find([package.name]) for package in packages], progress)
            if done.status != 0:
                raise _failed("apt-get download failed", done.text, where=self._where(), hint="")
        look()
        for path in arriving.glob("*.deb"):
            path.replace(place / path.name)
        files = [package.in_directory(place) for package in packages]
        for package, file in zip(packages, files, strict=True):
            if file is None:
                raise PlatformUnavailable(f"apt-get did not download {package.title}", where=self._where())
        return tuple(file for file in files if file is not None)

    def find(self, names: Sequence[str]) -> Package:
        """Return the first of these packages that the lists have; those of this host are fetched if need be.

        Raises PlatformUnavailable where there is none.
        """
        found = self._known(names)
        if found is None and self._release is None:
            self._update()
            found = self._known(names)
        if found is None:
            what = f"the distribution has no package {' or '.join(names)}"
            raise PlatformUnavailable(what, where=self._where(), hint=HINT)
        return found

    def kernel(self) -> tuple[Package, ...]:
        """Return the packages that hold a Linux kernel and its modules: what the metapackage depends on."""
        return self.parts(self.find(KERNELS))

    def parts(self, package: Package) -> tuple[Package, ...]:
        """Return the packages that hold a kernel and its modules: one, or what it depends on. Raises
        PlatformUnavailable."""
        wanted = list(package.depends)
        # a metapackage has no version in its name
        found = [package] if re.search(r"-\d", package.name) else []
        while wanted:
            name = wanted.pop(0)
            if name.startswith(_KERNEL_PARTS) and name not in [entry.name for entry in found]:
                package = self.find([name])
                found.append(package)
                wanted += package.depends
        return tuple(found)

    def unpack(self, files: Sequence[Path], into: Path) -> None:
        """Unpack package files. Raises PlatformUnavailable, OutputError for a full disk."""
        into.mkdir(exist_ok=True)
        for path in files:
            done = finish(["dpkg-deb", "--extract", str(path), str(into)], _UNPACK_SECONDS)
            if done.status != 0:
                raise _failed(f"{path.name} cannot be unpacked", done.text)

    def _known(self, names: Sequence[str]) -> Package | None:
        return next((found for name in names if (found := self._show(name))), None)

    def _show(self, name: str) -> Package | None:
        command = ["apt-cache", *self._options, "show", "--no-all-versions", name]
        done = finish(command, _ASK_SECONDS)
        return parse(done.text) if done.status == 0 else None

    def lines(self) -> tuple[str, ...]:
        """Return the names of the kernels for virtual machines that the lists have, the newest line last."""
        done = finish(["apt-cache", *self._options, "pkgnames", "linux-image-"], _ASK_SECONDS)
        return tuple(sorted(name for name in done.text.split() if _LINE.fullmatch(name)))

    def linux(self, line: str) -> tuple[Package, ...]:
        """Return the packages of the newest Linux of a line ("6.12"), () where the lists have none."""
        heads = tuple(f"linux-image-{line}{mark}" for mark in ".-+~")
        names = [name for name in self.lines() if name.startswith(heads)]
        known = [package for name in names if (package := self._show(name))]
        if not known:
            return ()
        newest = known[0]
        for package in known[1:]:
            newest = package if self.is_newer(package, newest) else newest
        return self.parts(newest)

    @staticmethod
    def is_newer(package: Package, other: Package) -> bool:
        """Return whether a package's version is higher than another's."""
        command = ["dpkg", "--compare-versions", package.version, "gt", other.version]
        return finish(command, _ASK_SECONDS).status == 0

    def _apt_get(self, command: str, timeout: float, *words: str) -> Finished:
        return finish(["apt-get", *self._options, "-q", command, *words], timeout)

    def _where(self) -> str:
        return f"--release {self._release.name}" if self._release else ""

    def _private(self, release: Release) -> tuple[str, ...]:
        """Return the options with which apt knows that release alone, and no package as installed."""
        for name in ("lists/partial", "cache/archives/partial", "none"):
            (self._work / name).mkdir(parents=True, exist_ok=True)
        (self._work / "status").touch()
        (self._work / "sources.list").write_text(release.source + "\n", encoding="utf-8")
        settings = {
            "Dir::Etc::sourcelist": self._work / "sources.list",
            "Dir::Etc::sourceparts": self._work / "none",
            "Dir::Etc::preferences": self._work / "none/preferences",
            "Dir::Etc::preferencesparts": self._work / "none",
            "Dir::State": self._work,
            "Dir::State::lists": self._work / "lists",
            "Dir::State::status": self._work / "status",
            "Dir::Cache": self._work / "cache",
            "APT::Sandbox::User": "",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "Acquire::https::Timeout": "30",
        }
        return tuple(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))

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


def package_of(packages: Sequence[Package], name: str) -> Package:
    """Return the package of this name among these, or the first whose name begins with it, rather one with a version
    there than a metapackage."""
    found = [package for package in packages if package.name.startswith(name)]
    exact = [package for package in found if package.name == name]
    versioned = [package for package in found if re.search(r"-\d", package.name)]
    return (exact or versioned or found)[0]


def origin(packages: Sequence[Package], name: str) -> str:
    """Return that package as the source of a lab's part."""
    found = package_of(packages, name)
    return f"package {found.name} {found.version}"


def _of_uri(found: tuple[str, str]) -> Package:
    """Return the package of a file name as apt gives it: its colons are percent-encoded."""
    name, version, _ = found[0].split("_")
    return Package(name, version.replace("%3a", ":"), int(found[1]))


def _failed(what: str, text: str, *, where: str = "", hint: str = HINT) -> KgenError:
    """Return the error for what apt or dpkg printed."""
    if _FULL in text:
        return OutputError(f"{what}: {_FULL}", where=where, hint="free some space, or set XDG_CACHE_HOME")
    if _NO_RELEASE.search(text):
        return NoSuchRelease(f"{what}: {_reason(text)}", where=where, hint="choose a release that the archive carries")
    return PlatformUnavailable(f"{what}: {_reason(text)}", where=where, hint=hint)


def _reason(text: str) -> str:
    """Return the first error that apt printed: later ones say what follows from it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))]
    return next(iter(complaints), lines[-1] if lines else "no reason given")
