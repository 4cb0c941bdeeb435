"""QEMU of another release, on this host."""

from __future__ import annotations

from kgen.lab.choice import Choice
from kgen.lab.packages import origin
from kgen.lab.recipe import FORMAT, HERE
from kgen.lab.system import Gathering, Programs, System

_PACKAGES = ("qemu-system-x86", "ovmf")
_PROGRAMS = {name: f"/usr/bin/{name}" for name in ("qemu-system-i386", "qemu-system-x86_64")}
#: Where its data files are, and those of the packages that it takes them from.
_DATA = ("/usr/share/qemu", "/usr/share/seabios", "/usr/share/OVMF", "/usr/share/ovmf")
_MODULES = "/usr/lib/x86_64-linux-gnu/qemu"
_DISK = 120 << 20


def gather(gathering: Gathering) -> Programs:
    """See ``System.gather``."""
    apt = gathering.apt()
    packages = apt.closure(_PACKAGES)
    root = gathering.unpack(apt, packages, disk=_DISK)
    files: dict[str, bytes] = {}
    for name in (*_PROGRAMS.values(), *root.names(_MODULES, "*.so")):
        files |= root.program(name)
    for directory in _DATA:
        files |= root.files(directory)
    return Programs(
        files=files,
        programs=_PROGRAMS,
        words=tuple(word for place in _DATA[:3] if root.find(place) for word in ("-L", f"{HERE}{place}")),
        settings={"QEMU_MODULE_DIR": f"{HERE}{_MODULES}"},
        sources={"qemu": origin(packages, "qemu-system-x86")},
    )


def made_by(choice: Choice) -> str:
    """See ``System.made_by``."""
    return f"{FORMAT} {_PACKAGES}"


SYSTEM = System(
    name="qemu",
    summary="another release's QEMU, on this host",
    platforms=("qemu-tcg", "qemu-kvm"),
    gather=gather,
    made_by=made_by,
    in_lab=False,
    seconds=20,
)
