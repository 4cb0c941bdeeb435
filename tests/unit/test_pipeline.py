"""When a suite is booted again: from the next case on, where one ended the machine; and how a log is followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from _changes import both
from recordings import load, signed

from kgen.errors import MachineError
from kgen.evidence.observation import ASKED_FOR, Cut, Observation
from kgen.evidence.records import Record
from kgen.kernel.plan import Phase, decisive, phases, phases_of
from kgen.kernel.results_block import KernelState, PhaseStatus, Role
from kgen.platforms import platforms
from kgen.run.follow import Ending, Progress, Watch, follow
from kgen.run.options import Options
from kgen.run.suite import Boot, case_of, observe_suite
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

SUITE = load("tcg-suite")
TCG = platforms()["qemu-tcg"]


class Runs:
    """Stands in for the runs: one observation after the other."""

    def __init__(self, *seen: Observation) -> None:
        self.left: Iterator[Observation] = iter(seen)
        self.made = 0
        self.specs: list[KernelSpec] = []

    def __call__(self, kernel: KernelSpec, *_: object, **__: object) -> Observation:
        self.made += 1
        self.specs.append(kernel)
        return next(self.left)


def part(
    spec: KernelSpec, seen: Observation, *, died_in: int | None = None, crash: str = "triple fault"
) -> Observation:
    """The recorded suite cut down to what a boot of ``spec`` would have shown: its phases, numbered anew."""
    first = len(SUITE.spec.cases) - len(spec.cases)
    source = [phase.index for number in range(first, len(SUITE.spec.cases)) for phase in phases_of(SUITE.spec, number)]
    new = {old: index for index, old in enumerate(source)}
    assert [phase.label for phase in phases(spec)] == [phases(SUITE.spec)[old].label for old in source]

    def change(record: Record) -> Record:
        kept = [replace(record.phases[old], index=index) for old, index in new.items()]
        witnesses = [replace(w, phase=new[w.phase]) for w in record.witnesses if w.phase in new]
        record = replace(
            record,
            planned=len(kept),
            digest=spec.digest(),
            spec=spec.to_text(),
            closed=len(spec.cases),
            phase=len(kept) - 1,
        )
        if died_in is not None:
            closed = next(n for n in range(len(spec.cases)) if died_in <= phases_of(spec, n)[-1].index)
            running = record.channel == "debugger"
            kept = kept[: died_in + running]
            if running:
                kept[-1] = replace(kept[-1], status=PhaseStatus.RUNNING)
            witnesses = [witness for witness in witnesses if witness.phase < died_in]
            record = replace(
                record, complete=False, gap="died", state=KernelState.RUNNING, phase=died_in, closed=closed
            )
        # what memory says last is of a phase that may not be in this part
        known = replace(record, phase_index=None, handshake=None)
        return replace(known, phases=tuple(kept), witnesses=tuple(witnesses))

    made = both(change)(seen)
    paths = {new[old]: path for old, path in seen.paths.items() if old in new}
    return replace(made, paths=paths, crash="" if died_in is None else crash)


def run_suite(monkeypatch: pytest.MonkeyPatch, *seen: Observation) -> tuple[tuple[Boot, ...], Runs, list[int]]:
    runs, said = Runs(*seen), list[int]()
    monkeypatch.setattr("kgen.run.suite.observe", runs)
    monkeypatch.setattr("kgen.run.suite.build", lambda spec: spec)
    boots = observe_suite(SUITE.spec, TCG, Options(), rebooted=lambda _, left: said.append(left))
    return boots, runs, said


def rest(first: int) -> KernelSpec:
    cases = SUITE.spec.cases[first:]
    return replace(SUITE.spec, case=cases[0], more=cases[1:])


def verdicts(boots: tuple[Boot, ...]) -> list[VerdictKind]:
    found = []
    for case in SUITE.spec.cases:
        place = case_of(boots, case)
        assert place is not None
        boot, number = place
        assert boot.spec.cases[number] == case
        found.append(judge(boot.spec, boot.observation, number).kind)
    return found


def test_one_boot_is_enough_where_nothing_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    boots, runs, said = run_suite(monkeypatch, SUITE.observed())
    assert (len(boots), runs.made, said) == (1, 1, [])
    assert runs.specs == [SUITE.spec]
    assert VerdictKind.INCONCLUSIVE not in verdicts(boots)


@pytest.mark.parametrize("number", range(len(SUITE.spec.cases)))
def test_after_a_death_it_goes_on_with_the_next_case(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    dead = part(SUITE.spec, SUITE.observed(), died_in=phases_of(SUITE.spec, number)[-1].index)
    later = [part(rest(number + 1), SUITE.observed())] if number + 1 < len(SUITE.spec.cases) else []
    boots, runs, said = run_suite(monkeypatch, dead, *later)
    assert runs.made == len(boots) == 1 + len(later)
    assert [spec.cases for spec in runs.specs] == [SUITE.spec.cases, SUITE.spec.cases[number + 1 :]][: len(boots)]
    assert said == ([len(SUITE.spec.cases) - number - 1] if later else [])
    known = verdicts((Boot(SUITE.spec, SUITE.observed()),))
    assert verdicts(boots) == [*known[:number], VerdictKind.CRASH, *known[number + 1 :]]
    assert all(spec.budget <= SUITE.spec.budget for spec in runs.specs)


@pytest.mark.parametrize("cut", [cut for cut in Cut if cut in ASKED_FOR])
def test_who_stopped_it_does_not_get_another_boot(monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
    dead = replace(part(SUITE.spec, SUITE.observed(), died_in=2, crash=""), cut="in whatever words", cut_by=cut)
    boots, runs, said = run_suite(monkeypatch, dead, SUITE.observed())
    assert (len(boots), runs.made, said) == (1, 1, [])
    assert verdicts(boots)[1:] == [VerdictKind.INCONCLUSIVE] * 3


@pytest.mark.parametrize("cut", [cut for cut in Cut if cut not in ASKED_FOR])
def test_what_the_machine_did_is_gone_on_from(monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
    words = "which tell of Ctrl-C, --timeout and --seconds"
    dead = replace(part(SUITE.spec, SUITE.observed(), died_in=2, crash=""), cut=words, cut_by=cut)
    boots, runs, _ = run_suite(monkeypatch, dead, part(rest(1), SUITE.observed()))
    assert (len(boots), runs.made) == (2, 2)


def test_a_boot_that_begins_nothing_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = replace(SUITE.observed(), serial=None, memory=None, cut="nothing came from the serial port")
    boots, runs, said = run_suite(monkeypatch, nothing, SUITE.observed())
    assert (len(boots), runs.made, said) == (1, 1, [])
    assert verdicts(boots) == [VerdictKind.ERROR] * 4


def test_a_case_that_is_nowhere() -> None:
    assert case_of((Boot(SUITE.spec, SUITE.observed()),), Case("sub")) is None


# --- following the log


SPEC = KernelSpec(Case("xchg"), rounds=100, proof_seconds=60)
#: The phases that take turns, the last of them what the verdict rests on; and the case after them.
TOGETHER = [phase for phase in phases(SPEC) if phase.role is not Role.CASE and phase.counts_meetings]
PROOF, CASE = decisive(SPEC)


def announced(phase: Phase) -> str:
    return f"phase index={phase.index} label={phase.label} address=000b8000 cells=1 rounds={phase.rounds}"


def witnessed(phase: Phase) -> str:
    return (
        f"witness index=0 phase={phase.index} kind=1 round=1 cell=0 token=00000000 value=00000000 cpu=1 other=2 tsc=5"
    )


def followed(*bodies: str) -> tuple[Watch, list[Progress]]:
    """A watch that was fed these lines, and what it showed."""
    shown: list[Progress] = []
    watch = Watch(SPEC, shown.append)
    watch.feed(signed([f"kgen:0 {body} crc=00000000" for body in bodies]))
    return watch, shown


def test_a_witness_is_the_cases_by_the_phase_that_it_names() -> None:
    """All of a group are announced before the first of them is violated."""
    group = [announced(phase) for phase in TOGETHER]
    controls = [witnessed(phase) for phase in TOGETHER[:-1]]
    assert TOGETHER[-1] == PROOF
    assert not followed(*group, *controls)[0].case_witnessed
    assert followed(*group, *controls, witnessed(PROOF))[0].case_witnessed
    assert followed(*group, *controls, announced(CASE), witnessed(CASE))[0].case_witnessed
    assert not followed(*group, *controls, announced(CASE))[0].case_witnessed
    assert followed(*group, witnessed(PROOF), announced(CASE))[0].case_witnessed, "also when the case has begun"
    foreign = witnessed(PROOF).replace(f"phase={PROOF.index}", "phase=99")
    assert not followed(*group, foreign)[0].case_witnessed


def test_what_is_shown_is_of_the_phase_that_a_line_names() -> None:
    group = [announced(phase) for phase in TOGETHER]
    beats = [f"progress phase={PROOF.index} rounds=44", witnessed(TOGETHER[1]), witnessed(PROOF), witnessed(PROOF)]
    _, shown = followed(*group, *beats, f"progress phase={TOGETHER[1].index} rounds=7")
    assert [(each.phase, each.rounds, each.violations) for each in shown[len(group) :]] == [
        (PROOF.label, 44, 0),
        (PROOF.label, 44, 1),
        (PROOF.label, 44, 2),
        (TOGETHER[1].label, 7, 1),
    ]


def test_the_time_of_a_case_begins_with_its_own_announcement() -> None:
    group = [announced(phase) for phase in TOGETHER]
    assert followed(*group)[0].case_since is None
    assert followed(*group, announced(CASE))[0].case_since is not None


class Mute:
    """A machine whose guest says nothing. It cannot be told to stop."""

    supervisor = None

    def __init__(self, died: str | None) -> None:
        self.died = died

    def read_serial(self, timeout: float) -> bytes:
        return b""

    def ask_to_stop(self, word: int) -> None:
        raise MachineError("the stop word could not be written")


def ending(
    options: Options, *, died: str | None = None, boots: float = 60.0, interrupts: tuple[int, ...] = ()
) -> Ending:
    machine: Any = Mute(died)
    return follow(machine, Watch(SPEC, None), replace(TCG, boot_seconds=boots), options, list(interrupts), 0)


def test_why_a_run_was_ended_is_a_value_beside_its_words() -> None:
    assert ending(Options(), boots=-1).cut is Cut.NO_BOOT
    assert ending(Options(timeout=0.0)).cut is Cut.TIMEOUT
    assert ending(Options(), died="gdb ended") == Ending(Cut.LOST, "gdb ended")
    words = "the run was stopped by Ctrl-C, and the stop word could not be written"
    assert ending(Options(), interrupts=(2,)) == Ending(Cut.USER, words)
