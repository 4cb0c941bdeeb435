"""From an observation to a verdict: one pure function. The rules are in the order of the table in the design notes;
the first that matches decides."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.evidence.observation import (
    EMULATION_FAILURE,
    WITHOUT_MEMORY,
    FaultRecord,
    Observation,
    PhaseRecord,
    Record,
    Witness,
)
from kgen.experiments import Account, Experiment
from kgen.kernel.live import needed
from kgen.kernel.plan import Phase, experiment_of, layout_of, phases, phases_of
from kgen.kernel.render import LOAD_ADDRESS
from kgen.kernel.results_block import CpuState, Decode, KernelState, PhaseStatus, Role, ViolationKind
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.verdict import consistency, proof

#: A power control must fail this often before a clean case means something.
POWER_MINIMUM = 5
#: Exceptions by which a processor refuses the instruction by design: #UD, #GP, #AC.
REFUSALS: Mapping[int, str] = {6: "#UD", 13: "#GP", 17: "#AC"}
#: The phase came to an end at which all CPUs were parked and every token was accounted for.
_ACCOUNTED = frozenset({PhaseStatus.DONE, PhaseStatus.STOPPED, PhaseStatus.LIMIT})
#: A control that ended so may be weighed: by what it did, not by how long it was meant to go on.
_CAME_OUT = frozenset({PhaseStatus.DONE, PhaseStatus.LIMIT})
#: What Linux logs, once, when KVM carries a LOCKed exchange out as a plain write (arch/x86/kvm/x86.c).
CONFESSION = "emulating exchange as write"
#: Why a clean run of an older kernel is no proof.
OLD_PROOF = (
    "its own rules said ATOMIC; but this kernel is of a version that did not count whether operations met, and rounds "
    "of one batch are not independent chances: run it again with this version"
)
#: What to do with such a kernel, whatever its run showed.
OLD_KERNEL = (
    "this kernel counted no live batches, so no run of it proves anything: make it, or its image or kit, again with "
    "this version"
)
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
    """How one control came out. ``rounds`` is how many it ran; ``ended`` says that it came to an end, ``enough`` that
    it behaved as a control must. ``unit`` is what ``rounds`` counts, its own experiment's. ``power`` says in words how
    often a power control failed in live batches, "" where none are counted."""

    label: str
    role: str
    rounds: int
    violations: Mapping[str, int]
    enough: bool
    ended: bool = True
    power: str = ""
    unit: str = "rounds"


@dataclass(frozen=True)
class Verdict:
    """``rounds`` is N in the experiment's unit, ``judged`` the chances of an event, ``chance`` what one of them is: for
    a verdict that counts no violation a live batch, else a round of tokens or a batch. ``bound`` is the upper limit on
    the rate of violated live batches at 95 % (the rule of three: 3 by ``judged``), given for ATOMIC only.
    ``violations`` are the case's, by kind. ``notes`` are facts that did not decide. ``cause`` is what the hypervisor
    itself gives as the reason of a violation, "" where it gives none."""

    kind: VerdictKind
    reason: str
    rounds: int = 0
    violations: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0
    chance: str = "live batches"
    bound: float | None = None
    controls: tuple[ControlResult, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    notes: tuple[str, ...] = ()
    cause: str = ""

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return self.kind.value


def bisect_code(kind: VerdictKind) -> int:
    """The exit code for ``git bisect run``: 0 good, 1 bad, 125 cannot tell."""
    return {VerdictKind.ATOMIC: 0, VerdictKind.NOT_ATOMIC: 1}.get(kind, 125)


@dataclass(frozen=True)
class _Run:
    """One case and its controls, matched with what was planned. ``number`` is the case's place in the kernel."""

    spec: KernelSpec
    observation: Observation
    record: Record
    number: int
    planned: tuple[Phase, ...]
    found: Mapping[int, PhaseRecord]

    @property
    def case(self) -> Phase:
        return self.planned[-1]

    @property
    def experiment(self) -> Experiment:
        return experiment_of(self.case)

    @property
    def weighed(self) -> Phase:
        """The phase whose live batches are the proof: the case, or what stands for it."""
        return next((phase for phase in self.planned if phase.role is Role.PROOF), self.case)

    @property
    def stands_in(self) -> bool:
        """Whether that is not the case."""
        return self.weighed is not self.case

    @functools.cached_property
    def group(self) -> proof.Group | None:
        """The phases that took turns for the proof, None where it was not recorded."""
        together = [
            proof.Weighed(phase, self.found[phase.index])
            for phase in self.planned
            if phase.counts_meetings and phase.experiment == self.weighed.experiment and phase.index in self.found
        ]
        case = next((each for each in together if each.phase is self.weighed), None)
        if case is None:
            return None
        controls = tuple(each for each in together if each.phase.role is Role.POWER)
        return proof.Group(self.spec, case, controls, tuple(together), self.record.khz)

    @property
    def locked(self) -> bool:
        return self.spec.cases[self.number].lock

    @property
    def case_record(self) -> PhaseRecord | None:
        return self.found.get(self.case.index)

    @property
    def is_last(self) -> bool:
        """Whether the machine was frozen in this case."""
        return self.number == len(self.spec.cases) - 1

    @property
    def told(self) -> Phase:
        """The phase that a verdict counts violations of: the case, or what stands for it where only that has any."""
        only = self.stands_in and not any(self._kinds(self.case).values()) and any(self._kinds(self.weighed).values())
        return self.weighed if only else self.case

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """The case's, or those of what stands for it."""
        return tuple(witness for witness in self.record.witnesses if witness.phase == self.told.index)

    @property
    def violations(self) -> dict[str, int]:
        """The case's, by kind, or those of what stands for it."""
        return self._kinds(self.told)

    def _kinds(self, phase: Phase) -> dict[str, int]:
        """A phase's violations. A log that breaks off before its counters still has its witnesses."""
        record = self.found.get(phase.index)
        if record and record.total:
            return record.violations
        seen = Counter(witness.kind for witness in self.record.witnesses if witness.phase == phase.index)
        return {kind.name.lower(): seen[kind] for kind in ViolationKind}

    @property
    def stopped_after(self) -> int:
        """Where the machine was stopped in the middle of a batch in which a violation had been found: the rounds up to
        the last one, or all operations where those are counted; 0 elsewhere."""
        memory = self.observation.memory
        own = next((phase for phase in memory.phases if phase.index == self.told.index), None) if memory else None
        last = max((witness.round for witness in self.witnesses), default=0)
        if own is None or last <= own.rounds:
            return 0
        return sum(count.puts for count in own.counts) if experiment_of(self.told).walk else last

    @property
    def rounds(self) -> int:
        """How many rounds the phase ran that is told of. A record counts a batch when it has been judged to its end."""
        record = self.found.get(self.told.index)
        return max(record.rounds, self.stopped_after) if record else 0

    @property
    def judged(self) -> int:
        """How many chances of an event there were: live batches where they are counted and nothing was violated."""
        if self.counts_live and not any(self.violations.values()):
            return self.group.case.total if self.group else 0
        record = self.found.get(self.told.index)
        return record.judged if record else 0

    @property
    def counts_live(self) -> bool:
        """Whether the kernel counted live batches."""
        return self.spec.rules != OLD_RULES

    @property
    def chance(self) -> str:
        """What ``judged`` counts."""
        if self.counts_live and not any(self.violations.values()):
            return "live batches"
        return "batches" if experiment_of(self.told).walk else "rounds"

    @property
    def now(self) -> int:
        """The index of the phase whose turn it was last, as far as that is known."""
        return self.record.phase if self.record.phase_index is None else self.record.phase_index

    def of(self, role: Role) -> Iterator[tuple[Phase, PhaseRecord | None]]:
        for phase in self.planned:
            if phase.role is role:
                yield phase, self.found.get(phase.index)

    def closed(self, record: Record) -> bool:
        """Whether this channel's account of the case is whole, whatever became of the cases behind it."""
        return record.complete or (bool(self.spec.suite) and record.closed > self.number)


def judge(spec: KernelSpec, observation: Observation, number: int = -1) -> Verdict:
    """The verdict on one case of ``spec``, by default its last. Pure; the guest's own opinion plays no part."""
    record = observation.best
    if record is None:
        if observation.problems:
            return Verdict(VerdictKind.ERROR, observation.problems[0], notes=observation.problems[1:])
        if observation.crash:
            return Verdict(VerdictKind.CRASH, observation.crash)
        return Verdict(VerdictKind.ERROR, observation.cut or "nothing was seen of the kernel")
    number %= len(spec.cases)
    found = {phase.index: phase for phase in record.phases}
    run = _Run(spec, observation, record, number, phases_of(spec, number), found)
    kind, reason = next(_rules(run))
    return Verdict(
        kind=kind,
        reason=reason,
        rounds=run.rounds,
        violations=run.violations,
        bound=3 / run.judged if kind is VerdictKind.ATOMIC else None,
        judged=run.judged,
        chance=run.chance,
        controls=tuple(_controls(run)),
        witnesses=run.witnesses,
        notes=tuple(_notes(run, kind)),
        cause=_cause(run, kind),
    )


def was_run(spec: KernelSpec, observation: Observation, number: int) -> bool:
    """Whether a case was begun in this boot; what was not can be had in another one."""
    record = observation.best
    first = next(phase for phase in phases_of(spec, number) if phase.case == number)
    return record is not None and record.phase >= first.index


def _rules(run: _Run) -> Iterator[tuple[VerdictKind, str]]:
    """Every rule that matches, in order; the last one always does."""
    for reason in _errors(run):
        yield VerdictKind.ERROR, reason
    yield from _crashes(run)
    case = run.case_record
    place = run.case.target.name
    if case and case.status is PhaseStatus.ABSENT:
        yield VerdictKind.SKIP, f"the machine has no {place}"
    ends = {run.found[phase.index].status for phase in (run.weighed, run.case) if phase.index in run.found}
    if ends & {PhaseStatus.NO_STORAGE, PhaseStatus.UNSTABLE}:
        yield VerdictKind.NO_STORAGE, f"the cells at {place} do not hold what is written to them"
    if not _identified(run):
        yield VerdictKind.INCONCLUSIVE, "the log's first line is missing: it does not say what kernel it is of"
    unit = experiment_of(run.told).unit
    kinds = _kinds(run.violations)
    if kinds:
        rounds = _count(run.rounds, unit) if run.told.index in run.found else f"{unit} that were not counted"
        how = f" ({run.told.experiment})" if run.told is not run.case else ""
        yield VerdictKind.NOT_ATOMIC, f"{kinds} in {rounds} of {run.case.form.name} on {place}{how}"
    if run.case.target.declared == "io" and _path(run) == "ram":
        yield VerdictKind.RAM_BACKED, f"{place} is ordinary memory here: nothing was learnt about memory-mapped I/O"
    for reason in _doubts(run):
        yield VerdictKind.INCONCLUSIVE, reason
    if not run.counts_live:
        yield VerdictKind.INCONCLUSIVE, OLD_PROOF
    also = f", nor in {_count(run.judged, 'live batches')}"
    if run.stands_in:
        also += f" of its {run.weighed.experiment}"
    yield VerdictKind.ATOMIC, f"no violation in {_count(run.rounds, unit)}{also}"


def _kinds(violations: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in violations.items() if count)


def _identified(run: _Run) -> bool:
    """Whether what was seen is known to be of this case. Memory was held against the ELF when it was read; a log says
    so in its first line and, if that is lost, in those behind it that hold the whole request."""
    record = run.record
    told = bool(record.digest) or (not record.complete and record.spec == _canonical(run.spec)[1])
    return run.observation.memory is not None or told


@functools.lru_cache(maxsize=16)
def _canonical(spec: KernelSpec) -> tuple[str, str]:
    """Digest and text of a request, made once for the hundreds of cases that it may be of."""
    return spec.digest(), spec.to_text()


def _errors(run: _Run) -> Iterator[str]:
    yield from run.observation.problems
    serial, memory = run.observation.serial, run.observation.memory
    if serial and memory:
        for difference in run.observation.differences:
            yield f"the two channels disagree: {difference}"
    if serial and serial.contradiction:
        yield f"the serial record contradicts itself: {serial.contradiction}"
    digest, text = _canonical(run.spec)
    if serial and serial.digest and (serial.digest, serial.case) != (digest, run.spec.name):
        yield f"the log is of another kernel ({serial.case}, digest {serial.digest[:12]})"
    if serial and serial.complete and serial.spec != text:
        yield "the log does not hold the request that this kernel was built for"
    if run.record.state is KernelState.TOO_FEW_CPUS:
        yield _too_few(run.record.cpus_found, run.spec.case.cpus, serial.said if serial else "")
    stuck = {phase.index for phase in run.record.phases if phase.status is PhaseStatus.NOT_PARKED}
    mine = {phase.index for phase in run.planned}
    if stuck & mine or (run.record.state is KernelState.NOT_PARKED and not run.spec.suite):
        yield "a CPU did not finish its batch in time: nothing can be said about its token"
    for phase in run.planned:
        if phase.index in run.found and run.found[phase.index].status is PhaseStatus.UNSOUND:
            yield (
                f"phase {phase.index} is unsound: LOCK XADD on RAM is not atomic here (it gave a ticket twice or not "
                "at all), or what its CPUs were told to do was changed while it ran"
            )
    for phase, record in run.of(Role.SANITY):
        if record and record.total:
            times = _count(record.total, "time")
            yield f"the sanity control {phase.label} was violated {times}: the experiment is unsound here"
    yield from _contradictions(run)


def _too_few(found: int, wanted: int, said: str) -> str:
    """That CPUs are missing, with the reason that the guest gives behind the counts (protocol.SENTENCES)."""
    why = said.partition(" CPUs started: ")[2]
    return f"only {_count(found, 'CPU')} started and the case needs {wanted}" + (f": {why}" if why else "")


def _count(number: int, what: str) -> str:
    """A number of things: 1 CPU, 2 CPUs. The units of experiments come in the plural, and lose it here."""
    what = what.removesuffix("s")
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _contradictions(run: _Run) -> Iterator[str]:
    """Where what was seen contradicts itself or the plan."""
    for channel in (run.observation.serial, run.observation.memory):
        if channel is None:
            continue
        for phase in run.planned:
            for record in channel.phases:
                if record.index == phase.index:
                    yield from (f"phase {phase.index} {text}" for text in _inconsistencies(phase, record, channel, run))
                    yield from (f"phase {phase.index} {text}" for text in _witnessed(phase, record, channel, run))
                    yield from (f"phase {phase.index} {text}" for text in consistency.told(record, channel))
        if channel.complete:
            yield from _whole(channel, run)
    yield from consistency.handshake(run.spec, run.observation, {phase.index for phase in run.planned})
    if run.observation.memory and run.observation.memory.complete:
        yield from _unparked(run.observation.memory, run.spec.case.cpus)
    tabled = run.experiment.name == "token" and not run.spec.suite
    if run.observation.serial and run.observation.serial.complete and tabled:
        yield from _rows(run.observation, run.case)


def _inconsistencies(phase: Phase, record: PhaseRecord, channel: Record, run: _Run) -> Iterator[str]:
    """Counters that contradict each other or the plan."""
    if record.role is not None and (record.role is not phase.role or record.cells != phase.cells):
        yield f"ran as {record.role.name} with {record.cells} cells, planned was {phase.role.name} with {phase.cells}"
    if record.decode is not Decode.UNKNOWN and not phase.target.vga:
        yield f"was probed as {record.decode.name}, and there is no probe for {phase.target.name}"
    planned = consistency.planned_address(phase, run.observation.symbols)
    if record.role is not None and not (phase.target.symbol and channel.abridged):
        if planned is None and phase.target.symbol and record.address < LOAD_ADDRESS:
            yield f"ran at {record.address:#x}, which is not in the kernel's memory"
        if planned is not None and record.address != planned and record.status is not PhaseStatus.ABSENT:
            yield f"ran at {record.address:#x}, planned was {planned:#x}"
    if record.limit is not None and (record.label, record.limit) != (phase.label, phase.rounds):
        yield f"is announced as {record.label} of {record.limit} rounds, planned was {phase.label} of {phase.rounds}"
    if record.status not in _ACCOUNTED:
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
    # without live batches an abridged record does not say what else ended a control
    untold = channel.abridged and phase.counts_meetings and not record.live and phase.role is Role.POWER
    if record.status is PhaseStatus.DONE and not untold and _short(phase, record):
        yield f"says it is done after {record.rounds} of {phase.rounds} rounds"
    if phase.rounds and record.rounds > phase.rounds and not phase.adaptive and not experiment.walk:
        yield f"ran {record.rounds} rounds where {phase.rounds} were planned"


def _witnessed(phase: Phase, record: PhaseRecord, channel: Record, run: _Run) -> Iterator[str]:
    """Whether the first violations of each kind have their witnesses."""
    if not run.closed(channel) or channel.abridged:
        return
    if record.status not in _ACCOUNTED and record.status is not PhaseStatus.UNSTABLE:
        return
    recorded = Counter(witness.kind for witness in channel.witnesses if witness.phase == phase.index)
    if not recorded and not record.total:
        return
    most = layout_of(run.spec).witnesses
    counts = {kind: min(record.violations[kind.name.lower()], most) for kind in ViolationKind}
    # In a walk not everything is described: what several CPUs see at once, and one cell shows of many updates.
    walk = experiment_of(phase).walk
    fits = all(recorded[kind] == count or (walk and recorded[kind] < count) for kind, count in counts.items())
    if not fits or bool(recorded) != bool(record.total):
        yield "has witnesses that do not fit its counters"


def _whole(record: Record, run: _Run) -> Iterator[str]:
    """What only a record that reaches its end must satisfy."""
    cpus = run.spec.case.cpus
    if record.cpus_needed != cpus:
        yield f"the kernel is for {record.cpus_needed} CPUs, the case for {cpus}"
    if record.state in _ENDED and record.cpus_found < cpus:
        yield _too_few(record.cpus_found, cpus, record.said)
    if [phase.index for phase in record.phases] != list(range(len(record.phases))):
        yield "the phases are not in order"
    planned = len(phases(run.spec))
    if len(record.phases) > planned or record.planned != planned:
        yield f"{record.planned} phases in the kernel and {len(record.phases)} run, {planned} were planned"
    # a phase that a fault broke off has its witnesses, and no result
    if any(witness.phase > record.phase for witness in record.witnesses):
        yield "a witness is of a phase that was not run"
    if run.spec.suite and record.state is KernelState.FINISHED and record.closed != len(run.spec.cases):
        yield f"the kernel has finished, and {record.closed} of {len(run.spec.cases)} cases are closed"


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
    if serial is not None and serial.abridged:
        if record and observation.rows:
            # the account of the token experiment, as far as totals go
            twice = record.lost + record.left - record.foreign - observation.rows[-1][3]
            if observation.rows[-1][0] != record.rounds or not 0 <= twice <= record.duplicate:
                yield f"the totals {observation.rows[-1][:3]} do not fit {record.rounds} rounds and their violations"
        return
    if record is None or record.status not in _ACCOUNTED or not record.counts:
        return
    expected = record.row[:3]
    if not observation.rows or observation.rows[-1][:3] != expected:
        yield f"the table does not end with the case's counters {expected}"


def _short(phase: Phase, record: PhaseRecord) -> bool:
    """Whether a phase that says it is done ran too few rounds. One may end once it has been violated enough; one that
    goes on until its proof is reached has no number of rounds."""
    if phase.counts_meetings:
        if phase.role is Role.POWER and not record.live:
            # the lines that would say so are lost
            return False
        struck = [live.violated for live in record.live] if phase.role is Role.POWER else [record.events]
        return record.rounds < phase.rounds and not (phase.enough and min(struck) >= phase.enough)
    grows = phase.adaptive and phase.role is Role.POWER
    short = not phase.rounds or grows or record.rounds < phase.rounds
    return short and not (phase.enough and record.events >= phase.enough)


def _crashes(run: _Run) -> Iterator[tuple[VerdictKind, str]]:
    # what came behind a case that had ended is another one's
    survived = run.record.closed > run.number and not run.is_last
    mine = {phase.index for phase in run.planned if phase.case == run.number}
    if run.spec.suite and run.record.phase < min(mine):
        yield (
            VerdictKind.INCONCLUSIVE,
            f"it was not begun: {run.observation.crash or run.observation.cut or 'the run ended'}",
        )
    if run.observation.crash and not survived:
        # Only the form under test says something about itself.
        if run.observation.crash.startswith(EMULATION_FAILURE) and run.now in (run.case.index, run.weighed.index):
            yield VerdictKind.UNSUPPORTED, f"{run.case.form.name} could not be carried out: {run.observation.crash}"
        yield VerdictKind.CRASH, run.observation.crash
    for fault in run.record.faults:
        if fault.phase is None and not survived:
            yield VerdictKind.CRASH, f"the guest faulted: {_place(fault)}"
        if fault.phase in (run.case.index, run.weighed.index):
            if fault.vector in REFUSALS:
                raised = f"{run.case.form.name} raised {REFUSALS[fault.vector]} ({_place(fault)})"
                yield VerdictKind.UNSUPPORTED, raised
            yield VerdictKind.CRASH, f"the guest faulted: {_place(fault)}"
    if run.record.state is KernelState.FAULTED and not survived:
        # a kernel that faulted has ended, but not as it should
        told = [fault for fault in run.record.faults if fault.phase is None]
        yield (
            VerdictKind.CRASH,
            (f"the guest faulted: {_place(told[0])}" if told else "the guest says that it faulted, and not where"),
        )


def _place(fault: FaultRecord) -> str:
    return f"CPU {fault.cpu}, vector {fault.vector} at {fault.eip:#010x}, error code {fault.error:#x}"


def _path(run: _Run) -> str:
    """What the cells are: "io", "ram", or "unknown". QEMU's own word where there is a QEMU to ask, else the guest's
    probe of VGA. A doubtful answer of QEMU's stays a doubt, and so does a guest that saw RAM where QEMU sees i/o."""
    case = run.case_record
    decode = case.decode if case else Decode.UNKNOWN
    evidence = _evidence(run)
    if evidence != NOT_ASKED:
        kind = evidence.kind
        return kind if kind == "ram" or (kind == "io" and decode is not Decode.RAM) else "unknown"
    if run.case.target.declared == "ram":
        return "ram"
    return {Decode.IO: "io", Decode.RAM: "ram"}.get(decode, "unknown")


def _evidence(run: _Run) -> PathEvidence:
    """QEMU's word on the case's cells."""
    return run.observation.path if run.is_last else run.observation.paths.get(run.case.index, NOT_ASKED)


def _doubts(run: _Run) -> Iterator[str]:
    """Why a clean case is still no proof."""
    yield from _missing(run)
    case = run.case_record
    ended = run.record.state in _ENDED or (bool(run.spec.suite) and run.closed(run.record))
    if case is None or not case.rounds or case.status not in _ACCOUNTED or not ended:
        yield "the case was not run to its end"
        return
    for count in case.counts:
        # a producer only puts, and a consumer only tries
        did = count.puts if run.experiment.walk or not count.cpu else count.tries
        if not did:
            yield f"CPU {count.cpu} never tried: the cells were not contended for as planned"
    if not run.case.aligned and run.case.experiment == "torn":
        yield (
            f"the manual does not promise that a misaligned access is whole: {case.foreign} of {case.rounds} loads "
            "were put together from two stores, which is a fact, no violation"
        )
    if run.is_last and not run.experiment.walk and any(run.observation.cells):
        yield f"the cells at {run.case.target.name} are not as the guest left them: something was written after its end"
    if _path(run) != run.case.target.declared:
        yield f"what lies at {run.case.target.name} could not be attested"
    if not any(phase.role is Role.POWER for phase in run.planned):
        yield "no controls were run"
    for phase, record in run.of(Role.SANITY):
        if record is None or record.status not in _CAME_OUT or not record.rounds:
            yield f"the sanity control {phase.label} did not run to its end"
    for phase, record in run.of(Role.POWER):
        if record is None or record.status not in _CAME_OUT:
            yield f"the power control {phase.label} did not run to its end"
        elif record.decode is not case.decode:
            yield f"the power control {phase.label} did not run on what the case ran on"
    yield from _unproven(run) if run.counts_live else _silent(run)


def _unproven(run: _Run) -> Iterator[str]:
    """Why the live batches are no proof."""
    weighed = run.found.get(run.weighed.index)
    if not run.weighed.counts_meetings:
        yield f"{run.experiment.name} alone is no proof, and no experiment that is one takes {run.case.form.name}"
    elif run.group is None or weighed is None or weighed.status not in _ACCOUNTED or not weighed.rounds:
        yield f"{run.weighed.label}, which the verdict rests on, was not run to its end"
    else:
        idle = [count.cpu for count in weighed.counts if not count.puts]
        if idle:
            yield f"CPU {idle[0]} never tried in {run.weighed.label}"
        yield from proof.lacks(run.group, in_turn=bool(run.observation.environment.get("in_turn")))


def _silent(run: _Run) -> Iterator[str]:
    """What the rules of older kernels held against a clean case."""
    for phase, record in run.of(Role.POWER):
        if record and _power(run, phase, record) < POWER_MINIMUM:
            yield (
                f"the power control {phase.label} showed only {_count(record.events, 'event')} in "
                f"{_count(record.rounds, run.experiment.unit)}{_weighed(run, phase, record)}; {POWER_MINIMUM} are "
                f"needed: a defect might not have shown either"
            )


def _weighed(run: _Run, phase: Phase, record: PhaseRecord) -> str:
    """What a control's events count for in the case's N, where that is less than there were."""
    power = _power(run, phase, record)
    if power == record.events:
        return ""
    return f", as much as {power:.3g} in the case's {run.rounds}"


def _missing(run: _Run) -> Iterator[str]:
    """What is missing of the two channels."""
    serial, memory = run.observation.serial, run.observation.memory
    if run.observation.cut and memory and not run.closed(memory):
        yield f"the run did not come to its end: {run.observation.cut}"
    if serial is None:
        yield "there is no serial record to hold against the debugger's"
    elif not run.closed(serial):
        yield f"the serial record is incomplete: {serial.gap or 'its closing line is missing'}"
    if memory is None and run.observation.platform not in WITHOUT_MEMORY:
        yield "the debugger read no record to hold against the serial one"
    if memory and not run.closed(memory):
        yield f"the run did not come to its end: {memory.gap}"


def _power(run: _Run, phase: Phase, record: PhaseRecord) -> float:
    """How often a control showed what tells, at the case's N: never more than was seen, less where the case ran less.
    What one event does to many updates counts once."""
    # Where an access is split anyway, what was put together from two of them tells as well.
    telling = {*run.experiment.telling, *(() if phase.aligned else ("torn",))}
    total = min(record.events, sum(record.violations[kind] for kind in telling))
    return total * min(1.0, run.judged / record.judged) if record.judged else 0.0


def _controls(run: _Run) -> Iterator[ControlResult]:
    for role in (Role.SANITY, Role.POWER):
        for phase, record in run.of(role):
            if record is None:
                continue
            ended = record.status in _CAME_OUT
            good = record.total == 0 if role is Role.SANITY else _shows(run, phase, record)
            counts = role is Role.POWER and bool(record.live)
            power = proof.power(proof.Weighed(phase, record)) if counts else ""
            yield ControlResult(
                phase.label,
                role.name.lower(),
                record.rounds,
                record.violations,
                ended and good,
                ended,
                power,
                experiment_of(phase).unit,
            )


def _shows(run: _Run, phase: Phase, record: PhaseRecord) -> bool:
    """Whether a power control says something about the case."""
    if not phase.counts_meetings:
        return _power(run, phase, record) >= POWER_MINIMUM
    if run.record.abridged and not record.live:
        # they are left out where a violation decides
        return record.total >= POWER_MINIMUM
    silent = {control.phase for control in run.group.silent} if run.group else set()
    return phase in silent or all(needed(live) is not None for live in record.live)


def _shown_by_each(run: _Run, kind: str) -> bool:
    """Whether each power control showed this kind often enough by itself."""
    return all(record and record.violations[kind] >= POWER_MINIMUM for _, record in run.of(Role.POWER))


def _little_power(weak: Sequence[str], experiment: str) -> str:
    """That one kind of defect might have gone unnoticed, for who reads it the first time."""
    does = {"lost": "loses updates", "duplicate": "gives one value to two CPUs"}
    if experiment == "token":
        does = {"lost": "loses tokens", "duplicate": "duplicates tokens"}
    elif experiment == "mutex":
        does["duplicate"] = "lets two CPUs hold one lock"
    what = " or ".join(does[kind] for kind in weak)
    return (
        f"a defect that only {what} might have been missed: not every power control showed {POWER_MINIMUM} violations "
        f"of {'that kind' if len(weak) == 1 else 'each kind'}"
    )


def _cause(run: _Run, kind: VerdictKind) -> str:
    """The hypervisor's own word for what it did."""
    if kind is not VerdictKind.NOT_ATOMIC or not run.locked:
        return ""
    line = next((line for line in run.observation.kernel_log or () if CONFESSION in line), "")
    return f"KVM carried the LOCKed exchange out as a plain write; its kernel logged: {line}" if line else ""


def _notes(run: _Run, kind: VerdictKind) -> Iterator[str]:
    if run.record.abridged:
        yield "it rests on a result code: the guest's own account of itself, without witnesses, copied by hand"
    if run.observation.kernel_log is not None and kind is VerdictKind.NOT_ATOMIC and not _cause(run, kind):
        yield f"the hypervisor's kernel did not log '{CONFESSION}': nothing names the cause"
    if kind is VerdictKind.INCONCLUSIVE and not run.counts_live:
        yield OLD_KERNEL
    if run.observation.cut:
        yield run.observation.cut
    if run.observation.scene:
        yield (
            "the run was stopped at its first violation (--stop-on-violation): N counts up to it, and the log has no "
            "closing line"
        )
    reached = [record for _, record in run.of(Role.POWER) if record]
    shown = {kind for record in reached for kind, count in record.violations.items() if count}
    if shown:
        yield f"the power controls showed: {', '.join(sorted(shown))}"
    possible = [kind for kind in ("lost", "duplicate") if kind in run.experiment.kinds]
    weak = [kind for kind in possible if not _shown_by_each(run, kind)]
    clean = kind in (VerdictKind.ATOMIC, VerdictKind.INCONCLUSIVE)
    if clean and weak and any(record.rounds for record in reached):
        yield _little_power(weak, run.experiment.name)
    if run.group is not None:
        yield from proof.findings(run.group)
        also = run.group.case.record
        if run.stands_in and run.told is run.case and also.total:
            yield (
                f"in the same boot {run.weighed.experiment} had {_kinds(also.violations)} in "
                f"{_count(also.rounds, experiment_of(run.weighed).unit)}"
            )
    if run.case.target.vga and run.case_record:
        guest = run.case_record.decode
        kind_seen = _evidence(run).kind
        if kind_seen in ("io", "ram") and guest is not Decode.UNKNOWN:
            agree = guest.name.lower() == kind_seen
            yield f"the guest's own probe {'agrees' if agree else 'disagrees'}: VGA decoding gives {guest.name.lower()}"
