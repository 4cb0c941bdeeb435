"""Where a CPU stands within the few instructions that access a cell: before, between, or after its accesses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kgen.experiments import Routine
from kgen.gdbside.snapshot import Snapshot
from kgen.kernel.plan import work_of
from kgen.machine.registers import CpuRegisters

Kind = Literal["read", "write", "exchange"]
_CELL = re.compile(r"\[edi(?: \+ \w+)?\]")
_STORED = re.compile(r"mov \w+ ptr \[[^]]*\], (\w+)$")
_LOADED = re.compile(r"(?:mov|movzx) (\w+), \w+ ptr \[[^]]*\]$")


@dataclass(frozen=True)
class Access:
    """One statement that touches the cell."""

    kind: Kind
    text: str
    #: The register that a plain write stores, or that a plain read loads; otherwise "".
    register: str


def accesses(statements: Sequence[str]) -> tuple[Access | None, ...]:
    """Return the access to the cell of each instruction of a routine, without the labels; None where there is none."""
    return tuple(_access(line) for line in statements if not line.endswith(":"))


def _access(line: str) -> Access | None:
    if not _CELL.search(line):
        return None
    if stored := _STORED.match(line):
        return Access("write", line, stored[1])
    if loaded := _LOADED.match(line):
        return Access("read", line, loaded[1])
    return Access("read" if line.startswith("cmp ") else "exchange", line, "")


def routines(snapshot: Snapshot) -> dict[str, Routine]:
    """Return the routines on a cell that the running phase calls, by label."""
    phase = snapshot.phase
    if phase is None:
        return {}
    work = work_of(phase, snapshot.image.spec.cases[phase.case].instruction)
    return {routine.label: routine for routine in work.routines}


def describe(snapshot: Snapshot, routine: Routine, entry: CpuRegisters) -> str:
    """Return what a CPU in one of these routines is about to do to the cell, or has done."""
    begin, code = snapshot.image.code_of(routine.label)
    starts = snapshot.boundaries(begin, begin + len(code))
    steps = accesses(routine.statements)
    at = starts.index(entry.eip) if entry.eip in starts else len(steps)
    done = [step for step in steps[:at] if step]
    coming = [step for step in steps[at:] if step]
    place = _cell(snapshot, entry.edi)
    if not coming:
        return f"has just accessed {place}: EAX is {entry.eax:08x}"
    after = coming[0]
    value = f"{_register(entry, after.register)}" if after.register else ""
    if after.kind == "exchange":
        again = " again" if any(step.kind == "exchange" for step in done) else ""
        return f"is about to carry out '{after.text}' on {place}{again}, with EAX {entry.eax:08x}"
    if after.kind == "read":
        return f"is about to {'read' if not done else 'go back to'} {place}"
    if done and done[-1].kind == "read":
        return f"is between its read and its write of {place}: about to write {value}"
    return f"is {'between two writes' if done else 'about to write'} to {place}: about to write {value}"


def _cell(snapshot: Snapshot, address: int) -> str:
    phase = snapshot.phase
    assert phase is not None
    number, rest = divmod(address - snapshot.block.handshake.address, phase.stride)
    return f"cell {number}" if not rest and 0 <= number < phase.cells else f"{address:#x}"


def _register(entry: CpuRegisters, name: str) -> str:
    """Return a register of any width, in as many hex digits as it has."""
    letter = name[-2] if name[-1] in "xl" else name[-1]
    value: int = getattr(entry, f"e{letter}x", 0)
    digits = {"l": 2, "h": 2}.get(name[-1], 8 if name.startswith("e") else 4)
    return f"{value & ((1 << 4 * digits) - 1):0{digits}x}"
