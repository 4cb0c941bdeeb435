"""The results block: the guest's results in memory, which the debugger reads.

Its layout is defined once, as ctypes classes. The templates' offsets, the DWARF types and the reader all come from
them. All integers are little-endian; counters are 64 bits wide so that an endless run cannot wrap them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import LittleEndianStructure, c_char, c_uint8, c_uint32, c_uint64
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAGIC = b"KGENRSLT"
LAYOUT_VERSION = 5
#: The layout of kernels that counted no live batches. The memory of such a kernel can still be read.
LAYOUT_WITHOUT_MEETINGS = 4
#: How many entries the CPU table has: one for every APIC id of eight bits.
CPU_TABLE = 256
#: How many witnesses of one kind one phase records, in a kernel of one case and in a suite. Later violations of that
#: kind are only counted.
WITNESSES_PER_KIND = 8
WITNESSES_IN_SUITE = 2
#: How many violations of one batch a CPU describes. It only counts the others.
EVENTS = 4
BUILD_ID_BYTES = 20
#: Stands for "no CPU" in a witness, and for "no phase" with an exception that ended the run.
NO_CPU = 0xFFFFFFFF
NO_PHASE = 0xFFFFFFFF


class ViolationKind(IntEnum):
    """How a cell contradicted atomicity. The order is that of the counters."""

    LOST = 0
    DUPLICATE = 1
    TORN = 2
    STALE = 3


class Role(IntEnum):
    """Why a phase runs. PROOF: the stronger experiment that the verdict on a case also rests on."""

    SANITY = 1
    POWER = 2
    CASE = 3
    PROOF = 4


class PhaseStatus(IntEnum):
    """How far a phase came.

    LIMIT: its share of the budget was spent. FAULTED: one of its instructions raised an exception. ABSENT: the machine
    has no such target. UNSOUND: a ticket was drawn twice or not at all, so that LOCK XADD on RAM is not atomic and no
    order is known, or the CPUs' task was changed while the phase ran.
    """

    PENDING = 0
    RUNNING = 1
    DONE = 2
    STOPPED = 3
    NO_STORAGE = 4
    UNSTABLE = 5
    NOT_PARKED = 6
    LIMIT = 7
    FAULTED = 8
    ABSENT = 9
    UNSOUND = 10


class Style(IntEnum):
    """How the CPUs of a batch start. FREE: each after its own random delay. RACE: before each operation they wait for
    each other, for a bounded time."""

    FREE = 0
    RACE = 1


class KernelState(IntEnum):
    """The state of the whole kernel. From FINISHED on it does not change any more."""

    BOOTING = 0
    STARTING_CPUS = 1
    RUNNING = 2
    FINISHED = 3
    STOPPED = 4
    TOO_FEW_CPUS = 5
    FAULTED = 6
    NOT_PARKED = 7


class CpuState(IntEnum):
    """What one CPU is doing."""

    ABSENT = 0
    STARTED = 1
    WAITING = 2
    WORKING = 3
    SPARE = 4
    FAULTED = 5
    HALTED = 6


class Decode(IntEnum):
    """What backs the cell by the guest's own probe."""

    UNKNOWN = 0
    IO = 1
    RAM = 2


class BootPath(IntEnum):
    """Who started the kernel."""

    UNKNOWN = 0
    MULTIBOOT = 1
    PVH = 2
    DISK = 3
    UEFI = 4


class Screen(IntEnum):
    """Where the kernel shows its report besides the serial port."""

    NONE = 0
    TEXT = 1
    FRAMEBUFFER = 2


class Clock(IntEnum):
    """What the TSC was calibrated with. A source alone was confirmed by no other one; GUESS: with nothing, a generous
    constant is used."""

    PIT = 1
    CPUID = 2
    GUESS = 3
    PIT_AND_PM_TIMER = 4
    PIT_AND_CPUID = 5
    PM_TIMER = 6
    PM_TIMER_AND_CPUID = 7

    @property
    def words(self) -> str:
        """The name for people: "PIT and PM timer", "guess"."""
        if self is Clock.GUESS:
            return "guess"
        return self.name.replace("_AND_", " and ").replace("_TIMER", " timer")


def enum_field(values: type[IntEnum]) -> type[c_uint32]:
    """Return a 32-bit field that debuggers show by name: the DWARF writer uses ``enum``."""
    return type(values.__name__, (c_uint32,), {"enum": values})


_KernelState = enum_field(KernelState)
_CpuState = enum_field(CpuState)
_PhaseStatus = enum_field(PhaseStatus)
_Role = enum_field(Role)
_Kind = enum_field(ViolationKind)
_Decode = enum_field(Decode)
_BootPath = enum_field(BootPath)
_Screen = enum_field(Screen)
_Clock = enum_field(Clock)


class Fault(LittleEndianStructure):
    """A CPU exception. The vector is stored plus one: 0 means none."""

    _fields_ = (
        ("vector_plus_1", c_uint32),
        ("error", c_uint32),
        ("eip", c_uint32),
        ("eflags", c_uint32),
        ("cr2", c_uint32),
    )


class Cpu(LittleEndianStructure):
    """One CPU, in order of arrival: 0 is the BSP. 128 bytes, so that no two CPUs share a cache line."""

    _fields_ = (
        ("puts", c_uint64),
        ("takes", c_uint64),
        ("tries", c_uint64),
        ("apic_id", c_uint32),
        ("state", _CpuState),
        #: The number of the batch that the CPU may begin.
        ("go", c_uint32),
        #: The number of the last batch that it has begun.
        ("started", c_uint32),
        #: The number of the last batch that it has finished.
        ("ack", c_uint32),
        #: How many cells of the batch a consumer has finished.
        ("cell", c_uint32),
        #: The last value that it took.
        ("token", c_uint32),
        #: Not 0 while other CPUs must wake it.
        ("asleep", c_uint32),
        #: How many more exchanges in a row it tries on an empty cell.
        ("patience", c_uint32),
        #: The last batch of a walk in which it takes part.
        ("walks", c_uint32),
        ("fault", Fault),
        #: Its place among the CPUs that take part.
        ("rank", c_uint32),
        #: The place in the log for its next operation.
        ("operation", c_uint32),
        #: The state of its generator of delays.
        ("random", c_uint32),
        ("reserved", c_uint8 * 32),
    )


class Operation(LittleEndianStructure):
    """One operation of a walk, in its CPU's log."""

    _fields_ = (
        #: The ticket drawn before it.
        ("begin", c_uint32),
        #: The ticket drawn after it.
        ("end", c_uint32),
        #: The value that its routine returned.
        ("found", c_uint32),
        ("cell", c_uint32),
        #: Whether it changes the cell, so that a split operation beside it would show.
        ("shows", c_uint32),
        #: The number of the value that it wrote.
        ("index", c_uint32),
        #: Whether it wrote one.
        ("wrote", c_uint32),
    )


class StyleCount(LittleEndianStructure):
    """The batches of one style in one phase."""

    _fields_ = (
        #: Batches with tickets.
        ("batches", c_uint32),
        #: How many of these were live.
        ("live", c_uint32),
        #: How many of the live ones were violated.
        ("violated", c_uint32),
        #: How many pairs of consecutive live batches had exactly one violated.
        ("switches", c_uint32),
        #: Batches without tickets.
        ("blind", c_uint32),
        #: How many of these were violated.
        ("blind_violated", c_uint32),
        #: How many batches with tickets were violated, live or not.
        ("struck", c_uint32),
        #: 1 where the last live batch was violated.
        ("last", c_uint32),
    )


class Counters(LittleEndianStructure):
    """What one CPU did in one phase."""

    #: Tokens put, tokens taken, exchanges tried by a consumer.
    _fields_ = (("puts", c_uint64), ("takes", c_uint64), ("tries", c_uint64))


class Witness(LittleEndianStructure):
    """The evidence for one violation."""

    _fields_ = (
        #: Counted from 1.
        ("round", c_uint64),
        #: The BSP's clock when it judged the batch.
        ("tsc", c_uint64),
        ("phase", c_uint32),
        ("kind", _Kind),
        ("cell", c_uint32),
        ("token", c_uint32),
        ("value", c_uint32),
        ("cpu", c_uint32),
        ("other", c_uint32),
        ("reserved", c_uint32),
    )


class Task(LittleEndianStructure):
    """What all CPUs need to know of a phase.

    Fields without a comment are described at Work in the experiments.
    """

    _fields_ = (
        #: The distance of cells in bytes.
        ("stride", c_uint32),
        #: The routine of a CPU for a batch.
        ("work", c_uint32),
        #: The routine of a CPU for one cell.
        ("visit", c_uint32),
        #: Routines on a cell, like the three after it.
        ("put", c_uint32),
        ("take", c_uint32),
        ("load", c_uint32),
        ("store", c_uint32),
        ("data", c_uint32),
        ("operand", c_uint32),
        ("inverse", c_uint32),
        ("returns", c_uint32),
        ("token_mask", c_uint32),
        ("cell_mask", c_uint32),
        ("facts", c_uint32),
    )


class Handshake(LittleEndianStructure):
    """The BSP's request to the other CPUs.

    A CPU may touch a cell only after it has seen the batch's number in its ``go``, and before it writes that number to
    its ``ack``.
    """

    _fields_ = (
        #: The batch's number.
        ("batch", c_uint32),
        #: The batch's size.
        ("cells", c_uint32),
        ("address", c_uint32),
        #: How many operations there are on each cell.
        ("repeat", c_uint32),
        #: Not 0 where the other CPUs must end.
        ("halt", c_uint32),
        #: The time of a read, in TSC ticks.
        ("latency", c_uint32),
        ("task", Task),
        #: The batch's.
        ("style", c_uint32),
        #: Whether its operations draw tickets.
        ("tickets", c_uint32),
        #: How many CPUs take part.
        ("walkers", c_uint32),
        ("reserved0", c_uint8 * (128 - 36 - ctypes.sizeof(Task))),
        #: How many cells have been put.
        ("filled", c_uint32),
        ("reserved1", c_uint8 * 60),
        #: Counts down the CPUs that must arrive before a race starts.
        ("muster", c_uint32),
        ("reserved2", c_uint8 * 60),
    )


class PlanEntry(LittleEndianStructure):
    """A row of the read-only table from which the BSP runs the phases."""

    _fields_ = (
        ("role", c_uint32),
        ("case", c_uint32),
        #: Marks the last phase of a case.
        ("last", c_uint32),
        #: The first cell's address, or what is added to the address that ``setup`` finds.
        ("address", c_uint32),
        ("setup", c_uint32),
        ("cells", c_uint32),
        ("rounds", c_uint32),
        ("repeat", c_uint32),
        ("enough", c_uint32),
        #: Marks a case whose N grows.
        ("adaptive", c_uint32),
        ("vga", c_uint32),
        #: The value that one operation adds.
        ("step", c_uint32),
        ("batch", c_uint32),
        ("prepare", c_uint32),
        ("judge", c_uint32),
        ("label", c_uint32),
        ("announce", c_uint32),
        #: Marks a target that may be the display adapter's memory at another address than 0xa0000-0xbffff.
        ("video", c_uint32),
        #: How many phases, from this one on, take turns.
        ("turns", c_uint32),
        #: Marks phases that take turns until the proof is reached.
        ("turns_to_proof", c_uint32),
        #: Marks a power control of one instruction beside one of two.
        ("may_be_silent", c_uint32),
        #: Marks an experiment for two CPUs at a time.
        ("pairs", c_uint32),
        ("task", Task),
    )


class Handover(LittleEndianStructure):
    """What kgen's UEFI application passes to the kernel; EBX points to it."""

    _fields_ = (
        #: The physical address of a linear framebuffer of 32 bits a pixel, 0 where there is none below 4 GiB.
        ("framebuffer", c_uint32),
        #: In pixels, like the height.
        ("width", c_uint32),
        ("height", c_uint32),
        #: In bytes a line.
        ("pitch", c_uint32),
        #: The physical address of ACPI's root pointer, 0 where it is unknown.
        ("rsdp", c_uint32),
    )


class Event(LittleEndianStructure):
    """A violation that a CPU saw during its batch, for the BSP to record."""

    _fields_ = (
        ("kind", c_uint32),
        ("cell", c_uint32),
        ("token", c_uint32),
        ("value", c_uint32),
        ("other", c_uint32),
    )


class Tally(LittleEndianStructure):
    """What a CPU saw in one batch."""

    _fields_ = (
        #: Violations by kind.
        ("count", c_uint32 * len(ViolationKind)),
        #: Facts that are no violations.
        ("facts", c_uint32),
        ("events", c_uint32),
        #: The first violations.
        ("event", Event * EVENTS),
    )


def _phase_class(cpus: int, version: int) -> type[LittleEndianStructure]:
    fields: tuple[tuple[str, Any], ...] = (
        ("role", _Role),
        ("status", _PhaseStatus),
        ("address", c_uint32),
        ("cells", c_uint32),
        ("rounds", c_uint64),
        ("lost", c_uint64),
        ("duplicate", c_uint64),
        ("torn", c_uint64),
        ("stale", c_uint64),
        ("left", c_uint64),
        ("foreign", c_uint64),
        ("events", c_uint64),
        ("judged", c_uint64),
        ("ticks", c_uint64),
        ("witnesses", c_uint32 * len(ViolationKind)),
        ("decode", _Decode),
        ("latency", c_uint32),
        ("fault", Fault),
        ("fault_cpu", c_uint32),
        ("cpu", Counters * cpus),
    )
    if version != LAYOUT_WITHOUT_MEETINGS:
        fields += (("batches", c_uint32), ("styles", c_uint32), ("style", StyleCount * len(Style)))
    return type("Phase", (LittleEndianStructure,), {"_fields_": fields})


def _results_class(cpus: int, phases: int, witnesses: int, version: int) -> type[LittleEndianStructure]:
    capacity = phases * len(ViolationKind) * witnesses
    fields = (
        ("magic", c_char * len(MAGIC)),
        ("version", c_uint32),
        ("size", c_uint32),
        ("build_id", c_uint8 * BUILD_ID_BYTES),
        ("state", _KernelState),
        ("phase_index", c_uint32),
        ("stop", c_uint32),
        ("cpus_found", c_uint32),
        ("cpus_needed", c_uint32),
        ("faults", c_uint32),
        ("boot_path", _BootPath),
        ("clock", _Clock),
        ("ticks_per_ms", c_uint32),
        ("serial", c_uint32),
        ("x2apic", c_uint32),
        ("can_sleep", c_uint32),
        ("records", c_uint32),
        ("witness_count", c_uint32),
        ("cases_done", c_uint32),
        ("screen", _Screen),
        ("padding", c_uint8 * 28),
        ("handshake", Handshake),
        ("cpu", Cpu * CPU_TABLE),
        ("phase", _phase_class(cpus, version) * phases),
        ("witness", Witness * capacity),
    )
    return type("Results", (LittleEndianStructure,), {"_fields_": fields})


@dataclass(frozen=True)
class ResultsLayout:
    """The results block of one kernel.

    Its size depends on the CPUs of the cases, the number of phases, and ``witnesses``.
    """

    cpus: int
    phases: int
    #: How many witnesses of one kind each phase may record.
    witnesses: int
    #: The layout's.
    version: int
    results: type[LittleEndianStructure]

    @property
    def size(self) -> int:
        """Bytes."""
        return ctypes.sizeof(self.results)

    def parse(self, data: bytes) -> Any:
        """Return the block as a ctypes value. Raises ValueError where ``data`` is too short."""
        return self.results.from_buffer_copy(data)

    def constants(self) -> dict[str, int]:
        """Return ``Struct.field`` offsets, ``Struct.SIZE`` and ``Enum.NAME`` values for the templates."""
        structs: dict[str, type[LittleEndianStructure]] = {
            "Results": self.results,
            "Handshake": Handshake,
            "Task": Task,
            "Tally": Tally,
            "Event": Event,
            "Cpu": Cpu,
            "Operation": Operation,
            "StyleCount": StyleCount,
            "Fault": Fault,
            "Phase": _element(self.results, "phase"),
            "Counters": Counters,
            "Witness": Witness,
            "Plan": PlanEntry,
            "Handover": Handover,
        }
        found: dict[str, int] = {}
        for name, struct in structs.items():
            found |= {f"{name}.{field}": offset for field, offset in _offsets(struct)}
            found[f"{name}.SIZE"] = ctypes.sizeof(struct)
        for values in (ViolationKind, Role, PhaseStatus, Style, KernelState, CpuState, Decode, BootPath, Screen, Clock):
            found |= {f"{values.__name__}.{member.name}": member.value for member in values}
        return found


def _element(struct: type[LittleEndianStructure], field: str) -> type[LittleEndianStructure]:
    array: Any = next(entry[1] for entry in struct._fields_ if entry[0] == field)
    element: type[LittleEndianStructure] = array._type_
    return element


def _offsets(struct: type[LittleEndianStructure]) -> Iterator[tuple[str, int]]:
    for field in struct._fields_:
        yield field[0], getattr(struct, field[0]).offset


def results_layout(
    cpus: int, phases: int, witnesses: int = WITNESSES_PER_KIND, version: int = LAYOUT_VERSION
) -> ResultsLayout:
    """Return the layout of a kernel that runs ``phases`` phases on ``cpus`` CPUs."""
    return ResultsLayout(cpus, phases, witnesses, version, _results_class(cpus, phases, witnesses, version))
