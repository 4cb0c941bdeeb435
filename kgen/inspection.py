"""What the debugger reads of a stopped machine: results block, code, cells, registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kgen.debugger import GdbSession
from kgen.errors import DebuggerError, ProtocolError
from kgen.observation import Record, from_memory
from kgen.plan import layout_of
from kgen.source import experiment_routines
from kgen.spec import KernelSpec, resolve_target
from kgen.units import Section

CELLS_SHOWN = 16


@dataclass(frozen=True)
class Inspection:
    """``memory`` is None where there is no results block (yet), ``cells`` is empty where the debugger cannot read them;
    ``problems`` says what did not fit."""

    memory: Record | None
    cells: tuple[int, ...]
    registers: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...]


def cell_range(spec: KernelSpec, symbols: Mapping[str, int]) -> tuple[int, int]:
    """Physical address and length in bytes of the case's cells."""
    address = resolve_target(spec.case.target).address
    return (symbols["ram_cells"] if address is None else address), 4 * spec.cells


def inspect(
    session: GdbSession, spec: KernelSpec, build_id: bytes, symbols: Mapping[str, int], sections: Sequence[Section]
) -> Inspection:
    """Read a stopped machine on which the kernel of ``spec`` runs. Raises DebuggerError."""
    problems: list[str] = []
    registers = tuple(_plain(asdict(entry)) for entry in session.threads())
    layout = layout_of(spec)
    memory: Record | None = None
    try:
        memory = from_memory(layout, session.read_memory(symbols["results"], layout.size))
    except ProtocolError as error:
        problems.append(error.line)
    if memory and memory.build_id != build_id.hex():
        problems.append(f"the guest runs build {memory.build_id}, the ELF is build {build_id.hex()}")
    elif memory:
        problems += [
            f"the guest's {section.name} is not what was built: it was changed in memory"
            for section in sections
            if section.flags in ("ax", "a") and session.read_memory(section.address, section.size) != section.data
        ]
        if not memory.faults:
            # a kernel that faulted has ended for a reason of its own
            problems += foreign_routines(spec, symbols, sections)
    cells = _cells(session, *cell_range(spec, symbols), known=symbols["results"])
    return Inspection(memory, cells, registers, tuple(problems))


def foreign_routines(spec: KernelSpec, symbols: Mapping[str, int], sections: Sequence[Section]) -> list[str]:
    """Routines that do not contain the instruction they are named after: whatever they tested, it was not this case."""
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


def _cells(session: GdbSession, address: int, length: int, *, known: int) -> tuple[int, ...]:
    """The first cells, () where nothing answers at their address. ``known`` is one that can be read in any case."""
    try:
        shown = session.read_memory(address, min(length, 4 * CELLS_SHOWN))
    except DebuggerError:
        # A hole in the address space is the guest's finding; a debugger that has died is not.
        session.read_memory(known, 4)
        return ()
    return tuple(int.from_bytes(shown[at : at + 4], "little") for at in range(0, len(shown), 4))


def _plain(registers: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in registers.items() if value is not None}
