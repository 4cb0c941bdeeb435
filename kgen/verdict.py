"""From an observation to a verdict: one pure function. The rules are in the order of the table in the design notes;
the first that matches decides."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kgen.mtree import NOT_ASKED
from kgen.observation import SERIAL_ONLY, FaultRecord, Observation, PhaseRecord, Record, Witness, differences
from kgen.plan import Phase, phases
from kgen.results import WITNESSES_PER_KIND, CpuState, Decode, KernelState, PhaseStatus, Role, ViolationKind
from kgen.spec import KernelSpec

#: A power control must fail this often before a clean case means something.
POWER_MINIMUM = 5
#: Stands in the reason of a verdict that such a control decided.
SILENT = "showed only"
#: Exceptions by which a processor refuses the instruction by design: #UD, #GP, #AC.
REFUSALS: Mapping[int, str] = {6: "#UD", 13: "#GP", 17: "#AC"}
#: The phase came to an end at which all CPUs were parked and every token was accounted for.
_ACCOUNTED = frozenset({PhaseStatus.DONE, PhaseStatus.STOPPED})
#: What Linux logs, once, when KVM carries a LOCKed exchange out as a plain write (arch/x86/kvm/x86.c).
CONFESSION = "emulating exchange as write"
#: The kernel came to its end in order.
_ENDED = frozenset({KernelState.FINISHED, KernelState.STOPPED})


class VerdictKind(Enum):
    """The nine verdicts. The value is the exit code of a single case."""

    ATOMIC = 0
    NOT_ATOMIC = 3
    INCONCLUSIVE = 4
    RAM_BACKED = 5
    UNSUPPORTED = 6
    NO_STORAGE = 7
    SKIP = 8
    ERROR = 9
    CRASH = 10


@dataclass(frozen=True)
class ControlResult:
    """How one control came out. ``rounds`` is how many it ran; ``enough`` says that it behaved as a control must."""

    label: str
    role: str
    rounds: int
    violations: Mapping[str, int]
    enough: bool


@dataclass(frozen=True)
class Verdict:
    """``rounds`` is N; ``bound`` is the upper limit on the violation rate a round at 95 % (the rule of three: 3/N),
    given for ATOMIC only. ``violations`` are the case's, by kind. ``notes`` are facts that did not decide. ``cause`` is
    what the hypervisor itself gives as the reason of a violation, "" where it gives none."""

    kind: VerdictKind
    reason: str
    rounds: int = 0
    violations: Mapping[str, int] = field(default_factory=dict)
    bound: float | None = None
    controls: tuple[ControlResult, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    notes: tuple[str, ...] = ()
    cause: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether nothing but a power control that showed too little stands in the way: then a second run may tell."""
        return self.kind is VerdictKind.INCONCLUSIVE and SILENT in self.reason

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return self.kind.value


def bisect_code(kind: VerdictKind) -> int:
    """The exit code for ``git bisect run``: 0 good, 1 bad, 125 cannot tell."""
    return {VerdictKind.ATOMIC: 0, VerdictKind.NOT_ATOMIC: 1}.get(kind, 125)


@dataclass(frozen=True)
class _Run:
    """The case and its controls, matched with what was planned."""

    spec: KernelSpec
    observation: Observation
    record: Record
    planned: tuple[Phase, ...]
    found: Mapping[int, PhaseRecord]

    @property
    def case(self) -> Phase:
        return self.planned[-1]

    @property
    def case_record(self) -> PhaseRecord | None:
        return self.found.get(self.case.index)

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """The case's."""
        return tuple(witness for witness in self.record.witnesses if witness.phase == self.case.index)

    @property
    def violations(self) -> dict[str, int]:
        """The case's, by kind. A log that breaks off before its counters still has its witnesses."""
        if self.case_record and self.case_record.total:
            return self.case_record.violations
        seen = Counter(witness.kind for witness in self.witnesses)
        return {kind.name.lower(): seen[kind] for kind in ViolationKind}

    def of(self, role: Role) -> Iterator[tuple[Phase, PhaseRecord | None]]:
        for phase in self.planned:
            if phase.role is role:
                yield phase, self.found.get(phase.index)


def judge(spec: KernelSpec, observation: Observation) -> Verdict:
    """The verdict on the case of ``spec``. Pure; the guest's own opinion plays no part."""
    record = observation.best
    if record is None:
        if observation.problems:
            return Verdict(VerdictKind.ERROR, observation.problems[0], notes=observation.problems[1:])
        if observation.crash:
            return Verdict(VerdictKind.CRASH, observation.crash)
        return Verdict(VerdictKind.ERROR, observation.cut or "nothing was seen of the kernel")
    run = _Run(spec, observation, record, phases(spec), {phase.index: phase for phase in record.phases})
    kind, reason = next(_rules(run))
    case = run.case_record
    rounds = case.rounds if case else 0
    return Verdict(
        kind=kind,
        reason=reason,
        rounds=rounds,
        violations=run.violations,
        bound=min(1.0, 3 / rounds) if kind is VerdictKind.ATOMIC else None,
        controls=tuple(_controls(run)),
        witnesses=run.witnesses,
        notes=tuple(_notes(run, kind)),
        cause=_cause(run, kind),
    )


def _rules(run: _Run) -> Iterator[tuple[VerdictKind, str]]:
    """Every rule that matches, in order; the last one always does."""
    for reason in _errors(run):
        yield VerdictKind.ERROR, reason
    yield from _crashes(run)
    case = run.case_record
    if case and case.status in (PhaseStatus.NO_STORAGE, PhaseStatus.UNSTABLE):
        yield VerdictKind.NO_STORAGE, f"the cells at {run.case.target.name} do not hold what is written to them"
    if not _identified(run):
        yield VerdictKind.INCONCLUSIVE, "the log's first line is missing: it does not say what kernel it is of"
    kinds = ", ".join(f"{count} {name}" for name, count in run.violations.items() if count)
    if kinds:
        rounds = f"{case.rounds} rounds" if case else "rounds that were not counted"
        yield VerdictKind.NOT_ATOMIC, f"{kinds} in {rounds} of {run.case.form.name} on {run.case.target.name}"
    if run.case.target.declared == "io" and _path(run) == "ram":
        yield (
            VerdictKind.RAM_BACKED,
            f"{run.case.target.name} is ordinary memory here: nothing was learnt about memory-mapped I/O",
        )
    for reason in _doubts(run):
        yield VerdictKind.INCONCLUSIVE, reason
    yield VerdictKind.ATOMIC, f"no violation in {case.rounds if case else 0} rounds"


def _identified(run: _Run) -> bool:
    """Whether what was seen is known to be of this case. Memory was held against the ELF when it was read."""
    return run.observation.memory is not None or bool(run.record.digest)


def _errors(run: _Run) -> Iterator[str]:
    yield from run.observation.problems
    serial, memory = run.observation.serial, run.observation.memory
    if serial and memory:
        for difference in differences(serial, memory):
            yield f"the two channels disagree: {difference}"
    if serial and serial.contradiction:
        yield f"the serial record contradicts itself: {serial.contradiction}"
    if serial and serial.digest and (serial.digest, serial.case) != (run.spec.digest(), run.spec.case.id):
        yield f"the log is of another kernel ({serial.case}, digest {serial.digest[:12]})"
    if run.record.state is KernelState.TOO_FEW_CPUS:
        yield f"only {run.record.cpus_found} CPUs started and the case needs {run.spec.case.cpus}"
    if run.record.state is KernelState.NOT_PARKED or any(
        phase.status is PhaseStatus.NOT_PARKED for phase in run.record.phases
    ):
        yield "a CPU did not finish its batch in time: nothing can be said about its token"
    for phase, record in run.of(Role.SANITY):
        if record and record.total:
            yield f"the sanity control {phase.label} was violated {record.total} times: the experiment is unsound here"
    yield from _contradictions(run)


def _contradictions(run: _Run) -> Iterator[str]:
    """Where what was seen contradicts itself or the plan."""
    for channel in (run.observation.serial, run.observation.memory):
        if channel is None:
            continue
        for phase in run.planned:
            for record in channel.phases:
                if record.index == phase.index:
                    yield from (f"phase {phase.index} {text}" for text in _inconsistencies(phase, record, run))
        if channel.complete:
            yield from _whole(channel, run)
    if run.observation.memory and run.observation.memory.complete:
        yield from _unparked(run.observation.memory, run.spec.case.cpus)
    if run.observation.serial and run.observation.serial.complete:
        yield from _rows(run.observation, run.case)


def _inconsistencies(phase: Phase, record: PhaseRecord, run: _Run) -> Iterator[str]:
    """Counters that contradict each other or the plan. Each put token was taken, lost, or left; each take has its
    token."""
    if record.role is not None and (record.role is not phase.role or record.cells != phase.cells):
        yield f"ran as {record.role.name} with {record.cells} cells, planned was {phase.role.name} with {phase.cells}"
    if record.role is not None and phase.target.address is not None and record.address != phase.target.address:
        yield f"ran at {record.address:#x}, planned was {phase.target.address:#x}"
    if record.limit is not None and (record.label, record.limit) != (phase.label, phase.rounds):
        yield f"is announced as {record.label} of {record.limit} rounds, planned was {phase.label} of {phase.rounds}"
    if record.status not in _ACCOUNTED:
        return
    if [count.cpu for count in record.counts] != list(range(run.spec.case.cpus)):
        if run.observation.memory or run.record.complete:
            yield f"has counters of {len(record.counts)} CPUs where {run.spec.case.cpus} took part"
        return
    producer, consumers = record.counts[0], record.counts[1:]
    if producer.puts != record.rounds or any(count.puts for count in consumers):
        yield f"put {sum(count.puts for count in record.counts)} tokens in {record.rounds} rounds"
    if producer.takes or any(count.takes > count.tries for count in consumers):
        yield "took more tokens than were tried for"
    takes = sum(count.takes for count in consumers)
    # A duplicate is either one more take of the same token, or a take of an earlier one, which is foreign as well; a
    # torn value that a consumer took is foreign, one that the producer found is no take.
    low = record.rounds - record.lost - record.left + record.foreign
    high = low + record.duplicate
    if not low <= takes <= high:
        yield f"took {takes} tokens where {low} to {high} can be accounted for"
    # Every foreign take has its witness, and a token is left only where something else went wrong.
    if record.foreign > record.duplicate + record.torn or record.left > record.foreign + record.stale + record.torn:
        yield f"has {record.foreign} foreign takes and {record.left} tokens left, with no violation to explain them"
    if record.status is PhaseStatus.DONE and _short(phase, record):
        yield f"says it is done after {record.rounds} of {phase.rounds} rounds"
    if phase.rounds and record.rounds > phase.rounds:
        yield f"ran {record.rounds} rounds where {phase.rounds} were planned"


def _whole(record: Record, run: _Run) -> Iterator[str]:
    """What only a record that reaches its end must satisfy."""
    cpus = run.spec.case.cpus
    if record.cpus_needed != cpus:
        yield f"the kernel is for {record.cpus_needed} CPUs, the case for {cpus}"
    if record.state in _ENDED and record.cpus_found < cpus:
        yield f"only {record.cpus_found} CPUs started and the case needs {cpus}"
    if [phase.index for phase in record.phases] != list(range(len(record.phases))):
        yield "the phases are not in order"
    if max(len(record.phases), record.planned) > len(run.planned):
        yield f"{record.planned} phases in the kernel and {len(record.phases)} run, {len(run.planned)} were planned"
    # A phase that a fault broke off has witnesses, and no counters that they could be held against.
    broken = record.phase if record.state is KernelState.FAULTED else None
    recorded = Counter((witness.phase, witness.kind) for witness in record.witnesses if witness.phase != broken)
    counted = {
        (phase.index, kind): min(phase.violations[kind.name.lower()], WITNESSES_PER_KIND)
        for phase in record.phases
        for kind in ViolationKind
        if phase.index != broken
    }
    if {key: count for key, count in counted.items() if count} != dict(recorded):
        yield "the witnesses do not fit the counters"


def _unparked(memory: Record, cpus: int) -> Iterator[str]:
    """Whether the CPUs are where the end of a run leaves them: at rest, the last batch finished, counters copied."""
    last = memory.phases[-1] if memory.phases else None
    if memory.state not in _ENDED or last is None or last.status not in _ACCOUNTED:
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
    """The table for people is no evidence, but it must not tell another story than the record."""
    if any(row[3] != row[0] - row[1] - row[2] for row in observation.rows):
        yield "a row of the table does not add up"
    if any(later[i] < earlier[i] for earlier, later in itertools.pairwise(observation.rows) for i in range(3)):
        yield "the table counts backwards"
    serial = observation.serial
    record = next((phase for phase in serial.phases if phase.index == case.index), None) if serial else None
    if record is None or record.status not in _ACCOUNTED or not record.counts:
        return
    takes = [count.takes for count in record.counts[1:]]
    expected = (record.counts[0].puts, takes[0] if takes else 0, sum(takes[1:]))
    if not observation.rows or observation.rows[-1][:3] != expected:
        yield f"the table does not end with the case's counters {expected}"


def _short(phase: Phase, record: PhaseRecord) -> bool:
    """Whether a phase that says it is done ran too few rounds. A power control may end once it has failed enough; one
    without a limit is never done otherwise."""
    short = not phase.rounds or record.rounds < phase.rounds
    return short and not (phase.enough and record.total >= phase.enough)


def _crashes(run: _Run) -> Iterator[tuple[VerdictKind, str]]:
    if run.observation.crash:
        yield VerdictKind.CRASH, run.observation.crash
    refusals = [fault for fault in run.record.faults if _refused(run, fault)]
    for fault in run.record.faults:
        if fault not in refusals:
            yield VerdictKind.CRASH, f"the guest faulted: {_place(fault)}"
    for fault in refusals:
        yield VerdictKind.UNSUPPORTED, f"{run.case.form.name} raised {REFUSALS[fault.vector]} ({_place(fault)})"
    if run.record.state is KernelState.FAULTED:
        yield VerdictKind.CRASH, "the guest says that it faulted, and not where"


def _refused(run: _Run, fault: FaultRecord) -> bool:
    """Whether a CPU that was executing the form under test raised an exception by which processors refuse one."""
    running = [phase.form for phase in run.planned if phase.index == run.record.phase]
    return fault.vector in REFUSALS and fault.cpu < run.spec.case.cpus and running == [run.case.form]


def _place(fault: FaultRecord) -> str:
    return f"CPU {fault.cpu}, vector {fault.vector} at {fault.eip:#010x}, error code {fault.error:#x}"


def _path(run: _Run) -> str:
    """What the cells are: "io", "ram", or "unknown". QEMU's own word where there is a QEMU to ask, else the guest's
    probe of VGA. A doubtful answer of QEMU's stays a doubt, and so does a guest that saw RAM where QEMU sees i/o."""
    case = run.case_record
    decode = case.decode if case else Decode.UNKNOWN
    if run.observation.path != NOT_ASKED:
        kind = run.observation.path.kind
        return kind if kind == "ram" or (kind == "io" and decode is not Decode.RAM) else "unknown"
    if run.case.target.declared == "ram":
        return "ram"
    return {Decode.IO: "io", Decode.RAM: "ram"}.get(decode, "unknown")


def _doubts(run: _Run) -> Iterator[str]:
    """Why a clean case is still no proof."""
    yield from _missing(run)
    case = run.case_record
    if case is None or not case.rounds or case.status not in _ACCOUNTED or run.record.state not in _ENDED:
        yield "the case was not run to its end"
        return
    for count in case.counts[1:]:
        if not count.tries:
            yield f"CPU {count.cpu} never tried: the cells were not contended for as planned"
    if any(run.observation.cells):
        yield f"the cells at {run.case.target.name} are not as the guest left them: something was written after its end"
    if _path(run) != run.case.target.declared:
        yield f"what lies at {run.case.target.name} could not be attested"
    if not any(phase.role is Role.POWER for phase in run.planned):
        yield "no controls were run"
    for phase, record in run.of(Role.SANITY):
        if record is None or record.status is not PhaseStatus.DONE:
            yield f"the sanity control {phase.label} did not run to its end"
    for phase, record in run.of(Role.POWER):
        if record is None or record.status is not PhaseStatus.DONE:
            yield f"the power control {phase.label} did not run to its end"
        elif _power(record, case) < POWER_MINIMUM:
            yield (
                f"the power control {phase.label} {SILENT} {record.total} violations in {record.rounds} rounds: "
                "a defect might not have shown either; try more --rounds, or a less busy machine"
            )


def _missing(run: _Run) -> Iterator[str]:
    """What is missing of the two channels."""
    serial, memory = run.observation.serial, run.observation.memory
    if run.observation.cut and memory and not memory.complete:
        yield f"the run did not come to its end: {run.observation.cut}"
    if serial is None:
        yield "there is no serial record to hold against the debugger's"
    elif not serial.complete:
        yield f"the serial record is incomplete: {serial.gap}"
    if memory is None and run.observation.platform != SERIAL_ONLY:
        yield "the debugger read no record to hold against the serial one"
    if memory and not memory.complete:
        yield f"the run did not come to its end: {memory.gap}"


def _power(record: PhaseRecord, case: PhaseRecord | None) -> float:
    """The control's violations at the case's N: never more than were seen, fewer where the case ran fewer rounds."""
    if case is None or not record.rounds:
        return 0
    return record.total * min(1.0, case.rounds / record.rounds)


def _controls(run: _Run) -> Iterator[ControlResult]:
    for role in (Role.SANITY, Role.POWER):
        for phase, record in run.of(role):
            if record is None:
                continue
            ended = record.status is PhaseStatus.DONE
            good = record.total == 0 if role is Role.SANITY else _power(record, run.case_record) >= POWER_MINIMUM
            yield ControlResult(phase.label, role.name.lower(), record.rounds, record.violations, ended and good)


def _shown_by_each(run: _Run, kind: str) -> bool:
    """Whether each power control showed this kind often enough by itself."""
    return all(record and record.violations[kind] >= POWER_MINIMUM for _, record in run.of(Role.POWER))


def _cause(run: _Run, kind: VerdictKind) -> str:
    """The hypervisor's own word for what it did."""
    if kind is not VerdictKind.NOT_ATOMIC or not run.spec.case.lock:
        return ""
    line = next((line for line in run.observation.kernel_log or () if CONFESSION in line), "")
    return f"KVM carried the LOCKed exchange out as a plain write; its kernel logged: {line}" if line else ""


def _notes(run: _Run, kind: VerdictKind) -> Iterator[str]:
    if run.observation.kernel_log is not None and kind is VerdictKind.NOT_ATOMIC and not _cause(run, kind):
        yield f"the hypervisor's kernel did not log '{CONFESSION}': nothing names the cause"
    if run.observation.cut:
        yield run.observation.cut
    shown = {kind for _, record in run.of(Role.POWER) if record for kind, count in record.violations.items() if count}
    if shown:
        yield f"the power controls showed: {', '.join(sorted(shown))}"
    weak = [kind for kind in ("lost", "duplicate") if not _shown_by_each(run, kind)]
    if weak and run.spec.controls:
        yield f"little power against {' and '.join(weak)}: not every power control showed {POWER_MINIMUM} of them"
    if run.case.target.vga and run.case_record:
        guest = run.case_record.decode
        if run.observation.path.kind in ("io", "ram") and guest is not Decode.UNKNOWN:
            agree = guest.name.lower() == run.observation.path.kind
            yield f"the guest's own probe {'agrees' if agree else 'disagrees'}: VGA decoding gives {guest.name.lower()}"
