"""Why a violation is proven, for a reader who sees this kernel for the first time: for a token two looks at a machine
that stands still, for a chain the operations that involve the value."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from kgen.errors import ProtocolError
from kgen.evidence.records import Witness
from kgen.experiments import Work
from kgen.gdbside.accesses import accesses
from kgen.gdbside.snapshot import Snapshot
from kgen.inspection.operations import chain_of, concerned, in_words, operations_of, value_of
from kgen.kernel.parameters import LOSS_PROOF_MS, stored
from kgen.kernel.plan import Phase, experiment_of, work_of
from kgen.kernel.results_block import Role, ViolationKind
from kgen.report.text.case import describe

#: How the user gets a machine with the evidence still in memory.
_HOW = "'kgen until-violation' stops where one is recorded; so does 'kgen gdb' from a shell"
_WIDTH = 100
_INDENT = "   "
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Look:
    """What one freeze shows of a token."""

    #: The cell's value.
    cell: int
    #: What CPU 0's exchange found there.
    old: int
    #: What each consumer took out of the cell.
    took: tuple[int, ...]
    #: Of each consumer: the last batch that it may begin, and the last that it has acknowledged.
    batches: tuple[tuple[int, int], ...]
    #: Of each consumer: takes and tries.
    counters: tuple[tuple[int, int], ...]
    #: The CPUs with the token in a register that can be the outcome of an exchange. None where registers prove nothing:
    #: a token of few bits stands in many, and a stub may not show every CPU.
    holders: tuple[int, ...] | None

    def contradicts(self, witness: Witness) -> str:
        """Return how this look contradicts the witness, "" where it does not."""
        busy = next((cpu for cpu, (go, ack) in enumerate(self.batches, 1) if go != ack), None)
        if busy is not None:
            return f"CPU {busy} has not acknowledged its batch and may still hold the token"
        if witness.kind is ViolationKind.DUPLICATE:
            had = [cpu for cpu, value in enumerate(self.took, 1) if value in (witness.token, witness.value)]
            lacking = [cpu for cpu in (witness.cpu, witness.other) if cpu and cpu not in had]
            return f"CPU {lacking[0]} has not noted the token" if lacking or not had else ""
        if self.cell:
            return f"the cell holds {self.cell:08x}"
        if witness.token in self.took:
            return f"CPU {self.took.index(witness.token) + 1} has the token"
        return f"CPU {self.holders[0]} holds the token in a register" if self.holders else ""


def look(snapshot: Snapshot, witness: Witness) -> Look:
    """Freeze the evidence of one cell. Raises DebuggerError."""
    block = snapshot.block
    consumers = range(1, snapshot.cpus)
    return Look(
        cell=snapshot.cell_value(witness.cell),
        old=snapshot.word("olds", witness.cell),
        took=tuple(snapshot.takes(witness.cell).values()),
        batches=tuple((block.cpu[cpu].go, block.cpu[cpu].ack) for cpu in consumers),
        counters=tuple((block.cpu[cpu].takes, block.cpu[cpu].tries) for cpu in consumers),
        # exchanges return what they found in EAX
        holders=tuple(cpu for cpu in consumers if snapshot.registers_of[cpu].eax == witness.token)
        if snapshot.has_unique_tokens and all(cpu in snapshot.registers_of for cpu in consumers)
        else None,
    )


def witness_to_prove(snapshot: Snapshot) -> Witness:
    """Return the violation to explain. One whose batch is still in memory is preferred to one of the case, that to one
    of a control, a loss to other kinds, and a later one to an earlier one. Raises ProtocolError where there is none."""
    if not snapshot.record.witnesses:
        raise ProtocolError("no violation has been recorded", hint="" if snapshot.is_over else _HOW)
    return max(
        snapshot.record.witnesses,
        key=lambda entry: (
            snapshot.in_place(entry),
            entry.phase in snapshot.decisive,
            entry.kind is ViolationKind.LOST,
            entry.kind is ViolationKind.DUPLICATE,
            entry.index,
        ),
    )


def told(snapshot: Snapshot, witness: Witness, first: Look | None, second: Look | None, between: str) -> Iterator[str]:
    """Yield the proof. ``first`` and ``second`` are the two looks, None where the batch is no longer in memory or there
    is no second look; ``between`` says what the machine did between them, or why it did nothing."""
    phase = snapshot.planned[witness.phase]
    if not can_be_looked_at(snapshot, witness):
        yield f"{phase.label}: {describe(witness, phase.experiment)}"
        if experiment_of(phase).logs:
            yield from _operations(snapshot, witness)
        else:
            yield "The two looks are for tokens that are lost or taken twice."
        yield "Why this is a proof:"
        yield from _text(experiment_of(phase).argument)
        yield from _text(_says(phase))
        return
    yield from _prologue(snapshot, witness, phase)
    pattern = _pattern(snapshot, witness, phase)
    if first is None:
        yield from _gone(snapshot, witness, pattern)
    else:
        yield from _looks(witness, first, second, between, pattern)
        against = first.contradicts(witness) or (second.contradicts(witness) if second else "")
        if against:
            yield f"   CONTRADICTION: {against}. This is no proof."
            return
    yield from _conclusion(witness, phase)


def can_be_looked_at(snapshot: Snapshot, witness: Witness) -> bool:
    """Return whether the two looks prove anything about that violation."""
    passes_tokens = experiment_of(snapshot.planned[witness.phase]).tabled
    return passes_tokens and witness.kind in (ViolationKind.LOST, ViolationKind.DUPLICATE)


def _operations(snapshot: Snapshot, witness: Witness) -> Iterator[str]:
    """Yield what the log of a chain's batch has on the value."""
    value = value_of(witness)
    if not snapshot.in_place(witness):
        yield f"Its batch is gone, and with it the log of its operations. To look yourself: {_HOW}."
        return
    phase = snapshot.planned[witness.phase]
    chain = chain_of(snapshot.memory, snapshot.block)
    number = chain.number(value)
    if number is None:
        yield f"No operation of the batch has the value {value:08x}, and no cell began with it."
    elif number >= chain.starts:
        yield f"Cell {number - chain.starts} began batch {snapshot.block.handshake.batch} with {value:08x}."
    yield f"The operations that involve it, by the log of batch {snapshot.block.handshake.batch}:"
    logged = operations_of(snapshot.memory, snapshot.block, snapshot.image.spec, phase)
    # by their first tickets, where there are any
    for entry in sorted(concerned(logged, witness), key=lambda entry: entry.tickets or (0, 0)):
        yield f"{_INDENT}CPU {entry.cpu}, its operation {entry.number}: {in_words(entry)}"
    yield f"{_INDENT}at the end cell {witness.cell} held {snapshot.word('finals', witness.cell):08x}"


def _text(text: str) -> Iterator[str]:
    """Yield a paragraph below a heading."""
    yield from textwrap.wrap(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)


def _prologue(snapshot: Snapshot, witness: Witness, phase: Phase) -> Iterator[str]:
    case = phase.role is Role.CASE
    consumers = " and ".join(f"CPU {cpu}" for cpu in range(1, phase.cpus))
    what = "This is the case itself." if case else "This is only a control; the case is another phase."
    happened = "was lost" if witness.kind is ViolationKind.LOST else "was taken twice"
    yield f"A token {happened} in round {witness.round} (witness #{witness.index}, {phase.label}). {what}"
    yield ""
    yield "1. What was put, and where"
    steps = [access for access in accesses(_work(snapshot, phase).put.statements) if access]
    how = f"with '{steps[-1].text}', which writes the token and returns the old value, in one step if it is atomic"
    if len(steps) > 1:
        how = "in several steps, " + " and then ".join(f"'{step.text}'" for step in steps)
    work = _work(snapshot, phase)
    one_bit = work.token_mask == 1
    alone = (
        "Every cell of the batch has a token of this one bit."
        if one_bit
        else "No other token in flight has this value."
    )
    yield from _text(
        f"CPU 0 put the token {witness.token:08x} into cell {witness.cell} at {_address(snapshot, witness):#x} "
        f"({phase.target.name}) {how}. The cell was empty: it held 0. {alone}"
    )
    yield ""
    yield "2. Who could have taken it"
    take = [access.text for access in accesses(work.take.statements) if access][-1]
    same = f"they take the bit with '{take}', and so clear" if one_bit else "they do the same with 0, and so take out"
    yield from _text(
        f"Only {consumers}: {same} whatever they find. Each notes what it took "
        "before it acknowledges the batch, and touches no cell after that. No other CPU writes there."
    )
    yield ""


def _work(snapshot: Snapshot, phase: Phase) -> Work:
    return work_of(phase, snapshot.image.spec.cases[phase.case].instruction)


def _pattern(snapshot: Snapshot, witness: Witness, phase: Phase) -> str:
    """Return what the kernel stores in a cell that must not change after that, in as many digits as a cell has."""
    width = phase.form.width
    value = ~witness.token & _WORD
    if snapshot.phase is not None and snapshot.phase.index == witness.phase:
        value &= snapshot.block.handshake.task.cell_mask
    return f"{stored(value, width):0{width // 4}x}"


def _address(snapshot: Snapshot, witness: Witness) -> int:
    first = snapshot.record.place_of(witness.phase)
    return first + snapshot.planned[witness.phase].stride * witness.cell


def _looks(witness: Witness, first: Look, second: Look | None, between: str, pattern: str) -> Iterator[str]:
    yield "3. First look, at the machine as it stands"
    yield from _shown(witness, first)
    yield ""
    yield "4. Second look"
    yield from _text(between)
    if second is not None:
        yield from _shown(witness, second)
        yield from _text("Nothing has changed." if second == first else "SOMETHING HAS CHANGED: see above.")
    yield from _own_look(witness, pattern, "" if first.cell else "which is the 0 seen here, ")
    yield ""


def _shown(witness: Witness, seen: Look) -> Iterator[str]:
    state = "it is empty, the token is not there" if seen.cell == 0 else "it is not empty"
    yield f"{_INDENT}the cell holds {seen.cell:08x}: {state}"
    yield f"{_INDENT}CPU 0 has put it: its exchange is complete and gave it {seen.old:08x}"
    for cpu, took in enumerate(seen.took, 1):
        go, ack = seen.batches[cpu - 1]
        takes, tries = seen.counters[cpu - 1]
        got = "nothing" if not took else f"{took:08x}" + (", THE TOKEN" if took == witness.token else "")
        done = f"has acknowledged batch {ack}" if go == ack else f"IS AT WORK on batch {go}"
        yield f"{_INDENT}CPU {cpu} took {got} from it and {done} (so far {takes} taken in {tries} exchanges)"
    if seen.holders is None:
        return
    held = " and ".join(f"CPU {cpu}" for cpu in seen.holders)
    yield f"{_INDENT}{f'{held} HOLDS THE TOKEN in EAX' if held else 'no consumer holds the token in EAX'}"


def _own_look(witness: Witness, pattern: str, seen: str = "") -> Iterator[str]:
    """``pattern`` is what the kernel stored to see whether a CPU still writes there, ``seen`` what is left of it."""
    if witness.kind is not ViolationKind.LOST:
        yield from _text("The kernel compared what the consumers noted when all of them had acknowledged the batch.")
        return
    yield from _text(
        "Before it recorded the loss, the kernel had looked twice. When all had acknowledged it found the cell empty; "
        f"it stored {pattern} there and found that unchanged {LOSS_PROOF_MS} ms later, so no write "
        f"was still on its way; it emptied the cell, {seen}and only then recorded the loss."
    )


def _gone(snapshot: Snapshot, witness: Witness, pattern: str) -> Iterator[str]:
    now = "the run is over" if snapshot.is_over else "the machine has gone on since"
    yield f"3. First look, the kernel's: {now}, and what you could see of it yourself is overwritten"
    if witness.kind is ViolationKind.LOST:
        yield from _text("All consumers had acknowledged the batch, none had noted the token, and the cell held 0.")
    else:
        who = " and ".join(f"CPU {cpu}" for cpu in (witness.cpu, witness.other) if cpu is not None)
        yield from _text(f"All consumers had acknowledged the batch. {who} had noted a token that was taken before.")
    yield ""
    yield "4. Second look, the kernel's"
    yield from _own_look(witness, pattern)
    # a machine that has ended shows no other batch
    if not snapshot.is_over:
        yield from _text(f"To look yourself: {_HOW}.")
    yield ""


def _conclusion(witness: Witness, phase: Phase) -> Iterator[str]:
    yield "5. Why no order of atomic exchanges leads to this"
    lost = witness.kind is ViolationKind.LOST
    where = "It is in none" if lost else "Two CPUs got it"
    how = (
        "an exchange with 0 reads the empty cell; the token is put; then that same exchange writes its 0 over the "
        "token. Its read and its write were two steps, and the put came in between."
        if lost
        else "two exchanges with 0 both read the token before either of them writes its 0. Their reads and writes were "
        "two steps each."
    )
    yield from _text(
        "An atomic exchange moves a value: what it writes comes from one CPU, what it reads goes to one CPU. So the "
        "token must be in exactly one place, with one consumer or in the cell. "
        f"{where}, so some exchange was not atomic. How that happens: {how}"
    )
    yield from _text(_says(phase))


def _says(phase: Phase) -> str:
    """Return what a violation proves about the machine."""
    if not phase.form.lock:
        return without_lock(phase)
    name = phase.form.mnemonic.upper()
    return f"{name} is LOCKed here, so this must not happen: it is NOT ATOMIC on {phase.target.name}."


def without_lock(phase: Phase) -> str:
    """Return what a violation without LOCK proves."""
    return (
        f"{phase.form.name} has no LOCK, so this may happen. It says nothing against the machine; it shows that such a "
        "fault does not go unseen here."
    )
