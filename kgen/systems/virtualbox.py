"""VirtualBox of another release, on this host: its own interpreter and recompiler need no driver and no root."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kgen.lab.choice import Choice
from kgen.lab.packages import origin
from kgen.lab.recipe import FORMAT
from kgen.lab.root import Root
from kgen.lab.system import Gathering, Programs, System

_PACKAGES = ("virtualbox",)
_PLACE = "/usr/lib/virtualbox"
#: What VBoxHeadless loads of it at run time.
_LOADED = (
    *("VBoxDD", "VBoxDD2", "VBoxDDU", "VBoxGuestControlSvc", "VBoxGuestPropSvc", "VBoxHeadless", "VBoxRT"),
    *("VBoxSharedFolders", "VBoxVMM", "VBoxXPCOM", "VBoxXPCOMIPCD"),
)
_PROGRAMS = ("VBoxManage", "VBoxSVC")
#: The root's own Python starts them: VBoxHeadless refuses to run without the driver, its library does not.
_PYTHON = "/usr/lib/python3*"
_MODULES = ("", "collections", "ctypes", "encodings", "importlib", "json", "re", "sysconfig")
_DISK = 120 << 20


def gather(gathering: Gathering) -> Programs:
    """See ``System.gather``."""
    apt = gathering.apt()
    packages = apt.closure(_PACKAGES)
    root = gathering.unpack(apt, packages, disk=_DISK)
    files: dict[str, bytes] = {}
    components = root.names(f"{_PLACE}/components")
    # some are links to libraries that are there already
    own = [name for name in components if not _is_link(root, name)]
    for name in (*(f"{_PLACE}/{name}" for name in _PROGRAMS), *(f"{_PLACE}/{name}.so" for name in _LOADED), *own):
        files |= root.program(name)
    files |= _python(root)
    return Programs(
        # one directory of libraries: /lib is a link to /usr/lib
        files={name if name.startswith("/usr/") else f"/usr{name}": data for name, data in files.items()},
        scripts={"inside": _starter()},
        sources={"virtualbox": origin(packages, "virtualbox")},
    )


def _is_link(root: Root, name: str) -> bool:
    place = root.find(str(Path(name).parent))
    return place is not None and (place / Path(name).name).is_symlink()


def _python(root: Root) -> dict[str, bytes]:
    """Return the root's Python, with what the two scripts that run in it import."""
    program = next(name for name in root.names("/usr/bin", "python3.*") if name[len("/usr/bin/python3.") :].isdigit())
    library = f"/usr/lib/{Path(program).name}"
    files = root.program(program)
    files["/usr/bin/python3"] = files[program]
    for name in root.names(f"{library}/lib-dynload", "_ctypes.*"):
        files |= root.program(name)
    for module in _MODULES:
        for name in root.names(f"{library}/{module}".rstrip("/"), "*.py"):
            if root.find(name):
                files[name] = root.read(name)
    return files


def _starter() -> str:
    return Path(__file__).with_name("virtualbox.sh").read_text(encoding="utf-8")


def made_by(choice: Choice) -> str:
    """See ``System.made_by``."""
    digest = hashlib.sha256(_starter().encode()).hexdigest()[:16]
    return f"{FORMAT} {_PACKAGES} {_PROGRAMS} {_LOADED} {_MODULES} {digest}"


SYSTEM = System(
    name="virtualbox",
    summary="VirtualBox in its own interpreter, without a driver, on this host",
    platforms=("virtualbox",),
    gather=gather,
    made_by=made_by,
    in_lab=False,
    release="sid",
    seconds=60,
)
