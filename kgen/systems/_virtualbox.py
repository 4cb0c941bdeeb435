"""VirtualBox's files of a release, for a private root and for a lab."""

from __future__ import annotations

from pathlib import Path

from kgen.lab.root import Root

PACKAGE = "virtualbox"
PLACE = "/usr/lib/virtualbox"
#: What VBoxHeadless loads of it at run time.
LOADED = (
    *("VBoxDD", "VBoxDD2", "VBoxDDU", "VBoxGuestControlSvc", "VBoxGuestPropSvc", "VBoxHeadless", "VBoxRT"),
    *("VBoxSharedFolders", "VBoxVMM", "VBoxXPCOM", "VBoxXPCOMIPCD"),
)
PROGRAMS = ("VBoxManage", "VBoxSVC")


def files(root: Root) -> dict[str, bytes]:
    """Return VBoxManage and its server, with all that they, and the process of a machine, load. Raises SpecError."""
    found: dict[str, bytes] = {}
    components = root.names(f"{PLACE}/components")
    # some are links to libraries that are there already
    own = [name for name in components if not _is_link(root, name)]
    for name in (*(f"{PLACE}/{name}" for name in PROGRAMS), *(f"{PLACE}/{name}.so" for name in LOADED), *own):
        found |= root.program(name)
    return found


def in_usr(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same files with one directory of libraries: /lib is a link to /usr/lib."""
    return {name if name.startswith("/usr/") else f"/usr{name}": data for name, data in found.items()}


def _is_link(root: Root, name: str) -> bool:
    place = root.find(str(Path(name).parent))
    return place is not None and (place / Path(name).name).is_symlink()
