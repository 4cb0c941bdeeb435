"""Lines of text for ``kgen status``, ``cpus`` and ``witnesses``: where the machine is in the experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kgen.evidence.records import PhaseRecord
from kgen.gdbside import cells
from kgen.gdbside.places import place, sentence
from kgen.gdbside.snapshot import Snapshot
from kgen.inspection.operations import style_words, walkers
from kgen.kernel.plan import Phase, experiment_of
from kgen.kernel.protocol import TABLE_HEADER
from kgen.kernel.results_block import KernelState, PhaseStatus, Role
from kgen.report.text.case import describe
from kgen.report.text.case import summary as violations_in_words
from kgen.wording import plural

_ROLES = {
    Role.SANITY: "the sanity control, the same instruction on RAM, which must never be violated",
    Role.POWER: "a power control, the same without LOCK, which must be violated",
    Role.PROOF: "the proof, a stronger experiment that the verdict on the case rests on as well",
    Role.CASE: "the case itself",
}
_STATES = {
    KernelState.BOOTING: "the kernel boots",
    KernelState.STARTING_CPUS: "the kernel starts the other CPUs",
    KernelState.FINISHED: "the run is over",
    KernelState.STOPPED: "the run was stopped, and the kernel rests",
    KernelState.TOO_FEW_CPUS: "the run is over: there were too few CPUs",
    KernelState.FAULTED: "the run is over: a CPU met an exception",
    KernelState.NOT_PARKED: "the run is over: a CPU did not finish a batch",
}


def status(snapshot: Snapshot) -> Iterator[str]:
    """Yield a summary of the machine."""
    spec, record = snapshot.image.spec, snapshot.record
    yield f"{spec.name}: {plural(spec.case.cpus, 'CPU')}, build {record.build_id[:12]}"
    state = KernelState(snapshot.block.state.value)
    if state in _STATES:
        yield f"  {_STATES[state]}"
    phase, entry = snapshot.phase, snapshot.phase_record
    if phase is None or entry is None:
        found = f"{record.cpus_found} of {plural(spec.case.cpus, 'CPU')} found"
        yield f"  no phase has begun; {found}"
        return
    yield f"  phase {phase.index + 1} of {len(snapshot.planned)}, {phase.label}: {_ROLES[phase.role]}"
    yield f"  {_progress(snapshot, phase, entry)}"
    yield f"  {_violations(phase, entry)}"
    in_turn = [other for other in record.phases if other.index != phase.index and _takes_turns(snapshot, other, phase)]
    before = [other for other in record.phases if other.index < phase.index and other not in in_turn]
    yield from _others(snapshot, "in turn with it", in_turn)
    yield from _others(snapshot, "before it", before)
    if experiment_of(phase).tabled:
        yield TABLE_HEADER
        yield row(snapshot)
        hand = snapshot.block.handshake
        if hand.filled < hand.cells and not snapshot.is_over:
            yield f"  (of this batch {hand.filled} tokens are put; CPU 0 adds them to count0 when all are)"
        elif _accounts(snapshot, entry):
            yield (
                f"  (CPU 0 accounts for batch {hand.batch} one cell after the other: more of what the last column "
                "shows is still to be recorded)"
            )
    if not snapshot.is_over:
        yield cells.line(snapshot, cells.interesting(snapshot))
    yield from cpu_lines(snapshot)
    hint = _next(snapshot, phase, entry)
    if hint:
        yield hint


def _takes_turns(snapshot: Snapshot, other: PhaseRecord, phase: Phase) -> bool:
    return snapshot.planned[other.index].group == phase.group


def _others(snapshot: Snapshot, title: str, others: Sequence[PhaseRecord]) -> Iterator[str]:
    """Yield the results of other phases so far."""
    if others:
        yield f"  {title}:"
    for other in others:
        planned = snapshot.planned[other.index]
        seen = violations_in_words(other.violations)
        yield f"    {planned.label}: {seen} in {other.rounds} {experiment_of(planned).units}"


def row(snapshot: Snapshot) -> str:
    """Return the counters in the original program's form."""
    puts, first, rest = _counts(snapshot)
    return f"counts:\t{puts}\t{first}\t{rest}\t{puts - first - rest}"


def _counts(snapshot: Snapshot) -> tuple[int, int, int]:
    """Return what CPU 0 has put, what CPU 1 has taken, and what the others have."""
    counts = snapshot.block.cpu
    return counts[0].puts, counts[1].takes, sum(counts[cpu].takes for cpu in range(2, snapshot.cpus))


def _accounts(snapshot: Snapshot, entry: PhaseRecord) -> bool:
    """Return whether a batch is over whose violations are not all recorded: the counters already have all of it."""
    if snapshot.is_over or snapshot.unacknowledged or entry.status is not PhaseStatus.RUNNING:
        return False
    if entry.torn or entry.stale or entry.left or entry.foreign:  # the counters do not show how many there must be
        return False
    puts, first, rest = _counts(snapshot)
    return bool(puts - first - rest != entry.lost - entry.duplicate)


def cpu_lines(snapshot: Snapshot, where: bool = False) -> Iterator[str]:
    """Yield a sentence for each CPU of the case; with ``where``, the routine it is in as well."""
    for cpu in range(snapshot.cpus):
        entry = snapshot.registers_of.get(cpu)
        at = f"; at {place(snapshot, entry)}" if where and entry is not None else ""
        yield f"CPU {cpu}{_part(snapshot, cpu)} {sentence(snapshot, cpu)}{at}"


def witness_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield all witnesses by phase, the newest last, and the number of violations that were counted only."""
    record = snapshot.record
    if not record.witnesses:
        yield "no violation has been recorded"
        return
    for phase in record.phases:
        planned = snapshot.planned[phase.index]
        mine = [entry for entry in record.witnesses if entry.phase == phase.index]
        if not mine:
            continue
        more = phase.total - len(mine)
        counted = f"; {more} more {'was' if more == 1 else 'were'} only counted" if more > 0 else ""
        yield f"{planned.label}, {_ROLES[planned.role]}{counted}:"
        for entry in mine:
            mark = "      <- its batch is still in memory as it was" if snapshot.in_place(entry) else ""
            yield f"  #{entry.index} {describe(entry, planned.experiment)}{mark}"


def _part(snapshot: Snapshot, cpu: int) -> str:
    if snapshot.phase is None or not experiment_of(snapshot.phase).tabled:
        return ""
    return " (producer)" if cpu == 0 else " (consumer)"


def _progress(snapshot: Snapshot, phase: Phase, entry: PhaseRecord) -> str:
    unit = experiment_of(phase).units
    limit = f" of {phase.rounds}" if phase.rounds else ""
    status = entry.status.name.lower().replace("_", " ")
    hand = snapshot.block.handshake
    # a batch counts when all of it has been judged
    batch = ""
    if entry.status is PhaseStatus.RUNNING:
        how = ""
        if phase.counts_meetings and hand.batch:
            cpus = plural(len(walkers(snapshot.block, snapshot.cpus)), "CPU")
            how = f", for {cpus}, {style_words(snapshot.block)}"
        batch = f"; batch {hand.batch} has {plural(hand.cells, 'cell')}{how}"
    return f"{status}: {entry.rounds}{limit} {unit} judged{batch}"


def _violations(phase: Phase, entry: PhaseRecord) -> str:
    if not entry.total:
        return "no violation so far"
    expected = " (as it must be)" if phase.role is Role.POWER else ""
    return f"VIOLATED{expected}: {violations_in_words(entry.violations)} so far"


def _next(snapshot: Snapshot, phase: Phase, entry: PhaseRecord) -> str:
    explained = experiment_of(phase).tabled or experiment_of(phase).logs
    if (entry.lost or entry.duplicate) and entry.role is not Role.POWER and explained:
        return "'kgen freeze-proof' explains why that is a proof, 'kgen witnesses' lists what was recorded"
    if entry.total:
        return "'kgen witnesses' lists what was recorded"
    return "" if snapshot.is_over else "'kgen until-violation' runs on to the next violation of the case"
