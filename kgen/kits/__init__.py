"""Platform kits: folders with all that another machine needs to run a kernel. One file for each kit, which exposes
``KIT = Kit(...)``.

A kit consists of texts: the machine's definition, scripts that start and stop it, a README. The image and the kernel
come from the builder. The texts hold no path of this machine: every script works in its own directory, so a folder may
be moved, copied and renamed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kgen import registry
from kgen.errors import KgenError, OutputError, SpecError
from kgen.spec import KernelSpec
from kgen.spec.case import Case, resolve_target
from kgen.targets import targets

#: Where the four serial ports of a PC are (I/O ports), COM1 first.
COM_PORTS = (0x3F8, 0x2F8, 0x3E8, 0x2E8)
#: Longest name of a machine: one label of a host name (RFC 1035, 2.3.4), which every product takes.
MAX_NAME = 63
#: The seconds that a script waits for the end of a run, where a suite's budget does not need more.
PATIENCE = 1800
#: PCI slot of the first device that a target brings.
FIXTURE_SLOT = 0x10
#: The folder's instructions, and how their first line begins; the product's name and a colon follow.
README = "README.txt"
TITLE = "kgen on "
#: The file that is in the folder as long as the product has its machine.
MARK = "machine-made.txt"
#: Suffixes of the files that Windows itself reads: their lines end with CR LF.
_WINDOWS_FILES = (".cmd", ".ps1")


@dataclass(frozen=True)
class Facts:
    """What the texts of a kit are made from."""

    #: The machine's: letters, digits and hyphens only, at most MAX_NAME. It follows from the kernel's specification
    #: alone, like ``short`` and ``uuid``.
    name: str
    #: The same for products that take only a few characters.
    short: str
    uuid: str
    #: The case's id or the suite's name.
    case: str
    #: The least number of CPUs.
    cpus: int
    #: The number of the serial port, from 1.
    com: int
    #: The serial port's I/O address.
    port: int
    #: The serial port's speed, in bits a second.
    baud: int
    #: How long a script waits for the end of the run.
    seconds: int
    #: The arguments by which QEMU has the devices of the targets.
    fixtures: tuple[str, ...] = ()
    #: The ids of a suite's cases for which the product has no device.
    left_out: tuple[str, ...] = ()
    #: How many cases the kernel has.
    total: int = 1
    #: The ids of the cases that a log alone never shows to be ATOMIC.
    unproven: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kit:
    """How to bring a kernel to one product."""

    name: str
    product: str
    summary: str
    #: The image formats that the folder holds; a format's file is ``kernel.FORMAT``.
    formats: tuple[str, ...]
    #: Makes the other files of the folder, by name. They are ASCII.
    texts: Callable[[Facts], Mapping[str, str]]
    #: The capabilities that targets may require.
    provides: frozenset[str]
    #: How many CPUs a machine may have.
    max_cpus: int
    #: How many serial ports a machine may have.
    coms: int = 4
    #: Whether the machine takes QEMU's arguments.
    qemu: bool = False
    #: Whether the README is for readers on Windows.
    windows: bool = False


def kits() -> Mapping[str, Kit]:
    """Return every kit by name."""
    return registry.discover("kgen.kits", "KIT", Kit)


def fitted(kit: Kit, spec: KernelSpec) -> tuple[KernelSpec, Facts]:
    """Return the kernel that goes into the kit and what its texts are made from.

    A suite loses the cases for which the product has no device. Raises SpecError where the product cannot run the case,
    or nothing would be left of the suite.
    """
    if not spec.rounds:
        raise SpecError("--rounds 0 has no end, and a kit's scripts wait for it", hint="give a number of rounds")
    if spec.case.cpus > kit.max_cpus:
        raise SpecError(f"{spec.case.cpus} CPUs asked for", hint=f"{kit.product} takes {kit.max_cpus} at the most")
    ports = COM_PORTS[: kit.coms]
    if spec.serial_port not in ports:
        known = ", ".join(f"{port:#x}" for port in ports)
        raise SpecError(f"serial port {spec.serial_port:#x}", hint=f"on {kit.product} give one of {known}")
    fitting = tuple(case for case in spec.cases if not _missing(kit, case))
    kept = frozenset(fitting)
    if not fitting:
        missing = ", ".join(sorted(_missing(kit, spec.case)))
        where = resolve_target(spec.case.target).name
        raise SpecError(
            f"{kit.product} has no {missing}", where=where, hint=f"choose a target such as {_target_of(kit)}"
        )
    left_out = tuple(case.id for case in spec.cases if case not in kept)
    spec = replace(spec, case=fitting[0], more=fitting[1:])
    digest = spec.digest()
    facts = Facts(
        name=machine_name(spec.name, digest),
        short=f"kgen-{digest[:8]}",
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, digest)),
        case=spec.name,
        cpus=spec.case.cpus,
        com=ports.index(spec.serial_port) + 1,
        port=spec.serial_port,
        baud=spec.baud,
        seconds=max(PATIENCE, 3 * (spec.budget + spec.proof_seconds) + 600),
        fixtures=_fixtures(spec) if kit.qemu else (),
        left_out=left_out,
        total=len(spec.cases),
        unproven=tuple(case.id for case in spec.cases if _unproven(case)),
    )
    return spec, facts


def _unproven(case: Case) -> bool:
    """Return whether the guest cannot find out what is at the cells. QEMU's monitor reports it, and for VGA memory the
    guest's probe does."""
    target = resolve_target(case.target)
    return target.declared == "io" and not target.vga


def check_folder(kit: Kit, directory: Path) -> None:
    """Raise OutputError where the files of ``kit`` must not be written to ``directory``: it holds another product's
    kit, or a kit whose machine still exists and would not be found by the new scripts."""
    if (directory / MARK).exists():
        raise OutputError("its machine is still there", where=str(directory), hint="run its stop script first")
    try:
        with (directory / README).open(encoding="ascii", errors="replace") as file:
            title = file.readline(1000)
    except OSError:
        return
    product, found, _ = title.removeprefix(TITLE).partition(":")
    if found and title.startswith(TITLE) and product != kit.product:
        raise OutputError(f"is a kit for {product}", where=str(directory), hint="choose another folder with -o")


def _fixtures(spec: KernelSpec) -> tuple[str, ...]:
    """Return QEMU's arguments for the devices of the targets, each once, in the order of the cases.

    A target without a fixed address is found on the PCI bus. Its device has a slot far from those of libvirt's and
    Proxmox VE's own devices: QEMU may create ours first, and without a slot it would take one of theirs.
    """
    found: list[str] = []
    slot = FIXTURE_SLOT
    for target in dict.fromkeys(resolve_target(case.target) for case in spec.cases):
        for before, word in zip(("", *target.qemu), target.qemu, strict=False):
            on_pci = before == "-device" and target.address is None
            found.append(f"{word},addr={slot:#x}" if on_pci else word)
            slot += on_pci
    return tuple(found)


def _missing(kit: Kit, case: Case) -> frozenset[str]:
    return resolve_target(case.target).requires - kit.provides


def _target_of(kit: Kit) -> str:
    """Return a target that a product has, one that is not ordinary memory where there is one."""
    there = [name for name, target in targets().items() if target.requires <= kit.provides]
    return min(there, key=lambda name: (name != "vga-text", targets()[name].declared != "io", name))


def machine_name(case: str, digest: str) -> str:
    """Return a name that every product accepts: letters, digits and single hyphens, at most MAX_NAME, unique by
    ``digest``.
    """
    words = re.sub(r"[^a-z0-9]+", "-", case.lower()).strip("-")
    tail = f"-{digest[:8]}"
    return f"kgen-{words}"[: MAX_NAME - len(tail)].rstrip("-") + tail


def files(kit: Kit, facts: Facts) -> dict[str, bytes]:
    """Return the kit's own files: name and bytes. Raises KgenError for a kit whose texts are not plain ASCII lines."""
    found = {}
    for name, text in sorted(kit.texts(facts).items()):
        crlf = name.endswith(_WINDOWS_FILES) or (kit.windows and name.endswith(".txt"))
        if not text.endswith("\n") or "\r" in text:
            raise KgenError("is not made of whole lines", where=f"{kit.name}: {name}")
        try:
            # Windows PowerShell 5 reads a file without a byte order mark in the system's own code page.
            found[name] = text.replace("\n", "\r\n" if crlf else "\n").encode("ascii")
        except UnicodeEncodeError as error:
            raise KgenError(f"is not ASCII: {error}", where=f"{kit.name}: {name}") from error
    return found
