"""One pure function from an observation to a verdict. The rules are tried in order, and the first that matches
decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kgen.evidence.observation import WITHOUT_MEMORY, Observation
from kgen.evidence.records import PhaseRecord
from kgen.kernel.live import needed
from kgen.kernel.plan import Phase, experiment_of, phases_of
from kgen.kernel.results_block import KernelState, PhaseStatus, Role
from kgen.spec import KernelSpec
from kgen.verdict import proof
from kgen.verdict.case_run import (
    ACCOUNTED,
    CAME_OUT,
    ENDED,
    Run,
    canonical,
    path,
    place_of,
    too_few,
    violated_kinds,
)
from kgen.verdict.consistency import contradictions
from kgen.verdict.model import OLD_PROOF, POWER_MINIMUM, ControlResult, Verdict, VerdictKind
from kgen.verdict.notes import cause, notes
from kgen.wording import plural

#: Exceptions by which a processor refuses the instruction by design: #UD, #GP, #AC.
REFUSALS: Mapping[int, str] = {6: "#UD", 13: "#GP", 17: "#AC"}


def judge(spec: KernelSpec, observation: Observation, number: int = -1) -> Verdict:
    """Return the verdict on one case of ``spec``, by default its last. Pure; the guest's own verdict is not used."""
    record = observation.best
    if record is None:
        if observation.problems:
            return Verdict(VerdictKind.ERROR, observation.problems[0], notes=observation.problems[1:])
        if observation.crash:
            return Verdict(VerdictKind.CRASH, observation.crash)
        return Verdict(VerdictKind.ERROR, observation.cut or "nothing was seen of the kernel")
    number %= len(spec.cases)
    found = {phase.index: phase for phase in record.phases}
    run = Run(spec, observation, record, number, phases_of(spec, number), found)
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
        notes=tuple(notes(run, kind)),
        cause=cause(run, kind),
    )


def _rules(run: Run) -> Iterator[tuple[VerdictKind, str]]:
    """Yield the verdict of every rule that matches, in order. The last one always matches."""
    for reason in _errors(run):
        yield VerdictKind.ERROR, reason
    yield from _crashes(run)
    case = run.case_record
    place = run.case.target.name
    if case and case.status is PhaseStatus.ABSENT:
        yield VerdictKind.SKIP, f"the machine has no {place} {run.case.target.sought}".rstrip()
    ends = {run.found[phase.index].status for phase in (run.weighed, run.case) if phase.index in run.found}
    if ends & {PhaseStatus.NO_STORAGE, PhaseStatus.UNSTABLE}:
        yield VerdictKind.NO_STORAGE, f"the cells at {place} do not hold what is written to them"
    if not _identified(run):
        yield VerdictKind.INCONCLUSIVE, "the log's first line is missing: it does not say what kernel it is of"
    experiment = experiment_of(run.told)
    kinds = violated_kinds(run.violations)
    if kinds:
        rounds = (
            plural(run.rounds, experiment.unit)
            if run.told.index in run.found
            else f"{experiment.units} that were not counted"
        )
        how = f" ({run.told.experiment})" if run.told is not run.case else ""
        yield VerdictKind.NOT_ATOMIC, f"{kinds} in {rounds} of {run.case.form.name} on {place}{how}"
    if run.case.target.declared == "io" and path(run) == "ram":
        yield VerdictKind.RAM_BACKED, f"{place} is ordinary memory here: nothing was learnt about memory-mapped I/O"
    for reason in _doubts(run):
        yield VerdictKind.INCONCLUSIVE, reason
    if not run.counts_live:
        yield VerdictKind.INCONCLUSIVE, OLD_PROOF
    also = f", nor in {plural(run.judged, 'live batch')}"
    if run.stands_in:
        also += f" of its {run.weighed.experiment}"
    yield VerdictKind.ATOMIC, f"no violation in {plural(run.rounds, experiment.unit)}{also}"


def _identified(run: Run) -> bool:
    """Return whether the observation is known to be of this case.

    Memory was compared with the ELF when it was read. A log identifies its kernel in its first line. Where that line is
    lost, the lines after it identify the kernel if they hold the complete request.
    """
    record = run.record
    told = bool(record.digest) or (not record.complete and record.spec == canonical(run.spec)[1])
    return run.observation.memory is not None or told


def _errors(run: Run) -> Iterator[str]:
    yield from run.observation.problems
    serial, memory = run.observation.serial, run.observation.memory
    if serial and memory:
        for difference in run.observation.differences:
            yield f"the two channels disagree: {difference}"
    if serial and serial.contradiction:
        yield f"the serial record contradicts itself: {serial.contradiction}"
    digest, text = canonical(run.spec)
    if serial and serial.digest and (serial.digest, serial.case) != (digest, run.spec.name):
        yield f"the log is of another kernel ({serial.case}, digest {serial.digest[:12]})"
    if serial and serial.complete and serial.spec != text:
        yield "the log does not hold the request that this kernel was built for"
    if run.record.state is KernelState.TOO_FEW_CPUS:
        yield too_few(run.record.cpus_found, run.spec.case.cpus, serial.said if serial else "")
    stuck = {phase.index for phase in run.record.phases if phase.status is PhaseStatus.NOT_PARKED}
    mine = {phase.index for phase in run.planned}
    if stuck & mine or (run.record.state is KernelState.NOT_PARKED and not run.spec.suite):
        yield "a CPU did not finish its batch in time: nothing can be said about its token"
    for phase in run.planned:
        if phase.index in run.found and run.found[phase.index].status is PhaseStatus.UNSOUND:
            yield (
                f"phase {phase.index} is unsound: LOCK XADD on RAM is not atomic here (it returned a ticket twice or "
                "not at all), or the task of its CPUs was changed while it ran"
            )
    for phase, record in run.of(Role.SANITY):
        if record and record.total:
            times = plural(record.total, "time")
            yield f"the sanity control {phase.label} was violated {times}: the experiment is unsound here"
    yield from contradictions(run)


def _crashes(run: Run) -> Iterator[tuple[VerdictKind, str]]:
    # what happened after the case had ended belongs to another case
    survived = run.record.closed > run.number and not run.is_last
    mine = {phase.index for phase in run.planned if phase.case == run.number}
    if run.spec.suite and run.record.phase < min(mine):
        yield (
            VerdictKind.INCONCLUSIVE,
            f"it was not begun: {run.observation.crash or run.observation.cut or 'the run ended'}",
        )
    if run.observation.crash and not survived:
        # The crash says something about the form only where the form was under test at that moment.
        if run.observation.could_not_emulate and run.now in (run.case.index, run.weighed.index):
            yield VerdictKind.UNSUPPORTED, f"{run.case.form.name} could not be carried out: {run.observation.crash}"
        yield VerdictKind.CRASH, run.observation.crash
    for fault in run.record.faults:
        if fault.phase is None and not survived:
            yield VerdictKind.CRASH, f"the guest faulted: {place_of(fault)}"
        if fault.phase in (run.case.index, run.weighed.index):
            if fault.vector in REFUSALS:
                raised = f"{run.case.form.name} raised {REFUSALS[fault.vector]} ({place_of(fault)})"
                yield VerdictKind.UNSUPPORTED, raised
            yield VerdictKind.CRASH, f"the guest faulted: {place_of(fault)}"
    if run.record.state is KernelState.FAULTED and not survived:
        # a kernel that faulted has ended too, but not in order
        told = [fault for fault in run.record.faults if fault.phase is None]
        yield (
            VerdictKind.CRASH,
            (f"the guest faulted: {place_of(told[0])}" if told else "the guest says that it faulted, and not where"),
        )


def _doubts(run: Run) -> Iterator[str]:
    """Yield why a case without violations is no proof, one sentence each."""
    yield from _missing(run)
    case = run.case_record
    ended = run.record.state in ENDED or (bool(run.spec.suite) and run.closed(run.record))
    if case is None or not case.rounds or case.status not in ACCOUNTED or not ended:
        yield "the case was not run to its end"
        return
    for count in case.counts:
        # a producer only puts, and a consumer only tries
        did = count.puts if run.experiment.walk or not count.cpu else count.tries
        if not did:
            yield f"CPU {count.cpu} never tried: the cells were not contended for as planned"
    if not run.case.aligned and run.experiment.aligned_only:
        yield (
            f"the manual does not promise that a misaligned access is whole: {case.foreign} of {case.rounds} loads "
            "were put together from two stores, which is a fact, no violation"
        )
    if run.is_last and not run.experiment.walk and any(run.observation.cells):
        yield f"the cells at {run.case.target.name} are not as the guest left them: something was written after its end"
    if path(run) != run.case.target.declared:
        yield f"what lies at {run.case.target.name} could not be attested"
    if not any(phase.role is Role.POWER for phase in run.planned):
        yield "no controls were run"
    for phase, record in run.of(Role.SANITY):
        if record is None or record.status not in CAME_OUT or not record.rounds:
            yield f"the sanity control {phase.label} did not run to its end"
    for phase, record in run.of(Role.POWER):
        if record is None or record.status not in CAME_OUT:
            yield f"the power control {phase.label} did not run to its end"
        elif record.decode is not case.decode:
            yield f"the power control {phase.label} did not run on what the case ran on"
    yield from _unproven(run) if run.counts_live else _silent(run)


def _unproven(run: Run) -> Iterator[str]:
    """Yield why the live batches are no proof, one sentence each."""
    weighed = run.found.get(run.weighed.index)
    if not run.weighed.counts_meetings:
        yield f"{run.experiment.name} alone is no proof, and no experiment that is one takes {run.case.form.name}"
    elif run.group is None or weighed is None or weighed.status not in ACCOUNTED or not weighed.rounds:
        yield f"{run.weighed.label}, which the verdict rests on, was not run to its end"
    else:
        idle = [count.cpu for count in weighed.counts if not count.puts]
        if idle:
            yield f"CPU {idle[0]} never tried in {run.weighed.label}"
        yield from proof.lacks(run.group, in_turn=bool(run.observation.environment.get("in_turn")))


def _silent(run: Run) -> Iterator[str]:
    """Yield why a case without violations is no proof by the rules for older kernels, one sentence each."""
    for phase, record in run.of(Role.POWER):
        if record and _power(run, phase, record) < POWER_MINIMUM:
            yield (
                f"the power control {phase.label} showed only {plural(record.events, 'event')} in "
                f"{plural(record.rounds, run.experiment.unit)}{_weighed(run, phase, record)}; {POWER_MINIMUM} are "
                f"needed: a defect might not have shown either"
            )


def _weighed(run: Run, phase: Phase, record: PhaseRecord) -> str:
    """Return a control's number of events scaled to the case's N, "" where that is all of them."""
    power = _power(run, phase, record)
    if power == record.events:
        return ""
    return f", as much as {power:.3g} in the case's {run.rounds}"


def _missing(run: Run) -> Iterator[str]:
    """Yield what is missing in the two channels, one sentence each."""
    serial, memory = run.observation.serial, run.observation.memory
    if run.observation.cut and memory and not run.closed(memory):
        yield f"the run did not reach its end: {run.observation.cut}"
    if serial is None:
        yield "there is no serial record to compare with the debugger's"
    elif not run.closed(serial):
        yield f"the serial record is incomplete: {serial.gap or 'its closing line is missing'}"
    if memory is None and run.observation.platform not in WITHOUT_MEMORY:
        yield "the debugger read no record to compare with the serial one"
    if memory and not run.closed(memory):
        yield f"the run did not reach its end: {memory.gap}"


def _power(run: Run, phase: Phase, record: PhaseRecord) -> float:
    """Return how often a control showed a violation that counts, scaled to the case's N where the case ran less.

    An event that lost many updates counts once.
    """
    # A misaligned access is split in any case, so a torn value counts there too.
    telling = {*run.experiment.telling, *(() if phase.aligned else ("torn",))}
    total = min(record.events, sum(record.violations[kind] for kind in telling))
    return total * min(1.0, run.judged / record.judged) if record.judged else 0.0


def _controls(run: Run) -> Iterator[ControlResult]:
    for role in (Role.SANITY, Role.POWER):
        for phase, record in run.of(role):
            if record is None:
                continue
            ended = record.status in CAME_OUT
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
                experiment_of(phase).units,
            )


def _shows(run: Run, phase: Phase, record: PhaseRecord) -> bool:
    """Return whether a power control proves that the case's violations would have been seen."""
    if not phase.counts_meetings:
        return _power(run, phase, record) >= POWER_MINIMUM
    if run.record.abridged and not record.live:
        # an abridged record has no live batches where a violation decides
        return record.total >= POWER_MINIMUM
    silent = {control.phase for control in run.group.silent} if run.group else set()
    return phase in silent or all(needed(live) is not None for live in record.live)
