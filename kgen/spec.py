"""What the user asks for: frozen, validated values with a stable id and digest."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from kgen import registry
from kgen.errors import SpecError
from kgen.experiments import Experiment, Poll
from kgen.instructions import Form, Instruction
from kgen.targets import MemoryTarget

MIN_CPUS = 3
MAX_CPUS = 255
MAX_ROUNDS = 0xFFFFFFFF
MAX_BATCH = 256
#: Cells a handshake covers on targets whose extent is known.
DEFAULT_BATCH = 128

#: Physical memory that no cell may overlap: what the kernel itself stands on, and pages that belong to one CPU.
RESERVED = (
    (0x00000000, 0x000A0000, "low memory, which holds the trampoline and firmware data"),
    (0x00100000, 0x01000000, "the kernel's own memory"),
    (0xFEC00000, 0xFEC01000, "the I/O APIC"),
    (0xFEE00000, 0xFEF00000, "the local APIC's page, which is not shared between CPUs"),
)


def unknown(what: str, name: str, known: Iterable[str]) -> SpecError:
    """The error for a name that is in no registry, with the near matches."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return SpecError(f"unknown {what} '{name}'", hint=hint)


def instructions() -> Mapping[str, Instruction]:
    """Every instruction of the catalogue by name."""
    return registry.discover("kgen.instructions", "INSTRUCTION", Instruction)


def targets() -> Mapping[str, MemoryTarget]:
    """Every named target."""
    return registry.discover("kgen.targets", "TARGET", MemoryTarget)


def experiments() -> Mapping[str, Experiment]:
    """Every experiment by name."""
    return registry.discover("kgen.experiments", "EXPERIMENT", Experiment)


def resolve_target(name: str) -> MemoryTarget:
    """The target of that name, or the single cell at a physical address written ``0x...``.

    Raises SpecError for an unknown name and for an address at which the cell would break the machine that
    carries the experiment.
    """
    if not re.fullmatch(r"0[xX][0-9a-fA-F]+", name):
        known = targets()
        if name not in known:
            raise unknown("target", name, known)
        return known[name]
    address = int(name, 16)
    size = 4
    if address + size > 1 << 32:
        raise SpecError(f"address {name} lies above 4 GiB", hint="the kernel runs without paging in 32-bit mode")
    if address % size:
        raise SpecError(f"address {name} is not aligned to the {size}-byte operand", hint="choose a multiple of 4")
    for low, high, what in RESERVED:
        if address < high and address + size > low:
            raise SpecError(f"address {name} lies in {what}", hint=f"choose one outside {low:#x}-{high - 1:#x}")
    # A bare address may be a register with neighbours that must not be touched: one cell, nothing more.
    return MemoryTarget(
        name=f"{address:#x}", summary="the cell at a physical address", address=address, size=size, declared="io"
    )


@dataclass(frozen=True)
class Case:
    """instruction x target x experiment x CPU count, the thing a verdict is about. ``width`` is in bits."""

    instruction: str
    width: int = 32
    lock: bool = True
    target: str = "vga-text"
    experiment: str = "token"
    cpus: int = MIN_CPUS

    def __post_init__(self) -> None:
        known = instructions()
        if self.instruction not in known:
            raise unknown("instruction", self.instruction, known)
        entry = known[self.instruction]
        if self.width not in entry.widths:
            widths = ", ".join(str(width) for width in entry.widths)
            raise SpecError(f"{self.instruction} has no {self.width}-bit form here", hint=f"widths: {widths}")
        if self.experiment not in experiments():
            raise unknown("experiment", self.experiment, experiments())
        resolve_target(self.target)
        if not MIN_CPUS <= self.cpus <= MAX_CPUS:
            limits = f"{MIN_CPUS} to {MAX_CPUS}: one producer, the rest consumers"
            raise SpecError(f"{self.cpus} CPUs asked for", hint=f"the {self.experiment} experiment takes {limits}")

    @property
    def id(self) -> str:
        """The case's name: MNEMONIC.WIDTH.TARGET.EXPERIMENT[.nolock][.cpusN], defaults left out."""
        parts = [self.instruction, str(self.width), resolve_target(self.target).name, self.experiment]
        parts += [] if self.lock else ["nolock"]
        parts += [] if self.cpus == MIN_CPUS else [f"cpus{self.cpus}"]
        return ".".join(parts)

    @property
    def form(self) -> Form:
        """The instruction form that the CPUs execute."""
        entry = instructions()[self.instruction]
        return entry.locked[self.width] if self.lock else entry.unlocked[self.width][0]


@dataclass(frozen=True)
class KernelSpec:
    """Everything that decides the bytes of a kernel.

    ``rounds`` 0 runs until told to stop. ``batch`` is the number of cells one handshake covers, 0 for the target's
    default. ``print_every`` is the distance in rounds between table rows, 0 for the default (the first 20 rounds,
    then about ten rows a second). ``serial_port`` is an I/O port, ``baud`` in bits a second.
    """

    case: Case
    rounds: int = 10_000
    controls: bool = True
    poll: Poll = Poll.BOTH
    batch: int = 0
    print_every: int = 0
    serial_port: int = 0x3F8
    baud: int = 115_200

    def __post_init__(self) -> None:
        if not 0 <= self.rounds <= MAX_ROUNDS:
            raise SpecError(f"{self.rounds} rounds asked for", hint=f"give 1 to {MAX_ROUNDS}, or 0 to run for ever")
        if not 0 <= self.print_every <= MAX_ROUNDS:
            raise SpecError(f"--print-every {self.print_every}", hint=f"give 1 to {MAX_ROUNDS}, or 0 for the default")
        if not 0 <= self.batch <= self.max_batch:
            raise SpecError(
                f"--batch {self.batch}",
                hint=f"{resolve_target(self.case.target).name} takes 1 to {self.max_batch} cells, or 0 for the default",
            )
        if not 8 <= self.serial_port <= 0xFFF8 or self.serial_port % 8:
            raise SpecError(f"serial port {self.serial_port:#x}", hint="give a multiple of 8 from 0x8 to 0xfff8")
        if self.baud < 2 or 115_200 % self.baud or 115_200 // self.baud > 0xFFFF:
            raise SpecError(f"{self.baud} baud", hint="give a divisor of 115200, such as 115200, 57600, 38400 or 9600")

    @property
    def max_batch(self) -> int:
        """The most cells that fit the target, at most MAX_BATCH."""
        return min(MAX_BATCH, resolve_target(self.case.target).size // 4)

    @property
    def cells(self) -> int:
        """Cells one handshake covers."""
        return self.batch or min(DEFAULT_BATCH, self.max_batch)

    def to_json(self) -> str:
        """The canonical text form: one line, sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> KernelSpec:
        """The inverse of to_json. Raises SpecError."""
        try:
            fields = json.loads(text)
            case = Case(**fields.pop("case"))
            return KernelSpec(case=case, poll=Poll(fields.pop("poll")), **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecError(f"not a kernel specification: {error}") from error

    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
