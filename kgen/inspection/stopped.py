"""What the debugger reads of a stopped machine: results block, code, cells, registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kgen.errors import DebuggerError, ProtocolError
from kgen.evidence.from_memory import from_memory
from kgen.evidence.records import Record
from kgen.kernel.plan import Phase, layout_of, phases
from kgen.kernel.render import experiment_routines
from kgen.machine.registers import Frozen
from kgen.spec import KernelSpec
from kgen.spec.case import LINE
from kgen.toolchain.assembly import Section
from kgen.verdict.consistency import symbols_of


@dataclass(frozen=True)
class Inspection:
    """What the debugger found in a stopped machine."""

    #: None where there is no results block (yet).
    memory: Record | None
    #: All cells of the last phase; empty where the debugger cannot read them.
    cells: tuple[int, ...]
    registers: tuple[Mapping[str, Any], ...]
    #: How the machine contradicts the ELF.
    problems: tuple[str, ...]
    #: The kernel's addresses with which the memory is compared.
    symbols: Mapping[str, int] = field(default_factory=dict)


def cell_range(phase: Phase, symbols: Mapping[str, int], record: Record | None = None) -> tuple[int, int] | None:
    """Return the physical address and length in bytes of a phase's cells. Where the guest chooses the place it is taken
    from ``record``; None where that lacks it."""
    target = phase.target
    if target.symbol:
        return symbols[target.symbol] + phase.offset, phase.length
    if target.address is not None:
        return target.address + phase.offset, phase.length
    found = record.place_of(phase.index) if record else 0
    return (found, phase.length) if found else None


def inspect(
    machine: Frozen, spec: KernelSpec, build_id: bytes, symbols: Mapping[str, int], sections: Sequence[Section]
) -> Inspection:
    """Read a stopped machine on which the kernel of ``spec`` runs. Raises DebuggerError."""
    problems: list[str] = []
    registers = tuple(_plain(asdict(entry)) for entry in machine.threads())
    layout = layout_of(spec)
    memory: Record | None = None
    try:
        memory = from_memory(layout, machine.read_memory(symbols["results"], layout.size))
    except ProtocolError as error:
        problems.append(error.line)
    if memory and memory.build_id != build_id.hex():
        problems.append(f"the guest runs build {memory.build_id}, the ELF is build {build_id.hex()}")
    elif memory:
        problems += [
            f"the guest's {section.name} is not what was built: it was changed in memory"
            for section in sections
            if section.flags in ("ax", "a") and machine.read_memory(section.address, section.size) != section.data
        ]
        if not memory.faults:
            # a kernel that faulted has ended for another reason
            problems += foreign_routines(spec, symbols, sections)
    last = phases(spec)[-1]
    where = cell_range(last, symbols, memory)
    cells = _cells(machine, last, where[0], known=symbols["results"]) if where else ()
    return Inspection(memory, cells, registers, tuple(problems), symbols_of(spec, symbols))


def foreign_routines(spec: KernelSpec, symbols: Mapping[str, int], sections: Sequence[Section]) -> list[str]:
    """Return a sentence for each routine without the instruction that it is named after: it did not test this case."""
    starts = sorted(set(symbols.values()))
    found = []
    for name, (statement, encoding) in experiment_routines(spec).items():
        start = symbols.get(name, 0)
        end = next((value for value in starts if value > start), start)
        code = next(
            (
                section.data[start - section.address : end - section.address]
                for section in sections
                if section.flags == "ax" and section.address <= start < section.address + section.size
            ),
            b"",
        )
        if encoding not in code:
            found.append(f"the kernel's {name} does not execute '{statement}'")
    return found


def _cells(machine: Frozen, phase: Phase, address: int, *, known: int) -> tuple[int, ...]:
    """Return every cell of a phase, () where nothing answers at their address. ``known`` is an address that can always
    be read.

    Where there is little memory between the cells, it is read with them and left out.
    """
    size, step = phase.form.width // 8, phase.stride
    whole = step <= LINE
    parts = [(address, phase.length)] if whole else [(address + step * n, size) for n in range(phase.cells)]
    try:
        data = [machine.read_memory(*part) for part in parts]
    except DebuggerError:
        # A hole in the address space is for the guest to report, but a dead debugger is an error.
        machine.read_memory(known, 4)
        return ()
    cells = [data[0][at : at + size] for at in range(0, phase.length, step)] if whole else data
    return tuple(int.from_bytes(cell, "little") for cell in cells)


def _plain(registers: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in registers.items() if value is not None}
