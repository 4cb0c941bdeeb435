"""What VirtualBox prints, read: its log, the answers of ``VBoxManage debugvm``. Pure text in, facts out.

The forms are those of 7.2; what is not understood is "unknown", never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kgen.errors import DebuggerError
from kgen.evidence.mtree import Kind, PathEvidence
from kgen.machine.registers import CpuRegisters

#: The names of the registers that are read, as ``getregisters`` has them.
REGISTERS = ("eip", "esp", "ebp", "eflags", "eax", "ebx", "ecx", "edx", "esi", "edi")

#: "00:00:00.066483 " before every line of the log.
_STAMP = re.compile(r"^\d+:\d\d:\d\d\.\d+ ")
_VERSION = re.compile(r"VirtualBox VM (\S+) r(\d+) (\S+)")
_WANTED = re.compile(r"Using execution engine (\d+)")
_ALL = re.compile(r"EMR3Init: fIemExecutesAll=(true|false)")
#: VMExecutionEngine of VirtualBox's API, 7.2.
_INTERPRETER, _RECOMPILER = "4", "5"
_HARDWARE = re.compile(r"HM: HMR3Init: (AMD-V|VT-x)")
_NATIVE = re.compile(r"^\S+ NEM: ", re.MULTILINE)
_STATE = re.compile(r"Changing the VM state from '(\w+)' to '(\w+)'")
_GURU = re.compile(r"Guru Meditation -?\d+ \((\w+)\)")
#: States in which the guest will never run again.
_DEAD = frozenset(("OFF", "FATAL_ERROR", "GURU_MEDITATION", "TERMINATED", "DESTROYING", "RESETTING", "LOAD_FAILURE"))
#: The beginnings of the lines that say what carries the guest out.
_FACTS = (
    *("Using execution engine", "HM: HMR3Init", "HM: Enabled SVM", "HM:   Enabled nested paging", "NEM: "),
    *("EMR3Init: f", "PGM: Enabling", "SUP: Loaded"),
)
_PHYSICAL_HEAD = "GC Phys Range"
#: A row of ``info phys``: the range, where VirtualBox has its memory (0 for what is emulated), the owner's words.
_PHYSICAL = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16}) ([0-9a-f]{16}) (\S.*)")
#: A row of ``info mmio``: number, who carries accesses out, size, mapping, perhaps a PCI region, the owner's words.
_EMULATED = re.compile(r"\s*\d+ (\S.*?)\s+[0-9a-f]{16}\s+([0-9a-f]{16})-([0-9a-f]{16})[ +]\s*(\S.*)")
_SEQUENCER = re.compile(r"\bSR04:([0-9A-F]{2})\b")
_CHAIN4 = 0x08
_REGISTER = re.compile(r"^(\w+) = 0x([0-9a-f]+)", re.MULTILINE)
_ERROR = re.compile(r"^VBoxManage(?:\.exe)?: error: (.+)$", re.MULTILINE)


def engine_of(log: str) -> str:
    """Return what carried the guest's instructions out, from the beginning of VBox.log, "" where it does not say."""
    everything = _ALL.search(log)
    if everything is None:
        return ""
    if everything[1] == "true":
        wanted = _WANTED.search(log)
        kind = {_INTERPRETER: ", interpreter", _RECOMPILER: ", recompiler"}.get(wanted[1] if wanted else "", "")
        return f"IEM{kind}"
    hardware = _HARDWARE.search(log)
    if hardware is not None:
        return f"HM, {hardware[1]}"
    return "NEM" if _NATIVE.search(log) else ""


def version_of(log: str) -> str:
    """Return VirtualBox's version from its log, "" where it has none."""
    found = _VERSION.search(log)
    return f"VirtualBox {found[1]} r{found[2]}" if found else ""


def facts_of(log: str) -> tuple[str, ...]:
    """Return the lines of the log that say what carries the guest out."""
    lines = (_STAMP.sub("", line) for line in log.splitlines())
    return tuple(line for line in lines if line.startswith(_FACTS))


def death_of(log: str) -> str:
    """Return how the guest died, in a sentence with VirtualBox's words, "" while it lives."""
    states = _STATE.findall(log)
    bad = next((new for _, new in states if new.removesuffix("_LS") in _DEAD), None)
    if bad is None:
        return ""
    guru = _GURU.search(log)
    if guru is not None and guru[1] == "VINF_EM_TRIPLE_FAULT":
        return "the guest died of a triple fault; VirtualBox says: Guru Meditation, VINF_EM_TRIPLE_FAULT"
    return f"VirtualBox stopped the guest: {bad}" + (f", {guru[1]}" if guru else "")


def complaint(text: str) -> str:
    """Return the first error that VBoxManage printed, or its last line."""
    found = _ERROR.search(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return found[1] if found else (lines or ["no reason given"])[-1]


def registers_of(cpu: int, text: str) -> CpuRegisters:
    """Return a CPU from the output of ``getregisters``. Raises DebuggerError."""
    words = {name: int(value, 16) for name, value in _REGISTER.findall(text) if name in REGISTERS}
    try:
        return CpuRegisters(thread=cpu + 1, target=f"CPU{cpu}", cpu=cpu, **words)
    except TypeError as error:
        raise DebuggerError(f"the registers of CPU {cpu} cannot be read") from error


@dataclass(frozen=True)
class _Range:
    first: int
    last: int
    #: Whether VirtualBox has memory for it.
    backed: bool
    owner: str
    line: str


def path_of(info: Callable[[str], str], start: int, length: int) -> PathEvidence:
    """Return what backs the ``length`` bytes at physical address ``start``. ``info`` returns the answer to ``debugvm
    info``; what it raises is passed on.

    Anything doubtful is "unknown". With its planes chained VGA memory may be mapped as RAM, and no answer says whether
    it is.
    """
    last = start + length - 1
    table = info("phys").partition(_PHYSICAL_HEAD)[2].splitlines()[1:]
    rows = [_range(line) for line in table if line.strip()]
    if not rows or None in rows:
        return PathEvidence("unknown", "", "VirtualBox's answer to 'info phys' has an unknown form", "")
    hits = [row for row in rows if row is not None and row.first <= last and row.last >= start]
    if not hits:
        return PathEvidence("hole", "", "no range", "info phys")
    region = ", ".join(dict.fromkeys(row.owner for row in hits))
    line = " / ".join(row.line for row in hits)
    whole = sum(min(row.last, last) - max(row.first, start) + 1 for row in hits) == length
    kinds = {_kind(row) for row in hits}
    if not whole or len(kinds) != 1:
        return PathEvidence("unknown", region, line, "info phys")
    kind = kinds.pop()
    if kind != "io":
        return PathEvidence(kind, region, line, "info phys")
    handled = [row for row in map(_EMULATED.fullmatch, info("mmio").splitlines()) if row]
    owner = next((row for row in handled if int(row[2], 16) <= start and last <= int(row[3], 16)), None)
    if owner is None:
        return PathEvidence("unknown", region, f"{line}, which 'info mmio' does not have", "info mmio")
    if region.startswith("VGA"):
        register = _SEQUENCER.search(info("vgasr"))
        if register is None or int(register[1], 16) & _CHAIN4:
            why = "VGA memory with its planes chained, which VirtualBox may map as RAM"
            return PathEvidence("unknown", region, why, "info vgasr")
    return PathEvidence("io", region, " ".join(owner[0].split()), "info mmio")


def _range(line: str) -> _Range | None:
    row = _PHYSICAL.fullmatch(line.strip())
    if row is None:
        return None
    return _Range(int(row[1], 16), int(row[2], 16), int(row[3], 16) != 0, row[4].strip(), " ".join(line.split()))


def _kind(row: _Range) -> Kind:
    # with the driver RAM is allocated in pieces, and the process need not have mapped any of it
    if row.owner.endswith(" RAM") or " RAM, " in row.owner:
        return "ram"
    if not row.backed:
        return "io"
    # a device's own memory ("VRam") has a handler for its writes, and is neither
    return "rom" if "BIOS" in row.owner or "ROM" in row.owner else "unknown"


def begin(name: str, base: str) -> tuple[tuple[str, ...], ...]:
    """Return VBoxManage's words that make a machine without parts in the directory ``base``, command by command."""
    return (
        ("createvm", "--name", name, "--ostype", "Other", "--basefolder", base, "--register"),
        ("storagectl", name, "--name", "IDE", "--add", "ide", "--controller", "PIIX4", "--bootable", "on"),
    )


def complete(
    name: str,
    *,
    cpus: int,
    memory: int,
    vga: str,
    port: int,
    serial: tuple[str, ...],
    engine: str,
    disk: str,
    ring3: bool = False,
    extra: tuple[str, ...] = (),
) -> tuple[tuple[str, ...], ...]:
    """Return VBoxManage's words that give a machine of ``begin`` its parts, command by command. They are those of
    ``settings``, ``disk`` is the file that it boots, ``extra`` are the user's own words. With ``ring3`` no access to
    the VGA device is carried out in ring 0."""
    ide = ("--storagectl", "IDE", "--port", "0", "--device", "0", "--type", "hdd")
    parts = settings(name, cpus=cpus, memory=memory, vga=vga, port=port, serial=serial, engine=engine)
    return (
        (*parts, *extra),
        ("storageattach", name, *ide, "--medium", disk),
        *([("setextradata", name, "VBoxInternal/Devices/vga/0/R0Enabled", "0")] if ring3 else []),
    )


def settings(
    name: str, *, cpus: int, memory: int, vga: str, port: int, serial: tuple[str, ...], engine: str
) -> tuple[str, ...]:
    """Return VBoxManage's words that give a new machine its parts. ``port`` is the I/O port of the kernel's serial
    port, ``serial`` what it is connected to; "" for ``engine`` leaves that to VirtualBox."""
    numbers = tuple(SERIAL_PORTS)
    uart = numbers.index(port) + 1
    return (
        *("modifyvm", name, "--memory", str(memory), "--vram", "16", "--cpus", str(cpus), "--ioapic", "on"),
        *("--hpet", "on", "--firmware", "bios", "--graphicscontroller", vga, "--nic1", "none"),
        *("--boot1", "disk", "--boot2", "none", "--boot3", "none", "--boot4", "none"),
        *("--bioslogofadein", "off", "--bioslogofadeout", "off", "--bioslogodisplaytime", "0"),
        *("--biosbootmenu", "disabled"),
        *(f"--uart{uart}", f"{port:#x}", SERIAL_PORTS[port], f"--uartmode{uart}", *serial),
        *(("--vm-execution-engine", engine) if engine else ()),
    )


#: The interrupt lines of the serial ports, by I/O port.
SERIAL_PORTS = {0x3F8: "4", 0x2F8: "3", 0x3E8: "4", 0x2E8: "3"}
