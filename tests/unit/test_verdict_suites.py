"""Verdicts on the cases of a suite, each for itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from _changes import Change, both, chain, fault, memory, phase, say, serial
from recordings import Recording, load

from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import EMULATION_FAILURE, Observation
from kgen.evidence.records import Count, Record
from kgen.kernel.live import Live
from kgen.kernel.plan import POWER_ENOUGH_IN_SUITE, phases_of
from kgen.kernel.results_block import CpuState, Decode, KernelState, PhaseStatus, Role, ViolationKind
from kgen.verdict.case_run import was_run
from kgen.verdict.judge import judge
from kgen.verdict.model import OLD_PROOF, POWER_MINIMUM, VerdictKind

GOOD = load("tcg-suite")
BAD = load("kvm-suite")
SEEN = GOOD.observed()
#: The same of a kernel that counted no live batches.
OLD = load("old-tcg-suite")
OLD_SEEN = OLD.observed()
CASES = range(len(GOOD.spec.cases))
#: The cases of the recorded suites, by what they are of, and the indices of their phases.
XCHG, FRAMEBUFFER, XADD, NOT = CASES
(SANITY_XADD, POWER_XADD, CASE_XADD) = (phase.index for phase in phases_of(GOOD.spec, XADD))
(SANITY_NOT, POWER_NOT, CASE_NOT) = (phase.index for phase in phases_of(GOOD.spec, NOT))
PROOF_XCHG = phases_of(GOOD.spec, XCHG)[-2].index
PLAIN = [VerdictKind.ATOMIC, VerdictKind.RAM_BACKED, VerdictKind.ATOMIC, VerdictKind.ATOMIC]


def kinds(seen: Observation, run: Recording = GOOD) -> list[VerdictKind]:
    return [judge(run.spec, seen, number).kind for number in CASES]


def died_in(index: int, crash: str = "triple fault", status: PhaseStatus = PhaseStatus.RUNNING) -> Change:
    """The machine died in that phase: nothing behind it, no end. ``closed`` are the cases before."""

    def change(record: Record) -> Record:
        kept = record.phases[:index]
        if record.channel == "debugger":
            kept += (replace(record.phases[index], status=status),)
        closed = next(number for number in CASES if index <= phases_of(GOOD.spec, number)[-1].index)
        witnesses = tuple(witness for witness in record.witnesses if witness.phase < index)
        ended = replace(record, state=KernelState.RUNNING, complete=False, gap="it died", phase=index, closed=closed)
        if record.channel == "debugger":
            ended = replace(ended, phase_index=index, handshake=None)
        return replace(ended, phases=kept, witnesses=witnesses)

    return chain(both(change), lambda seen: replace(seen, crash=crash, cells=(), path=NOT_ASKED))


def test_plain() -> None:
    assert kinds(SEEN) == PLAIN
    assert len({judge(GOOD.spec, SEEN, number).reason for number in CASES}) == 4
    for number in CASES:
        labels = [control.label for control in judge(GOOD.spec, SEEN, number).controls]
        controls = [phase for phase in phases_of(GOOD.spec, number) if phase.role in (Role.SANITY, Role.POWER)]
        assert labels == [phase.label for phase in controls]


@pytest.mark.parametrize("crash", ["triple fault", f"{EMULATION_FAILURE} (emulation failure)", "QEMU was killed"])
@pytest.mark.parametrize("index", range(len(SEEN.memory.phases) if SEEN.memory else 0))
def test_a_death_is_the_running_cases_only(index: int, crash: str) -> None:
    """Those before are judged, those behind were not begun."""
    seen = died_in(index, crash)(SEEN)
    running = next(number for number in CASES if index <= phases_of(GOOD.spec, number)[-1].index)
    in_case = index == PROOF_XCHG or index == phases_of(GOOD.spec, running)[-1].index
    refused = in_case and crash.startswith(EMULATION_FAILURE)
    expected = [
        PLAIN[number]
        if number < running
        else (VerdictKind.UNSUPPORTED if refused else VerdictKind.CRASH)
        if number == running
        else VerdictKind.INCONCLUSIVE
        for number in CASES
    ]
    assert kinds(seen) == expected
    assert [was_run(GOOD.spec, seen, number) for number in CASES] == [number <= running for number in CASES]
    if refused:
        reason = judge(GOOD.spec, seen, running).reason
        assert reason == f"{phases_of(GOOD.spec, running)[-1].form.name} could not be carried out: {crash}"
    for number in CASES[running + 1 :]:
        assert judge(GOOD.spec, seen, number).reason == f"it was not begun: {crash}"


@pytest.mark.parametrize("index", range(len(SEEN.memory.phases) if SEEN.memory else 0))
def test_a_log_that_ends_early_is_judged_as_far_as_it_goes(index: int) -> None:
    """The same where the log is all there is; what lies behind the framebuffer nobody knows then."""
    seen = replace(died_in(index, "")(SEEN), memory=None, platform="serial-log", paths={})
    running = next(number for number in CASES if index <= phases_of(GOOD.spec, number)[-1].index)
    alone = [VerdictKind.ATOMIC, VerdictKind.INCONCLUSIVE, VerdictKind.ATOMIC, VerdictKind.ATOMIC]
    assert kinds(seen) == alone[:running] + [VerdictKind.INCONCLUSIVE] * (len(CASES) - running)


def test_a_run_that_was_stopped_has_cases_that_were_not_begun() -> None:
    """An orderly end: both channels are complete."""

    def change(record: Record) -> Record:
        stopped = replace(record, state=KernelState.STOPPED, phases=record.phases[: POWER_XADD + 1], phase=POWER_XADD)
        stopped = say(stopped, POWER_XADD, status=PhaseStatus.STOPPED)
        counts = stopped.phases[-1].counts
        cpus = tuple(
            replace(entry, puts=count.puts, takes=count.takes, tries=count.tries)
            for entry, count in zip(record.cpus, counts, strict=False)
        )
        witnesses = tuple(witness for witness in record.witnesses if witness.phase <= POWER_XADD)
        return replace(stopped, witnesses=witnesses, closed=2, cpus=cpus, phase_index=None, handshake=None)

    seen = replace(both(change)(SEEN), cut="the run was stopped by Ctrl-C", cells=(), path=NOT_ASKED)
    assert kinds(seen) == [VerdictKind.ATOMIC, VerdictKind.RAM_BACKED, *[VerdictKind.INCONCLUSIVE] * 2]
    assert judge(GOOD.spec, seen, XADD).reason == "the case was not run to its end"
    assert judge(GOOD.spec, seen, NOT).reason == "it was not begun: the run was stopped by Ctrl-C"


def test_a_fault_outside_the_experiments_ends_the_run_and_spares_what_is_closed() -> None:
    def change(record: Record) -> Record:
        return replace(record, state=KernelState.FAULTED, complete=True, gap="", faults=(fault(9, 14),))

    seen = chain(died_in(CASE_XADD, ""), both(change))(SEEN)
    assert kinds(seen) == [
        VerdictKind.ATOMIC,
        VerdictKind.RAM_BACKED,
        VerdictKind.CRASH,
        VerdictKind.INCONCLUSIVE,
    ]
    assert "CPU 9, vector 14" in judge(GOOD.spec, seen, XADD).reason
    assert judge(GOOD.spec, seen, NOT).reason == "it was not begun: the run ended"


def test_a_fault_at_the_very_end_is_the_last_cases() -> None:
    """Nothing else can have been its cause."""
    for change in (
        both(lambda record: replace(record, faults=(fault(9, 14),))),
        lambda seen: replace(seen, crash="triple fault"),
    ):
        assert kinds(change(SEEN)) == [*PLAIN[:-1], VerdictKind.CRASH]


@pytest.mark.parametrize(
    ("vector", "kind"), [(6, VerdictKind.UNSUPPORTED), (13, VerdictKind.UNSUPPORTED), (14, VerdictKind.CRASH)]
)
def test_an_exception_in_a_case_is_that_cases_only(vector: int, kind: VerdictKind) -> None:
    def change(record: Record) -> Record:
        return replace(say(record, CASE_XADD, status=PhaseStatus.FAULTED), faults=(fault(1, vector, CASE_XADD),))

    assert kinds(both(change)(SEEN)) == [VerdictKind.ATOMIC, VerdictKind.RAM_BACKED, kind, VerdictKind.ATOMIC]
    # the phases' own exceptions are no fault of the kernel's, and where the last one ends so it finishes all the same
    last = both(lambda r: replace(say(r, CASE_NOT, status=PhaseStatus.FAULTED), faults=(fault(1, vector, CASE_NOT),)))
    assert kinds(last(SEEN)) == [*PLAIN[:-1], kind]


def test_a_machine_without_the_target() -> None:
    index = phases_of(GOOD.spec, FRAMEBUFFER)[-1].index
    nothing = {"rounds": 0, "judged": 0, "lost": 0, "events": 0, "address": 0, "ticks": 0}
    absent = phase(index, status=PhaseStatus.ABSENT, counts=tuple(Count(cpu, 0, 0, 0) for cpu in range(3)), **nothing)
    assert kinds(absent(SEEN)) == [VerdictKind.ATOMIC, VerdictKind.SKIP, VerdictKind.ATOMIC, VerdictKind.ATOMIC]
    assert judge(GOOD.spec, absent(SEEN), FRAMEBUFFER).reason == (
        "the machine has no framebuffer on PCI bus 0, the only one that is searched"
    )


def test_a_cpu_that_did_not_park_is_its_cases_error() -> None:
    stuck = both(lambda record: replace(record, state=KernelState.NOT_PARKED))
    seen = chain(died_in(CASE_XADD, "", PhaseStatus.NOT_PARKED), stuck)(SEEN)
    seen = serial(complete=True, gap="")(memory(complete=True, gap="")(seen))
    seen = serial(phases=SEEN.serial.phases[:CASE_XADD] + seen.memory.phases[-1:])(seen)  # type: ignore[union-attr]
    seen = replace(seen, serial=say(seen.serial, CASE_XADD, label="", limit=None))  # type: ignore[arg-type]
    found = kinds(seen)
    assert found[XADD] is VerdictKind.ERROR
    assert "did not finish its batch" in judge(GOOD.spec, seen, XADD).reason
    assert found[:XADD] == PLAIN[:XADD]
    assert found[NOT] is VerdictKind.INCONCLUSIVE


def struck(record: Record, index: int, **changes: Any) -> Record:
    """One batch of a walk was violated, live or not."""
    free, race = record.phases[index].live
    return say(record, index, live=(replace(free, struck=free.struck + 1), race), events=1, **changes)


def lost(index: int, count: int = 1) -> Change:
    """A walk's phase with losses, and with their witness."""

    def change(record: Record) -> Record:
        assert SEEN.memory is not None
        witness = replace(SEEN.memory.witnesses[0], index=99, phase=index, kind=ViolationKind.LOST)
        return replace(struck(record, index, lost=count), witnesses=(*record.witnesses, witness))

    return both(change)


def test_a_sanity_control_that_fails_is_the_error_of_what_rests_on_it() -> None:
    found = kinds(lost(SANITY_XADD)(SEEN))
    assert found == [VerdictKind.ATOMIC, VerdictKind.RAM_BACKED, VerdictKind.ERROR, VerdictKind.ATOMIC]


def test_a_violation_is_its_cases_only() -> None:
    assert kinds(lost(CASE_XADD, 70)(SEEN)) == [
        VerdictKind.ATOMIC,
        VerdictKind.RAM_BACKED,
        VerdictKind.NOT_ATOMIC,
        VerdictKind.ATOMIC,
    ]
    verdict = judge(GOOD.spec, lost(CASE_XADD, 70)(SEEN), XADD)
    assert verdict.violations == {"lost": 70, "duplicate": 0, "torn": 0, "stale": 0}
    assert {witness.phase for witness in verdict.witnesses} == {CASE_XADD}
    assert "operations of xadd.32 on vga-text" in verdict.reason


def test_what_an_experiment_cannot_show_is_an_error() -> None:
    def change(record: Record) -> Record:
        return struck(record, CASE_NOT, duplicate=1)

    reason = judge(GOOD.spec, both(change)(SEEN), NOT).reason
    assert reason == f"phase {CASE_NOT} has 1 violations of kind duplicate, which parity cannot show"


@pytest.mark.parametrize("change", [{"puts": 0}, {"puts": 1}])
def test_the_operations_are_the_cpus_together(change: dict[str, int]) -> None:
    counts = SEEN.memory.phases[SANITY_XADD].counts if SEEN.memory else ()
    seen = phase(SANITY_XADD, counts=(replace(counts[0], **change), *counts[1:]))(SEEN)
    reason = judge(GOOD.spec, seen, XADD).reason
    assert reason.startswith(f"phase {SANITY_XADD} did ")


def test_a_cpu_that_never_tried_is_no_contention() -> None:
    counts = SEEN.memory.phases[CASE_XADD].counts if SEEN.memory else ()
    moved = (replace(counts[0], puts=counts[0].puts + counts[2].puts), counts[1], replace(counts[2], puts=0))
    verdict = judge(GOOD.spec, phase(CASE_XADD, counts=moved)(SEEN), XADD)
    assert (verdict.kind, verdict.reason[:17]) == (VerdictKind.INCONCLUSIVE, "CPU 2 never tried")


def test_the_last_cases_end_is_where_the_cpus_are_at_rest() -> None:
    assert SEEN.memory is not None
    cpus = tuple(replace(entry, state=CpuState.WORKING) if entry.cpu == 1 else entry for entry in SEEN.memory.cpus)
    assert "was not at rest" in judge(GOOD.spec, memory(cpus=cpus)(SEEN)).reason


@pytest.mark.parametrize("number", CASES[:-1])
def test_each_case_has_its_own_path(number: int) -> None:
    """What QEMU said before another case is no word on this one."""
    index = phases_of(GOOD.spec, number)[-1].index
    paths = {at: path for at, path in SEEN.paths.items() if at != index}
    assert judge(GOOD.spec, replace(SEEN, paths=paths), number).kind is (
        VerdictKind.INCONCLUSIVE if number == FRAMEBUFFER else VerdictKind.ATOMIC  # the guest's own probe of VGA
    )
    unprobed = phase(index, decode=Decode.UNKNOWN)(replace(SEEN, paths=paths))
    assert judge(GOOD.spec, unprobed, number).kind is VerdictKind.INCONCLUSIVE
    ram = replace(SEEN, paths={**paths, index: SEEN.paths[phases_of(GOOD.spec, FRAMEBUFFER)[-1].index]})
    assert judge(GOOD.spec, ram, number).kind is VerdictKind.RAM_BACKED


# --- power


def test_a_control_that_never_failed_asks_for_a_larger_budget() -> None:
    none = Live(batches=120, live=100)
    quiet = dict.fromkeys(("lost", "duplicate", "torn", "stale", "left", "foreign", "events"), 0)

    def change(record: Record) -> Record:
        witnesses = tuple(witness for witness in record.witnesses if witness.phase != POWER_XADD)
        return replace(say(record, POWER_XADD, live=(none, none), judged=240, **quiet), witnesses=witnesses)

    verdict = judge(GOOD.spec, both(change)(SEEN), XADD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "was violated in 0 of 100 live batches (free), which is too seldom" in verdict.reason
    assert (
        "maybe no access is ever interrupted here, which --instr xchg finds out; otherwise try a larger --budget"
        in (verdict.reason)
    )
    control = verdict.controls[-1]
    assert (control.role, control.enough, control.ended) == ("power", False, True)
    assert control.power == "0 of 100 live batches free, 0 of 100 live batches race"


# --- power by the rules of older kernels, which are no proof any more


def power(kinds: dict[str, int], events: int, status: PhaseStatus | None = None, *, times: int = 1) -> Change:
    """XCHG's first power control with these violations, in ``times`` as many rounds as its case. In a suite it is
    done when it has failed often enough, and not before."""
    status = status or (PhaseStatus.DONE if events >= POWER_ENOUGH_IN_SUITE else PhaseStatus.LIMIT)
    first = phases_of(OLD.spec, XCHG)[1].index

    def change(record: Record) -> Record:
        case = record.phases[phases_of(OLD.spec, XCHG)[-1].index]
        plain = dict.fromkeys(("lost", "duplicate", "torn", "stale", "left", "foreign"), 0) | {
            "judged": times * case.judged
        }
        rounds = times * case.rounds
        takes = rounds - kinds.get("lost", 0)
        counts = (Count(0, rounds, 0, 0), Count(1, 0, takes, rounds), Count(2, 0, 0, rounds))
        here = [kind for kind in ViolationKind for _ in range(min(2, kinds.get(kind.name.lower(), 0)))]
        witness = record.witnesses[0]
        others = tuple(entry for entry in record.witnesses if entry.phase != first)
        made = tuple(replace(witness, index=90 + at, phase=first, kind=kind) for at, kind in enumerate(here))
        said = say(record, first, status=status, rounds=rounds, counts=counts, events=events, **(plain | kinds))
        return replace(said, witnesses=(*others, *made))

    return both(change)


@pytest.mark.parametrize(
    ("shown", "events", "enough"),
    [
        ({"lost": 5}, 5, True),
        ({"lost": 4}, 4, False),
        ({"stale": 20}, 20, False),
        ({"torn": 20}, 20, False),
        ({"lost": 4, "stale": 20}, 24, False),
        ({"lost": 5, "stale": 20}, 25, True),
        # what one event does to many updates counts once
        ({"lost": 400}, 4, False),
        ({"lost": 400}, 5, True),
    ],
)
def test_power_is_what_tells(shown: dict[str, int], events: int, enough: bool) -> None:
    """A control that shows only what the defect in question would not look like proves nothing."""
    assert POWER_MINIMUM == 5
    verdict = judge(OLD.spec, power(shown, events)(OLD_SEEN), XCHG)
    assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
    assert (verdict.reason == OLD_PROOF) is enough
    assert ("showed only" in verdict.reason) is not enough
    control = verdict.controls[1]
    assert (control.role, control.enough) == ("power", enough)
    assert control.violations == {name: shown.get(name, 0) for name in ("lost", "duplicate", "torn", "stale")}


def test_a_control_is_weighed_where_it_came_to_an_end() -> None:
    """Its own, or that of its share of the budget."""
    assert judge(OLD.spec, power({"lost": 6}, 6, PhaseStatus.LIMIT)(OLD_SEEN), XCHG).reason == OLD_PROOF
    done = judge(OLD.spec, power({"lost": 6}, 6, PhaseStatus.DONE)(OLD_SEEN), XCHG)
    assert done.kind is VerdictKind.ERROR
    assert "phase 1 says it is done after" in done.reason
    assert "showed only 3 events" in judge(OLD.spec, power({"lost": 3}, 3, PhaseStatus.LIMIT)(OLD_SEEN), XCHG).reason
    stopped = judge(OLD.spec, power({"lost": 6}, 6, PhaseStatus.STOPPED)(OLD_SEEN), XCHG)
    assert stopped.kind is VerdictKind.INCONCLUSIVE
    assert "did not run to its end" in stopped.reason


def test_a_control_is_weighed_at_the_cases_n() -> None:
    """More rounds of the control alone do not make it stronger."""
    seen = power({"lost": 9}, 9, PhaseStatus.LIMIT, times=10)(OLD_SEEN)
    verdict = judge(OLD.spec, seen, XCHG)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert f"showed only 9 events in {10 * verdict.rounds} rounds, as much as 0.9 in the case's" in verdict.reason
