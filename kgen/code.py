"""The result code: what a run came to, in one short line that a person can copy from a screen.

The kernel makes the same text from its results block (kernel_templates/code.asm) as ``encode`` from a record, and
``rebuild`` makes an observation of it that the verdict is computed from as from any other. It is the guest's own
account of itself, without the witnesses and without each CPU's counters. The layout is told in docs/screen.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kgen.errors import ProtocolError, SpecError
from kgen.mtree import NOT_ASKED
from kgen.observation import (
    ABRIDGED,
    FINAL_STATES,
    SERIAL_ONLY,
    Count,
    FaultRecord,
    Observation,
    PhaseRecord,
    Record,
)
from kgen.plan import Phase, experiment_of, phases, phases_of
from kgen.results import BootPath, Clock, Decode, KernelState, PhaseStatus, Role, ViolationKind
from kgen.spec import KernelSpec
from kgen.symbols import (
    AS_PLANNED,
    DECODES,
    FOREIGN,
    IDLE,
    LEFT,
    PUTS,
    REST,
    Reader,
    fixed,
    from_text,
    heading,
    number,
    read_heading,
    to_text,
)

#: A phase that is not over, or that never had cells: nothing was counted.
_UNBEGUN = frozenset({PhaseStatus.PENDING, PhaseStatus.RUNNING})
UNCOUNTED = _UNBEGUN | {PhaseStatus.NO_STORAGE, PhaseStatus.ABSENT}


@dataclass(frozen=True)
class CodeFault:
    """A CPU exception."""

    vector: int
    cpu: int
    eip: int
    error: int


@dataclass(frozen=True)
class CodePhase:
    """One phase. ``violations`` are by kind, in its order; a phase without cells has counted nothing."""

    status: PhaseStatus
    decode: Decode = Decode.UNKNOWN
    rounds: int = 0
    judged: int = 0
    events: int = 0
    violations: tuple[int, ...] = (0,) * len(ViolationKind)
    fault: CodeFault | None = None


@dataclass(frozen=True)
class Code:
    """What a code says. ``spec`` is the request as far as the verdict depends on it; ``phases`` are its phases, the
    case last. ``count0``, ``count1`` and ``count2`` are the columns of the table: puts of CPU 0, takes of CPU 1, takes
    of all others; ``idle`` is a CPU that never tried, if there is one. ``fault`` is what ended the run, if anything
    did."""

    spec: KernelSpec
    state: KernelState
    cpus_found: int
    fault: CodeFault | None
    phases: tuple[CodePhase, ...]
    count0: int = 0
    count1: int = 0
    count2: int = 0
    idle: int | None = None
    foreign: int = 0
    left: int = 0

    @property
    def difference(self) -> int:
        """The table's last column."""
        return self.count0 - self.count1 - self.count2


def encode(spec: KernelSpec, record: Record, case: int = -1) -> str:
    """The code of one case of a run, by default its last: what the kernel prints. Where the machine died before the
    kernel had ended, the state in the code is the one it died in. Raises ProtocolError for an abridged record."""
    if record.abridged:
        raise ProtocolError("an abridged record does not hold what a code is made of")
    case %= len(spec.cases)
    found = {phase.index: phase for phase in record.phases}
    symbols = [*heading(spec, spec.cases[case])]
    # the kernel makes the code of a suite's case when that is closed
    state = KernelState.FINISHED if spec.suite and record.closed > case else record.state
    symbols.append(state)
    if state is KernelState.TOO_FEW_CPUS:
        symbols += number(record.cpus_found)
    if state is KernelState.FAULTED:
        symbols += _fault(record, None)
    for planned in phases_of(spec, case):
        symbols += _phase(planned, found.get(planned.index), record)
    return to_text(symbols)


def _phase(planned: Phase, phase: PhaseRecord | None, record: Record) -> Iterator[int]:
    """One phase's symbols. A log has no result of a phase that was broken off."""
    if phase is None or phase.status in _UNBEGUN:
        begun = phase.status if phase else PhaseStatus(int(planned.index == record.phase))
        yield begun * DECODES
        return
    yield phase.status * DECODES + phase.decode
    if phase.status in UNCOUNTED:
        return
    counts = tuple(phase.violations.values())
    kinds = sum(1 << kind for kind in ViolationKind if counts[kind])
    as_planned = phase.rounds == planned.rounds
    yield kinds | AS_PLANNED * as_planned
    if not as_planned:
        yield from number(phase.rounds)
    if experiment_of(planned).walk:
        yield from number(phase.judged)
    if kinds:
        yield from number(phase.events)
    for count in counts:
        if count:
            yield from number(count)
    if phase.status is PhaseStatus.FAULTED:
        yield from _fault(record, planned.index)
    if planned.role is Role.CASE:
        yield from _counters(planned, phase)


def _counters(planned: Phase, phase: PhaseRecord) -> Iterator[int]:
    """The case's counters."""
    walk = experiment_of(planned).walk
    did = [count.puts if walk or not count.cpu else count.tries for count in phase.counts]
    puts, *takes = [count.takes if count.cpu else count.puts for count in phase.counts]
    first, rest = takes[0], sum(takes[1:])
    flags = IDLE * (0 in did) | PUTS * (puts != phase.rounds) | REST * (first + rest != puts)
    yield flags | FOREIGN * bool(phase.foreign) | LEFT * bool(phase.left)
    yield from number(did.index(0)) if 0 in did else ()
    yield from number(puts) if puts != phase.rounds else ()
    yield from number(first)
    yield from number(rest) if first + rest != puts else ()
    yield from number(phase.foreign) if phase.foreign else ()
    yield from number(phase.left) if phase.left else ()


def _fault(record: Record, phase: int | None) -> tuple[int, ...]:
    """The first exception that ended this phase, or the run. Raises ProtocolError where the record has none."""
    fault = next((fault for fault in record.faults if fault.phase == phase), None)
    if fault is None:
        raise ProtocolError("the record does not say what exception ended the run")
    return (*fixed(fault.vector, 1), *number(fault.cpu), *number(fault.eip), *number(fault.error))


def decode(text: str) -> Code:
    """What a code says, however it was copied (see symbols.from_text). Raises ProtocolError in one clear line for what
    is no code."""
    reader = Reader(from_text(text))
    try:
        spec = read_heading(reader)
        code = _read(reader, spec)
    except (SpecError, ValueError) as error:
        reason = error.message if isinstance(error, SpecError) else str(error)
        raise ProtocolError(f"the result code makes no sense: {reason}") from error
    if not reader.is_over:
        raise ProtocolError("there is more in the result code than belongs to it")
    return code


def _read(reader: Reader, spec: KernelSpec) -> Code:
    state = KernelState(reader.symbol())
    cpus_found = reader.number() if state is KernelState.TOO_FEW_CPUS else spec.case.cpus
    fault = _read_fault(reader) if state is KernelState.FAULTED else None
    planned = phases(spec)
    made = [_read_phase(reader, phase) for phase in planned]
    case = made[-1]
    if case.status in UNCOUNTED:
        return Code(spec, state, cpus_found, fault, tuple(made))
    flags = reader.symbol()
    idle = reader.number() if flags & IDLE else None
    puts = reader.number() if flags & PUTS else case.rounds
    first = reader.number()
    rest = reader.number() if flags & REST else puts - first
    if rest < 0 or (idle is not None and idle >= spec.case.cpus):
        raise ProtocolError("the counters in the result code contradict each other")
    foreign = reader.number() if flags & FOREIGN else 0
    left = reader.number() if flags & LEFT else 0
    return Code(spec, state, cpus_found, fault, tuple(made), puts, first, rest, idle, foreign, left)


def _read_phase(reader: Reader, planned: Phase) -> CodePhase:
    status, probed = divmod(reader.symbol(), DECODES)
    phase = CodePhase(PhaseStatus(status), Decode(probed))
    if phase.status in UNCOUNTED:
        return phase
    flags = reader.symbol()
    rounds = planned.rounds if flags & AS_PLANNED else reader.number()
    judged = reader.number() if experiment_of(planned).walk else rounds
    events = reader.number() if flags % AS_PLANNED else 0
    violations = tuple(reader.number() if flags >> kind & 1 else 0 for kind in ViolationKind)
    fault = _read_fault(reader) if phase.status is PhaseStatus.FAULTED else None
    return CodePhase(phase.status, phase.decode, rounds, judged, events, violations, fault)


def _read_fault(reader: Reader) -> CodeFault:
    return CodeFault(vector=reader.symbol(), cpu=reader.number(), eip=reader.number(), error=reader.number())


def rebuild(code: Code) -> tuple[KernelSpec, Observation]:
    """The request and an observation for ``verdict.judge``. It is abridged: it has no witnesses, and no counters of
    single CPUs but of one that never tried. Where the state is not a final one, the machine died."""
    spec = code.spec
    planned = phases(spec)
    begun = [phase.index for phase, entry in zip(planned, code.phases, strict=True) if entry.status]
    ended = [
        _record(phase, entry, code)
        for phase, entry in zip(planned, code.phases, strict=True)
        if entry.status not in _UNBEGUN
    ]
    faults: list[tuple[CodeFault, int | None]] = [
        (entry.fault, index) for index, entry in enumerate(code.phases) if entry.fault
    ]
    faults += [(code.fault, None)] if code.fault else []
    final = code.state in FINAL_STATES
    record = Record(
        channel=ABRIDGED,
        complete=final,
        gap="" if final else f"the kernel was still in state {code.state.name}",
        contradiction="",
        build_id="",
        state=code.state,
        cpus_found=code.cpus_found,
        cpus_needed=spec.case.cpus,
        x2apic=0,
        boot_path=BootPath.UNKNOWN,
        clock=Clock.GUESS,
        khz=0,
        planned=len(planned),
        lines=0,
        phase=max(begun, default=-1),
        phases=tuple(ended),
        witnesses=(),
        faults=tuple(FaultRecord(fault.cpu, fault.vector, fault.error, fault.eip, 0, 0, at) for fault, at in faults),
        case=spec.name,
        digest=spec.digest(),
        closed=int(final and code.phases[-1].status not in _UNBEGUN),
        spec=spec.to_text(),
    )
    tabled = planned[-1].experiment == "token" and code.phases[-1].status not in UNCOUNTED
    row = (code.count0, code.count1, code.count2, code.difference)
    return spec, Observation(
        platform=SERIAL_ONLY,
        serial=record,
        memory=None,
        path=NOT_ASKED,
        crash="" if final else f"the machine died while the kernel was in state {code.state.name}",
        rows=(row,) if tabled else (),
    )


def _record(planned: Phase, entry: CodePhase, code: Code) -> PhaseRecord:
    case = planned.role is Role.CASE
    idle = code.idle if case else None
    lost, duplicate, torn, stale = entry.violations
    return PhaseRecord(
        index=planned.index,
        role=planned.role,
        label=planned.label,
        address=0 if planned.target.address is None else planned.target.address + planned.offset,
        cells=planned.cells,
        limit=planned.rounds,
        status=entry.status,
        rounds=entry.rounds,
        lost=lost,
        duplicate=duplicate,
        torn=torn,
        stale=stale,
        left=code.left if case else 0,
        foreign=code.foreign if case else 0,
        events=entry.events,
        judged=entry.judged,
        ticks=0,
        decode=entry.decode,
        latency=0,
        counts=() if idle is None else (Count(idle, 0, 0, 0),),
    )
