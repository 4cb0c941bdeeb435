"""Xen: the hypervisor, its dom0 with xl, and the device model of HVM domains."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from kgen.errors import PlatformUnavailable, SpecError
from kgen.lab import cache, outer
from kgen.lab.choice import Choice
from kgen.lab.packages import BUSYBOX as BUSYBOX_PACKAGES
from kgen.lab.packages import Apt, Package, origin, package_of
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

#: The drivers that xl and the device model need, without what they depend on.
MODULES: Mapping[str, str] = dict.fromkeys(
    ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs", "virtio-pci", "virtio-console", "virtio-blk"),
    "",
)
#: The first port is Xen's own console; dom0 has the others. They are no UARTs: Xen traps each access of dom0 to one.
PORTS = ("log", *(f"{outer.VIRTIO}{carried}" for carried in ("console", "serial", "control")))
#: Names in the lab's directory.
_XEN = "xen"
#: The cloud's kernels cannot be dom0.
_LINUX_PACKAGES = ("linux-image-amd64", "linux-image-generic")
_XEN_PACKAGES = ("xen-system-amd64",)
#: Where a release has no device model of Xen's own, its QEMU is one.
_MODEL_PACKAGES = ("qemu-system-xen", "qemu-system-x86")
_MODELS = ("/usr/libexec/xen-qemu-system-i386", "/usr/bin/qemu-system-i386")
#: The device model's place in the lab, for all releases.
MODEL = "/usr/bin/qemu-system-i386"
_TOOLS = ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "xen-hvmctx", "xentrace")
#: The device model's data files. hvmloader takes SeaBIOS from a file, too.
_FIRMWARE = (
    "bios-256k.bin",
    # for the screen of a domain that has none
    "keymaps/en-us",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "multiboot.bin",
    "multiboot_dma.bin",
    "pvh.bin",
    "vgabios-cirrus.bin",
    "vgabios-stdvga.bin",
)
_DATA = "/usr/share/qemu"
_DATA_PLACES = (_DATA, "/usr/share/seabios")
_SEABIOS = "/usr/share/seabios/bios-256k.bin"
#: Without SMAP: a PV dom0 dies of it under QEMU 7.2. One CPU: the domain's CPUs take turns on it, and are preempted
#: between the two requests of an exchange.
_DOM0 = "console=hvc0 loglevel=4 mitigations=off panic=-1"
_ARGUMENTS = " ".join(
    (
        "dom0_mem=400M,max:400M com1=115200,8n1 console=com1 loglvl=info guest_loglvl=all noreboot",
        # they guard against other guests, which the lab does not have, and zero memory
        "spec-ctrl=no xpti=no bootscrub=0",
        # dom0 must run as soon as it has a request: by default others run on for 1 ms, and one that spins for 30 ms
        "sched=credit sched_credit_tslice_ms=1 sched_ratelimit_us=0",
    )
)
_MACHINE = (
    *("-accel", "tcg", "-machine", "q35", "-cpu", "max,-smap", "-smp", "1", "-m", "768"),
    *("-kernel", f"{HERE}/{_XEN}", "-append", _ARGUMENTS),
    *("-initrd", f"{HERE}/vmlinuz {_DOM0},{HERE}/initramfs.gz"),
    *("-device", "virtio-serial-pci"),
    # what goes in and out
    *("-blockdev", f"driver=file,node-name=kgen-share,filename={SHARE},locking=off"),
    *("-device", "virtio-blk-pci,drive=kgen-share"),
)
_DISK = 250 << 20
_MULTIBOOT = b"\x02\xb0\xad\x1b"
#: Multiboot's header lies in the first 8 KiB of a file (Multiboot Specification 0.6.96, 3.1).
_HEADER = 8192


def gather(gathering: Gathering) -> Recipe:
    """See ``System.gather``."""
    choice = gathering.choice
    apt = gathering.apt()
    packages = apt.closure([_first(apt, each) for each in (_XEN_PACKAGES, _MODEL_PACKAGES)])
    packages += apt.parts(apt.find(_LINUX_PACKAGES)) if choice.kernel is None else ()
    packages += (apt.find(BUSYBOX_PACKAGES),)
    root = gathering.unpack(apt, tuple(dict.fromkeys(packages)), disk=_DISK)
    gathering.watcher(Stage("gathering the pieces"))
    kernel, modules = choice.kernel, choice.modules
    if kernel is None:
        kernel, modules = find_kernel(root.directory), modules or root.directory
    busybox = busybox_in(root.directory)
    hypervisor, version = _hypervisor(root, packages, choice)
    files, tools = _tools(root)
    loaded = modules_in(modules, tuple(MODULES), missing=lambda name: True) if modules is not None else {}
    model = next(name for name in _MODELS if root.find(name))
    files |= {MODEL if name == model else name: data for name, data in root.program(model).items()}
    files |= _firmware(root)
    return Recipe(
        kernel=bzimage(kernel),
        files={"/init": _guest(tools), BUSYBOX: read(busybox), **module_files(loaded, MODULES), **files},
        modules=tuple(loaded),
        sources=_sources(packages, choice, model),
        machine=_MACHINE,
        inside=f"Xen {version}",
        loaded={_XEN: hypervisor},
        firmware=tuple(name for name in _FIRMWARE if f"{_DATA}/{name}" in files),
        ports=PORTS,
    )


def check(choice: Choice) -> None:
    """See ``System.check``. The directory of labs must have a name that QEMU takes among Multiboot's modules, which it
    separates by commas, and their arguments by blanks."""
    place = str(cache.root())
    if set(" ,") & set(place):
        why = "QEMU loads Xen's parts from no directory with a blank or a comma in its name"
        raise SpecError(why, where=place, hint="set XDG_CACHE_HOME to another place")
    if choice.kernel is not None:
        bzimage(choice.kernel)
    if choice.modules is not None:
        modules_in(choice.modules, tuple(MODULES), missing=lambda name: True)
    if choice.xen is not None:
        hypervisor(choice.xen)


def made_by(choice: Choice) -> str:
    """See ``System.made_by``."""
    return hashlib.sha256(f"kgen lab {FORMAT} {MODULES} {_MACHINE} {PORTS}\n".encode() + _guest("")).hexdigest()[:16]


def hypervisor(path: Path) -> bytes:
    """Return a Xen's bytes, unpacked. Raises SpecError for a file that QEMU does not start by Multiboot."""
    data = read(path)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise SpecError(f"cannot be unpacked: {error}", where=str(path)) from error
    if _MULTIBOOT not in data[:_HEADER]:
        raise SpecError("is no Xen: it has no Multiboot header", where=str(path), hint="give xen/xen.gz or xen/xen")
    return data


def _hypervisor(root: Root, packages: tuple[Package, ...], choice: Choice) -> tuple[bytes, str]:
    """Return Xen and its version, or where it is from. Raises SpecError."""
    if choice.xen is not None:
        return hypervisor(choice.xen), f"from {choice.xen.name}"
    names = root.names("/boot", "xen-*.gz")
    place = root.find(names[-1]) if names else None
    if place is None:
        raise SpecError("the release's packages have no Xen", where=str(root.directory))
    return hypervisor(place), package_of(packages, "xen-hypervisor-").version


def _tools(root: Root) -> tuple[dict[str, bytes], str]:
    """Return the files of Xen's tools, and their directory. Raises SpecError."""
    homes = [name for name in root.names("/usr/lib", "xen-*") if root.find(f"{name}/bin/xl")]
    if not homes:
        raise SpecError("the release's packages have no xl", where=str(root.directory))
    home = homes[-1]
    files: dict[str, bytes] = {}
    for name in _TOOLS:
        files |= root.program(f"{home}/bin/{name}")
    files[f"{home}/boot/hvmloader"] = root.read(f"{home}/boot/hvmloader")
    files["/etc/xen/xl.conf"] = b'autoballoon="off"\n'
    return files, f"{home}/bin"


def _firmware(root: Root) -> dict[str, bytes]:
    """Return the data files of device model and hvmloader."""
    files = {_SEABIOS: root.read(_SEABIOS)}
    for name in _FIRMWARE:
        place = next((f"{place}/{name}" for place in _DATA_PLACES if root.find(f"{place}/{name}")), None)
        if place is not None:
            files[f"{_DATA}/{name}"] = root.read(place)
    return files


def _sources(packages: tuple[Package, ...], choice: Choice, model: str) -> dict[str, str]:
    found = {
        "xen": str(choice.xen.resolve()) if choice.xen else origin(packages, "xen-hypervisor-"),
        "tools": origin(packages, "xen-utils-"),
        "qemu": origin(packages, _MODEL_PACKAGES[_MODELS.index(model)]),
        "linux": str(choice.kernel.resolve()) if choice.kernel else origin(packages, "linux-image-"),
        "busybox": origin(packages, "busybox"),
    }
    return found | ({"modules": str(choice.modules.resolve())} if choice.modules else {})


def _first(apt: Apt, names: tuple[str, ...]) -> str:
    try:
        return apt.find(names).name
    except PlatformUnavailable as error:
        raise PlatformUnavailable(f"this release has no {names[0]}", where=error.where) from error


def _guest(tools: str) -> bytes:
    text = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("xen.sh", "dialogue.sh"))
    for name, value in (("TOOLS", tools), ("MODEL", MODEL), ("CONSOLE", outer.device(PORTS, "console"))):
        text = text.replace(f"@{name}@", value)
    return text.encode()


SYSTEM = System(
    name="xen",
    summary="Xen with a dom0, inside QEMU's translator",
    platforms=("xen-lab",),
    gather=gather,
    made_by=made_by,
    check=check,
    parts=frozenset({"kernel", "modules", "xen", "release"}),
    seconds=60,
)
