"""The cells of the running batch: addresses, contents, and their meaning."""

from __future__ import annotations

from collections.abc import Iterator

from kgen.errors import DebuggerError
from kgen.gdbside.snapshot import Snapshot
from kgen.inspection.operations import chain_of, walkers
from kgen.kernel.parameters import TOKEN_INVERSE, stored
from kgen.kernel.plan import experiment_of
from kgen.wording import plural

_WORD = 0xFFFFFFFF
_BEFORE = "what was there before: no batch has begun"
_HALVES = "halves of two different values"
#: How many cells are listed.
SHOWN = 16


def round_of(token: int) -> int:
    """Return the round in which a token of 32 bits was put."""
    return token * TOKEN_INVERSE & _WORD


def meaning(snapshot: Snapshot, cell: int, value: int) -> str:
    """Return the meaning of a value in a cell of the running batch."""
    phase = snapshot.phase
    assert phase is not None
    if snapshot.is_over:
        return "out of use"
    if not experiment_of(phase).tabled:
        return _of_a_walk(snapshot, cell, value) if snapshot.block.handshake.batch else _BEFORE
    if value == 0:
        return "empty"
    if not snapshot.block.handshake.cells:
        return _BEFORE
    own = snapshot.word(experiment_of(phase).starts, cell)
    low = _low(value, phase.form.width)
    if low is None:
        return _HALVES
    if low == own:
        which = f"the token of round {round_of(own)}" if snapshot.has_unique_tokens else "this batch's token"
        return f"{which}, which CPU 0 put there"
    if low == ~own & snapshot.block.handshake.task.cell_mask & _WORD:
        return "the pattern that CPU 0 stores to see whether another CPU still writes there"
    entry = snapshot.phase_record
    if snapshot.has_unique_tokens and entry is not None and 0 < round_of(low) <= entry.rounds:
        return f"the token of round {round_of(low)}, which is long over"
    return "neither empty, nor this round's token, nor an earlier one"


def _low(value: int, width: int) -> int | None:
    """Return the 32 bits that a cell holds, once or, where it is wider, twice; None where the halves differ."""
    return value & _WORD if width <= 32 or value >> 32 == value & _WORD else None


def _of_a_walk(snapshot: Snapshot, cell: int, value: int) -> str:
    phase = snapshot.phase
    assert phase is not None
    experiment = experiment_of(phase)
    empty, full = experiment.cell_states
    if empty:
        return full if value else empty
    if experiment.logs:
        return _of_a_chain(snapshot, value)
    if experiment.cell_name and experiment.starts:
        start, width = snapshot.word(experiment.starts, cell), phase.form.width
        return f"{experiment.cell_name} that began this batch at {stored(start, width):0{width // 4}x}"
    return f"what the CPUs of the experiment '{phase.experiment}' have made of it"


def _of_a_chain(snapshot: Snapshot, value: int) -> str:
    """Return whose value it is: each operation of a batch has a value of its own."""
    assert snapshot.phase is not None
    low = _low(value, snapshot.phase.form.width)
    if low is None:
        return _HALVES
    chain = chain_of(snapshot.memory, snapshot.block)
    number = chain.number(low)
    if number is None:
        return "no value of this batch"
    if number >= chain.starts:
        return f"the value that cell {number - chain.starts} began this batch with"
    rank, own = divmod(number, chain.each)
    cpu = next((cpu for cpu in walkers(snapshot.block, snapshot.cpus) if snapshot.block.cpu[cpu].rank == rank), None)
    who = f"operation {own + 1} of CPU {cpu}" if cpu is not None else "an operation"
    return f"the value of {who} in this batch"


def line(snapshot: Snapshot, cell: int) -> str:
    """Return a line on a cell: number, address, value, meaning."""
    phase = snapshot.phase
    assert phase is not None
    where = f"cell {cell} at {snapshot.cell_address(cell):#x}"
    try:
        value = snapshot.cell_value(cell)
        return f"{where}: {value:0{phase.form.width // 4}x}, {meaning(snapshot, cell, value)}"
    except DebuggerError as error:
        return f"{where}: cannot be read ({error.message})"


def lines(snapshot: Snapshot, only: int | None = None) -> Iterator[str]:
    """Yield the cells of the running batch, or one of them."""
    phase = snapshot.phase
    if phase is None or not snapshot.block.handshake.address:
        yield "there is no cell yet: no phase has begun"
        return
    place = "memory" if phase.target.name == "ram" else "i/o memory"
    count = snapshot.block.handshake.cells
    yield (
        f"{plural(count, 'cell')} of {phase.form.width} bits in the batch, {phase.stride} bytes apart, on "
        f"{phase.target.name} ({place}), accessed by '{phase.form.statement}'"
    )
    if snapshot.is_over:
        yield "  the run is over and the cells are out of use: the screen may show text there"
        if only is None:
            return
    wanted = range(min(count, SHOWN)) if only is None else [only]
    for cell in wanted:
        yield f"  {line(snapshot, cell)}"
    if only is None and count > SHOWN:
        yield f"  ... and {count - SHOWN} more: 'kgen cell NUMBER' shows one"


def interesting(snapshot: Snapshot) -> int:
    """Return the cell of interest to a user who looks at the machine: that of a violation whose batch is still in
    memory, otherwise the one that is being filled."""
    last = snapshot.record.witnesses[-1] if snapshot.record.witnesses else None
    if last is not None and snapshot.in_place(last):
        return last.cell
    hand = snapshot.block.handshake
    return int(min(hand.filled, max(hand.cells, 1) - 1)) if hand.filled < 1 << 16 else 0
