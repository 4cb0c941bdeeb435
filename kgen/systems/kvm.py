"""KVM: a Linux with KVM for AMD's SVM, and a QEMU on it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from kgen.errors import PlatformUnavailable, SpecError
from kgen.host.process import output
from kgen.lab import cache, outer
from kgen.lab.choice import Choice
from kgen.lab.packages import BUSYBOX as BUSYBOX_PACKAGES
from kgen.lab.packages import Package, origin
from kgen.lab.recipe import (
    BUSYBOX,
    FORMAT,
    HERE,
    Recipe,
    busybox_in,
    bzimage,
    data_directories,
    find_kernel,
    fingerprint,
    host_busybox,
    host_program,
    module_files,
    modules_in,
    read,
)
from kgen.lab.root import ELF, Root
from kgen.lab.system import Gathering, Stage, System

#: The modules to load, without what they depend on, and their options. With nested paging and five-level paging (la57)
#: under QEMU/TCG some guests never start their second CPU. Without la57 nested paging works as well as shadow paging,
#: in the same time (QEMU 7.2, six runs each); shadow paging is what has worked with every release.
MODULES: Mapping[str, str] = {"kvm-amd": "npt=0"}
#: The data files that QEMU's PC needs: multiboot and PVH loaders, the VGA BIOS and the two firmwares.
FIRMWARE = (
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "multiboot_dma.bin",
    "pvh.bin",
    "qboot.rom",
    "vgabios-stdvga.bin",
)
#: 512 MiB for the inner Linux, its initramfs, the inner QEMU and the test machine's own memory. Two CPUs: with one,
#: every overlap of two accesses is a preemption, and an inner translator shows hardly any. Without la57 (five-level
#: paging) they run steadily; with it, stalls of the inner Linux and triple faults of its CPUs were seen.
# ``mitigations=off``: they guard against other guests, which the lab does not have, and slow every exit of the guest.
# ``preempt=full``: more task switches between the halves of an exchange. ``kvm_amd.npt``: for a built-in KVM.
_CMDLINE = "console=ttyS0 panic=-1 loglevel=5 mitigations=off preempt=full kvm_amd.npt=0"
_MACHINE = (
    *("-accel", "tcg", "-machine", "q35", "-cpu", "max,la57=off", "-smp", "2", "-m", "512"),
    *("-kernel", f"{HERE}/vmlinuz", "-initrd", f"{HERE}/initramfs.gz", "-append", _CMDLINE),
)
_QEMU_PACKAGES = ("qemu-system-x86",)
_PROGRAM = "/usr/bin/qemu-system-x86_64"
_DATA = "/usr/share/qemu"
#: Where a release's QEMU has its data files.
_DATA_PLACES = (_DATA, "/usr/share/seabios")
_DISK = 300 << 20
_ASK_SECONDS = 20.0
QEMU_HINT = "install it with 'apt install qemu-system-x86', or name one with --inner-qemu"


def gather(gathering: Gathering) -> Recipe:
    """See ``System.gather``."""
    choice = gathering.choice
    kernel, modules = choice.kernel, choice.modules
    sources: dict[str, str] = {}
    busybox = None if choice.release else _host_busybox()
    apt = None
    packages: tuple[Package, ...] = ()
    if kernel is None and choice.linux is not None:
        other, found = gathering.linux(choice.linux)
        tree = gathering.unpack(other, found)
        kernel, modules = find_kernel(tree.directory), modules or tree.directory
        sources["linux"] = origin(found, "linux-")
    if kernel is None or busybox is None or choice.release:
        apt = gathering.apt()
        packages += apt.kernel() if kernel is None else ()
        packages += (apt.find(BUSYBOX_PACKAGES),) if busybox is None else ()
        packages += apt.closure(_QEMU_PACKAGES) if choice.release and choice.qemu is None else ()
        tree = gathering.unpack(apt, packages, disk=_DISK)
        if kernel is None:
            kernel, modules = find_kernel(tree.directory), modules or tree.directory
            sources["linux"] = origin(packages, "linux-image-")
        if busybox is None:
            busybox = busybox_in(tree.directory)
            sources["busybox"] = origin(packages, "busybox")
    if choice.release and choice.qemu is None:
        files, inside = _of_root(tree)
        sources["qemu"] = origin(packages, "qemu-system-x86")
    else:
        files, inside, sources["qemu"] = _of_host(choice.qemu or outer.BINARY)
    if choice.kernel is not None:
        sources["linux"] = str(choice.kernel.resolve())
    if choice.modules is not None:
        sources["modules"] = str(choice.modules.resolve())
    known = cache.default()
    if known and busybox == known.busybox:
        sources["busybox"] = known.sources["busybox"]
    sources.setdefault("busybox", str(busybox))
    gathering.watcher(Stage("gathering the pieces"))
    loaded = modules_in(modules, tuple(MODULES)) if modules is not None else {}
    return Recipe(
        kernel=bzimage(kernel),
        files={"/init": _guest(), BUSYBOX: read(busybox), **module_files(loaded, MODULES), **files},
        modules=tuple(loaded),
        sources=sources,
        machine=_MACHINE,
        inside=inside,
        firmware=tuple(name for name in FIRMWARE if f"{_DATA}/{name}" in files),
    )


def check(choice: Choice) -> None:
    """See ``System.check``."""
    if choice.kernel is not None:
        bzimage(choice.kernel)
        if choice.linux is not None:
            raise SpecError("--kernel is a Linux already", where=f"--linux {choice.linux}", hint="leave one out")
    if choice.modules is not None:
        modules_in(choice.modules, tuple(MODULES))


def made_by(choice: Choice) -> str:
    """See ``System.made_by``."""
    ours = hashlib.sha256(f"kgen lab {FORMAT} {MODULES} {_MACHINE}\n".encode() + _guest()).hexdigest()[:16]
    return ours if choice.release and choice.qemu is None else f"{ours} {fingerprint(choice.qemu or outer.BINARY)}"


def _guest() -> bytes:
    return Path(__file__).with_name("kvm.sh").read_bytes()


def _host_busybox() -> Path | None:
    """Return this host's busybox, or the one of the distribution's lab."""
    lab = cache.default()
    return host_busybox() or (lab.busybox if lab and lab.busybox.is_file() else None)


def _of_root(root: Root) -> tuple[dict[str, bytes], str]:
    """Return the files of a release's QEMU, and its own first line."""
    files = root.program(_PROGRAM)
    for module in root.names("/usr/lib/x86_64-linux-gnu/qemu", _TRANSLATOR):
        files |= root.program(module)
    for name in FIRMWARE:
        place = next((f"{place}/{name}" for place in _DATA_PLACES if root.find(f"{place}/{name}")), None)
        if place is not None:
            files[f"{_DATA}/{name}"] = root.read(place)
    binary = root.find(_PROGRAM)
    words = [str(root.loader()), "--library-path", ":".join(map(str, root.search())), str(binary), "--version"]
    return files, _first(output(words, _ASK_SECONDS))


def _of_host(name: str) -> tuple[dict[str, bytes], str, str]:
    """Return the files of a QEMU of this host, its own first line, and its path."""
    found = shutil.which(name)
    if found is None:
        raise PlatformUnavailable(f"there is no {name} to put into the lab", hint=QEMU_HINT)
    qemu = Path(found)
    data = read(qemu)
    if data[:4] != ELF:
        raise SpecError("is not a Linux program", where=found, hint="give the QEMU binary itself, not a script")
    files = {_PROGRAM: data} | {place: part for place, part in host_program(qemu).items() if place != str(qemu)}
    if qemu.is_relative_to("/usr/bin"):
        # The translator and other parts are modules that QEMU loads when it needs them.
        places = (*Path("/usr/lib").glob("*-linux-gnu/qemu"), Path("/usr/lib64/qemu"), Path("/usr/lib/qemu"))
        modules = [str(place / _TRANSLATOR) for place in places if (place / _TRANSLATOR).is_file()]
        files |= {module: read(Path(module)) for module in modules[:1]}
    directories = data_directories(qemu)
    for name in FIRMWARE:
        file = next((place / name for place in directories if (place / name).is_file()), None)
        if file is not None:
            files[f"{_DATA}/{name}"] = read(file)
    return files, _first(output([found, "--version"], _ASK_SECONDS)), str(qemu.resolve())


#: QEMU's translator, which Debian packs apart.
_TRANSLATOR = "accel-tcg-x86_64.so"


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines()), "QEMU of unknown version")


SYSTEM = System(
    name="kvm",
    summary="Linux's KVM and a QEMU on it, inside QEMU's translator",
    platforms=("kvm-lab", "tcg-lab"),
    gather=gather,
    made_by=made_by,
    check=check,
    parts=frozenset({"kernel", "modules", "qemu", "release", "linux"}),
    of_host=True,
)
