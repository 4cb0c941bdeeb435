"""The cells of the running batch: where they are, what they hold, and what that means."""

from __future__ import annotations

from collections.abc import Iterator

from kgen.errors import DebuggerError
from kgen.gdbside.snapshot import Snapshot
from kgen.report.words import plural
from kgen.source import TOKEN_STEP, stored

_WORD = 0xFFFFFFFF
_INVERSE = pow(TOKEN_STEP, -1, 1 << 32)
#: Cells that are told one by one.
SHOWN = 16


def round_of(token: int) -> int:
    """The round that a token of 32 bits was put in."""
    return token * _INVERSE & _WORD


def meaning(snapshot: Snapshot, cell: int, value: int) -> str:
    """What a value in a cell of the running batch stands for."""
    phase = snapshot.phase
    assert phase is not None
    if snapshot.is_over:
        return "out of use"
    if phase.experiment != "token":
        return _of_a_walk(snapshot, cell, value)
    if value == 0:
        return "empty"
    if not snapshot.block.handshake.cells:
        return "what was there before: no batch has begun"
    own = snapshot.word("tokens", cell)
    narrow = phase.form.width
    low = value & _WORD if narrow == 64 else value
    if narrow == 64 and value >> 32 != low:
        return "halves of two different values"
    if low == own:
        which = f"the token of round {round_of(own)}" if snapshot.has_unique_tokens else "this batch's token"
        return f"{which}, which CPU 0 put there"
    if low == ~own & snapshot.block.handshake.task.cell_mask & _WORD:
        return "the pattern that CPU 0 stores to see whether anybody still writes there"
    entry = snapshot.phase_record
    if snapshot.has_unique_tokens and entry is not None and 0 < round_of(low) <= entry.rounds:
        return f"the token of round {round_of(low)}, which is long over"
    return "neither empty, nor this round's token, nor an earlier one"


def _of_a_walk(snapshot: Snapshot, cell: int, value: int) -> str:
    phase = snapshot.phase
    assert phase is not None
    if phase.experiment == "mutex":
        return "the lock is free" if value == 0 else "the lock is taken"
    if phase.experiment == "counter":
        start, width = snapshot.word("starts", cell), phase.form.width
        return f"a counter that began this batch at {stored(start, width):0{width // 4}x}"
    return f"what the CPUs of the experiment '{phase.experiment}' have made of it"


def line(snapshot: Snapshot, cell: int) -> str:
    """A cell in a line: number, address, value, meaning."""
    phase = snapshot.phase
    assert phase is not None
    where = f"cell {cell} at {snapshot.cell_address(cell):#x}"
    try:
        value = snapshot.cell_value(cell)
        return f"{where}: {value:0{phase.form.width // 4}x}, {meaning(snapshot, cell, value)}"
    except DebuggerError as error:
        return f"{where}: cannot be read ({error.message})"


def lines(snapshot: Snapshot, only: int | None = None) -> Iterator[str]:
    """The cells of the running batch, or one of them."""
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
    """The cell that somebody who looks at the machine wants to see: that of a violation whose batch still stands, else
    the one that is being filled."""
    last = snapshot.record.witnesses[-1] if snapshot.record.witnesses else None
    if last is not None and snapshot.in_place(last):
        return last.cell
    hand = snapshot.block.handshake
    return int(min(hand.filled, max(hand.cells, 1) - 1)) if hand.filled < 1 << 16 else 0
