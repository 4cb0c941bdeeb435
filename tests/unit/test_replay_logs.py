"""Recorded logs, cut and altered in every way, are never judged ATOMIC; what is not the guest's does not matter."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NAMES, Recording, load, signed
from strides import FIRST, STRIDE

from kgen.evidence.from_serial import from_log
from kgen.evidence.observation import Observation
from kgen.kernel.plan import phases
from kgen.kernel.protocol import parse_log
from kgen.kernel.results_block import Role
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

GOOD = load("tcg-atomic")
SUITE = load("tcg-suite")
RUNS = st.sampled_from(NAMES).map(load)
#: The verdicts on each run's cases.
KNOWN = {
    "kvm-lost": [VerdictKind.NOT_ATOMIC],
    "kvm-suite": [VerdictKind.NOT_ATOMIC, VerdictKind.RAM_BACKED, VerdictKind.NOT_ATOMIC, VerdictKind.NOT_ATOMIC],
    "old-kvm-lost": [VerdictKind.NOT_ATOMIC],
    "old-kvm-suite": [VerdictKind.NOT_ATOMIC, VerdictKind.RAM_BACKED, VerdictKind.NOT_ATOMIC, VerdictKind.NOT_ATOMIC],
    "old-tcg-atomic": [VerdictKind.INCONCLUSIVE],
    "old-tcg-no-controls": [VerdictKind.INCONCLUSIVE],
    "old-tcg-no-lock": [VerdictKind.NOT_ATOMIC],
    "old-tcg-suite": [
        VerdictKind.INCONCLUSIVE,
        VerdictKind.RAM_BACKED,
        VerdictKind.INCONCLUSIVE,
        VerdictKind.INCONCLUSIVE,
    ],
    "old-tcg-two-cpus": [VerdictKind.ERROR],
    "old-tcg-vga-none": [VerdictKind.RAM_BACKED],
    "tcg-atomic": [VerdictKind.ATOMIC],
    "tcg-no-controls": [VerdictKind.INCONCLUSIVE],
    "tcg-no-lock": [VerdictKind.NOT_ATOMIC],
    "tcg-suite": [VerdictKind.ATOMIC, VerdictKind.RAM_BACKED, VerdictKind.ATOMIC, VerdictKind.ATOMIC],
    "tcg-two-cpus": [VerdictKind.ERROR],
    "tcg-vga-none": [VerdictKind.RAM_BACKED],
}


def complete(log: bytes) -> bool:
    record = from_log(parse_log(log))
    return record is not None and record.complete


def kinds(run: Recording, log: bytes, number: int = -1) -> set[VerdictKind]:
    """The verdicts on a case, by this log alone and beside the intact memory of its run."""
    observations: tuple[Observation, ...] = (run.alone(log), run.observed(log))
    return {judge(run.spec, observation, number).kind for observation in observations}


def accounts(run: Recording) -> list[bytes]:
    """What must stand in a log for each case: all of it or, in a suite, all up to the line that closes the case."""
    if not run.spec.suite:
        return [run.log]
    lines = run.log.splitlines(keepends=True)
    return [b"".join(lines[: at + 1]) for at, line in enumerate(lines) if b" done case=" in line]


def assert_not_atomic_where_touched(run: Recording, log: bytes) -> None:
    """No case is ATOMIC of whose account something is missing or not as it was."""
    for number, account in enumerate(accounts(run)):
        if log != account and not (run.spec.suite and log.startswith(account)):
            assert VerdictKind.ATOMIC not in kinds(run, log, number), run.spec.cases[number].id


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_run_is_judged_as_it_was(name: str) -> None:
    run = load(name)
    assert complete(run.log)
    assert [judge(run.spec, run.observed(), number).kind for number in range(len(run.spec.cases))] == KNOWN[name]
    assert judge(run.spec, run.observed()) == judge(run.spec, run.observed(), len(run.spec.cases) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_log_alone_says_the_same(name: str) -> None:
    """The guest's own probe stands in for QEMU's word, as it must where there is no QEMU."""
    run = load(name)
    known = KNOWN[name]
    for number, case in enumerate(run.spec.cases):
        # elsewhere than in VGA memory there is nothing that the guest could probe
        told = VerdictKind.INCONCLUSIVE if case.target == "framebuffer" else known[number]
        assert judge(run.spec, run.alone(), number).kind is told


@pytest.mark.parametrize("first", FIRST)
def test_every_cut_is_noticed(first: int) -> None:
    """Only the line end after the closing line may be shortened to LF."""
    assert not [at for at in range(first, len(GOOD.log), STRIDE) if complete(GOOD.log[:at])]
    head = len("kgen:0 boot ")
    assert not [at for at in range(head + first, len(GOOD.log), STRIDE) if complete(GOOD.log[at:])]


@pytest.mark.parametrize("first", FIRST)
def test_every_altered_byte_is_noticed(first: int) -> None:
    for at, byte in islice(enumerate(GOOD.log), first, None, STRIDE):
        other = byte ^ (1 << at % 8)
        altered = GOOD.log[:at] + bytes([other]) + GOOD.log[at + 1 :]
        assert not complete(altered), (at, byte, other)


def test_every_altered_byte_for_other_readers_is_noticed() -> None:
    """The Test Anything Protocol's lines carry no checksum of their own; the next closing line covers them."""
    tap = (b"TAP", b"1..", b"ok ", b"not ok ")
    found = 0
    for account in accounts(SUITE):
        at = 0
        for line in account.splitlines(keepends=True):
            for position in range(at, at + len(line)) if line.startswith(tap) else ():
                found += 1
                altered = bytearray(account)
                altered[position] ^= 1 << position % 8
                closed = parse_log(bytes(altered)).closed
                assert closed < parse_log(account).closed, (line, position - at)
            at += len(line)
    assert found > 100


@pytest.mark.parametrize("first", FIRST)
def test_every_missing_byte_is_noticed(first: int) -> None:
    for at, byte in islice(enumerate(GOOD.log), first, None, STRIDE):
        if byte != ord("\r"):
            assert not complete(GOOD.log[:at] + GOOD.log[at + 1 :]), at


def test_every_missing_repeated_or_swapped_line_is_noticed() -> None:
    lines = GOOD.log.splitlines(keepends=True)
    for at, line in enumerate(lines):
        assert not complete(b"".join(lines[:at] + lines[at + 1 :])), line
        assert not complete(b"".join([*lines[:at], line, *lines[at:]])), line
        if at + 1 < len(lines):
            assert not complete(b"".join([*lines[:at], lines[at + 1], line, *lines[at + 2 :]])), line


@settings(max_examples=draws(300), deadline=None)
@given(run=RUNS, data=st.data())
def test_a_cut_log_is_never_atomic(run: Recording, data: st.DataObject) -> None:
    log: bytes = run.log
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(log))] * 2)))
    kept = log[:start] + log[end:] if data.draw(st.booleans()) else log[start:end]
    if complete(kept):
        assert kept == log or start == end
    assert_not_atomic_where_touched(run, kept)


@settings(max_examples=draws(300), deadline=None)
@given(run=RUNS, data=st.data())
def test_an_altered_log_is_never_atomic(run: Recording, data: st.DataObject) -> None:
    log: bytes = run.log
    altered = bytearray(log)
    positions = st.lists(st.integers(0, len(log) - 1), min_size=1, max_size=8, unique=True)
    for at in data.draw(positions):
        altered[at] = data.draw(st.integers(0, 255).filter(lambda value, at=at: value != log[at]))
    assert_not_atomic_where_touched(run, bytes(altered))


@settings(max_examples=draws(200), deadline=None)
@given(data=st.data(), garbage=st.binary(min_size=1, max_size=40))
def test_garbage_in_the_middle_is_never_atomic(data: st.DataObject, garbage: bytes) -> None:
    end = len(GOOD.log.rstrip(b"\r\n"))
    at = data.draw(st.integers(1, end - 1))
    log = GOOD.log[:at] + garbage + GOOD.log[at:]
    if log.replace(b"\r\n", b"\n") == GOOD.log.replace(b"\r\n", b"\n") or garbage.strip(b"\r") == b"":
        return  # carriage returns before a line end belong to it
    if GOOD.log.rstrip(b"\r\n") in log:
        return  # what repeats the log's own first or last bytes lies before or behind it, where garbage may be
    assert VerdictKind.ATOMIC not in kinds(GOOD, log)


@settings(max_examples=draws(200), deadline=None)
@given(run=RUNS, data=st.data())
def test_shuffled_lines_are_never_atomic(run: Recording, data: st.DataObject) -> None:
    lines: list[bytes] = run.log.splitlines(keepends=True)
    chosen = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=2 * len(lines)))
    assert_not_atomic_where_touched(run, b"".join(lines[at] for at in chosen))


@settings(max_examples=draws(300), deadline=None)
@given(log=st.binary(max_size=300) | st.text(alphabet="kgen:0123 botcpurashd=\t\r\n", max_size=300).map(str.encode))
def test_anything_can_be_read(log: bytes) -> None:
    assert VerdictKind.ATOMIC not in kinds(GOOD, log)


@pytest.mark.parametrize("name", ["kvm-lost", "tcg-no-lock", "old-kvm-lost", "old-tcg-no-lock"])
def test_a_log_cut_after_a_witness_still_shows_the_violation(name: str) -> None:
    """From the first witness on, of the case or of its proof, every cut keeps the evidence."""
    run = load(name)
    lines = run.log.splitlines(keepends=True)
    telling = [b" phase=%d " % phase.index for phase in phases(run.spec) if phase.role in (Role.PROOF, Role.CASE)]
    first = next(
        at for at, line in enumerate(lines) if b" witness " in line and any(phase in line for phase in telling)
    )
    for end in range(first + 1, len(lines)):
        verdict = judge(run.spec, run.alone(b"".join(lines[:end])))
        assert verdict.kind is VerdictKind.NOT_ATOMIC
        assert sum(verdict.violations.values()) >= 1
    before = judge(run.spec, run.alone(b"".join(lines[:first])))
    assert before.kind is VerdictKind.INCONCLUSIVE


@settings(max_examples=draws(100), deadline=None)
@given(before=st.binary(max_size=60), after=st.binary(max_size=60), crlf=st.booleans())
def test_what_is_not_the_guests_does_not_matter(before: bytes, after: bytes, crlf: bool) -> None:
    ours = (b"kgen:", b"counts:")
    if any(word in noise for word in ours for noise in (before, after)):
        return
    log = GOOD.log if crlf else GOOD.log.replace(b"\r", b"")
    assert kinds(GOOD, before + log + after) == {VerdictKind.ATOMIC}


def test_line_ends_may_be_converted() -> None:
    for end in (b"\n", b"\r\n", b"\r\r\n"):
        assert kinds(GOOD, GOOD.log.replace(b"\r\n", end)) == {VerdictKind.ATOMIC}
    inside = GOOD.log.replace(b"puts=1000", b"puts=\r1000", 1)
    assert VerdictKind.ATOMIC not in kinds(GOOD, inside)


def test_the_last_of_several_whole_runs_counts() -> None:
    bad = load("kvm-lost")
    assert judge(bad.spec, bad.alone(GOOD.log + bad.log)).kind is VerdictKind.NOT_ATOMIC
    assert judge(GOOD.spec, GOOD.alone(GOOD.log + GOOD.log)).kind is VerdictKind.ATOMIC
    assert judge(SUITE.spec, SUITE.alone(GOOD.log + SUITE.log)).kind is VerdictKind.ATOMIC


@pytest.mark.parametrize("name", ["kvm-lost", "kvm-suite", "tcg-no-lock", "old-kvm-lost"])
def test_an_earlier_run_that_shows_violations_spoils_the_log(name: str) -> None:
    """A person who runs it again until it comes out well must not get that verdict; a power control may fail."""
    log = parse_log(load(name).log + GOOD.log)
    assert (log.intact, log.fault, log.closed) == (False, "an earlier run in the same log shows violations", 0)
    assert judge(GOOD.spec, GOOD.alone(load(name).log + GOOD.log)).kind is VerdictKind.INCONCLUSIVE
    for number in range(len(SUITE.spec.cases)):
        seen = SUITE.alone(load(name).log + SUITE.log)
        assert judge(SUITE.spec, seen, number).kind is VerdictKind.INCONCLUSIVE


@pytest.mark.parametrize("first", FIRST)
def test_a_case_of_a_suite_is_closed_by_its_line(first: int) -> None:
    """However the log goes on, what stands up to the line that closes a case is judged; before, it is not."""
    lines = SUITE.log.splitlines(keepends=True)
    closing = [len(account.splitlines()) for account in accounts(SUITE)]
    ends = {*range(first, len(lines) + 1, STRIDE), *(end + more for end in closing for more in (-1, 0, 1))}
    for number, account in enumerate(accounts(SUITE)):
        for end in sorted(ends & set(range(len(lines) + 1))):
            cut = b"".join(lines[:end])
            kind = judge(SUITE.spec, SUITE.alone(cut), number).kind
            if cut.startswith(account):
                assert kind is (VerdictKind.INCONCLUSIVE if number == 1 else VerdictKind.ATOMIC)
            else:
                assert kind is not VerdictKind.ATOMIC
            assert parse_log(cut).closed == sum(cut.startswith(each) for each in accounts(SUITE))
            assert judge(SUITE.spec, SUITE.observed(cut), number).kind is not VerdictKind.ERROR


def test_a_start_that_was_cut_off_spoils_the_log() -> None:
    """A guest that started twice died once."""
    lines = GOOD.log.splitlines(keepends=True)
    for end in range(1, len(lines)):
        verdict = judge(GOOD.spec, GOOD.alone(b"".join(lines[:end]) + GOOD.log))
        assert verdict.kind is VerdictKind.INCONCLUSIVE
    headless = b"".join(lines[1:])
    assert judge(GOOD.spec, GOOD.alone(headless + GOOD.log)).kind is VerdictKind.INCONCLUSIVE


def test_signing_again_changes_nothing() -> None:
    for name in NAMES:
        assert signed(load(name).lines) == load(name).log


def test_a_log_without_its_first_line_is_known_by_its_request() -> None:
    bad = load("kvm-lost")
    lines = bad.log.splitlines(keepends=True)
    headless = b"".join(lines[1:])
    assert judge(bad.spec, bad.alone(headless)).kind is VerdictKind.NOT_ATOMIC
    assert (
        judge(GOOD.spec, GOOD.alone(b"".join(GOOD.log.splitlines(keepends=True)[1:]))).kind is VerdictKind.INCONCLUSIVE
    )
    other = replace(bad.spec, rounds=1001)
    assert judge(other, bad.alone(headless)).kind is not VerdictKind.NOT_ATOMIC


def test_a_log_without_its_first_lines_is_of_no_known_kernel() -> None:
    bad = load("kvm-lost")
    log = b"".join(bad.log.splitlines(keepends=True)[2:])
    assert judge(bad.spec, bad.alone(log)).kind is VerdictKind.INCONCLUSIVE
    assert judge(bad.spec, bad.observed(log)).kind is VerdictKind.NOT_ATOMIC  # memory still tells
