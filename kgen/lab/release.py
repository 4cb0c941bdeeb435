"""A release of this host's distribution: which archive has it, and with which key the archive is signed."""

from __future__ import annotations

import functools
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import PlatformUnavailable, SpecError
from kgen.host.process import finish

#: What each distribution calls itself in its archive, where its keys are, and which of its components are free enough
#: to be downloaded without a question. Extra pockets hold kernels of other lines.
_KEYRINGS = {
    "Debian": ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp"),
    "Ubuntu": ("ubuntu-archive-keyring.gpg",),
}
_KEYRING_PLACES = ("/usr/share/keyrings", "/etc/apt/keyrings")
_COMPONENTS = {"Debian": ("main", "contrib"), "Ubuntu": ("main", "universe", "multiverse")}
#: The suites that are searched for a line of Linux, the oldest first.
KERNEL_SUITES = {
    "Debian": (
        "bullseye",
        "bookworm",
        "bookworm-backports",
        "trixie",
        "trixie-backports",
        "forky",
        "sid",
        "experimental",
    ),
    "Ubuntu": ("jammy", "jammy-updates", "noble", "noble-updates"),
}
_NAME = re.compile(r"[a-z][a-z0-9.-]{1,40}")
_ASK_SECONDS = 60.0
_TARGETS = "$(REPO_URI)\t$(ORIGIN)\t$(LABEL)"


@dataclass(frozen=True)
class Release:
    """A release: what apt needs to fetch packages of it."""

    #: The archive's name of it: "bookworm".
    name: str
    #: "Debian" or "Ubuntu".
    distribution: str
    #: The archive's address.
    archive: str
    #: The file of the keys that the archive is signed with, None for those that apt trusts anyway.
    keyring: Path | None

    @property
    def source(self) -> str:
        """The line of a sources.list(5)."""
        signed = f"[signed-by={self.keyring}] " if self.keyring else ""
        return f"deb {signed}{self.archive} {self.name} {' '.join(_COMPONENTS[self.distribution])}"


def release_named(name: str) -> Release:
    """Return the release of that name from the archive that this host's apt uses. The archive itself is not asked yet.

    Raises SpecError for what is no name, PlatformUnavailable where apt is missing or has no distribution's archive.
    """
    if not _NAME.fullmatch(name):
        raise SpecError("this is no name of a release", where=f"--release {name}", hint="for example bookworm")
    if shutil.which("apt-get") is None:
        raise PlatformUnavailable(
            "there is no apt-get to get a release's packages with", where=f"--release {name}", hint="leave it out"
        )
    distribution, archive = _archive()
    files = (Path(place) / file for place in _KEYRING_PLACES for file in _KEYRINGS[distribution])
    return Release(name, distribution, archive, next((file for file in files if file.is_file()), None))


def suites_of_kernels() -> tuple[str, ...]:
    """Return the releases to search for a line of Linux. Raises PlatformUnavailable."""
    return KERNEL_SUITES[_archive()[0]]


@functools.cache
def _archive() -> tuple[str, str]:
    """Return the distribution and the address of its archive that apt is configured for. Raises PlatformUnavailable."""
    done = finish(["apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages"], _ASK_SECONDS)
    found = archive_in(done.text)
    if found is None:
        raise PlatformUnavailable(
            "apt is configured for no archive of Debian or Ubuntu",
            hint="run 'apt-get update' once, or leave --release out",
        )
    return found


def archive_in(targets: str) -> tuple[str, str] | None:
    """Return distribution and archive from ``apt-get indextargets``, None where there is none. An archive for security
    updates alone has another label."""
    for line in targets.splitlines():
        uri, _, rest = line.partition("\t")
        for distribution in _KEYRINGS:
            if rest == f"{distribution}\t{distribution}":
                return distribution, uri
    return None
