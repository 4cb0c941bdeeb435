"""Whether what a record says of its phases fits the plan and the rest of the record. Pure; each finding is a sentence
that makes the verdict an ERROR.

The code and the read-only plan of a kernel are compared with what was built. What the CPUs really used is a copy of the
plan in writable memory, the handshake: a copy that was changed after the cells were probed tests something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from kgen.evidence.observation import Handshake, Observation, PhaseRecord, Record
from kgen.kernel.plan import Phase, experiment_of, phases
from kgen.kernel.render import tasks
from kgen.kernel.results_block import KernelState, PhaseStatus, ViolationKind
from kgen.spec.kernel_spec import KernelSpec

#: The kernel came to its end in order: nothing changes any more.
_ENDED = frozenset({KernelState.FINISHED, KernelState.STOPPED})
#: A phase that ended so has had a batch. One that ended otherwise may have left the batch size of the phase before it.
_BATCHED = frozenset({PhaseStatus.DONE, PhaseStatus.STOPPED, PhaseStatus.LIMIT, PhaseStatus.UNSTABLE})
#: A phase that says so may hold a fault.
_BREAKING = frozenset({PhaseStatus.RUNNING, PhaseStatus.FAULTED})


def symbols_of(spec: KernelSpec, symbols: Mapping[str, int]) -> dict[str, int]:
    """Return those of an ELF's symbols that the record in memory is compared with."""
    wanted = {label for task in tasks(spec) for label in task.values() if isinstance(label, str)}
    wanted |= {phase.target.symbol for phase in phases(spec) if phase.target.symbol}
    return {name: symbols[name] for name in sorted(wanted) if name in symbols}


def planned_address(phase: Phase, symbols: Mapping[str, int]) -> int | None:
    """Return the physical address of a phase's first cell, None where the guest finds the place or there is no ELF."""
    target = phase.target
    base = symbols.get(target.symbol) if target.symbol else target.address
    return None if base is None else base + phase.offset


def told(record: PhaseRecord, channel: Record) -> Iterator[str]:
    """Yield where a phase's status and its count of witnesses do not fit its faults and the witnesses recorded."""
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
    # the guest counts a witness first and enters it then: a machine may be stopped between the two
    entering = int(record.status is PhaseStatus.RUNNING)
    for kind in ViolationKind:
        said = record.witnesses.get(kind.name.lower(), 0)
        if not ring[kind] <= said <= ring[kind] + entering:
            yield f"counts {said} witnesses of kind {kind.name.lower()}, and {ring[kind]} are recorded"


def handshake(spec: KernelSpec, observation: Observation, mine: Collection[int]) -> Iterator[str]:
    """Yield where the handshake in memory is not what was planned for the phase whose turn it was; nothing where that
    phase is not one of ``mine``, and where the guest may just have been changing it."""
    memory = observation.memory
    if memory is None or memory.phase_index is None or memory.handshake is None:
        return
    index = memory.phase_index
    record = next((phase for phase in memory.phases if phase.index == index), None)
    if memory.state in _ENDED and memory.phases:
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
    """Whether the handshake is that of the phase. ``caught`` says that the machine was stopped at a violation.

    Between two batches the guest may be changing it: of a running guest only a batch under way tells, and of a phase
    that had one before, because only then its own fields are written. CPU 0 does not tell: an exception may have broken
    off its part of an earlier batch."""
    if record.status is not PhaseStatus.RUNNING:
        return memory.state in _ENDED
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
    # a batch of tokens may be smaller than the room for it
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
