"""The records of a kernel, one for each channel: counters, witnesses, faults, CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kgen.kernel.live import Live
from kgen.kernel.results_block import (
    NO_CPU,
    NO_PHASE,
    BootPath,
    Clock,
    CpuState,
    Decode,
    KernelState,
    PhaseStatus,
    Role,
    ViolationKind,
)

#: The states of a kernel that has ended.
FINAL_STATES = frozenset(KernelState) - {KernelState.BOOTING, KernelState.STARTING_CPUS, KernelState.RUNNING}


#: The channel of a record that was rebuilt from a result code (kgen.offline.result_code).
ABRIDGED = "code"

#: The kinds of violations, as the fields that count them are called.
_KINDS = tuple(kind.name.lower() for kind in ViolationKind)


@dataclass(frozen=True)
class Count:
    """What one CPU did in one phase."""

    cpu: int
    puts: int
    takes: int
    #: A consumer's exchanges.
    tries: int


@dataclass(frozen=True)
class Witness:
    """The evidence for one violation."""

    index: int
    phase: int
    kind: ViolationKind
    #: From 1 within its phase.
    round: int
    #: From 0 within its batch.
    cell: int
    token: int
    #: What was found.
    value: int
    cpu: int | None
    #: The second CPU involved, if any.
    other: int | None
    #: Ticks of the BSP.
    tsc: int


@dataclass(frozen=True)
class PhaseRecord:
    """One phase's outcome.

    The guest reported its role, label, address, cells and limit before the phase began.
    """

    index: int
    role: Role | None
    #: Only the serial channel holds it, "" elsewhere.
    label: str
    #: Physical, of the first cell.
    address: int
    #: In one batch.
    cells: int
    #: In rounds, 0 for no limit. Only the serial channel holds it, None elsewhere.
    limit: int | None
    status: PhaseStatus
    rounds: int
    lost: int
    duplicate: int
    torn: int
    stale: int
    left: int
    foreign: int
    #: In how many chances an event was seen, and how many there were: rounds of tokens, otherwise batches.
    events: int
    judged: int
    #: How long the phase took, in TSC ticks.
    ticks: int
    decode: Decode
    #: How long one read of the cell takes, in TSC ticks.
    latency: int
    counts: tuple[Count, ...]
    #: How many witnesses the guest counts, by kind in lower case. Only memory holds it, None elsewhere.
    witnesses: Mapping[str, int] | None = None
    #: The counts of live batches, in the order of results_block.Style; empty where a kernel counts none.
    live: tuple[Live, ...] = ()

    @property
    def violations(self) -> dict[str, int]:
        """Violations by kind, in lower case, every kind present."""
        return {name: getattr(self, name) for name in _KINDS}

    @property
    def total(self) -> int:
        """All violations."""
        return sum(getattr(self, name) for name in _KINDS)

    @property
    def row(self) -> tuple[int, int, int, int]:
        """The counters as in the original program's table. The phase must have counters."""
        takes = [count.takes for count in self.counts[1:]]
        count0, count1, count2 = self.counts[0].puts, sum(takes[:1]), sum(takes[1:])
        return count0, count1, count2, count0 - count1 - count2


@dataclass(frozen=True)
class FaultRecord:
    """A CPU exception that the guest handled."""

    cpu: int
    vector: int
    error: int
    eip: int
    eflags: int
    cr2: int
    #: The phase that it ended, None where it ended the run.
    phase: int | None = None


@dataclass(frozen=True)
class CpuRecord:
    """The state of a CPU when the machine was frozen."""

    cpu: int
    #: The local APIC's id.
    apic_id: int
    state: CpuState
    #: The number of the last batch that it has begun.
    started: int
    #: The number of the last batch that it has finished.
    ack: int
    #: How many cells of the batch a consumer has finished.
    cell: int
    #: The last value that a consumer took.
    token: int
    puts: int
    takes: int
    tries: int


@dataclass(frozen=True)
class Handshake:
    """The BSP's task for the other CPUs when the machine was frozen: the place of the cells, and the fields of
    kgen.kernel.results_block.Task. Addresses are physical."""

    #: Of the first cell.
    address: int
    #: Cells of the batch.
    cells: int
    #: The distance of cells in bytes.
    stride: int
    #: Addresses of routines; 0 for none.
    work: int
    visit: int
    put: int
    take: int
    load: int
    store: int
    #: The address of the experiment's table; 0 for none.
    data: int
    operand: int
    inverse: int
    returns: int
    token_mask: int
    cell_mask: int
    facts: int


@dataclass(frozen=True)
class Record:
    """What one channel says of a run."""

    channel: str
    #: Whether it is unbroken up to the end, and if not, why.
    complete: bool
    gap: str
    #: How an undamaged record contradicts itself.
    contradiction: str
    build_id: str
    state: KernelState
    cpus_found: int
    cpus_needed: int
    x2apic: int
    boot_path: BootPath
    clock: Clock
    #: TSC ticks a millisecond.
    khz: int
    #: How many phases the kernel holds.
    planned: int
    #: How many native lines were printed.
    lines: int
    #: The index of the last phase that was begun, -1 for none.
    phase: int
    #: The phases that were begun.
    phases: tuple[PhaseRecord, ...]
    witnesses: tuple[Witness, ...]
    faults: tuple[FaultRecord, ...]
    cpus: tuple[CpuRecord, ...] = ()
    case: str = ""
    digest: str = ""
    #: How many cases are finished, with a complete record of each.
    closed: int = 0
    #: The specification as the kernel prints it (KernelSpec.from_text), "" in the memory record.
    spec: str = ""
    #: The kernel's last sentence for people (protocol.SENTENCES), "" in the memory record.
    said: str = ""
    #: The current phase, and the CPUs' task in it. Both are None in the serial record.
    phase_index: int | None = None
    handshake: Handshake | None = None

    def phase_at(self, index: int) -> PhaseRecord | None:
        """Return the record of the phase with that index, None where it was not begun."""
        return next((phase for phase in self.phases if phase.index == index), None)

    def place_of(self, index: int) -> int:
        """Return the physical address of a phase's first cell, 0 where it is not known."""
        phase = self.phase_at(index)
        return phase.address if phase else 0

    @property
    def cpu_numbers(self) -> dict[int, int]:
        """The guest's CPU numbers by the emulator's. QEMU numbers CPUs in the order of their APIC ids, the guest in the
        order of their arrival."""
        arrived = sorted(self.cpus, key=lambda entry: entry.apic_id)
        return {number: entry.cpu for number, entry in enumerate(arrived)}

    @property
    def abridged(self) -> bool:
        """Whether the channel has no room for witnesses and each CPU's counters."""
        return self.channel == ABRIDGED


def cpu_number(value: int) -> int | None:
    return None if value == NO_CPU else value


def phase_number(value: int) -> int | None:
    return None if value == NO_PHASE else value
