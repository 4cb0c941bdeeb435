"""The operations of a chain's batch as the guest logged them: which of them wrote a value, and which got it.

``operate`` (kernel_templates/walk.asm) and ``chain_visit`` (experiments/chain.asm) write the log. It does not change
until the next batch begins.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kgen.evidence.records import Witness
from kgen.kernel.parameters import TOKEN_INVERSE, TOKEN_STEP, log_operations
from kgen.kernel.plan import Phase
from kgen.kernel.results_block import Operation, ViolationKind
from kgen.machine.registers import Frozen
from kgen.spec import KernelSpec

_WORDS = ctypes.sizeof(Operation) // 4


@dataclass(frozen=True)
class Memory:
    """Reads the guest's 32-bit words by the symbols of its kernel."""

    machine: Frozen
    symbols: Mapping[str, int]

    def word(self, name: str, index: int = 0) -> int:
        """Return the word at a symbol plus ``index`` words. Raises DebuggerError."""
        return self.words(name, index, 1)[0]

    def words(self, name: str, index: int, count: int) -> tuple[int, ...]:
        """Return consecutive words. Raises DebuggerError."""
        data = self.machine.read_memory(self.symbols[name] + 4 * index, 4 * count)
        return tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, 4 * count, 4))


@dataclass(frozen=True)
class Logged:
    """One operation."""

    cpu: int
    #: Counts the CPU's own operations of the batch from 1.
    number: int
    cell: int
    found: int
    #: None where an attempt failed and wrote back what it found.
    wrote: int | None
    #: The tickets drawn before and after it; None in a batch without tickets.
    tickets: tuple[int, int] | None


@dataclass(frozen=True)
class Chain:
    """How the values of a batch are numbered: the operations' values, CPU by CPU, then the cells' first values."""

    #: The value that precedes number 0.
    base: int
    #: How many operations each CPU does.
    each: int
    #: The number of the first value of the first cell.
    starts: int
    #: How many values there are.
    total: int
    #: The mask of a value's bits.
    mask: int

    def value(self, number: int) -> int:
        """Return the value with that number."""
        return (self.base + 1 + number) * TOKEN_STEP & self.mask

    def number(self, value: int) -> int | None:
        """Return a value's number, None where it is not a value of this batch."""
        number = (value * TOKEN_INVERSE - 1 - self.base) & self.mask
        return number if number < self.total else None


def chain_of(memory: Memory, block: Any) -> Chain:
    """Read how values are numbered. ``block`` is the results block. Raises DebuggerError."""
    names = ("base", "each", "starts", "total")
    return Chain(**{name: memory.word(f"chain_{name}") for name in names}, mask=block.handshake.task.token_mask)


def walkers(block: Any, cpus: int) -> tuple[int, ...]:
    """Return the CPUs that take part in the current batch of a walk."""
    return tuple(cpu for cpu in range(cpus) if block.cpu[cpu].walks == block.handshake.batch)


def operations_of(memory: Memory, block: Any, spec: KernelSpec, phase: Phase) -> tuple[Logged, ...]:
    """Return the operations of the batch so far, CPU by CPU, each CPU's in the order in which it did them. The phase
    must be a chain. Raises DebuggerError."""
    chain = chain_of(memory, block)
    room = log_operations(spec)
    found = []
    for cpu in walkers(block, phase.cpus):
        begin = memory.symbols["operations"] + room * _WORDS * 4 * cpu
        # a CPU that has just woken still has the place from its last batch
        done = (block.cpu[cpu].operation - begin) // (4 * _WORDS) if block.cpu[cpu].started == _batch(block) else 0
        count = min(max(0, done), room)
        words = memory.words("operations", room * _WORDS * cpu, count * _WORDS) if count else ()
        for at in range(count):
            entry = Operation(*words[at * _WORDS : (at + 1) * _WORDS])
            tickets = (entry.begin, entry.end) if block.handshake.tickets else None
            wrote = chain.value(entry.index) if entry.wrote else None
            found.append(Logged(cpu, at + 1, entry.cell, entry.found, wrote, tickets))
    return tuple(found)


def _batch(block: Any) -> int:
    return int(block.handshake.batch)


def value_of(witness: Witness) -> int:
    """Return the value that a violation of a chain is about."""
    return witness.value if witness.kind is ViolationKind.TORN else witness.token


def concerned(operations: Iterable[Logged], witness: Witness) -> tuple[Logged, ...]:
    """Return the operations that wrote or got the value of the violation. For a lost value, also return those that got
    what its writer got: one of these overwrote it."""
    here = [entry for entry in operations if entry.cell == witness.cell]
    value = value_of(witness)
    wiped = {entry.found for entry in here if entry.wrote == value and witness.kind is ViolationKind.LOST}
    torn = witness.kind is ViolationKind.TORN
    return tuple(
        entry
        for entry in here
        # an operation that wrote back what it found has left the value for others
        if (entry.wrote is not None or torn) and (value in (entry.wrote, entry.found) or entry.found in wiped)
    )


def in_words(entry: Logged) -> str:
    """Return what an operation did, as a phrase without a subject."""
    tickets = f" (tickets {entry.tickets[0]} and {entry.tickets[1]})" if entry.tickets else ""
    if entry.wrote is None:
        return f"finds {entry.found:08x} in cell {entry.cell}, in an attempt that fails{tickets}"
    return f"exchanges {entry.wrote:08x} into cell {entry.cell} and gets {entry.found:08x}{tickets}"


def style_words(block: Any) -> str:
    """Return in words the style of the current batch, and whether its operations draw tickets."""
    style = "a race" if block.handshake.style else "running free"
    return f"{style}, {'with' if block.handshake.tickets else 'without'} tickets"
