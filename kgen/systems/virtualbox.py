"""VirtualBox of another release, on this host: its own interpreter and recompiler need no driver and no root."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kgen.lab.choice import Choice
from kgen.lab.packages import origin
from kgen.lab.recipe import FORMAT
from kgen.lab.root import Root
from kgen.lab.system import Gathering, Programs, System
from kgen.systems import _virtualbox

#: The root's own Python starts them: VBoxHeadless refuses to run without the driver, its library does not.
_PYTHON = "/usr/lib/python3*"
_MODULES = ("", "collections", "ctypes", "encodings", "importlib", "json", "re", "sysconfig")
_DISK = 120 << 20


def gather(gathering: Gathering) -> Programs:
    """See ``System.gather``."""
    apt = gathering.apt()
    packages = apt.closure((_virtualbox.PACKAGE,))
    root = gathering.unpack(apt, packages, disk=_DISK)
    return Programs(
        files=_virtualbox.in_usr(_virtualbox.files(root) | _python(root)),
        scripts={"inside": _starter()},
        sources={"virtualbox": origin(packages, _virtualbox.PACKAGE)},
    )


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
    ours = f"{(_virtualbox.PACKAGE,)} {_virtualbox.PROGRAMS} {_virtualbox.LOADED} {_MODULES}"
    return f"{FORMAT} {ours} {digest}"


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
