"""The result code: the result of a run in one short line that a person can copy from a screen.

The kernel makes the same text from its results block (kernel_templates/code.asm) as ``encode`` does from a record.
``rebuild`` makes an observation from it, which is judged like any other. It is the guest's own report, without
witnesses and without each CPU's counters. docs/screen.md describes the layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

from kgen.errors import ProtocolError, SpecError
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import SERIAL_ONLY, Observation
from kgen.evidence.records import ABRIDGED, FINAL_STATES, Count, FaultRecord, PhaseRecord, Record
from kgen.kernel.code_alphabet import (
    AS_PLANNED,
    BARE,
    DECODES,
    DIGITS,
    FOREIGN,
    IDLE,
    LEFT,
    MOST_SHOWN,
    PUTS,
    REST,
    STATES,
    WORD_SYMBOLS,
    Reader,
    fixed,
    from_text,
    heading,
    number,
    order,
    read_heading,
    short,
    to_text,
)
from kgen.kernel.live import Live
from kgen.kernel.plan import Phase, experiment_of, phases, phases_of
from kgen.kernel.results_block import BootPath, Clock, Decode, KernelState, PhaseStatus, Role, Style, ViolationKind
from kgen.spec.case import MIN_CPUS
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec

#: Statuses of a phase that is not over or never had cells: nothing was counted.
_UNBEGUN = frozenset({PhaseStatus.PENDING, PhaseStatus.RUNNING})
UNCOUNTED = _UNBEGUN | {PhaseStatus.NO_STORAGE, PhaseStatus.ABSENT}
#: Roles of phases whose violations a verdict may count.
_TOLD = frozenset({Role.CASE, Role.PROOF})


@dataclass(frozen=True)
class CodeFault:
    """A CPU exception."""

    vector: int
    cpu: int
    eip: int
    error: int


@dataclass(frozen=True)
class CodePhase:
    """One phase."""

    status: PhaseStatus
    decode: Decode = Decode.UNKNOWN
    rounds: int = 0
    judged: int = 0
    events: int = 0
    #: Violations, in the order of their kinds; () for a phase without cells, which has counted nothing.
    violations: tuple[int, ...] = (0,) * len(ViolationKind)
    fault: CodeFault | None = None
    #: The counts of live batches by style, () where the code has none.
    live: tuple[Live, ...] = ()
    #: The number of a CPU that never tried in the proof.
    idle: int | None = None


@dataclass(frozen=True)
class Code:
    """What a code says."""

    #: The request, as far as the verdict depends on it.
    spec: KernelSpec
    state: KernelState
    cpus_found: int
    #: The exception that ended the run, None where none did.
    fault: CodeFault | None
    #: The phases of the request, the case last.
    phases: tuple[CodePhase, ...]
    #: The columns of the table: puts of CPU 0, takes of CPU 1, takes of all others.
    count0: int = 0
    count1: int = 0
    count2: int = 0
    #: The number of a CPU that never tried, None where there is none.
    idle: int | None = None
    foreign: int = 0
    left: int = 0

    @property
    def difference(self) -> int:
        """The table's last column."""
        return self.count0 - self.count1 - self.count2


def encode(spec: KernelSpec, record: Record, case: int = -1) -> str:
    """Return the code of one case of a run as the kernel prints it, by default of the last case.

    Where the machine died before the kernel had ended, the state in the code is the one it died in. Raises
    ProtocolError for a record that is abridged or has lost a part.
    """
    if record.abridged:
        raise ProtocolError("an abridged record does not hold what a code is made of")
    case %= len(spec.cases)
    if spec.rules == OLD_RULES:
        return to_text(tuple(_symbols(spec, record, case, 0)))
    # live batches do not count where a violation decides
    decided = any(phase.total for _, phase in _counted(spec, record, case, _TOLD))
    for digits in DIGITS if decided else DIGITS[:-1]:
        symbols = tuple(_symbols(spec, record, case, digits))
        if len(symbols) + WORD_SYMBOLS <= MOST_SHOWN:
            break
    return to_text(symbols)


def _counted(
    spec: KernelSpec, record: Record, case: int, roles: frozenset[Role]
) -> Iterator[tuple[Phase, PhaseRecord]]:
    """Yield the phases of a case that have one of these roles and have counted anything."""
    found = {phase.index: phase for phase in record.phases}
    for planned in phases_of(spec, case):
        phase = found.get(planned.index)
        if planned.role in roles and phase is not None and phase.status not in UNCOUNTED:
            yield planned, phase


def _symbols(spec: KernelSpec, record: Record, case: int, digits: int) -> Iterator[int]:
    """Yield the code's symbols, with ``digits`` digits of the counts of live batches."""
    found = {phase.index: phase for phase in record.phases}
    yield from heading(spec, spec.cases[case])
    # the kernel makes the code of a suite's case when the case is closed
    state = KernelState.FINISHED if spec.suite and record.closed > case else record.state
    yield state + STATES * digits
    if state is KernelState.TOO_FEW_CPUS:
        yield from number(record.cpus_found)
    if state is KernelState.FAULTED:
        yield from _fault(record, None)
    for planned in phases_of(spec, case):
        yield from _phase(planned, found.get(planned.index), record, digits)


def _phase(planned: Phase, phase: PhaseRecord | None, record: Record, digits: int) -> Iterator[int]:
    """Yield one phase's symbols. A log has no result of a phase that was interrupted."""
    if phase is None or phase.status in _UNBEGUN:
        yield DECODES * (phase.status if phase else _begun(planned, record))
        return
    # one symbol holds no more, and a verdict on such a phase does not depend on its path
    yield phase.status * DECODES + (0 if phase.status is PhaseStatus.UNSOUND else phase.decode)
    if phase.status in UNCOUNTED:
        return
    yield from _walk(planned, phase, digits) if planned.counts_meetings else _tokens(planned, phase)
    if phase.status is PhaseStatus.FAULTED:
        yield from _fault(record, planned.index)
    if planned.counts_meetings and digits and planned.role is not Role.SANITY:
        yield from _styles(planned, phase, digits)
    if planned.role in _TOLD:
        yield from _counters(planned, phase)


def _begun(planned: Phase, record: Record) -> PhaseStatus:
    """Return the status of a phase that has no result. Phases that take turns are begun together."""
    first = planned.index if planned.index == record.phase else planned.group
    return PhaseStatus.RUNNING if first <= planned.index <= record.phase else PhaseStatus.PENDING


def _kinds(phase: PhaseRecord) -> int:
    return sum(1 << kind for kind, count in zip(ViolationKind, phase.violations.values(), strict=True) if count)


def _tokens(planned: Phase, phase: PhaseRecord) -> Iterator[int]:
    """Yield the counts of a phase without live batches: all numbers are exact."""
    kinds = _kinds(phase)
    as_planned = phase.rounds == planned.rounds
    yield kinds | AS_PLANNED * as_planned
    if not as_planned:
        yield from number(phase.rounds)
    if experiment_of(planned).walk:
        yield from number(phase.judged)
    if kinds:
        yield from number(phase.events)
    for count in phase.violations.values():
        yield from number(count) if count else ()


def _walk(planned: Phase, phase: PhaseRecord, digits: int) -> Iterator[int]:
    """Yield the counts of a phase with live batches.

    Numbers that the verdict may state are exact. Of all others the orders of magnitude are kept where there is room.
    """
    kinds = _kinds(phase)
    exact = _is_exact(planned, kinds)
    as_planned = not exact and bool(planned.rounds) and phase.rounds >= planned.rounds
    yield kinds | AS_PLANNED * as_planned
    if exact:
        yield from number(phase.rounds)
        yield from (*number(phase.judged), *number(phase.events)) if kinds else ()
    elif not as_planned:
        yield order(phase.rounds)
    for count in phase.violations.values():
        if count and exact:
            yield from number(count)
        elif count and digits != BARE:
            yield order(count)


def _is_exact(planned: Phase, kinds: int) -> bool:
    """Return whether the verdict may state a walk's numbers: those of the case, and of the phase that stands in for it
    where that phase was violated."""
    return planned.role is Role.CASE or (planned.role is Role.PROOF and bool(kinds))


def _styles(planned: Phase, phase: PhaseRecord, digits: int) -> Iterator[int]:
    """Return counts of live batches, rounded so that a control never looks stronger and a case never better proven."""
    if planned.role is not Role.POWER and phase.total:
        return
    for style in Style:
        live = phase.live[style] if phase.live else Live()
        if planned.role is not Role.POWER:
            yield from short(live.live, digits, up=False)
            continue
        yield from number(live.violated)
        # a style that was never violated counts only where there were enough batches
        yield from short(max(0, live.live - live.violated), digits, up=bool(live.violated))
        yield from short(live.switches, digits, up=False) if live.violated else ()


def _counters(planned: Phase, phase: PhaseRecord) -> Iterator[int]:
    """Yield the case's counters. A walk with live batches has none, because their sum is not part of the code. Raises
    ProtocolError for a record that has lost those of a CPU."""
    walk = experiment_of(planned).walk
    did = [count.puts if walk or not count.cpu else count.tries for count in phase.counts]
    if len(phase.counts) < MIN_CPUS:
        raise ProtocolError("the record has lost counters of a CPU")
    puts, *takes = [count.takes if count.cpu else count.puts for count in phase.counts]
    first, rest = takes[0], sum(takes[1:])
    tabled = not planned.counts_meetings
    puts_differ, rest_differs = tabled and puts != phase.rounds, tabled and first + rest != puts
    flags = IDLE * (0 in did) | PUTS * puts_differ | REST * rest_differs
    yield flags | FOREIGN * bool(phase.foreign) | LEFT * bool(phase.left)
    yield from number(did.index(0)) if 0 in did else ()
    yield from number(puts) if puts_differ else ()
    yield from number(first) if tabled else ()
    yield from number(rest) if rest_differs else ()
    yield from number(phase.foreign) if phase.foreign else ()
    yield from number(phase.left) if phase.left else ()


def _fault(record: Record, phase: int | None) -> tuple[int, ...]:
    """Return the first exception that ended this phase, or the run. Raises ProtocolError where the record has none."""
    fault = next((fault for fault in record.faults if fault.phase == phase), None)
    if fault is None:
        raise ProtocolError("the record does not say what exception ended the run")
    return (*fixed(fault.vector, 1), *number(fault.cpu), *number(fault.eip), *number(fault.error))


def decode(text: str) -> Code:
    """Return the content of a code, however it was copied (see code_alphabet.from_text).

    Raises ProtocolError, with the reason in one line, where the text is no code.
    """
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
    digits, state = divmod(reader.symbol(), STATES)
    state = KernelState(state)
    if digits and spec.rules == OLD_RULES:
        raise ProtocolError("the result code counts live batches, and its version has none")
    cpus_found = reader.number() if state is KernelState.TOO_FEW_CPUS else spec.case.cpus
    fault = _read_fault(reader) if state is KernelState.FAULTED else None
    planned = phases(spec)
    made: list[CodePhase] = []
    counters = _Counters()
    for phase in planned:
        entry = _read_phase(reader, phase, digits)
        if phase.role in _TOLD and entry.status not in UNCOUNTED:
            counters = _read_counters(reader, phase, entry)
            entry = replace(entry, idle=counters.idle)
        made.append(entry)
    if made[-1].status in UNCOUNTED:
        counters = _Counters()
    return Code(spec, state, cpus_found, fault, tuple(made), *astuple(counters))


@dataclass(frozen=True)
class _Counters:
    """The last fields of Code."""

    count0: int = 0
    count1: int = 0
    count2: int = 0
    idle: int | None = None
    foreign: int = 0
    left: int = 0


def _read_counters(reader: Reader, planned: Phase, entry: CodePhase) -> _Counters:
    flags = reader.symbol()
    idle = reader.number() if flags & IDLE else None
    tabled = not planned.counts_meetings
    if not tabled and flags & (PUTS | REST):
        raise ProtocolError("the result code has a table of an experiment that has none")
    puts = reader.number() if flags & PUTS else entry.rounds * tabled
    first = reader.number() if tabled else 0
    rest = reader.number() if flags & REST else puts - first
    if rest < 0 or (idle is not None and idle >= planned.cpus):
        raise ProtocolError("the counters in the result code contradict each other")
    foreign = reader.number() if flags & FOREIGN else 0
    left = reader.number() if flags & LEFT else 0
    return _Counters(puts, first, rest, idle, foreign, left)


def _read_phase(reader: Reader, planned: Phase, digits: int) -> CodePhase:
    status, probed = divmod(reader.symbol(), DECODES)
    phase = CodePhase(PhaseStatus(status), Decode(probed))
    if phase.status in UNCOUNTED:
        return phase
    flags = reader.symbol()
    if planned.counts_meetings:
        phase = _read_walk(reader, planned, phase, flags, digits)
    else:
        phase = _read_tokens(reader, planned, phase, flags)
    if phase.status is PhaseStatus.FAULTED:
        phase = replace(phase, fault=_read_fault(reader))
    if planned.counts_meetings and digits and planned.role is not Role.SANITY:
        phase = _with_styles(phase, tuple(_read_styles(reader, planned, phase, digits)))
    return phase


def _read_walk(reader: Reader, planned: Phase, phase: CodePhase, flags: int, digits: int) -> CodePhase:
    kinds = flags % AS_PLANNED
    exact = _is_exact(planned, kinds)
    if flags & AS_PLANNED and (exact or not planned.rounds):
        raise ProtocolError("the result code contradicts itself about its rounds")
    read = reader.number if exact else reader.order
    rounds = planned.rounds if flags & AS_PLANNED else read()
    # where the number is not in the code, there was at least one
    judged = reader.number() if exact and kinds else min(rounds, 1)
    events = reader.number() if exact and kinds else min(kinds, 1)
    left_out = digits == BARE and not exact
    violations = tuple((1 if left_out else read()) if flags >> kind & 1 else 0 for kind in ViolationKind)
    return replace(phase, rounds=rounds, judged=judged, events=events, violations=violations)


def _read_styles(reader: Reader, planned: Phase, phase: CodePhase, digits: int) -> Iterator[Live]:
    if planned.role is not Role.POWER and any(phase.violations):
        return
    for _ in Style:
        violated = reader.number() if planned.role is Role.POWER else 0
        live = violated + reader.short(digits)
        switches = reader.short(digits) if violated else 0
        yield Live(batches=live, live=live, violated=violated, switches=switches, struck=violated)


def _with_styles(phase: CodePhase, live: tuple[Live, ...]) -> CodePhase:
    """Return a phase with its live batches: it had at least as many batches, violated batches and rounds."""
    violated = sum(each.violated for each in live)
    total = sum(phase.violations)
    if violated and not total:
        raise ProtocolError("the result code has violated batches without a violation")
    if live and total and not violated:
        # the violation was in a batch that was not live: the phase is not without violations
        live = (replace(live[0], batches=live[0].batches + 1, struck=1), *live[1:])
    events = max(phase.events, min(violated, total))
    judged = max(phase.judged, events, sum(each.batches for each in live))
    return replace(phase, live=live, events=events, judged=judged, rounds=max(phase.rounds, judged))


def _read_tokens(reader: Reader, planned: Phase, phase: CodePhase, flags: int) -> CodePhase:
    rounds = planned.rounds if flags & AS_PLANNED else reader.number()
    judged = reader.number() if experiment_of(planned).walk else rounds
    events = reader.number() if flags % AS_PLANNED else 0
    violations = tuple(reader.number() if flags >> kind & 1 else 0 for kind in ViolationKind)
    return replace(phase, rounds=rounds, judged=judged, events=events, violations=violations)


def _read_fault(reader: Reader) -> CodeFault:
    return CodeFault(vector=reader.symbol(), cpu=reader.number(), eip=reader.number(), error=reader.number())


def rebuild(code: Code) -> tuple[KernelSpec, Observation]:
    """Return the request and an observation for ``verdict.judge``.

    The observation is abridged: it has no witnesses, no counters of single CPUs except one that never tried, and live
    batches only where they may decide. Where the state is not a final one, the machine died.
    """
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
    tabled = experiment_of(planned[-1]).tabled and code.phases[-1].status not in UNCOUNTED
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
        counts=() if entry.idle is None else (Count(entry.idle, 0, 0, 0),),
        live=entry.live,
    )
