"""Bochs of another release, on this host."""

from __future__ import annotations

from kgen.lab.choice import Choice
from kgen.lab.packages import origin
from kgen.lab.recipe import FORMAT, HERE
from kgen.lab.system import Gathering, Programs, System

_PACKAGES = ("bochs", "bochsbios", "vgabios", "bochs-term")
#: The program itself: where Debian has two, the other one is a script that starts it.
_NAMES = ("/usr/bin/bochs-bin", "/usr/bin/bochs")
_SHARE = "/usr/share/bochs"
_PLUGINS = "/usr/lib/x86_64-linux-gnu/bochs/plugins"
_DISK = 30 << 20


def gather(gathering: Gathering) -> Programs:
    """See ``System.gather``."""
    apt = gathering.apt()
    packages = apt.closure(_PACKAGES)
    root = gathering.unpack(apt, packages, disk=_DISK)
    program = next((name for name in _NAMES if root.find(name)), _NAMES[-1])
    files = root.program(program)
    for name in root.names(_PLUGINS, "*.so*"):
        files |= root.program(name)
    for directory in (_SHARE, "/usr/share/vgabios"):
        files |= root.files(directory)
    return Programs(
        files=files,
        programs={"bochs": program},
        settings={"BXSHARE": f"{HERE}{_SHARE}", "LTDL_LIBRARY_PATH": f"{HERE}{_PLUGINS}"},
        sources={"bochs": origin(packages, "bochs")},
    )


def made_by(choice: Choice) -> str:
    """See ``System.made_by``."""
    return f"{FORMAT} {_PACKAGES}"


SYSTEM = System(
    name="bochs",
    summary="another release's Bochs, on this host",
    platforms=("bochs",),
    gather=gather,
    made_by=made_by,
    in_lab=False,
    seconds=20,
)
