"""VirtualBox with its driver, which uses AMD-V: in a Linux of the release, under this host's QEMU/TCG."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from kgen.errors import SpecError
from kgen.lab import outer
from kgen.lab.choice import Choice
from kgen.lab.compiler import module
from kgen.lab.packages import BUSYBOX as BUSYBOX_PACKAGES
from kgen.lab.packages import Package, origin, package_of
from kgen.lab.recipe import (
    BUSYBOX,
    FORMAT,
    HERE,
    SHARE,
    Recipe,
    busybox_in,
    bzimage,
    find_kernel,
    module_files,
    modules_in,
    read,
)
from kgen.lab.root import Root
from kgen.lab.system import Gathering, Stage, System
from kgen.machine.virtualbox_engine import NAME
from kgen.machine.virtualbox_words import begin
from kgen.systems import _virtualbox

#: The drivers of the ports and of the disk that lab and host share, without what they depend on.
MODULES: Mapping[str, str] = dict.fromkeys(("virtio-pci", "virtio-console", "virtio-blk"), "")
#: VirtualBox's driver, and the package with its source.
DRIVER = "vboxdrv"
_DRIVER_PACKAGE = "virtualbox-dkms"
#: What carries Linux's console, the test machine's serial port, and the dialogue. The fourth carries nothing.
PORTS = ("log", "serial", f"{outer.VIRTIO}console", "gdb")
#: VirtualBox's settings and machines, in the lab.
HOME = "/root/vbox"
MACHINES = "/root/vms"
#: VirtualBox's code for the host's kernel.
_KERNEL_CODE = ("VMMR0.r0", "VBoxDDR0.r0")
#: Three CPUs, so that those of the test machine need not take turns: with two, half as many of their batches are live,
#: with one a tenth. Without la57 (five-level paging): with it a machine hangs at its first instruction, under nested
#: paging.
_CMDLINE = "console=ttyS0 panic=-1 loglevel=5 mitigations=off preempt=full"
_MACHINE = (
    *("-accel", "tcg", "-machine", "q35", "-cpu", "max,la57=off", "-smp", "3", "-m", "768"),
    *("-kernel", f"{HERE}/vmlinuz", "-initrd", f"{HERE}/initramfs.gz", "-append", _CMDLINE),
    *("-device", "virtio-serial-pci"),
    # what goes in and out
    *("-blockdev", f"driver=file,node-name=kgen-share,filename={SHARE},locking=off"),
    *("-device", "virtio-blk-pci,drive=kgen-share"),
)
#: What VirtualBox's packages depend on for screens, sounds and services, which the lab has none of.
_UNUSED = (
    *("dkms", "dpkg-dev", "libgbm", "libgl", "libllvm", "libopus", "libperl", "libpython3", "libsdl", "libsystemd"),
    *("libwayland", "libx11", "libxcb", "libz3", "mesa-", "perl", "python3", "systemd"),
)
_DISK = 500 << 20


def gather(gathering: Gathering) -> Recipe:
    """See ``System.gather``."""
    apt = gathering.apt()
    linux = apt.kernel()
    image = package_of(linux, "linux-image-").name
    headers = image.replace("linux-image-", "linux-headers-")
    packages = apt.closure((_virtualbox.PACKAGE, _DRIVER_PACKAGE, headers))
    packages += (*linux, apt.find(BUSYBOX_PACKAGES))
    packages = tuple(package for package in dict.fromkeys(packages) if not package.name.startswith(_UNUSED))
    root = gathering.unpack(apt, packages, disk=_DISK)
    busybox = busybox_in(root.directory)
    gathering.watcher(Stage("building VirtualBox's driver"))
    driver = module(
        root, f"/usr/src/{headers}", f"{_source(root)}/{DRIVER}", DRIVER, ("VBOX_KBUILD_TARGET_ARCH=amd64",)
    )
    gathering.watcher(Stage("gathering the pieces"))
    loaded = modules_in(root.directory, tuple(MODULES), missing=lambda name: True) | {DRIVER: driver}
    files = _virtualbox.files(root) | root.program(f"{_virtualbox.PLACE}/VBoxHeadless")
    files |= {name: root.read(name) for name in (f"{_virtualbox.PLACE}/{part}" for part in _KERNEL_CODE)}
    return Recipe(
        kernel=bzimage(find_kernel(root.directory)),
        files={"/init": _guest(), BUSYBOX: read(busybox), **module_files(loaded, MODULES), **files},
        modules=tuple(loaded),
        sources=_sources(packages),
        machine=_MACHINE,
        inside=f"VirtualBox {package_of(packages, _virtualbox.PACKAGE).version}",
        ports=PORTS,
    )


def _source(root: Root) -> str:
    """Return the root's directory with the drivers' source. Raises SpecError."""
    found = root.names("/usr/src", "virtualbox-*")
    if not found:
        raise SpecError("the release's packages have no source of VirtualBox's driver", where=str(root.directory))
    return found[-1]


def _sources(packages: tuple[Package, ...]) -> dict[str, str]:
    return {
        "virtualbox": origin(packages, _virtualbox.PACKAGE),
        "driver": origin(packages, _DRIVER_PACKAGE),
        "linux": origin(packages, "linux-image-"),
        "compiler": origin(packages, "gcc-"),
        "busybox": origin(packages, "busybox"),
    }


def made_by(choice: Choice) -> str:
    """See ``System.made_by``."""
    ours = (
        f"kgen lab {FORMAT} {MODULES} {_MACHINE} {PORTS} {_virtualbox.PROGRAMS} {_virtualbox.LOADED} {_KERNEL_CODE}\n"
    )
    return hashlib.sha256(ours.encode() + _guest()).hexdigest()[:16]


def _guest() -> bytes:
    names = ("virtualbox_lab.sh", "dialogue.sh")
    text = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)
    machine = "\n".join(f"made {shlex.join(words)}" for words in begin(NAME, MACHINES))
    for name, value in (("CONSOLE", outer.device(PORTS, "console")), ("HOME", HOME), ("MACHINE", machine)):
        text = text.replace(f"@{name}@", value)
    return text.encode()


SYSTEM = System(
    name="virtualbox-lab",
    summary="VirtualBox with its driver, on AMD-V, inside QEMU's translator",
    platforms=("virtualbox-lab",),
    gather=gather,
    made_by=made_by,
    release="sid",
    seconds=240,
)
