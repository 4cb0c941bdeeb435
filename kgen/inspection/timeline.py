"""The events up to a violation: the witness ring, and the history of the witness's cell in its batch, in order of time.

What the guest keeps of a batch shows the order of most events (kernel_templates/experiments). A consumer leaves a cell
when it has taken something, or when an exchange that began after the put was complete found nothing. So a take of the
cell's own token, and finding nothing, come after the put; a take of anything else may have come before it. Every CPU
acknowledges after its last access, and CPU 0 reads the cells when all have acknowledged. The order among the other
CPUs' accesses is unknown.

A lost token was gone when those last exchanges found nothing. The write that overwrote it, the late half of an exchange
that had read the cell before the put, is recorded nowhere.

A chain keeps what each operation wrote and got. Where operations drew tickets, these show which operations had ended
when another one began. The order of operations that overlapped is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kgen.evidence.records import Witness
from kgen.evidence.scene import SceneEvent
from kgen.inspection.operations import Memory, concerned, in_words, operations_of, style_words, walkers
from kgen.kernel.parameters import LOSS_PROOF_MS
from kgen.kernel.plan import Phase, experiment_of, phases
from kgen.kernel.results_block import ViolationKind
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_BATCH
from kgen.wording import plural

#: Later than every ticket: an acknowledgement lasts for the rest of the batch.
_FOR_GOOD = float("inf")
#: A CPU acknowledges after its last ticket, and perhaps before the next one was drawn.
_AFTER = 0.5


def timeline(
    memory: Memory, block: Any, spec: KernelSpec, phase: Phase, ring: Sequence[Witness], witness: Witness
) -> tuple[SceneEvent, ...]:
    """Return all events up to ``witness``.

    ``block`` is the results block, ``phase`` the witness's own, ``ring`` the witnesses in the order in which they were
    recorded. Raises DebuggerError.
    """
    planned = phases(spec)
    found = [
        replace(_recorded(entry, f"{planned[entry.phase].label}: "), step=step)
        for step, entry in enumerate(ring)
        if entry.index < witness.index
    ]
    history = list(_history(memory, block, spec, phase, witness))
    history.sort(key=lambda event: (event.step, event.cpu))
    found += [replace(event, step=event.step + len(ring)) for event in history]
    return (*found, replace(_recorded(witness, ""), step=found[-1].step + 1, batch=block.handshake.batch))


def _history(memory: Memory, block: Any, spec: KernelSpec, phase: Phase, witness: Witness) -> Iterator[SceneEvent]:
    """Return what happened to the witness's cell in its batch."""
    if not experiment_of(phase).walk:
        return _tokens(memory, block, phase, witness)
    if experiment_of(phase).logs:
        return _chain(memory, block, spec, phase, witness)
    return _walk(memory, block, phase, witness)


def _recorded(entry: Witness, where: str) -> SceneEvent:
    text = f"{where}CPU 0 records a witness: {entry.kind.name.lower()}, round {entry.round}, cell {entry.cell}"
    return SceneEvent(0, 0, "witness", entry.phase, None, entry.cell, entry.token, entry.tsc, text)


def _tokens(memory: Memory, block: Any, phase: Phase, witness: Witness) -> Iterator[SceneEvent]:
    """Yield the history of a token."""
    batch, cell = block.handshake.batch, witness.cell
    own = {"phase": phase.index, "batch": batch, "tsc": None}
    text = f"CPU 0 opens batch {batch} of {plural(block.handshake.cells, 'cell')}"
    yield SceneEvent(0, 0, "batch", cell=None, value=None, text=text, **own)
    token, old = memory.word(experiment_of(phase).starts, cell), memory.word("olds", cell)
    took = [memory.word("takes", MAX_BATCH * (cpu - 1) + cell) for cpu in range(1, phase.cpus)]
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
            f"CPU 0 finds 0 in the cell, and no CPU has the token; a pattern that it stores there stays for "
            f"{LOSS_PROOF_MS} ms: no CPU writes to it any more"
        )
        yield SceneEvent(3, 0, "read", cell=cell, value=0, text=text, **own)


def _walk(memory: Memory, block: Any, phase: Phase, witness: Witness) -> Iterator[SceneEvent]:
    """Yield the history of a cell that all CPUs of a batch work on in an unknown order."""
    own = {"phase": phase.index, "batch": block.handshake.batch, "tsc": None}
    yield _opened(block, phase, own)
    taking_part = walkers(block, phase.cpus)
    for cpu in taking_part:
        text = f"CPU {cpu} does its operations on the batch's cells: {phase.form.name}"
        yield SceneEvent(1, cpu, "work", cell=None, value=None, text=text, **own)
    yield from _parked(block, taking_part, 1, own)
    yield from _read(memory, phase, witness.cell, 2, own)


def _chain(memory: Memory, block: Any, spec: KernelSpec, phase: Phase, witness: Witness) -> Iterator[SceneEvent]:
    """Yield the history of a value that was exchanged into a cell: who wrote it, and who got it."""
    own = {"phase": phase.index, "batch": block.handshake.batch, "tsc": None}
    yield _opened(block, phase, own)
    everything = operations_of(memory, block, spec, phase)
    shown = concerned(everything, witness)
    ends = {entry.cpu: entry.tickets[1] for entry in everything if entry.tickets}
    spans: list[tuple[float, float]] = [entry.tickets or (0, _FOR_GOOD) for entry in shown]
    spans += [(ends[cpu] + _AFTER if cpu in ends else 0, _FOR_GOOD) for cpu in walkers(block, phase.cpus)]
    steps = in_steps(spans)
    for entry, step in zip(shown, steps, strict=False):
        puts = entry.wrote is not None and entry.wrote == witness.token
        text = f"CPU {entry.cpu} {in_words(entry)}"
        value = entry.wrote if puts else entry.found
        yield SceneEvent(step, entry.cpu, "put" if puts else "take", cell=entry.cell, value=value, text=text, **own)
    last = max(steps, default=1)
    yield from _parked(block, walkers(block, phase.cpus), last, own)
    yield from _read(memory, phase, witness.cell, last + 1, own)


def in_steps(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return a step, from 1 on, for each of these spans of tickets. Spans that overlap, directly or through others,
    share a step, so that each step had ended before the next one began."""
    found = [0] * len(spans)
    step, latest = 0, -1.0
    for at in sorted(range(len(spans)), key=lambda number: spans[number]):
        begin, end = spans[at]
        if begin > latest:
            step += 1
        latest = max(latest, end)
        found[at] = step
    return found


def _opened(block: Any, phase: Phase, own: Mapping[str, Any]) -> SceneEvent:
    hand = block.handshake
    cpus = plural(len(walkers(block, phase.cpus)), "CPU")
    text = f"CPU 0 opens batch {hand.batch} of {plural(hand.cells, 'cell')} for {cpus}: {style_words(block)}"
    return SceneEvent(0, 0, "batch", cell=None, value=None, text=text, **own)


def _read(memory: Memory, phase: Phase, cell: int, step: int, own: Mapping[str, Any]) -> Iterator[SceneEvent]:
    """Yield what CPU 0 found in the cell at the end, where the guest keeps it."""
    if experiment_of(phase).keeps_finals:
        value = memory.word("finals", cell)
        text = f"CPU 0 finds {value:08x} in the cell"
        yield SceneEvent(step, 0, "read", cell=cell, value=value, text=text, **own)


def _parked(block: Any, cpus: Sequence[int], step: int, own: Mapping[str, Any]) -> Iterator[SceneEvent]:
    """Yield the CPUs that have acknowledged the batch."""
    for cpu in cpus:
        if block.cpu[cpu].ack == own["batch"]:
            text = f"CPU {cpu} acknowledges the batch: it touches no cell any more"
            yield SceneEvent(step, cpu, "parked", cell=None, value=None, text=text, **own)
