"""A stopped machine as the commands see it: its results block, its CPUs' registers, and a way to its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kgen.errors import ProtocolError
from kgen.evidence.from_memory import from_memory
from kgen.evidence.records import FINAL_STATES, PhaseRecord, Record, Witness
from kgen.gdbside.image import Image
from kgen.inspection.operations import Memory
from kgen.kernel.parameters import STACK_SIZE
from kgen.kernel.plan import Phase, decisive, experiment_of, layout_of, phases
from kgen.kernel.results_block import KernelState
from kgen.machine.registers import CpuRegisters, Frozen
from kgen.spec.case import MAX_BATCH

#: Returns the address of each instruction between two addresses.
Boundaries = Callable[[int, int], tuple[int, ...]]
_NOTHING = "the kernel has not begun: there is no results block in memory yet"
_OTHER_ELF = "load the kernel.elf that the machine runs: 'file PATH'"
_WORD = 0xFFFFFFFF


class NotBegun(ProtocolError):
    """The machine may be the ELF's, and its kernel has not begun yet."""


@dataclass(frozen=True)
class Snapshot:
    """A stopped machine and its results block."""

    image: Image
    machine: Frozen
    boundaries: Boundaries
    registers: tuple[CpuRegisters, ...]
    #: The results block as ctypes value.
    block: Any
    #: The same as the judge reads it.
    record: Record

    @property
    def cpus(self) -> int:
        """How many CPUs take part."""
        return self.image.spec.case.cpus

    @property
    def is_over(self) -> bool:
        """Whether the run has ended: then no CPU uses the cells, and the summary on the screen may be in their
        place."""
        return KernelState(self.block.state.value) in FINAL_STATES

    def must_not_be_over(self) -> None:
        """Raise ProtocolError where the run has ended."""
        if self.is_over:
            raise ProtocolError("the run is over: nothing more will happen", hint="start it again")

    @cached_property
    def planned(self) -> tuple[Phase, ...]:
        """All phases of the kernel."""
        return phases(self.image.spec)

    @property
    def phase(self) -> Phase | None:
        """The phase whose turn it is, None before the first has begun."""
        begun = {entry.index for entry in self.record.phases}
        # the index changes a moment before its phase begins
        index = self.block.phase_index if self.block.phase_index in begun else self.record.phase
        return self.planned[index] if 0 <= index < len(self.planned) else None

    @cached_property
    def decisive(self) -> frozenset[int]:
        """The indexes of the phases whose violations are the case's."""
        return frozenset(phase.index for phase in decisive(self.image.spec))

    @property
    def phase_record(self) -> PhaseRecord | None:
        """Its results so far."""
        index = self.phase.index if self.phase else -1
        return self.record.phase_at(index)

    @cached_property
    def registers_of(self) -> Mapping[int, CpuRegisters]:
        """Registers by the kernel's number of a CPU. Where a stub does not number CPUs, the stack identifies them."""
        numbers = self.record.cpu_numbers
        if any(entry.cpu is not None for entry in self.registers):
            named = {numbers.get(entry.cpu): entry for entry in self.registers if entry.cpu is not None}
            return {cpu: entry for cpu, entry in named.items() if cpu is not None}
        start = self.image.symbols["stacks"]
        # the pointer of an empty stack is after the stack's last byte
        owners = {(entry.esp - 1 - start) // STACK_SIZE: entry for entry in self.registers}
        return {cpu: entry for cpu, entry in owners.items() if 0 <= cpu < self.record.cpus_found}

    @property
    def memory(self) -> Memory:
        """The guest's words by symbol."""
        return Memory(self.machine, self.image.symbols)

    def word(self, name: str, index: int) -> int:
        """Return the guest's 32-bit word so many words after a symbol. Raises DebuggerError."""
        return self.memory.word(name, index)

    def takes(self, cell: int) -> dict[int, int]:
        """Return what each consumer took out of a cell in the current batch, 0 for nothing. Raises DebuggerError."""
        return {cpu: self.word("takes", MAX_BATCH * (cpu - 1) + cell) for cpu in range(1, self.cpus)}

    def cell_address(self, cell: int) -> int:
        """Return the physical address of a cell of the current batch."""
        assert self.phase is not None
        return int(self.block.handshake.address) + self.phase.stride * cell

    def cell_value(self, cell: int) -> int:
        """Return what a cell holds, at its whole width. Raises DebuggerError."""
        assert self.phase is not None
        size = self.phase.form.width // 8
        return int.from_bytes(self.machine.read_memory(self.cell_address(cell), size), "little")

    @property
    def unacknowledged(self) -> tuple[int, ...]:
        """The consumers that may still touch a cell: they have a batch and have not acknowledged it."""
        return tuple(cpu for cpu in range(1, self.cpus) if self.block.cpu[cpu].go != self.block.cpu[cpu].ack)

    @property
    def has_unique_tokens(self) -> bool:
        """Whether no two rounds of the phase have the same token: tokens of fewer than 32 bits repeat."""
        return int(self.block.handshake.task.token_mask) == _WORD

    @property
    def at_violation(self) -> bool:
        """Whether CPU 0 has just recorded a violation."""
        entry = self.registers_of.get(0)
        place, back = self.image.place_of_violation()
        if entry is None or entry.eip != place:
            return False
        return int.from_bytes(self.machine.read_memory(entry.esp, 4), "little") == back

    def in_place(self, witness: Witness) -> bool:
        """Return whether the memory of the witness's batch, the cell included, is still as it was when it was judged.

        Tokens change before any CPU touches a cell of the next batch. Tokens of few bits repeat, and where there are no
        tokens nothing identifies a batch: then only the batch that is being judged is certain, whose rounds are not
        counted yet.
        """
        if self.phase is None or witness.phase != self.phase.index or self.is_over:
            return False
        if witness.cell >= self.block.handshake.cells or self.unacknowledged:
            return False
        is_judged = self.phase_record is not None and witness.round > self.phase_record.rounds
        if experiment_of(self.phase).walk:
            return is_judged
        if not self.has_unique_tokens and not is_judged:
            return False
        return self.word("tokens", witness.cell) == witness.token


def take(image: Image, machine: Frozen, boundaries: Boundaries) -> Snapshot:
    """Read a stopped machine. Raises NotBegun where the kernel has not begun, ProtocolError where another one runs;
    DebuggerError where it cannot be read."""
    hold_against(image, machine)
    layout = layout_of(image.spec)
    data = machine.read_memory(image.symbols["results"], layout.size)
    if not any(data[:8]):
        raise NotBegun(_NOTHING, hint="let the machine run: 'continue', or 'kgen until-violation'")
    record = from_memory(layout, data)
    if record.build_id != image.build_id.hex():
        raise ProtocolError(_another(image, record), hint=_OTHER_ELF)
    return Snapshot(image, machine, boundaries, machine.threads(), layout.parse(data), record)


def hold_against(image: Image, machine: Frozen) -> None:
    """Make sure that the machine is the ELF's: its build stands in memory, or nothing is loaded there yet.

    Raises ProtocolError where something else is there, DebuggerError where the memory cannot be read.
    """
    if machine.read_memory(image.symbols["build_id"], len(image.build_id)) == image.build_id:
        return
    # all kernels are loaded to the address of this one
    begin = next(section for section in image.sections if section.data)
    if not any(machine.read_memory(begin.address, begin.size)):
        return
    layout = layout_of(image.spec)
    try:
        record = from_memory(layout, machine.read_memory(image.symbols["results"], layout.size))
    except ProtocolError:
        raise ProtocolError(_another(image, None), hint=_OTHER_ELF) from None
    raise ProtocolError(_another(image, record), hint=_OTHER_ELF)


def _another(image: Image, record: Record | None) -> str:
    """Return the error for a machine that is not the ELF's. ``record`` was read where this kernel would have its
    results."""
    runs = f"runs build {record.build_id[:12]}" if record else "holds something else in its memory"
    return f"the machine {runs}, the ELF is build {image.build_id.hex()[:12]}"
