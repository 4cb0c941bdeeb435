"""A system: what a lab, or a private root, holds. One file each in ``kgen/systems``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kgen.errors import PlatformUnavailable, SpecError
from kgen.lab import cache
from kgen.lab.choice import Choice
from kgen.lab.packages import Apt, NoSuchRelease, Package
from kgen.lab.recipe import Recipe
from kgen.lab.release import release_named, suites_of_kernels
from kgen.lab.root import Root
from kgen.wording import mebibytes


@dataclass(frozen=True)
class Stage:
    """A step that takes a while."""

    name: str
    #: In bytes, of ``total``. Both are 0 where the amount is unknown.
    done: int = 0
    total: int = 0


Watcher = Callable[[Stage], None]


@dataclass(frozen=True)
class Programs:
    """Programs of a release that run on this host, from a root of their own."""

    #: The root's files by their places.
    files: Mapping[str, bytes]
    #: The programs to start, by the names under which they can be started.
    programs: Mapping[str, str] = field(default_factory=dict)
    #: Their first arguments; HERE stands for the root's directory.
    words: tuple[str, ...] = ()
    #: Their environment, likewise.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Scripts that start something in another way, likewise.
    scripts: Mapping[str, str] = field(default_factory=dict)
    #: Where everything is from.
    sources: Mapping[str, str] = field(default_factory=dict)


class Gathering:
    """What a system gathers its pieces with: the packages of the chosen release, downloaded and unpacked.

    ``network`` is whether anything may be downloaded, ``newest`` whether lists of packages that are a day old or less
    are fetched again, too.
    """

    def __init__(
        self, choice: Choice, work: Path, watcher: Watcher, *, network: bool = True, newest: bool = False
    ) -> None:
        self.choice = choice
        self.watcher = watcher
        self.network = network
        self._newest = newest
        self._work = work
        self._trees = 0

    def apt(self, release: str | None = None) -> Apt:
        """Return apt with the lists of a release, by default of the chosen one, or else of this host. Raises
        PlatformUnavailable."""
        name = release or self.choice.release
        if name is None:
            if not self.network:
                raise _unavailable()
            return Apt(self._work)
        apt = Apt(cache.downloads(name), release_named(name))
        if self.network:
            self.watcher(Stage(f"looking at the packages of {name}"))
            with apt.locked():
                apt.update(always=self._newest)
        elif not apt.updated:
            raise _unavailable()
        return apt

    def unpack(self, apt: Apt, packages: Sequence[Package], *, disk: int = 0) -> Root:
        """Download what is missing of these packages, and unpack them. ``disk`` is about how many bytes the result
        takes. Raises PlatformUnavailable, SpecError where a file cannot be written."""
        with apt.locked():
            missing = apt.missing(packages)
            size = sum(package.size for package in missing)
            if missing and not self.network:
                raise _unavailable()
            title = f"downloading {_titles(missing)}" + (f"; the lab takes about {mebibytes(disk)}" if disk else "")
            show = self.watcher if missing else lambda stage: None
            show(Stage(title, 0, size))
            files = apt.fetch(packages, lambda done: show(Stage(title, min(done, size), size)))
        self.watcher(Stage("unpacking"))
        self._trees += 1
        tree = self._work / f"tree{self._trees}"
        apt.unpack(files, tree)
        return Root(tree)

    def linux(self, line: str) -> tuple[Apt, tuple[Package, ...]]:
        """Return the packages of the newest Linux of a line in the whole archive. Raises PlatformUnavailable."""
        newest: tuple[Apt, tuple[Package, ...]] | None = None
        for suite in suites_of_kernels():
            try:
                apt = self.apt(suite)
            except NoSuchRelease:
                continue
            except PlatformUnavailable:
                if self.network:
                    # the newest may be in the one that cannot be asked
                    raise
                continue
            found = apt.linux(line)
            if found and (newest is None or apt.is_newer(found[0], newest[1][0])):
                newest = apt, found
        if newest is None and not self.network:
            raise _unavailable()
        if newest is None:
            raise PlatformUnavailable(
                f"the archive has no Linux {line}", where=f"--linux {line}", hint="give a line such as 6.12"
            )
        return newest


@dataclass(frozen=True)
class System:
    """Something that a lab holds, or that runs on this host from a root of its own."""

    name: str
    summary: str
    #: The platforms that run in it. The first one's canary a new one must pass.
    platforms: tuple[str, ...]
    #: Returns what it consists of. Raises PlatformUnavailable, SpecError.
    gather: Callable[[Gathering], Recipe | Programs]
    #: Identifies what does not come from packages, for this choice.
    made_by: Callable[[Choice], str]
    #: The parts that a user may choose, by the names in Choice.
    parts: frozenset[str] = frozenset({"release"})
    #: Checks a choice before anything is downloaded. Raises SpecError.
    check: Callable[[Choice], None] = lambda choice: None
    #: Whether it exists of this host's own release, without a choice.
    of_host: bool = False
    #: The release that it is of where none is chosen, None where one must be.
    release: str | None = None
    #: Whether it is inside a lab; otherwise it runs on this host from a root of its own.
    in_lab: bool = True
    #: About how long it takes to be made once everything is downloaded, in seconds.
    seconds: int = 60

    @property
    def options(self) -> frozenset[str]:
        """The names of the options that choose its parts."""
        return frozenset({"qemu": "inner-qemu"}.get(part, part) for part in self.parts)

    def complete(self, choice: Choice) -> Choice:
        """Return a choice with the release that it is of where none is chosen."""
        return replace(choice, release=choice.release or self.release)


def check(system: System, choice: Choice) -> None:
    """Raise SpecError for a choice that the system does not offer, or that is of the wrong kind."""
    given = [option for option in choice.options() if option.removeprefix("--") not in system.options]
    if given:
        having = ", ".join(f"--{name}" for name in sorted(system.options))
        raise SpecError(
            f"{system.name} offers no choice of it", where=" and ".join(given), hint=f"there you may choose {having}"
        )
    if not system.of_host and system.complete(choice).release is None:
        raise SpecError(f"{system.name} needs a release", where="--release", hint="for example --release bookworm")
    system.check(choice)


def title(system: System, choice: Choice) -> str:
    """Return the name under which a lab of this choice is found again, "" for one with parts of the user's own."""
    if choice.own:
        return ""
    release = system.complete(choice).release
    return "-".join(filter(None, (system.name, release, choice.linux and f"linux-{choice.linux}")))


def choice_of(system: System, name: str) -> Choice:
    """Return the choice of a lab that was made under a name: what ``title`` was called with."""
    release, _, line = name.removeprefix(system.name).partition("linux-")
    return Choice(release=release.strip("-") or None, linux=line or None)


def _unavailable() -> PlatformUnavailable:
    hint = "run 'kgen lab build' with the same options; it says what it downloads"
    return PlatformUnavailable("something must be downloaded for this lab", hint=hint)


def _titles(packages: Sequence[Package]) -> str:
    if len(packages) <= 3:
        return ", ".join(package.title for package in packages)
    return f"{len(packages)} packages ({mebibytes(sum(package.size for package in packages))})"
