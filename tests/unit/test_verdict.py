"""The table of the design notes: each verdict and each reason, reached from recorded runs by the smallest change."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from _changes import Change, both, chain, fault, memory, phase, say, serial
from recordings import Recording, load

from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.evidence.observation import EMULATION_FAILURE, Observation
from kgen.evidence.records import FaultRecord, PhaseRecord, Record, Witness
from kgen.kernel.live import Live
from kgen.kernel.plan import phases
from kgen.kernel.results_block import CpuState, Decode, KernelState, PhaseStatus, Role, Style, ViolationKind
from kgen.verdict.judge import judge
from kgen.verdict.model import OLD_KERNEL, OLD_PROOF, POWER_MINIMUM, VerdictKind, bisect_code
from kgen.verdict.proof import UNINTERRUPTED

GOOD = load("tcg-atomic")
BAD = load("kvm-lost")
SEEN = GOOD.observed()
#: A run of a kernel that counted no live batches.
OLD = load("old-tcg-atomic")
#: The phases of the recorded runs, and of those of older kernels.
SANITY, POWER, PROOF, CASE = 0, 2, 4, 5
OLD_POWER, OLD_CASE = 1, 3


def _phase_of(index: int) -> PhaseRecord:
    assert SEEN.memory is not None
    return SEEN.memory.phases[index]


#: What the recorded run counted of the first power control and of the proof, free and race.
POWER_FREE, POWER_RACE = _phase_of(POWER).live
PROOF_FREE, PROOF_RACE = _phase_of(PROOF).live
PROOF_BATCHES = PROOF_FREE.batches + PROOF_RACE.batches


def counts(index: int, cpu: int, **changes: int) -> Change:
    """Another count of one CPU. The case's is also in the CPU table."""

    def change(record: Record) -> Record:
        old = record.phases[index].counts
        new = tuple(replace(count, **changes) if count.cpu == cpu else count for count in old)
        cpus = tuple(
            replace(entry, **changes) if entry.cpu == cpu and index == CASE else entry for entry in record.cpus
        )
        return replace(say(record, index, counts=new), cpus=cpus)

    return both(change)


def faulted(*faults: FaultRecord, running: int = CASE) -> Change:
    """What remains when the BSP reports faults outside the experiments: the phases before, then the end."""

    def change(record: Record) -> Record:
        kept = record.phases[:running]
        if record.channel == "debugger":
            kept += (replace(record.phases[running], status=PhaseStatus.RUNNING),)
        witnesses = tuple(witness for witness in record.witnesses if witness.phase <= running)
        ended = replace(record, state=KernelState.FAULTED, faults=faults, phase=running)
        if record.channel == "debugger":
            ended = replace(ended, phase_index=running, handshake=None)
        return replace(ended, phases=kept, witnesses=witnesses)

    # memory holds the phase that was running, serial has no result of it: both records are whole
    return chain(both(change), lambda seen: replace(seen, rows=()))


def died(crash: str, running: int) -> Change:
    """What remains when the emulator dies in a phase."""

    def change(record: Record) -> Record:
        return replace(record, state=KernelState.RUNNING, complete=False, gap="died", closed=0)

    return chain(faulted(running=running), both(change), lambda seen: replace(seen, crash=crash, rows=()))


def ended_by(index: int, cpu: int, vector: int) -> Change:
    """An exception ended one phase, and the kernel went on."""

    def change(record: Record) -> Record:
        faults = (*record.faults, fault(cpu, vector, index))
        return replace(say(record, index, status=PhaseStatus.FAULTED), faults=faults)

    return both(change)


def violated(index: int, count: int) -> Change:
    """So many tokens of a phase vanished, in both channels, with their witnesses."""

    def change(record: Record) -> Record:
        old = record.phases[index].counts
        new = (*old[:1], replace(old[1], takes=old[1].takes - count), *old[2:])
        cpus = tuple(
            replace(entry, takes=entry.takes - count) if entry.cpu == 1 and index == CASE else entry
            for entry in record.cpus
        )
        made = tuple(
            Witness(0, index, ViolationKind.LOST, number + 1, 0, number, 0, 0, None, number) for number in range(count)
        )
        witnesses = tuple(w for w in record.witnesses if w.phase < index) + made[:8]
        witnesses += tuple(w for w in record.witnesses if w.phase > index)
        return replace(say(record, index, counts=new, lost=count, events=count), witnesses=witnesses, cpus=cpus)

    def table(seen: Observation) -> Observation:
        put, first, others, _ = seen.rows[-1]
        if index != CASE:
            return seen
        return replace(seen, rows=((put, first - count, others, count),))

    return chain(both(change), table)


def living(index: int, style: Style, **changes: int) -> Change:
    """Other counts of live batches of one style. The totals by batch go with them."""

    def change(record: Record) -> Record:
        old = record.phases[index]
        new = tuple(
            replace(live, **changes) if each is style else live for each, live in zip(Style, old.live, strict=True)
        )
        judged = sum(live.batches + live.blind for live in new)
        events = sum(live.struck + live.blind_violated for live in new)
        return say(record, index, live=new, judged=judged, events=events)

    return both(change)


def never_failed(index: int, live: int = 100) -> Change:
    """A power control of a chain that was not violated in so many live batches of each style."""

    def change(record: Record) -> Record:
        none = Live(batches=live + 20, live=live, blind=5)
        witnesses = tuple(witness for witness in record.witnesses if witness.phase != index)
        quiet = dict.fromkeys(("lost", "duplicate", "torn", "stale", "left", "foreign", "events"), 0)
        made = say(record, index, live=(none, none), judged=2 * (live + 25), **quiet)
        return replace(made, witnesses=tuple(replace(w, index=number) for number, w in enumerate(witnesses)))

    return both(change)


def silent(index: int, left: int) -> Change:
    """A power control of an older kernel that showed only so many losses."""

    def change(record: Record) -> Record:
        old = record.phases[index]
        first = 1000 - left - sum(count.takes for count in old.counts[2:])
        new = (replace(old.counts[0], puts=1000), replace(old.counts[1], takes=first), *old.counts[2:])
        new = (new[0], *(replace(count, tries=1000) for count in new[1:]))
        quiet = dict.fromkeys(("duplicate", "torn", "stale", "left", "foreign"), 0)
        here = [w for w in record.witnesses if w.phase == index and w.kind is ViolationKind.LOST][: min(left, 8)]
        witnesses = tuple(w for w in record.witnesses if w.phase != index or w in here)
        witnesses = tuple(replace(w, index=number) for number, w in enumerate(witnesses))
        made = say(record, index, counts=new, rounds=1000, judged=1000, lost=left, events=left, **quiet)
        return replace(made, witnesses=witnesses)

    return both(change)


def told_otherwise(**changes: int) -> Change:
    """Another handshake."""

    def change(record: Record) -> Record:
        assert record.handshake is not None
        return replace(record, handshake=replace(record.handshake, **changes))

    return lambda seen: replace(seen, memory=change(seen.memory)) if seen.memory else seen


def without_the_case(seen: Observation) -> Observation:
    """The kernel ended after its controls."""
    assert seen.memory is not None
    counted = seen.memory.phases[CASE - 1].counts
    cpus = tuple(
        replace(entry, puts=count.puts, takes=count.takes, tries=count.tries)
        for entry, count in zip(seen.memory.cpus, counted, strict=True)
    )
    seen = both(lambda record: replace(record, phases=record.phases[:CASE]))(seen)
    return replace(memory(cpus=cpus, phase_index=None, handshake=None)(seen), rows=())


RAM = PathEvidence("ram", "pc.ram", "... (prio 0, ram): pc.ram", "FlatView #1")
DOUBTFUL = PathEvidence("unknown", "vga-lowmem, pc.ram", "half and half", "FlatView #1")

TABLE: list[tuple[str, Change, VerdictKind, str]] = [
    ("nothing", lambda seen: seen, VerdictKind.ATOMIC, "no violation in 1000 rounds"),
    # ERROR
    ("a tool failed", lambda s: replace(s, problems=("gdb died",)), VerdictKind.ERROR, "gdb died"),
    ("channels", serial(khz=1), VerdictKind.ERROR, "the two channels disagree: khz"),
    ("a serial fault", serial(faults=(fault(1, 6),)), VerdictKind.ERROR, "faults that memory does not"),
    ("other kernel", serial(digest="0" * 64), VerdictKind.ERROR, "another kernel"),
    ("other case", serial(case="xchg.32.ram.token"), VerdictKind.ERROR, "another kernel"),
    ("other case, cut", serial(digest="0" * 64, complete=False), VerdictKind.ERROR, "another kernel"),
    ("not parked", phase(CASE, status=PhaseStatus.NOT_PARKED), VerdictKind.ERROR, "did not finish its batch"),
    ("kernel not parked", both(lambda r: replace(r, state=KernelState.NOT_PARKED)), VerdictKind.ERROR, "its batch"),
    ("too few", both(lambda r: replace(r, state=KernelState.TOO_FEW_CPUS, cpus_found=2)), VerdictKind.ERROR, "only 2"),
    ("too few, unsaid", both(lambda r: replace(r, cpus_found=2)), VerdictKind.ERROR, "only 2 CPUs started"),
    ("sanity", violated(SANITY, 1), VerdictKind.ERROR, "the sanity control sanity:xchg.32@ram was violated 1 time:"),
    ("self-contradiction", serial(contradiction="twice"), VerdictKind.ERROR, "contradicts itself: twice"),
    # ERROR: numbers that contradict each other
    ("puts", counts(CASE, 0, puts=999), VerdictKind.ERROR, "put 999 tokens in 1000 rounds"),
    ("consumer puts", counts(CASE, 1, puts=1), VerdictKind.ERROR, "put 1001 tokens"),
    ("producer takes", counts(CASE, 0, takes=1), VerdictKind.ERROR, "more tokens than were tried for"),
    ("tries", counts(CASE, 1, tries=1), VerdictKind.ERROR, "more tokens than were tried for"),
    ("takes", counts(CASE, 1, takes=0), VerdictKind.ERROR, "tokens where 1000 to 1000 can be accounted for"),
    ("left", chain(counts(CASE, 1, takes=0), phase(CASE, left=1)), VerdictKind.ERROR, "tokens where"),
    ("no counters", phase(CASE, counts=()), VerdictKind.ERROR, "counters of 0 CPUs where 3 took part"),
    ("no counters of a control", phase(POWER, counts=()), VerdictKind.ERROR, "counters of 0 CPUs"),
    ("too many rounds", phase(CASE, rounds=1001), VerdictKind.ERROR, "phase 5 put 1000 tokens in 1001 rounds"),
    ("unplanned role", phase(CASE, role=Role.POWER), VerdictKind.ERROR, "ran as POWER"),
    ("unplanned cells", phase(CASE, cells=1), VerdictKind.ERROR, "with 1 cells, planned was CASE with 128"),
    ("unplanned address", phase(CASE, address=0xA0000), VerdictKind.ERROR, "ran at 0xa0000, planned was 0xb8000"),
    ("unplanned label", lambda s: replace(s, serial=say(s.serial, CASE, label="case:x")), VerdictKind.ERROR, "case:x"),  # type: ignore[arg-type]
    ("unplanned limit", lambda s: replace(s, serial=say(s.serial, CASE, limit=9)), VerdictKind.ERROR, "of 9 rounds"),  # type: ignore[arg-type]
    ("unplanned CPUs", both(lambda r: replace(r, cpus_needed=4)), VerdictKind.ERROR, "is for 4 CPUs, the case for 3"),
    ("unplanned phases", both(lambda r: replace(r, planned=7)), VerdictKind.ERROR, "7 phases in the kernel"),
    ("fewer planned", both(lambda r: replace(r, planned=5)), VerdictKind.ERROR, "5 phases in the kernel"),
    (
        "RAM elsewhere",
        phase(SANITY, address=0xB8000),
        VerdictKind.ERROR,
        "0xb8000, which is not in the kernel's memory",
    ),
    (
        "RAM probed",
        phase(SANITY, decode=Decode.IO),
        VerdictKind.ERROR,
        "was probed as IO, and there is no probe for ram",
    ),
    ("phases missing", both(lambda r: replace(r, phases=r.phases[1:])), VerdictKind.ERROR, "not in order"),
    (
        "witness of what was not begun",
        both(lambda r: replace(r, witnesses=(*r.witnesses, replace(r.witnesses[0], phase=6)))),
        VerdictKind.ERROR,
        "a witness is of a phase that was not run",
    ),
    ("witness without count", both(lambda r: replace(r, witnesses=())), VerdictKind.ERROR, "do not fit its counters"),
    ("table", lambda s: replace(s, rows=()), VerdictKind.ERROR, "the table does not end with the case's counters"),
    ("row", lambda s: replace(s, rows=((1, 0, 0, 0), *s.rows)), VerdictKind.ERROR, "does not add up"),
    ("rows", lambda s: replace(s, rows=((9, 9, 0, 0), *s.rows)), VerdictKind.ERROR, "counts backwards"),
    ("a control on RAM", phase(POWER, decode=Decode.RAM), VerdictKind.INCONCLUSIVE, "not run on what the case ran on"),
    # CRASH
    ("emulator", lambda s: replace(s, crash="triple fault"), VerdictKind.CRASH, "triple fault"),
    ("#DE", faulted(fault(1, 0)), VerdictKind.CRASH, "CPU 1, vector 0 at 0x00100000"),
    ("#UD outside the experiments", faulted(fault(1, 6)), VerdictKind.CRASH, "CPU 1, vector 6"),
    ("#UD outside, in a control", faulted(fault(1, 6), running=POWER), VerdictKind.CRASH, "vector 6"),
    ("#UD of a CPU that takes no part", faulted(fault(9, 6)), VerdictKind.CRASH, "CPU 9"),
    ("#UD and #DE outside", faulted(fault(1, 6), fault(2, 0)), VerdictKind.CRASH, "CPU 1, vector 6"),
    ("fault unsaid", faulted(), VerdictKind.CRASH, "not where"),
    ("#UD, and yet an end", both(lambda r: replace(r, faults=(fault(9, 6),))), VerdictKind.CRASH, "CPU 9, vector 6"),
    ("#DE in the case", ended_by(CASE, 1, 0), VerdictKind.CRASH, "the guest faulted: CPU 1, vector 0 at 0x00100000"),
    ("#PF in the case", ended_by(CASE, 0, 14), VerdictKind.CRASH, "CPU 0, vector 14"),
    (
        "an internal error in a control",
        died(f"{EMULATION_FAILURE} (x)", running=POWER),
        VerdictKind.CRASH,
        EMULATION_FAILURE,
    ),
    # UNSUPPORTED
    ("#UD", ended_by(CASE, 1, 6), VerdictKind.UNSUPPORTED, "xchg.32 raised #UD (CPU 1, vector 6"),
    ("#GP", ended_by(CASE, 0, 13), VerdictKind.UNSUPPORTED, "xchg.32 raised #GP"),
    ("#AC", ended_by(CASE, 2, 17), VerdictKind.UNSUPPORTED, "xchg.32 raised #AC"),
    (
        "#UD on RAM already",
        chain(ended_by(SANITY, 1, 6), ended_by(CASE, 1, 6)),
        VerdictKind.UNSUPPORTED,
        "raised #UD",
    ),
    (
        "an internal error in the case",
        died(f"{EMULATION_FAILURE} (x)", running=CASE),
        VerdictKind.UNSUPPORTED,
        f"xchg.32 could not be carried out: {EMULATION_FAILURE} (x)",
    ),
    # SKIP
    (
        "absent",
        chain(phase(CASE, status=PhaseStatus.ABSENT, rounds=0, address=0), told_otherwise(address=0)),
        VerdictKind.SKIP,
        "the machine has no vga-text",
    ),
    # NO_STORAGE
    ("no storage", phase(CASE, status=PhaseStatus.NO_STORAGE), VerdictKind.NO_STORAGE, "do not hold what is written"),
    ("unstable", phase(CASE, status=PhaseStatus.UNSTABLE), VerdictKind.NO_STORAGE, "do not hold what is written"),
    # NOT_ATOMIC
    ("one loss", violated(CASE, 1), VerdictKind.NOT_ATOMIC, "1 lost in 1000 rounds of xchg.32 on vga-text"),
    ("many losses", violated(CASE, 12), VerdictKind.NOT_ATOMIC, "12 lost in 1000 rounds"),
    (
        "a loss in a running case",
        chain(violated(CASE, 1), memory(complete=False, state=KernelState.RUNNING), serial(complete=False)),
        VerdictKind.NOT_ATOMIC,
        "1 lost",
    ),
    # RAM_BACKED
    ("QEMU says RAM", lambda s: replace(s, path=RAM), VerdictKind.RAM_BACKED, "ordinary memory here"),
    (
        "the guest says RAM",
        chain(phase(CASE, decode=Decode.RAM), lambda s: replace(s, path=NOT_ASKED)),
        VerdictKind.RAM_BACKED,
        "ordinary memory here",
    ),
    # INCONCLUSIVE
    ("no serial", lambda s: replace(s, serial=None), VerdictKind.INCONCLUSIVE, "there is no serial record"),
    ("no memory", lambda s: replace(s, memory=None), VerdictKind.INCONCLUSIVE, "the debugger read no record"),
    ("cut log", serial(complete=False, gap="cut"), VerdictKind.INCONCLUSIVE, "the serial record is incomplete: cut"),
    ("still running", memory(complete=False, gap="still"), VerdictKind.INCONCLUSIVE, "did not reach its end: still"),
    (
        "given up",
        chain(memory(complete=False), lambda s: replace(s, cut="--timeout")),
        VerdictKind.INCONCLUSIVE,
        "did not reach its end: --timeout",
    ),
    (
        "case missing",
        without_the_case,
        VerdictKind.INCONCLUSIVE,
        "the case was not run to its end",
    ),
    ("case not begun", phase(CASE, status=PhaseStatus.PENDING), VerdictKind.INCONCLUSIVE, "not run to its end"),
    ("doubtful path", lambda s: replace(s, path=DOUBTFUL), VerdictKind.INCONCLUSIVE, "could not be attested"),
    ("ROM", lambda s: replace(s, path=replace(RAM, kind="rom")), VerdictKind.INCONCLUSIVE, "could not be attested"),
    ("hole", lambda s: replace(s, path=replace(RAM, kind="hole")), VerdictKind.INCONCLUSIVE, "could not be attested"),
    ("guest sees RAM", phase(CASE, decode=Decode.RAM), VerdictKind.INCONCLUSIVE, "could not be attested"),
    (
        "nobody to ask",
        chain(phase(CASE, decode=Decode.UNKNOWN), lambda s: replace(s, path=NOT_ASKED)),
        VerdictKind.INCONCLUSIVE,
        "could not be attested",
    ),
    ("sanity", phase(SANITY, status=PhaseStatus.STOPPED), VerdictKind.INCONCLUSIVE, "sanity:xchg.32@ram did not run"),
    (
        "power",
        phase(POWER, status=PhaseStatus.STOPPED),
        VerdictKind.INCONCLUSIVE,
        "power:mov-mov.32@vga-text/chain did",
    ),
    ("#UD on RAM only", ended_by(SANITY, 1, 6), VerdictKind.INCONCLUSIVE, "sanity:xchg.32@ram did not run to its end"),
    (
        "#UD in a power control",
        ended_by(POWER, 1, 6),
        VerdictKind.INCONCLUSIVE,
        "power:mov-mov.32@vga-text/chain did",
    ),
    ("tickets", phase(PROOF, status=PhaseStatus.UNSOUND), VerdictKind.ERROR, "LOCK XADD on RAM is not atomic here"),
    (
        "tickets of a control",
        phase(POWER, status=PhaseStatus.UNSOUND),
        VerdictKind.ERROR,
        "phase 2 is unsound",
    ),
    ("silent power", never_failed(POWER), VerdictKind.INCONCLUSIVE, "was violated in 0 of 100 live batches (free)"),
    (
        "too few live batches",
        living(PROOF, Style.FREE, live=99),
        VerdictKind.INCONCLUSIVE,
        f"the case had 99 free and {PROOF_RACE.live} race live batches, and the proof needs 1 free more: about ",
    ),
    (
        "too few in the other style",
        living(PROOF, Style.RACE, live=99),
        VerdictKind.INCONCLUSIVE,
        "the proof needs 1 race more",
    ),
    (
        "the proof is not over",
        phase(PROOF, status=PhaseStatus.PENDING),
        VerdictKind.INCONCLUSIVE,
        "proof:xchg.32@vga-text/chain, which the verdict rests on, was not run to its end",
    ),
    ("no styles", phase(PROOF, live=()), VerdictKind.ERROR, "phase 4 counts live batches of 0 styles"),
    ("styles of tokens", phase(CASE, live=(Live(), Live())), VerdictKind.ERROR, "phase 5 counts live batches of 2"),
    (
        "more live than all",
        living(PROOF, Style.FREE, live=PROOF_FREE.batches + 1),
        VerdictKind.ERROR,
        f"0 violated of {PROOF_FREE.batches + 1} live of {PROOF_FREE.batches}",
    ),
    (
        "more violated",
        living(POWER, Style.FREE, violated=POWER_FREE.live + 1, struck=POWER_FREE.batches, switches=0),
        VerdictKind.ERROR,
        f"{POWER_FREE.live + 1} violated of {POWER_FREE.live} live of {POWER_FREE.batches}",
    ),
    (
        "fewer struck",
        living(POWER, Style.FREE, struck=POWER_FREE.violated - 1),
        VerdictKind.ERROR,
        f"{POWER_FREE.violated - 1} violated batches of style free",
    ),
    (
        "switches",
        living(POWER, Style.FREE, switches=2 * (POWER_FREE.live - POWER_FREE.violated) + 2),
        VerdictKind.ERROR,
        f" switches of {POWER_FREE.violated} violated in {POWER_FREE.live}",
    ),
    (
        "more blind",
        living(POWER, Style.FREE, blind_violated=POWER_FREE.blind + 1),
        VerdictKind.ERROR,
        f"violated of {POWER_FREE.live} live of {POWER_FREE.batches} free",
    ),
    (
        "batches that no style has",
        phase(PROOF, judged=PROOF_BATCHES + 1),
        VerdictKind.ERROR,
        f"batches by style, and 0 of {PROOF_BATCHES + 1} in all",
    ),
    ("idle consumer", counts(CASE, 2, takes=0, tries=0), VerdictKind.ERROR, "a consumer tried fewer exchanges than"),
    ("a cell is full", lambda s: replace(s, cells=(0, 7)), VerdictKind.INCONCLUSIVE, "something was written after"),
]


@pytest.mark.parametrize(("change", "kind", "reason"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_rule(change: Change, kind: VerdictKind, reason: str) -> None:
    verdict = judge(GOOD.spec, change(SEEN))
    assert (verdict.kind, verdict.exit_code) == (kind, kind.value)
    assert reason in verdict.reason


def test_every_verdict_is_reached() -> None:
    assert {row[2] for row in TABLE} == set(VerdictKind)


def test_old_rules_are_no_proof() -> None:
    verdict = judge(OLD.spec, OLD.observed())
    assert (verdict.kind, verdict.reason, verdict.bound) == (VerdictKind.INCONCLUSIVE, OLD_PROOF, None)
    assert verdict.reason.startswith("its own rules said ATOMIC; ")
    assert OLD_KERNEL in verdict.notes
    assert OLD_KERNEL not in judge(GOOD.spec, replace(SEEN, cells=(1,))).notes
    assert (verdict.judged, verdict.chance) == (1000, "rounds")


@pytest.mark.parametrize(("index", "left", "showed"), [(OLD_POWER, 4, "4 events"), (2, 0, "0 events")])
def test_old_rules_say_themselves_why_it_is_no_proof(index: int, left: int, showed: str) -> None:
    verdict = judge(OLD.spec, silent(index, left)(OLD.observed()))
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert f"showed only {showed} in 1000 rounds" in verdict.reason
    assert "rounds help" not in verdict.reason


def test_a_single_instruction_may_be_silent_beside_a_pair_that_fails() -> None:
    """No access is interrupted there, with LOCK or without."""
    verdict = judge(GOOD.spec, never_failed(POWER + 1)(SEEN))
    assert verdict.kind is VerdictKind.ATOMIC
    words = "was never violated in 200 live batches, while a pair of instructions was"
    assert any(note.startswith(UNINTERRUPTED) and words in note for note in verdict.notes)
    silent_one = next(control for control in verdict.controls if control.label.startswith("power:cmpxchg"))
    assert silent_one.enough


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (never_failed(POWER + 1, live=99), "was violated in 0 of 99 live batches (free), which is too seldom"),
        (chain(never_failed(POWER), never_failed(POWER + 1)), "was violated in 0 of 100 live batches (free)"),
        (
            chain(never_failed(POWER + 1), lambda seen: replace(seen, environment={"in_turn": True})),
            "this emulator's CPUs take turns",
        ),
    ],
    ids=["too few live batches", "no pair that fails", "in turn"],
)
def test_where_a_silent_control_proves_nothing(change: Change, reason: str) -> None:
    verdict = judge(GOOD.spec, change(SEEN))
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert reason in verdict.reason


def test_a_violated_chain_decides_though_no_token_was_lost() -> None:
    def change(record: Record) -> Record:
        old = record.phases[PROOF]
        new = (replace(old.live[0], struck=1), old.live[1])
        made = [
            Witness(0, PROOF, kind, 9, 0, 1, 2, None if kind is ViolationKind.LOST else 1, None, 7)
            for kind in (ViolationKind.LOST, ViolationKind.DUPLICATE)
        ]
        witnesses = tuple(replace(w, index=number) for number, w in enumerate((*record.witnesses, *made)))
        return replace(say(record, PROOF, live=new, lost=1, duplicate=1, events=1), witnesses=witnesses)

    verdict = judge(GOOD.spec, both(change)(SEEN))
    assert verdict.kind is VerdictKind.NOT_ATOMIC
    operations = _phase_of(PROOF).rounds
    assert verdict.reason == f"1 lost, 1 duplicate in {operations} operations of xchg.32 on vga-text (chain)"
    assert (verdict.judged, verdict.chance, verdict.bound) == (_phase_of(PROOF).judged, "batches", None)
    assert {witness.phase for witness in verdict.witnesses} == {PROOF}


def test_nothing_seen() -> None:
    nothing = replace(SEEN, serial=None, memory=None, rows=())
    assert judge(GOOD.spec, nothing).kind is VerdictKind.ERROR
    assert judge(GOOD.spec, replace(nothing, cut="silence")).reason == "silence"
    assert judge(GOOD.spec, replace(nothing, crash="killed")).kind is VerdictKind.CRASH
    both_failed = judge(GOOD.spec, replace(nothing, crash="killed", problems=("gdb died", "and QEMU")))
    assert (both_failed.kind, both_failed.reason, both_failed.notes) == (VerdictKind.ERROR, "gdb died", ("and QEMU",))


#: From the weakest to the strongest: each one put on top of all before it decides.
LADDER: list[tuple[Change, VerdictKind]] = [
    (lambda seen: seen, VerdictKind.ATOMIC),
    (lambda seen: replace(seen, cells=(1,)), VerdictKind.INCONCLUSIVE),
    (lambda seen: replace(seen, path=RAM), VerdictKind.RAM_BACKED),
    (violated(CASE, 3), VerdictKind.NOT_ATOMIC),
    (phase(CASE, status=PhaseStatus.UNSTABLE), VerdictKind.NO_STORAGE),
    (phase(CASE, status=PhaseStatus.ABSENT), VerdictKind.SKIP),
    (ended_by(CASE, 1, 6), VerdictKind.UNSUPPORTED),
    (lambda seen: replace(seen, crash="triple fault"), VerdictKind.CRASH),
    (lambda seen: replace(seen, problems=("gdb died",)), VerdictKind.ERROR),
]


@pytest.mark.parametrize("height", range(1, len(LADDER) + 1))
def test_the_first_rule_that_matches_decides(height: int) -> None:
    seen = chain(*(change for change, _ in LADDER[:height]))(SEEN)
    assert judge(GOOD.spec, seen).kind is LADDER[height - 1][1]


@pytest.mark.parametrize("lower", range(len(LADDER)))
@pytest.mark.parametrize("upper", range(len(LADDER)))
def test_any_two_rules_in_order(lower: int, upper: int) -> None:
    if lower >= upper:
        return
    seen = chain(LADDER[lower][0], LADDER[upper][0])(SEEN)
    assert judge(GOOD.spec, seen).kind is LADDER[upper][1]


def test_exit_codes() -> None:
    assert {kind.name: kind.value for kind in VerdictKind} == {
        "ATOMIC": 0,
        "NOT_ATOMIC": 3,
        "INCONCLUSIVE": 4,
        "RAM_BACKED": 5,
        "UNSUPPORTED": 6,
        "NO_STORAGE": 7,
        "SKIP": 8,
        "ERROR": 9,
        "CRASH": 10,
    }
    codes = {kind: bisect_code(kind) for kind in VerdictKind}
    assert codes.pop(VerdictKind.ATOMIC) == 0
    assert codes.pop(VerdictKind.NOT_ATOMIC) == 1
    assert set(codes.values()) == {125}


def rounds(run: Recording, number: int, spec_rounds: int, status: PhaseStatus = PhaseStatus.DONE) -> tuple[Any, Any]:
    """The good run as if its case, and it alone, had gone for so many rounds."""
    spec = replace(run.spec, rounds=spec_rounds)
    case = phases(run.spec)[-1].index

    def change(record: Record) -> Record:
        old = record.phases[case].counts
        new = (
            replace(old[0], puts=number),
            replace(old[1], takes=number, tries=number + 1),
            replace(old[2], takes=0, tries=number + 1),
        )
        cpus = tuple(
            replace(entry, puts=count.puts, takes=count.takes, tries=count.tries)
            for entry, count in zip(record.cpus, new, strict=False)
        )
        record = replace(say(record, case, counts=new, rounds=number, judged=number, status=status), cpus=cpus)
        if record.channel == "serial":
            record = replace(record, digest=spec.digest(), spec=spec.to_text())
            for planned in phases(spec):
                record = say(record, planned.index, limit=planned.rounds)
        return record

    return spec, replace(both(change)(run.observed()), rows=((number, number, 0, 0),))


@pytest.mark.parametrize("number", [1000, 500])
@pytest.mark.parametrize("more", [0, 26])
def test_the_bound_is_three_over_the_live_batches(number: int, more: int) -> None:
    """However many tokens were passed on: they state no bound. A run that was stopped states the N it came to."""
    spec, seen = rounds(GOOD, number, 1000, PhaseStatus.STOPPED)
    seen = chain(living(PROOF, Style.FREE, live=100 + more), both(lambda r: replace(r, state=KernelState.STOPPED)))(
        seen
    )
    verdict = judge(spec, seen)
    assert (verdict.kind, verdict.rounds) == (VerdictKind.ATOMIC, number)
    live = 100 + more + PROOF_RACE.live
    assert (verdict.judged, verdict.chance) == (live, "live batches")
    assert verdict.bound == pytest.approx(3 / live)
    assert verdict.reason == f"no violation in {number} rounds, nor in {live} live batches of its chain"


def test_only_atomic_has_a_bound() -> None:
    for change, kind in LADDER[1:]:
        verdict = judge(GOOD.spec, change(SEEN))
        assert verdict.kind is kind
        assert verdict.bound is None


@pytest.mark.parametrize(
    ("left", "number", "enough"), [(5, 1000, True), (4, 1000, False), (9, 500, False), (10, 500, True)]
)
def test_old_rules_count_power_at_the_cases_n(left: int, number: int, enough: bool) -> None:
    """A case that ran half as far as its control has half of the control's violations to go by."""
    spec, seen = rounds(OLD, number, 1000, PhaseStatus.STOPPED)
    seen = chain(both(lambda r: replace(r, state=KernelState.STOPPED)), silent(OLD_POWER, left))(seen)
    verdict = judge(spec, seen)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert (verdict.reason == OLD_PROOF) is enough
    control = next(control for control in verdict.controls if control.label.startswith("power:mov-mov"))
    assert (control.enough, control.violations["lost"]) == (enough, left)
    assert POWER_MINIMUM == 5


def test_controls_that_were_stopped_are_no_proof() -> None:
    """Stopped late, the case ran further than its controls, which did not come to their end."""
    spec, seen = rounds(GOOD, 1_000_000, 0, PhaseStatus.STOPPED)
    for index in range(CASE):
        seen = phase(index, status=PhaseStatus.STOPPED)(seen)
    seen = both(lambda r: replace(r, state=KernelState.STOPPED))(seen)
    verdict = judge(spec, seen)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.reason == "the sanity control sanity:xchg.32@ram did not run to its end"


@pytest.mark.parametrize("claimed", [999, 1001, 2000])
def test_a_case_that_is_done_ran_what_was_planned(claimed: int) -> None:
    spec, seen = rounds(GOOD, claimed, 1000)
    verdict = judge(spec, seen)
    assert verdict.kind is VerdictKind.ERROR
    assert str(claimed) in verdict.reason


def test_a_case_without_end_is_never_done() -> None:
    spec, seen = rounds(load("tcg-no-controls"), 1000, 0)
    assert judge(spec, seen).reason == "phase 0 says it is done after 1000 of 0 rounds"


@pytest.mark.parametrize("tries", [0, 999])
def test_a_consumer_leaves_no_cell_before_it_has_tried(tries: int) -> None:
    """The tokens all add up, but one consumer did not try for each."""
    spec, seen = rounds(GOOD, 1000, 1000)
    assert judge(spec, seen).kind is VerdictKind.ATOMIC
    assert judge(spec, counts(CASE, 2, tries=1000)(seen)).kind is VerdictKind.ATOMIC
    verdict = judge(spec, counts(CASE, 2, tries=tries)(seen))
    assert verdict.kind is VerdictKind.ERROR
    assert "a consumer tried fewer exchanges than there were cells in 1000 rounds" in verdict.reason


def test_a_token_left_behind_needs_a_violation_to_explain_it() -> None:
    spec, seen = rounds(GOOD, 1000, 1000)
    seen = chain(counts(CASE, 1, takes=999), phase(CASE, left=1))(seen)
    verdict = judge(spec, replace(seen, rows=((1000, 999, 0, 1),)))
    assert verdict.kind is VerdictKind.ERROR
    assert "1 tokens left, with no violation" in verdict.reason
    foreign = chain(counts(CASE, 1, takes=1000), phase(CASE, left=0, foreign=1))(seen)
    assert judge(spec, replace(foreign, rows=((1000, 1000, 0, 0),))).kind is VerdictKind.ERROR


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": CpuState.WORKING}, "was not at rest"),
        ({"ack": 1}, "was not at rest"),
        ({"takes": 1}, "counters moved"),
    ],
)
def test_cpus_that_are_not_where_the_end_leaves_them(changes: dict[str, Any], reason: str) -> None:
    assert SEEN.memory is not None
    cpus = tuple(replace(entry, **changes) if entry.cpu == 1 else entry for entry in SEEN.memory.cpus)
    verdict = judge(GOOD.spec, memory(cpus=cpus)(SEEN))
    assert verdict.kind is VerdictKind.ERROR
    assert reason in verdict.reason
    assert judge(GOOD.spec, memory(cpus=SEEN.memory.cpus[:2])(SEEN)).kind is VerdictKind.ERROR


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (serial(state=KernelState.FAULTED), "faulted"),
        (serial(state=KernelState.RUNNING), "not run to its end"),
        (serial(digest=""), "does not say what kernel"),
        (serial(cpus_needed=2), "for 2 CPUs"),
        (serial(witnesses=()), "do not fit"),
        (lambda s: replace(s, serial=say(s.serial, POWER, counts=())), "counters of 0 CPUs"),
        (lambda s: replace(s, serial=say(s.serial, CASE, decode=Decode.UNKNOWN)), "attested"),
        (lambda s: replace(s, platform="qemu-tcg"), "the debugger read no record"),
    ],
)
def test_a_log_alone_has_only_itself(change: Any, reason: str) -> None:
    """What memory would have contradicted must be seen without it."""
    alone = GOOD.alone()
    assert judge(GOOD.spec, alone).kind is VerdictKind.ATOMIC
    verdict = judge(GOOD.spec, change(alone))
    assert verdict.kind is not VerdictKind.ATOMIC
    assert reason in verdict.reason


def test_no_other_path_than_io_is_atomic() -> None:
    for kind in ("ram", "rom", "hole", "unknown"):
        for decode in Decode:
            seen = chain(phase(CASE, decode=decode), lambda s, kind=kind: replace(s, path=replace(RAM, kind=kind)))(
                SEEN
            )
            assert judge(GOOD.spec, seen).kind is not VerdictKind.ATOMIC


def test_a_clean_run_without_controls_is_inconclusive() -> None:
    run = load("tcg-no-controls")
    verdict = judge(run.spec, run.observed())
    assert (verdict.kind, verdict.reason) == (VerdictKind.INCONCLUSIVE, "no controls were run")


def test_the_notes_say_what_the_controls_showed() -> None:
    verdict = judge(GOOD.spec, SEEN)
    assert any(note.startswith("the power controls showed: ") and "lost" in note for note in verdict.notes)
    assert [control.role for control in verdict.controls] == ["sanity", "sanity", "power", "power"]
    assert [control.unit for control in verdict.controls] == ["rounds", *["operations"] * 3]
    power = [control.power for control in verdict.controls][:3]
    free, race = (rf"{each.violated} of {each.live} live batches" for each in (POWER_FREE, POWER_RACE))
    assert power[:2] == ["", ""]
    assert re.fullmatch(rf"{free} free \(design effect 1\.\d\), {race} race \(design effect 1\.\d\)", power[2])
    assert all(control.enough for control in verdict.controls)


def test_a_verdict_lists_the_cases_witnesses_only() -> None:
    verdict = judge(BAD.spec, BAD.observed())
    assert {witness.phase for witness in verdict.witnesses} == {CASE}
    assert judge(GOOD.spec, SEEN).witnesses == ()


def test_other_kinds_are_told_apart() -> None:
    assert BAD.observed().memory is not None
    verdict = judge(BAD.spec, BAD.observed())
    assert set(verdict.violations) == {"lost", "duplicate", "torn", "stale"}
    assert verdict.violations["lost"] > 0
