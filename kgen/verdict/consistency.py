"""Check that a record's phases fit the plan and the rest of the record. Pure. Each finding is a sentence, and makes the
verdict ERROR.

The code and the read-only plan of a kernel are compared with the ELF elsewhere. The CPUs use a copy of the plan in
writable memory, the handshake. If it was changed after the cells were probed, the kernel tested something else.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from kgen.evidence.observation import Observation
from kgen.evidence.records import Handshake, PhaseRecord, Record
from kgen.experiments import Account
from kgen.kernel.parameters import LOAD_ADDRESS
from kgen.kernel.plan import Phase, experiment_of, layout_of, phases
from kgen.kernel.render import tasks
from kgen.kernel.results_block import CpuState, Decode, KernelState, PhaseStatus, Role, ViolationKind
from kgen.spec import KernelSpec
from kgen.verdict import proof
from kgen.verdict.case_run import ACCOUNTED, ENDED, Run, too_few

#: A phase with such a status has run a batch. Any other may still hold the batch size of the phase before it.
_BATCHED = frozenset({PhaseStatus.DONE, PhaseStatus.STOPPED, PhaseStatus.LIMIT, PhaseStatus.UNSTABLE})
#: A phase with such a status may hold a fault.
_BREAKING = frozenset({PhaseStatus.RUNNING, PhaseStatus.FAULTED})


def symbols_of(spec: KernelSpec, symbols: Mapping[str, int]) -> dict[str, int]:
    """Return those symbols of an ELF that the record in memory is compared with."""
    wanted = {label for task in tasks(spec) for label in task.values() if isinstance(label, str)}
    wanted |= {phase.target.symbol for phase in phases(spec) if phase.target.symbol}
    return {name: symbols[name] for name in sorted(wanted) if name in symbols}


def planned_address(phase: Phase, symbols: Mapping[str, int]) -> int | None:
    """Return the physical address of a phase's first cell, None where the guest chose it or there is no ELF."""
    target = phase.target
    base = symbols.get(target.symbol) if target.symbol else target.address
    return None if base is None else base + phase.offset


def told(record: PhaseRecord, channel: Record) -> Iterator[str]:
    """Yield how a phase's status and its count of witnesses contradict its faults and the recorded witnesses."""
    if channel.abridged:
        return
    yield from _faulted(record, channel)
    yield from _counted(record, channel)


def _faulted(record: PhaseRecord, channel: Record) -> Iterator[str]:
    broken = [fault for fault in channel.faults if fault.phase == record.index]
    # a log that was cut may lack the line
    whole = channel.complete or channel.channel == "debugger"
    if record.status is PhaseStatus.FAULTED and not broken and whole:
        yield "says that an exception ended it, and there is no fault"
    if broken and record.status not in _BREAKING:
        yield f"has the status {record.status.name}, and a fault of CPU {broken[0].cpu} that ended it"


def _counted(record: PhaseRecord, channel: Record) -> Iterator[str]:
    if record.witnesses is None:
        return
    ring = Counter(witness.kind for witness in channel.witnesses if witness.phase == record.index)
    # the guest counts a witness before it records it, and the machine may be stopped between the two
    entering = int(record.status is PhaseStatus.RUNNING)
    for kind in ViolationKind:
        said = record.witnesses.get(kind.name.lower(), 0)
        if not ring[kind] <= said <= ring[kind] + entering:
            yield f"counts {said} witnesses of kind {kind.name.lower()}, and {ring[kind]} are recorded"


def handshake(spec: KernelSpec, observation: Observation, mine: Collection[int]) -> Iterator[str]:
    """Yield how the handshake in memory differs from the plan of the current phase.

    Yield nothing where that phase is not one of ``mine``, or where the guest may have been changing the handshake.
    """
    memory = observation.memory
    if memory is None or memory.phase_index is None or memory.handshake is None:
        return
    index = memory.phase_index
    record = memory.phase_at(index)
    if memory.state in ENDED and memory.phases:
        if record is None:
            yield f"the block's phase_index is {index}, and no such phase was begun"
        elif memory.state is KernelState.FINISHED and index != memory.phase:
            yield f"the block's phase_index is {index} at the end, and phase {memory.phase} was the last"
    if record is None or index not in mine or not _settled(record, memory, caught=observation.scene is not None):
        return
    phase = phases(spec)[index]
    found = (
        *_misplaced(phase, record, memory.handshake, observation.symbols),
        *_altered(tasks(spec)[index], memory.handshake, observation.symbols),
    )
    yield from (f"phase {index}: the handshake's {text}" for text in found)


def _settled(record: PhaseRecord, memory: Record, *, caught: bool) -> bool:
    """Return whether the handshake is that of the phase. ``caught``: the machine was stopped at a violation.

    The guest may be changing it between two batches. So a running phase must be within a batch that is not its first:
    before that, its own fields may not be written yet. CPU 0's entry is not used, because an exception may have ended
    its part of an earlier batch.
    """
    if record.status is not PhaseStatus.RUNNING:
        return memory.state in ENDED
    begun = record.rounds > 0 or any(witness.phase == record.index for witness in memory.witnesses)
    under_way = any(entry.started != entry.ack for entry in memory.cpus[1 : memory.cpus_needed])
    return begun and (caught or under_way)


def _misplaced(phase: Phase, record: PhaseRecord, found: Handshake, symbols: Mapping[str, int]) -> Iterator[str]:
    if found.address != record.address:
        yield f"address is {found.address:#x}, and the phase ran at {record.address:#x}"
    planned = planned_address(phase, symbols)
    if planned is not None and found.address != planned and record.status is not PhaseStatus.ABSENT:
        yield f"address is {found.address:#x}, planned was {planned:#x}"
    if record.status not in _BATCHED and not record.rounds:
        return
    # a batch of tokens may cover fewer cells than there are
    least = phase.cells if experiment_of(phase).walk else 1
    if not least <= found.cells <= phase.cells:
        yield f"cells are {found.cells}, planned were {phase.cells}"


def _altered(task: Mapping[str, int | str], found: Handshake, symbols: Mapping[str, int]) -> Iterator[str]:
    for name, planned in task.items():
        value = getattr(found, name)
        if isinstance(planned, int):
            if value != planned:
                yield f"{name} is {value:#x}, planned was {planned:#x}"
        elif symbols and value != symbols.get(planned):
            at = f"at {symbols[planned]:#x}" if planned in symbols else "in no place of the kernel"
            yield f"{name} is {value:#x}, planned was {planned} {at}"


def contradictions(run: Run) -> Iterator[str]:
    """Yield how an observation contradicts itself or the plan, one sentence each."""
    for channel in (run.observation.serial, run.observation.memory):
        if channel is None:
            continue
        for phase in run.planned:
            for record in channel.phases:
                if record.index == phase.index:
                    yield from (f"phase {phase.index} {text}" for text in _inconsistencies(phase, record, channel, run))
                    yield from (f"phase {phase.index} {text}" for text in _witnessed(phase, record, channel, run))
                    yield from (f"phase {phase.index} {text}" for text in told(record, channel))
        if channel.complete:
            yield from _whole(channel, run)
    yield from handshake(run.spec, run.observation, {phase.index for phase in run.planned})
    if run.observation.memory and run.observation.memory.complete:
        yield from _unparked(run.observation.memory, run.spec.case.cpus)
    tabled = run.experiment.tabled and not run.spec.suite
    if run.observation.serial and run.observation.serial.complete and tabled:
        yield from _rows(run.observation, run.case)


def _inconsistencies(phase: Phase, record: PhaseRecord, channel: Record, run: Run) -> Iterator[str]:
    """Yield how a phase's counters contradict each other or the plan."""
    if record.role is not None and (record.role is not phase.role or record.cells != phase.cells):
        yield f"ran as {record.role.name} with {record.cells} cells, planned was {phase.role.name} with {phase.cells}"
    if record.decode is not Decode.UNKNOWN and not phase.target.vga:
        yield f"was probed as {record.decode.name}, and there is no probe for {phase.target.name}"
    planned = planned_address(phase, run.observation.symbols)
    if record.role is not None and not (phase.target.symbol and channel.abridged):
        if planned is None and phase.target.symbol and record.address < LOAD_ADDRESS:
            yield f"ran at {record.address:#x}, which is not in the kernel's memory"
        if planned is not None and record.address != planned and record.status is not PhaseStatus.ABSENT:
            yield f"ran at {record.address:#x}, planned was {planned:#x}"
    if record.limit is not None and (record.label, record.limit) != (phase.label, phase.rounds):
        yield f"is announced as {record.label} of {record.limit} rounds, planned was {phase.label} of {phase.rounds}"
    if record.status not in ACCOUNTED:
        return
    experiment = experiment_of(phase)
    if not channel.abridged:
        if [count.cpu for count in record.counts] != list(range(phase.cpus)):
            # lines that a log has lost are a gap, no contradiction
            if channel.complete or channel.channel == "debugger":
                yield f"has counters of {len(record.counts)} CPUs where {phase.cpus} took part"
            return
        account = Account(
            rounds=record.rounds,
            violations=record.violations,
            left=record.left,
            foreign=record.foreign,
            puts=[count.puts for count in record.counts],
            takes=[count.takes for count in record.counts],
            tries=[count.tries for count in record.counts],
        )
        yield from experiment.accounts(account)
    if record.events > min(record.total, record.judged) or bool(record.events) != bool(record.total):
        yield f"counts {record.events} events in {record.judged} chances and {record.total} violations"
    if record.judged > record.rounds or bool(record.judged) != bool(record.rounds):
        yield f"judged {record.judged} chances in {record.rounds} rounds"
    # lines that a log has lost are a gap, no contradiction
    if record.live or not phase.counts_meetings or channel.complete or channel.channel == "debugger":
        yield from proof.inconsistencies(record, counts=phase.counts_meetings, abridged=channel.abridged)
    for kind, count in record.violations.items():
        if count and kind not in experiment.kinds:
            yield f"has {count} violations of kind {kind}, which {experiment.name} cannot show"
    # an abridged record without live batches does not say why a control ended early
    untold = channel.abridged and phase.counts_meetings and not record.live and phase.role is Role.POWER
    if record.status is PhaseStatus.DONE and not untold and _short(phase, record):
        yield f"says it is done after {record.rounds} of {phase.rounds} rounds"
    if phase.rounds and record.rounds > phase.rounds and not phase.adaptive and not experiment.walk:
        yield f"ran {record.rounds} rounds where {phase.rounds} were planned"


def _witnessed(phase: Phase, record: PhaseRecord, channel: Record, run: Run) -> Iterator[str]:
    """Yield where the first violations of each kind do not have their witnesses."""
    if not run.closed(channel) or channel.abridged:
        return
    if record.status not in ACCOUNTED and record.status is not PhaseStatus.UNSTABLE:
        return
    recorded = Counter(witness.kind for witness in channel.witnesses if witness.phase == phase.index)
    if not recorded and not record.total:
        return
    most = layout_of(run.spec).witnesses
    counts = {kind: min(record.violations[kind.name.lower()], most) for kind in ViolationKind}
    # A walk does not record every violation: several CPUs may see the same one, and one cell may show that many updates
    # were lost.
    walk = experiment_of(phase).walk
    fits = all(recorded[kind] == count or (walk and recorded[kind] < count) for kind, count in counts.items())
    if not fits or bool(recorded) != bool(record.total):
        yield "has witnesses that do not fit its counters"


def _whole(record: Record, run: Run) -> Iterator[str]:
    """Yield how a complete record contradicts the plan."""
    cpus = run.spec.case.cpus
    if record.cpus_needed != cpus:
        yield f"the kernel is for {record.cpus_needed} CPUs, the case for {cpus}"
    if record.state in ENDED and record.cpus_found < cpus:
        yield too_few(record.cpus_found, cpus, record.said)
    if [phase.index for phase in record.phases] != list(range(len(record.phases))):
        yield "the phases are not in order"
    planned = len(phases(run.spec))
    if len(record.phases) > planned or record.planned != planned:
        yield f"{record.planned} phases in the kernel and {len(record.phases)} run, {planned} were planned"
    # a phase that a fault ended has its witnesses, and no result
    if any(witness.phase > record.phase for witness in record.witnesses):
        yield "a witness is of a phase that was not run"
    if run.spec.suite and record.state is KernelState.FINISHED and record.closed != len(run.spec.cases):
        yield f"the kernel has finished, and {record.closed} of {len(run.spec.cases)} cases are closed"


def _unparked(memory: Record, cpus: int) -> Iterator[str]:
    """Yield how a CPU differs from what a finished run leaves: at rest, its last batch finished, its counters
    copied."""
    last = memory.phases[-1] if memory.phases else None
    if memory.state not in ENDED or last is None or last.status not in ACCOUNTED:
        return
    taking_part = memory.cpus[:cpus]
    if len(taking_part) != cpus:
        yield f"only {len(taking_part)} of {cpus} CPUs have an entry"
    at_rest = (CpuState.HALTED, CpuState.WAITING)
    if any(entry.state not in at_rest or entry.started != entry.ack for entry in taking_part):
        yield "a CPU was not at rest when the kernel said it had ended"
    if any(
        (e.cpu, e.puts, e.takes, e.tries) != (c.cpu, c.puts, c.takes, c.tries)
        for e, c in zip(taking_part, last.counts, strict=False)
    ):
        yield "counters moved after the last phase had ended"


def _rows(observation: Observation, case: Phase) -> Iterator[str]:
    """Yield how the table for people contradicts the record. The table itself is no evidence."""
    if any(row[3] != row[0] - row[1] - row[2] for row in observation.rows):
        yield "a row of the table does not add up"
    if any(later[i] < earlier[i] for earlier, later in itertools.pairwise(observation.rows) for i in range(3)):
        yield "the table counts backwards"
    serial = observation.serial
    record = serial.phase_at(case.index) if serial else None
    if serial is not None and serial.abridged:
        if record and observation.rows:
            # the rules of the token experiment, as far as totals allow
            twice = record.lost + record.left - record.foreign - observation.rows[-1][3]
            if observation.rows[-1][0] != record.rounds or not 0 <= twice <= record.duplicate:
                yield f"the totals {observation.rows[-1][:3]} do not fit {record.rounds} rounds and their violations"
        return
    if record is None or record.status not in ACCOUNTED or not record.counts:
        return
    expected = record.row[:3]
    if not observation.rows or observation.rows[-1][:3] != expected:
        yield f"the table does not end with the case's counters {expected}"


def _short(phase: Phase, record: PhaseRecord) -> bool:
    """Return whether a phase with the status DONE ran too few rounds.

    A phase may end early once it has enough violations. One that goes on until its proof is reached has no planned
    number of rounds.
    """
    if phase.counts_meetings:
        if phase.role is Role.POWER and not record.live:
            # the lines that say why it ended are lost
            return False
        struck = [live.violated for live in record.live] if phase.role is Role.POWER else [record.events]
        return record.rounds < phase.rounds and not (phase.enough and min(struck) >= phase.enough)
    grows = phase.adaptive and phase.role is Role.POWER
    short = not phase.rounds or grows or record.rounds < phase.rounds
    return short and not (phase.enough and record.events >= phase.enough)
