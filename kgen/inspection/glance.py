"""One look at the results block of a running kernel: a few short reads, because the machine is stopped meanwhile."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kgen.errors import ProtocolError
from kgen.evidence.records import FINAL_STATES
from kgen.kernel.plan import Phase
from kgen.kernel.results_block import MAGIC, Cpu, CpuState, KernelState, PhaseStatus, ResultsLayout, ViolationKind

#: Cells that are read: the first ones, within this many bytes.
CELLS = 8
CELL_BYTES = 512

#: Reads bytes of physical memory: address and length.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class CpuGlance:
    """What one CPU does."""

    cpu: int
    state: CpuState
    #: The number of the batch that it has begun.
    batch: int
    #: The number of the batch that it has finished.
    done: int
    #: In the current phase, like the next two.
    puts: int
    takes: int
    tries: int


@dataclass(frozen=True)
class Glance:
    """The kernel at one moment."""

    build_id: str
    state: KernelState
    #: The index of the current phase, -1 where none has begun.
    phase: int
    status: PhaseStatus
    #: The kernel's own count for this phase, like the violations.
    rounds: int
    violations: Mapping[ViolationKind, int]
    witnesses: int
    #: How many cases are finished.
    closed: int
    cpus: tuple[CpuGlance, ...]
    #: The first few cells; none where a read of them might disturb the kernel.
    cells: tuple[int, ...]

    @property
    def total(self) -> int:
        """The number of violations of all kinds."""
        return sum(self.violations.values())

    @property
    def final(self) -> bool:
        """Whether the kernel has ended and nothing changes any more."""
        return self.state in FINAL_STATES


def look(read: Read, layout: ResultsLayout, results: int, phases: tuple[Phase, ...]) -> Glance | None:
    """Look at the block at the address ``results``. Return None where no kernel has made one yet.

    Raises ProtocolError for a block of another layout, and what ``read`` raises.
    """
    kind = layout.results
    block = _part(layout, read, results, 0, _field(kind, "cpu").offset + layout.cpus * ctypes.sizeof(Cpu))
    if bytes(block.magic) != MAGIC:
        return None
    if (block.version, block.size, block.cpus_needed) != (layout.version, layout.size, layout.cpus):
        raise ProtocolError(
            f"the results block in memory (layout {block.version}, {block.size} bytes, {block.cpus_needed} CPUs) is "
            f"not this ELF's (layout {layout.version}, {layout.size} bytes, {layout.cpus} CPUs)"
        )
    index = int(block.phase_index)
    if index >= layout.phases:
        raise ProtocolError(f"the results block makes no sense: phase {index} of {layout.phases}")
    size = _field(kind, "phase").size // layout.phases
    whole = _part(layout, read, results, _field(kind, "phase").offset + index * size, size)
    now = whole.phase[index]
    try:
        status = PhaseStatus(now.status.value)
        return Glance(
            build_id=bytes(block.build_id).hex(),
            state=KernelState(block.state.value),
            phase=index if status is not PhaseStatus.PENDING else -1,
            status=status,
            rounds=now.rounds,
            violations={kind: getattr(now, kind.name.lower()) for kind in ViolationKind},
            witnesses=block.witness_count,
            closed=block.cases_done,
            cpus=tuple(_cpu(block, now, number, status) for number in range(layout.cpus)),
            cells=_cells(read, phases[index], now.address) if status is PhaseStatus.RUNNING else (),
        )
    except ValueError as error:
        raise ProtocolError(f"the results block makes no sense: {error}") from error


def _part(layout: ResultsLayout, read: Read, results: int, offset: int, size: int) -> Any:
    """Return a block that is empty except for this part."""
    data = bytes(offset) + read(results + offset, size)
    return layout.parse(data + bytes(layout.size - len(data)))


def _field(kind: type[ctypes.Structure], name: str) -> Any:
    return getattr(kind, name)


def _cpu(block: Any, phase: Any, number: int, status: PhaseStatus) -> CpuGlance:
    entry = block.cpu[number]
    # The counters are copied into the phase when it ends. Until then they are in the CPU table.
    counts = entry if status is PhaseStatus.RUNNING else phase.cpu[number]
    return CpuGlance(
        cpu=number,
        state=CpuState(entry.state.value),
        batch=entry.started,
        done=entry.ack,
        puts=counts.puts,
        takes=counts.takes,
        tries=counts.tries,
    )


def _cells(read: Read, phase: Phase, address: int) -> tuple[int, ...]:
    if not phase.target.quiet or not address:
        return ()
    size, step = phase.form.width // 8, phase.stride
    count = max(1, min(CELLS, phase.cells, CELL_BYTES // step))
    data = read(address, (count - 1) * step + size)
    return tuple(int.from_bytes(data[at : at + size], "little") for at in range(0, count * step, step))
