"""Recorded logs, cut and altered in every way, are never judged ATOMIC; what is not the guest's does not matter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NAMES, Recording, load, signed

from kgen.observation import Observation, from_log
from kgen.protocol import parse_log
from kgen.verdict import VerdictKind, judge

GOOD = load("tcg-atomic")
RUNS = st.sampled_from(NAMES).map(load)
KNOWN = {
    "kvm-lost": VerdictKind.NOT_ATOMIC,
    "tcg-atomic": VerdictKind.ATOMIC,
    "tcg-no-controls": VerdictKind.INCONCLUSIVE,
    "tcg-no-lock": VerdictKind.NOT_ATOMIC,
    "tcg-two-cpus": VerdictKind.ERROR,
    "tcg-vga-none": VerdictKind.RAM_BACKED,
}


def complete(log: bytes) -> bool:
    record = from_log(parse_log(log))
    return record is not None and record.complete


def kinds(run: Recording, log: bytes) -> set[VerdictKind]:
    """The verdicts on this log alone and beside the intact memory of its run."""
    observations: tuple[Observation, ...] = (run.alone(log), run.observed(log))
    return {judge(run.spec, observation).kind for observation in observations}


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_run_is_judged_as_it_was(name: str) -> None:
    run = load(name)
    assert complete(run.log)
    assert judge(run.spec, run.observed()).kind is KNOWN[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_log_alone_says_the_same(name: str) -> None:
    """The guest's own probe stands in for QEMU's word, as it must where there is no QEMU."""
    run = load(name)
    assert judge(run.spec, run.alone()).kind is KNOWN[name]


def test_every_cut_is_noticed() -> None:
    """Only the line end after the closing line may be shortened to LF."""
    assert not [at for at in range(len(GOOD.log)) if complete(GOOD.log[:at])]
    head = len("kgen:0 boot ")
    assert not [at for at in range(1, len(GOOD.log)) if at >= head and complete(GOOD.log[at:])]


def test_every_altered_byte_is_noticed() -> None:
    for at, byte in enumerate(GOOD.log):
        other = byte ^ (1 << at % 8)
        altered = GOOD.log[:at] + bytes([other]) + GOOD.log[at + 1 :]
        assert not complete(altered), (at, byte, other)


def test_every_missing_byte_is_noticed() -> None:
    for at, byte in enumerate(GOOD.log):
        if byte != ord("\r"):
            assert not complete(GOOD.log[:at] + GOOD.log[at + 1 :]), at


def test_every_missing_repeated_or_swapped_line_is_noticed() -> None:
    lines = GOOD.log.splitlines(keepends=True)
    for at, line in enumerate(lines):
        assert not complete(b"".join(lines[:at] + lines[at + 1 :])), line
        assert not complete(b"".join([*lines[:at], line, *lines[at:]])), line
        if at + 1 < len(lines):
            assert not complete(b"".join([*lines[:at], lines[at + 1], line, *lines[at + 2 :]])), line


@settings(max_examples=300, deadline=None)
@given(run=RUNS, data=st.data())
def test_a_cut_log_is_never_atomic(run: Recording, data: st.DataObject) -> None:
    log: bytes = run.log
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(log))] * 2)))
    kept = log[:start] + log[end:] if data.draw(st.booleans()) else log[start:end]
    if complete(kept):
        assert kept == log or start == end
    else:
        assert VerdictKind.ATOMIC not in kinds(run, kept)


@settings(max_examples=300, deadline=None)
@given(run=RUNS, data=st.data())
def test_an_altered_log_is_never_atomic(run: Recording, data: st.DataObject) -> None:
    log: bytes = run.log
    altered = bytearray(log)
    positions = st.lists(st.integers(0, len(log) - 1), min_size=1, max_size=8, unique=True)
    for at in data.draw(positions):
        altered[at] = data.draw(st.integers(0, 255).filter(lambda value, at=at: value != log[at]))
    assert VerdictKind.ATOMIC not in kinds(run, bytes(altered))


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=200, deadline=None)
@given(run=RUNS, data=st.data())
def test_shuffled_lines_are_never_atomic(run: Recording, data: st.DataObject) -> None:
    lines: list[bytes] = run.log.splitlines(keepends=True)
    chosen = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=2 * len(lines)))
    if chosen != list(range(len(lines))):
        assert VerdictKind.ATOMIC not in kinds(run, b"".join(lines[at] for at in chosen))


@settings(max_examples=300, deadline=None)
@given(log=st.binary(max_size=300) | st.text(alphabet="kgen:0123 botcpurashd=\t\r\n", max_size=300).map(str.encode))
def test_anything_can_be_read(log: bytes) -> None:
    assert VerdictKind.ATOMIC not in kinds(GOOD, log)


@pytest.mark.parametrize("name", ["kvm-lost", "tcg-no-lock"])
def test_a_log_cut_after_a_witness_still_shows_the_violation(name: str) -> None:
    """From the case's first witness on, every cut keeps the evidence."""
    run = load(name)
    lines = run.log.splitlines(keepends=True)
    case = next(at for at, line in enumerate(lines) if b" phase index=3 " in line or b" label=case:" in line)
    first = next(at for at in range(case, len(lines)) if b" witness " in lines[at])
    for end in range(first + 1, len(lines)):
        verdict = judge(run.spec, run.alone(b"".join(lines[:end])))
        assert verdict.kind is VerdictKind.NOT_ATOMIC
        assert sum(verdict.violations.values()) >= 1
    before = judge(run.spec, run.alone(b"".join(lines[:first])))
    assert before.kind is VerdictKind.INCONCLUSIVE


@settings(max_examples=100, deadline=None)
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
    assert judge(GOOD.spec, GOOD.alone(bad.log + GOOD.log)).kind is VerdictKind.ATOMIC


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


def test_a_log_without_its_first_line_is_of_no_known_kernel() -> None:
    bad = load("kvm-lost")
    log = b"".join(bad.log.splitlines(keepends=True)[1:])
    assert judge(bad.spec, bad.alone(log)).kind is VerdictKind.INCONCLUSIVE
    assert judge(bad.spec, bad.observed(log)).kind is VerdictKind.NOT_ATOMIC  # memory still tells
