"""The scene of a violation: the description of a machine that was stopped when the case's first violation was recorded.

A violation in the phase that the verdict also rests on (kgen.kernel.plan.Role.PROOF) counts as the case's.

The breakpoint is at the last instruction of ``record`` (kernel_templates/record.asm), which returns to ``violation``
(witness.asm) after a witness was recorded and printed. Only CPU 0 reaches it, and only when every CPU of the batch has
acknowledged the batch. The cells have not been written since the violation was found.

The breakpoint is not in ``violation`` itself: QEMU's translator executes a page that holds a breakpoint one instruction
at a time, and that page also holds code in which the CPUs wait for each other.
"""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass
from typing import Any

from kgen.build import Kernel
from kgen.errors import DebuggerError
from kgen.evidence.records import Record, Witness
from kgen.evidence.scene import Scene, SceneCell, SceneCpu, SceneLine
from kgen.experiments import Before, Experiment
from kgen.inspection.operations import Memory
from kgen.inspection.timeline import timeline
from kgen.kernel.parameters import stored
from kgen.kernel.plan import Phase, experiment_of
from kgen.kernel.results_block import CpuState
from kgen.machine.registers import CpuRegisters, Frozen
from kgen.toolchain.assembly import Assembly, Line, Symbol
from kgen.toolchain.decoder import disassemble

#: How many instructions of a routine are shown, and how many of them are before EIP where enough come after it.
_SHOWN = 5
_BEFORE = 2
#: How many bytes are shown before a cell, and how many from its first byte on, within the cells of the batch.
_AROUND = 32
#: The longest x86 instruction, in bytes (SDM volume 2, 2.3.11).
_LONGEST = 15
#: Bytes on the stack above that return address: a report line's format and arguments, and EDI.
_PUSHED = 44 + 4
_WORD = 0xFFFFFFFF


def place_to_stop(kernel: Kernel) -> tuple[int, str]:
    """Return the breakpoint that stops at the case's first violation: an address, and a condition as a gdb expression.

    The condition: the instruction returns to ``violation``, and the current phase is the case or one that its verdict
    also rests on. These are the last phases of the kernel.

    Raises LookupError for a kernel without such an instruction.
    """
    call = _only(kernel, "violation", "call record")
    back = call.run_address + len(call.data)
    phase = kernel.results_address("phase_index")
    first = min(kernel.decisive)
    condition = f"*(unsigned int *)$sp == {back:#x} && *(unsigned int *){phase:#x} >= {first}"
    return _only(kernel, "record", "ret").run_address, condition


def place_to_begin(kernel: Kernel, moment: str) -> tuple[int, str]:
    """Return the breakpoint that stops at another moment, in the same form.

    ``start`` is the kernel's first instruction, ``controls`` the beginning of the first phase, ``case`` that of the
    case.

    Raises LookupError for a kernel without such an instruction.
    """
    symbols = kernel.elf.symbols
    if moment == "start":
        return symbols["boot_common"], ""
    # each phase executes this once, after it has printed its opening line
    phase = kernel.results_address("phase_index")
    number = {"controls": 0, "case": len(kernel.phases) - 1}[moment]
    return symbols["attend"], f"*(unsigned int *){phase:#x} == {number}"


def _only(kernel: Kernel, routine: str, text: str) -> Line:
    """Return the one instruction of a routine whose source line is ``text``. Raises LookupError."""
    lines = kernel.assembly.source.text.split("\n")
    found = [line for line in kernel.assembly.code_of(routine) if lines[line.line - 1].strip() == text]
    if len(found) != 1:
        raise LookupError(f"{routine} has {len(found)} '{text}'")
    return found[0]


def capture(kernel: Kernel, machine: Frozen, record: Record) -> Scene | None:
    """Return the scene, None where the case has no witness. ``record`` was read from this machine while it was stopped.

    Raises DebuggerError, also where a CPU was at work, because the cells and registers may then be of another moment.
    """
    own = kernel.decisive
    # the machine was stopped at the last witness that was recorded
    witness = next((entry for entry in reversed(record.witnesses) if entry.phase in own), None)
    if witness is None:
        return None
    phase = own[witness.phase]
    place = record.place_of(phase.index)
    if not place:
        return None
    layout = kernel.layout
    block = layout.parse(machine.read_memory(kernel.results_address(), layout.size))
    busy = [cpu for cpu in range(1, phase.cpus) if block.cpu[cpu].go != block.cpu[cpu].ack]
    if busy:
        raise DebuggerError(f"CPU {busy[0]} had not acknowledged its batch when a violation was recorded")
    memory = Memory(machine, kernel.elf.symbols)
    numbers = record.cpu_numbers
    text = _Text.of(kernel)
    cpus = [_cpu(text, machine, block, numbers.get(_number(entry)), entry) for entry in machine.threads()]
    return Scene(
        witness=witness,
        cpus=tuple(sorted(cpus, key=lambda cpu: _WORD if cpu.cpu is None else cpu.cpu)),
        cell=_cell(memory, block, phase, place, witness),
        timeline=timeline(memory, block, kernel.spec, phase, record.witnesses, witness),
    )


def _number(entry: CpuRegisters) -> int:
    return entry.thread - 1 if entry.cpu is None else entry.cpu


def _code(assembly: Assembly) -> list[Line]:
    """Return all instructions of the kernel, ordered by the address at which they run."""
    return sorted((line for line in assembly.lines if line.is_code), key=lambda line: line.run_address)


@dataclass(frozen=True)
class _Text:
    """The kernel's code: its instructions by address, the source's lines and name, its routines."""

    code: list[Line]
    lines: list[str]
    name: str
    routines: list[Symbol]

    @classmethod
    def of(cls, kernel: Kernel) -> _Text:
        source, symbols = kernel.assembly.source, kernel.assembly.symbols
        routines = [symbol for symbol in symbols if symbol.kind == "func"]
        return cls(_code(kernel.assembly), source.text.split("\n"), source.name, routines)

    def routine(self, address: int) -> str:
        """Return the routine that holds an address, with the offset: ``crew_main+0x1c``; "" outside the kernel."""
        for symbol in self.routines:
            if symbol.value <= address < symbol.value + symbol.size:
                distance = address - symbol.value
                return f"{symbol.name}+{distance:#x}" if distance else symbol.name
        return ""

    def is_in(self, routine: str, line: Line) -> bool:
        """Return whether an instruction belongs to a routine."""
        return self.routine(line.run_address).partition("+")[0] == routine


# --- CPUs ----------------------------------------------------------------------------------------------------------


def _cpu(text: _Text, machine: Frozen, block: Any, cpu: int | None, entry: CpuRegisters) -> SceneCpu:
    names = (name for name in asdict(entry) if name not in ("thread", "target", "cpu"))
    return SceneCpu(
        cpu=cpu,
        registers={name: getattr(entry, name) for name in names},
        place=_place(text, machine, block, cpu, entry),
        routine=text.routine(entry.eip),
        code=_instructions(text, machine, entry.eip),
    )


def _place(text: _Text, machine: Frozen, block: Any, cpu: int | None, entry: CpuRegisters) -> str:
    """Return what a CPU is doing, in words."""
    if cpu is None:
        return "the kernel knows no such CPU"
    if cpu == 0:
        # on the stack: the return address of record, what violation pushed, the return address of violation
        back = int.from_bytes(machine.read_memory(entry.esp + 4 + _PUSHED, 4), "little")
        found_by = text.routine(back).partition("+")[0]
        return f"has recorded the violation that {found_by} found in batch {block.handshake.batch}"
    return words(CpuState(block.cpu[cpu].state.value), block.cpu[cpu])


def words(state: CpuState, entry: Any) -> str:
    """Return what an AP is doing, in words, from its entry in the results block."""
    if state is CpuState.WAITING and entry.go == entry.ack:
        asleep = " (asleep)" if entry.asleep else ""
        return f"parked{asleep}: it has acknowledged batch {entry.ack}" if entry.ack else f"parked{asleep}"
    if state in (CpuState.WORKING, CpuState.WAITING):
        return f"at work on batch {entry.go}, {entry.cell} cells done"
    return {
        CpuState.SPARE: "spare: it takes no part",
        CpuState.FAULTED: "faulted: it was stopped by an exception",
    }.get(state, state.name.lower())


def _instructions(text: _Text, machine: Frozen, eip: int) -> tuple[SceneLine, ...]:
    """Return the instructions around EIP, as they are in memory now."""
    at = bisect.bisect_left(text.code, eip, key=lambda line: line.run_address)
    if at == len(text.code) or text.code[at].run_address != eip:
        data = _readable(machine, eip, _LONGEST)
        size, reads = disassemble(data, eip)
        return (SceneLine(eip, data[:size].hex(), reads, "", 0, ""),) if size else ()
    routine = text.routine(eip).partition("+")[0]
    whole = [line for line in text.code[max(0, at - _SHOWN) : at + _SHOWN] if text.is_in(routine, line)]
    here = whole.index(text.code[at])
    start = max(0, min(here - _BEFORE, len(whole) - _SHOWN))
    found = []
    for line in whole[start : start + _SHOWN]:
        data = machine.read_memory(line.run_address, len(line.data))
        reads = disassemble(data, line.run_address)[1]
        source = text.lines[line.line - 1].strip()
        found.append(SceneLine(line.run_address, data.hex(), reads, text.name, line.line, source))
    return tuple(found)


def _readable(machine: Frozen, address: int, length: int) -> bytes:
    """Return bytes of memory, b"" where they cannot be read."""
    try:
        return machine.read_memory(address, length)
    except DebuggerError:
        return b""


# --- the cell ------------------------------------------------------------------------------------------------------


def _cell(memory: Memory, block: Any, phase: Phase, place: int, witness: Witness) -> SceneCell:
    """Return the witness's cell and its neighbours. ``place`` is the address of the first cell.

    Neighbours are read only where they are cells of the batch: a read of a device's registers may change them.
    """
    address, size = place + phase.stride * witness.cell, phase.form.width // 8
    start, end = address, address + size
    if phase.stride <= _AROUND:
        start = max(place, address - _AROUND // phase.stride * phase.stride)
        end = min(place + phase.length, end + (_AROUND - phase.stride) // phase.stride * phase.stride)
    around = _readable(memory.machine, start, end - start)
    own = around[address - start :][:size]
    before = _before(memory, block, experiment_of(phase), witness)
    return SceneCell(
        address=address,
        width=phase.form.width,
        before=None if before is None else stored(before, phase.form.width),
        after=int.from_bytes(own, "little") if own else None,
        start=start,
        around=around.hex(),
    )


def _before(memory: Memory, block: Any, experiment: Experiment, witness: Witness) -> int | None:
    """Return what the cell held before the violation, None where that is unknown."""
    if experiment.before is Before.TABLE:
        return memory.word(experiment.starts, witness.cell)
    known = {Before.ZERO: 0, Before.OPERAND: int(block.handshake.task.operand), Before.TOKEN: witness.token}
    return known.get(experiment.before)
