"""What each CPU does, in a sentence: from its instruction pointer, its stack, and its own record in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kgen.errors import DebuggerError
from kgen.gdbside.accesses import describe, routines
from kgen.gdbside.snapshot import Snapshot
from kgen.inspection.scene import words
from kgen.kernel.parameters import LOSS_PROOF_MS
from kgen.kernel.results_block import CpuState, KernelState, Style
from kgen.machine.registers import CpuRegisters
from kgen.wording import plural

#: How many words of a stack are searched for return addresses.
_STACK_WORDS = 48
_CALL_BYTES = 2
_PRINTS = "prints a line of its record on the serial port"
_PROBES = "probes what backs the cells"
_OPERATES = "draws a ticket for an operation, or logs it"


def sentence(snapshot: Snapshot, cpu: int) -> str:
    """Return what a CPU of the case does: a sentence without its subject."""
    entry = snapshot.registers_of.get(cpu)
    if cpu and not _works(snapshot, cpu):
        return words(CpuState(snapshot.block.cpu[cpu].state.value), snapshot.block.cpu[cpu])
    if entry is None:
        return _unseen(snapshot, cpu)
    here, _ = snapshot.image.routine(entry.eip)
    called = routines(snapshot)
    if here in called:
        return describe(snapshot, called[here], entry) + ("" if not cpu else f" (batch {snapshot.block.cpu[cpu].go})")
    frames = (here, *callers(snapshot, entry))
    return _producer(snapshot, frames) if not cpu else _consumer(snapshot, cpu, frames)


def place(snapshot: Snapshot, entry: CpuRegisters) -> str:
    """Return the routine that a CPU is in, with the offset: ``doze+0x2``."""
    name, distance = snapshot.image.routine(entry.eip)
    if not name:
        return f"{entry.eip:#x}, outside the kernel"
    return f"{name}+{distance:#x}" if distance else name


def callers(snapshot: Snapshot, entry: CpuRegisters) -> tuple[str, ...]:
    """Return the routines that a CPU will return to, the nearest first: words on its stack that point into the kernel's
    code, to after a call."""
    try:
        data = snapshot.machine.read_memory(entry.esp, 4 * _STACK_WORDS)
    except DebuggerError:
        return ()
    found = []
    for at in range(0, len(data), 4):
        back = int.from_bytes(data[at : at + 4], "little")
        name, distance = snapshot.image.routine(back)
        if name and distance >= _CALL_BYTES:
            found.append(name)
    return tuple(found)


def _works(snapshot: Snapshot, cpu: int) -> bool:
    state = CpuState(snapshot.block.cpu[cpu].state.value)
    return state in (CpuState.WORKING, CpuState.WAITING) and cpu in snapshot.unacknowledged


def _unseen(snapshot: Snapshot, cpu: int) -> str:
    """Return what is known of a CPU whose registers the debugger does not show."""
    told = "this stub does not show its registers"
    if not cpu:
        return f"{told}; the kernel is in batch {snapshot.block.handshake.batch}"
    return f"{words(CpuState(snapshot.block.cpu[cpu].state.value), snapshot.block.cpu[cpu])} ({told})"


# --- consumers -----------------------------------------------------------------------------------------------------


def _sets_out(snapshot: Snapshot) -> str:
    """Return what ``set_out`` does before an operation, which depends on the batch's style."""
    if snapshot.block.handshake.style == Style.RACE:
        return "waits for the others to come to their next operation"
    return "lets a random moment pass before its next operation"


#: A text, or a function that makes one, by routine. The innermost routine that has a text decides.
_AT_WORK: Mapping[str, str | Callable[[Snapshot], str]] = {
    "jitter": "lets a moment pass before it exchanges with the next cell",
    "muster": "waits at the start line for the others",
    "set_out": _sets_out,
    "note": "notes a violation for CPU 0 to record",
    "operate": _OPERATES,
    "load_8": "reads the cell, which is only a hint",
    "load_16": "reads the cell, which is only a hint",
    "load_32": "reads the cell, which is only a hint",
    "load_64": "reads the cell, which is only a hint",
    "consume_exchange": "exchanges with the cell without looking first",
    "consume_read": "looks whether the cell is full",
}


def _consumer(snapshot: Snapshot, cpu: int, frames: Sequence[str]) -> str:
    own = snapshot.block.cpu[cpu]
    if own.started != own.go:
        return f"has been set to work on batch {own.go} and has not begun: it wakes up"
    doing = _innermost(snapshot, _AT_WORK, frames) or "works"
    cells = snapshot.block.handshake.cells
    if cells and own.cell >= cells:
        return f"has finished all {plural(cells, 'cell')} of batch {own.go} and is about to acknowledge"
    return f"is at cell {own.cell} of batch {own.go} ({plural(cells, 'cell')}): it {doing}"


def _innermost(snapshot: Snapshot, story: Mapping[str, str | Callable[[Snapshot], str]], frames: Sequence[str]) -> str:
    """Return the text of the innermost routine that has one, "" where none has."""
    told = next((story[name] for name in frames if name in story), "")
    return told if isinstance(told, str) else told(snapshot)


# --- the producer --------------------------------------------------------------------------------------------------


def _waits(snapshot: Snapshot) -> str:
    batch = snapshot.block.handshake.batch
    late = [cpu for cpu in range(1, snapshot.cpus) if snapshot.block.cpu[cpu].ack != batch]
    if not late:
        return f"sees that all have acknowledged batch {batch}"
    who = " and ".join(f"CPU {cpu}" for cpu in late)
    return f"waits for {who}, which {'have' if len(late) > 1 else 'has'} not acknowledged batch {batch}"


def _puts(snapshot: Snapshot) -> str:
    hand = snapshot.block.handshake
    return f"puts tokens: {hand.filled} of {plural(hand.cells, 'cell')} of batch {hand.batch} filled"


def _holds(snapshot: Snapshot) -> str:
    return f"holds the token for cell {snapshot.block.handshake.filled} back until a consumer looks there"


def _judges(snapshot: Snapshot) -> str:
    return f"accounts for what batch {snapshot.block.handshake.batch} left"


_STORY: Mapping[str, str | Callable[[Snapshot], str]] = {
    "wait_crew": _waits,
    "await_consumer": _holds,
    "token_put": _puts,
    "token_judge": _judges,
    "chain_judge": _judges,
    "chain_follow": lambda snapshot: f"follows the values that batch {snapshot.block.handshake.batch} exchanged",
    "counter_judge": _judges,
    "mutex_judge": _judges,
    "own_bits_judge": _judges,
    "parity_judge": _judges,
    "torn_judge": _judges,
    "take_notes": _judges,
    "finals_stay": "makes sure that no write to the cells is still on its way",
    "find_meeting": lambda snapshot: f"looks which operations of batch {snapshot.block.handshake.batch} met",
    "count_live": lambda snapshot: f"counts batch {snapshot.block.handshake.batch} by what it showed",
    "count_events": lambda snapshot: f"counts batch {snapshot.block.handshake.batch} by what it showed",
    "proof_reached": "weighs whether the proof is reached",
    "set_out": _sets_out,
    "operate": _OPERATES,
    "walk_work": "works on the batch's cells like the others",
    "release_crew": lambda snapshot: f"opens batch {snapshot.block.handshake.batch}",
    "wait_idle": "waits for the others to come to rest",
    "halt_crew": "sends the other CPUs to rest",
    "put_table_row": "prints a row of the table",
    "report_phase": "prints the phase's results",
    "record": _PRINTS,
    "put_sentence": _PRINTS,
    "serial_flush": _PRINTS,
    "serial_check_stop": "looks whether it is asked to stop",
    "screen_poll": "draws on the screen",
    "screen_show": "draws on the screen",
    "screen_finish": "draws the summary on the screen",
    "probe_storage": _PROBES,
    "probe_vga": _PROBES,
    "probe_latency": _PROBES,
    "find_target": "makes the target ready",
    "attend": "has printed what the phase will do and is about to begin it",
    "token_batch": "sets up the next batch",
    "walk_batch": "sets up the next batch",
    "start_cpus": "starts the other CPUs",
    "wait_for_cpus": "waits for the other CPUs to come up",
    "clock_init": "measures its clock",
    "sleep_init": "tries whether CPUs can sleep and be woken",
    "screen_init": "makes the screen ready",
    "vga_mode": "sets the text mode",
    "find_madt": "looks for the firmware's list of CPUs",
    "final_park": "rests: the run is over",
    "finish": "ends the run",
    "open_phase": "makes a phase ready",
    "take_turn": "is between two batches",
    "run_group": "is between the turns of two phases",
    "boot_common": "has just been started",
    "entry": "is at the kernel's first instructions",
    "main": "prepares the run",
}


def _producer(snapshot: Snapshot, frames: Sequence[str]) -> str:
    if snapshot.at_violation:
        return f"has just recorded the violation that it found when it accounted for batch {_batch(snapshot)}"
    if "violation" in frames:
        return f"records a violation that it found in batch {_batch(snapshot)}"
    if "token_judge" in frames and "wait_ms" in frames:
        pattern = f"it stored a pattern there and watches it for {LOSS_PROOF_MS} ms"
        return f"misses a token of batch {_batch(snapshot)} and makes sure that no CPU writes to its cell: {pattern}"
    told = _innermost(snapshot, _STORY, frames)
    asleep = "sleeps: it " if "doze" in frames else ""
    if not told:
        if snapshot.is_over:
            return "rests: the run is over"
        return f"is {KernelState(snapshot.block.state.value).name.lower().replace('_', ' ')}"
    return asleep + told


def _batch(snapshot: Snapshot) -> int:
    return int(snapshot.block.handshake.batch)
