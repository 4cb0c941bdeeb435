"""The way to a violation: the witness ring, and what became of the witness's cell in its batch, in order of time.

What the guest keeps of a batch tells the order of most of it (kernel_templates/experiments). A consumer leaves a cell
with what it took, or when an exchange that began after the put was complete found nothing: so a take of the cell's own
token, and finding nothing, come behind the put; a take of anything else may have come before. Every CPU acknowledges
behind its last access, and CPU 0 looks when all have. How the others stand to each other nobody has seen.

A token that is lost was gone when those last exchanges found nothing. What wiped it out, the late write of an exchange
that had read the cell before the put, is noted by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kgen.engine import Frozen
from kgen.observation import SceneEvent, Witness
from kgen.plan import Phase, experiment_of
from kgen.report.words import plural
from kgen.results import ViolationKind
from kgen.source import LOSS_PROOF_MS
from kgen.spec import MAX_BATCH

#: Experiments whose final look at the cells the guest keeps.
_LOOKED_AT = frozenset({"counter", "mutex", "own-bits", "parity"})

Word = Callable[[str, int], int]


def reader(machine: Frozen, symbols: Mapping[str, int]) -> Word:
    """A function that reads the guest's 32-bit word at a symbol and so many words on. Raises DebuggerError."""

    def word(name: str, index: int) -> int:
        return int.from_bytes(machine.read_memory(symbols[name] + 4 * index, 4), "little")

    return word


def timeline(
    word: Word, block: Any, phase: Phase, planned: Sequence[Phase], ring: Sequence[Witness], witness: Witness
) -> tuple[SceneEvent, ...]:
    """All events up to ``witness``. ``block`` is the results block, ``phase`` the witness's own, ``ring`` the witnesses
    in the order in which they were recorded. Raises DebuggerError."""
    found = [
        replace(_recorded(entry, f"{planned[entry.phase].label}: "), step=step)
        for step, entry in enumerate(ring)
        if entry.index < witness.index
    ]
    history = list((_walk if experiment_of(phase).walk else _tokens)(word, block, phase, witness))
    history.sort(key=lambda event: (event.step, event.cpu))
    found += [replace(event, step=event.step + len(ring)) for event in history]
    return (*found, replace(_recorded(witness, ""), step=found[-1].step + 1, batch=block.handshake.batch))


def _recorded(entry: Witness, where: str) -> SceneEvent:
    text = f"{where}CPU 0 records a witness: {entry.kind.name.lower()}, round {entry.round}, cell {entry.cell}"
    return SceneEvent(0, 0, "witness", entry.phase, None, entry.cell, entry.token, entry.tsc, text)


def _tokens(word: Word, block: Any, phase: Phase, witness: Witness) -> Iterator[SceneEvent]:
    """The history of a token."""
    batch, cell = block.handshake.batch, witness.cell
    own = {"phase": phase.index, "batch": batch, "tsc": None}
    text = f"CPU 0 opens batch {batch} of {plural(block.handshake.cells, 'cell')}"
    yield SceneEvent(0, 0, "batch", cell=None, value=None, text=text, **own)
    token, old = word("tokens", cell), word("olds", cell)
    took = [word("takes", MAX_BATCH * (cpu - 1) + cell) for cpu in range(1, phase.cpus)]
    text = f"CPU 0 exchanges {token:08x} into cell {cell} and finds {f'{old:08x} there' if old else 'it empty'}"
    yield SceneEvent(1, 0, "put", cell=cell, value=token, text=text, **own)
    for cpu, value in enumerate(took, 1):
        step = 2 if value in (0, token) else 1
        if value:
            which = "the token" if value == token else "what is not this cell's token"
            yield SceneEvent(
                step, cpu, "take", cell=cell, value=value, text=f"CPU {cpu} takes {value:08x}, {which}", **own
            )
        else:
            text = f"CPU {cpu} finds the cell empty in its last exchange, begun after the token had been put"
            yield SceneEvent(step, cpu, "empty", cell=cell, value=0, text=text, **own)
    yield from _parked(block, range(1, phase.cpus), 2, own)
    if witness.kind is ViolationKind.LOST:
        text = (
            f"CPU 0 finds 0 in the cell, and nobody has the token; a pattern that it stores there stays for "
            f"{LOSS_PROOF_MS} ms: nobody writes to it any more"
        )
        yield SceneEvent(3, 0, "read", cell=cell, value=0, text=text, **own)


def _walk(word: Word, block: Any, phase: Phase, witness: Witness) -> Iterator[SceneEvent]:
    """The history of a cell that all CPUs of a batch work on, in no known order."""
    batch, cell = block.handshake.batch, witness.cell
    own = {"phase": phase.index, "batch": batch, "tsc": None}
    walkers = [cpu for cpu in range(phase.cpus) if block.cpu[cpu].walks == batch]
    text = f"CPU 0 opens batch {batch} of {plural(block.handshake.cells, 'cell')} for {plural(len(walkers), 'CPU')}"
    yield SceneEvent(0, 0, "batch", cell=None, value=None, text=text, **own)
    for cpu in walkers:
        text = f"CPU {cpu} does its operations on the batch's cells: {phase.form.name}"
        yield SceneEvent(1, cpu, "work", cell=None, value=None, text=text, **own)
    yield from _parked(block, walkers, 1, own)
    if phase.experiment in _LOOKED_AT:
        value = word("finals", cell)
        text = f"CPU 0 finds {value:08x} in the cell"
        yield SceneEvent(2, 0, "read", cell=cell, value=value, text=text, **own)


def _parked(block: Any, cpus: Sequence[int], step: int, own: Mapping[str, Any]) -> Iterator[SceneEvent]:
    """Who has acknowledged the batch."""
    for cpu in cpus:
        if block.cpu[cpu].ack == own["batch"]:
            text = f"CPU {cpu} acknowledges the batch: it touches no cell any more"
            yield SceneEvent(step, cpu, "parked", cell=None, value=None, text=text, **own)
