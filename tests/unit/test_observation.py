"""A guest that lies on one channel is found out, and no block of memory makes the reader fail in an unknown way."""

from __future__ import annotations

import ctypes
import random
import re
from dataclasses import fields, replace
from typing import Any

import pytest
from draws import draws
from grouped import grouped
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import NAMES, load, signed
from strides import FIRST, STRIDE

from kgen.errors import ProtocolError
from kgen.evidence.channels import differences
from kgen.evidence.from_memory import from_memory
from kgen.evidence.from_serial import from_log
from kgen.evidence.records import Record
from kgen.kernel.plan import phases_of
from kgen.kernel.protocol import RECORDS, parse_log
from kgen.kernel.results_block import MAGIC, NO_CPU, Decode, KernelState, PhaseStatus
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

GOOD = load("tcg-atomic")
BAD = load("kvm-lost")
SUITE = load("kvm-suite")
#: The last phase of one case: the case itself.
CASE = 5
_NUMBER = re.compile(r"([a-z0-9_]+)=([0-9a-f]+)(?= )")
_HEX = {name for text in RECORDS.values() for name in re.findall(r"([a-z0-9_]+)=%x", text)}
#: What no other place holds: the checksums are the signature itself.
_UNHELD = {"crc", "log"}


def records(run: Any) -> tuple[Record, Record]:
    serial = from_log(parse_log(run.log))
    assert serial is not None
    return serial, from_memory(run.layout, run.block)


def edits(lines: list[str]) -> list[tuple[int, str, str]]:
    """Every number of every native line: line, field, and the line with the number one higher (or lower).

    A sign of life is no evidence: memory does not hold it, and nothing rests on it.
    """
    found = []
    for at, line in enumerate(lines):
        if not line.startswith("kgen:") or line.split()[1] == "progress":
            continue
        for match in _NUMBER.finditer(line):
            name, text = match[1], match[2]
            if name in _UNHELD or name in ("build", "digest", "version", "label"):
                continue
            base = 16 if name in _HEX else 10
            number = int(text, base)
            most = (1 << 64) - 1 if f"{name}=%q" in RECORDS[line.split()[1]] else NO_CPU
            for step in (1, -1):
                if 0 <= number + step <= most:
                    new = f"{number + step:08x}" if base == 16 else str(number + step)
                    found.append((at, name, line[: match.start(2)] + new + line[match.end(2) :]))
    return found


GOOD_EDITS = edits(GOOD.lines)
BAD_EDITS = edits(BAD.lines)
SUITE_EDITS = edits(SUITE.lines)


def test_the_edits_reach_every_number_of_every_line() -> None:
    """Each decimal and hexadecimal field of the protocol that a run without a fault prints, in each line kind."""
    reached = {(line.split()[1], name) for _, name, line in GOOD_EDITS + BAD_EDITS + SUITE_EDITS}
    numeric = {
        (kind, name)
        for kind, text in RECORDS.items()
        for name in re.findall(r"([a-z0-9_]+)=%[uqx]", text)
        if name not in _UNHELD | {"build"}
    }
    assert {key for key in numeric if key[0] not in ("fault", "progress")} == reached


@pytest.mark.parametrize(
    ("run", "lies"), [(GOOD, GOOD_EDITS), (BAD, BAD_EDITS), (SUITE, SUITE_EDITS)], ids=["atomic", "lost", "suite"]
)
@pytest.mark.parametrize("first", FIRST)
def test_any_one_number_that_memory_does_not_confirm_is_an_error(
    run: Any, lies: list[tuple[int, str, str]], first: int
) -> None:
    """Every checksum is right: the guest itself says something else than its memory."""
    for at, name, line in lies[first::STRIDE]:
        log = signed([*run.lines[:at], line, *run.lines[at + 1 :]])
        seen = run.observed(log)
        # what memory does not hold of a phase is held against the plan, by the cases that rest on the phase
        announced = line.split()[1] == "phase" and name != "index"
        index = int(line.partition(" index=")[2].partition(" ")[0]) if announced else None
        cases = [
            number
            for number in range(len(run.spec.cases))
            if index is None or index in {phase.index for phase in phases_of(run.spec, number)}
        ]
        assert {judge(run.spec, seen, number).kind for number in cases} == {VerdictKind.ERROR}, line


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        (r"build=([0-9a-f]{40})", "0" * 40),
        (r"digest=([0-9a-f]{64})", "0" * 64),
        (r"case=(\S+)", "xchg.32.ram.token"),
        (r"label=(power:mov-mov.32@vga-text)", "power:mov-mov.32@ram"),
        (r"label=(case:\S+)", "sanity:xchg.32@ram"),
    ],
)
def test_any_one_text_that_is_not_the_cases_is_an_error(pattern: str, new: str) -> None:
    text = "\n".join(GOOD.lines)
    match = re.search(pattern, text)
    assert match is not None
    log = signed((text[: match.start(1)] + new + text[match.end(1) :]).split("\n"))
    assert complete(log)
    assert judge(GOOD.spec, GOOD.observed(log)).kind is VerdictKind.ERROR
    assert judge(GOOD.spec, GOOD.alone(log)).kind is not VerdictKind.ATOMIC or "build" in pattern


def complete(log: bytes) -> bool:
    record = from_log(parse_log(log))
    return record is not None and record.complete


@grouped(((at,) for at in range(len(GOOD.lines))), by=lambda member: GOOD.lines[member[0]].split()[1])
def test_a_line_that_the_guest_leaves_out_or_repeats_is_found(at: int) -> None:
    """Numbered and signed as if it had never been there, or twice. Alone, too, the record does not add up, except for
    table rows in the middle and signs of life, which prove nothing, and the last witness of a power control: of a walk
    not all violations are described."""
    lines = GOOD.lines
    last = max(at for at, line in enumerate(lines) if " witness " in line)
    for changed in ([*lines[:at], *lines[at + 1 :]], [*lines[: at + 1], *lines[at:]]):
        log = signed(changed)
        row = lines[at].startswith("counts:") or " progress " in lines[at] or (at == last and len(changed) < len(lines))
        kinds = {judge(GOOD.spec, observed).kind for observed in (GOOD.observed(log), GOOD.alone(log))}
        assert row or VerdictKind.ATOMIC not in kinds, lines[at]


def test_a_table_that_tells_another_story_is_an_error() -> None:
    lines = GOOD.lines
    rows = [at for at, line in enumerate(lines) if re.match(r"counts:\t\d", line)]
    for at in rows:
        values = lines[at].split("\t")
        for column in range(1, 5):
            changed = [*values[:column], str(int(values[column]) + 1), *values[column + 1 :]]
            log = signed([*lines[:at], "\t".join(changed), *lines[at + 1 :]])
            for observation in (GOOD.observed(log), GOOD.alone(log)):
                assert judge(GOOD.spec, observation).kind is VerdictKind.ERROR
    # a row that adds up, and is not what was counted
    last = rows[-1]
    for story in ("counts:\t1000\t1000\t0\t0", "counts:\t999\t999\t0\t0"):
        log = signed([*lines[:last], story, *lines[last + 1 :]])
        assert judge(GOOD.spec, GOOD.observed(log)).kind is VerdictKind.ERROR
    without = signed([line for line in lines if not re.match(r"counts:\t\d", line)])
    assert judge(GOOD.spec, GOOD.observed(without)).kind is VerdictKind.ERROR


def test_a_second_result_cannot_replace_the_first() -> None:
    """A log alone that says a phase was violated, then that it was not, contradicts itself."""
    result = next(at for at, line in enumerate(BAD.lines) if f" result phase={CASE} " in line)
    clean = re.sub(r"(lost|duplicate)=\d+", r"\1=0", BAD.lines[result])
    log = signed([*BAD.lines[: result + 1], clean, *BAD.lines[result + 1 :]])
    record = from_log(parse_log(log))
    assert record is not None
    position = sum(line.startswith("kgen:") for line in BAD.lines[: result + 1])
    assert record.contradiction == f"line {position} repeats a result line"
    assert judge(BAD.spec, BAD.alone(log)).kind is VerdictKind.ERROR


@settings(max_examples=draws(200), deadline=None)
@given(data=st.data())
def test_any_one_changed_number_in_memory_is_found(data: st.DataObject) -> None:
    """The other way round: the block differs in one counter, the log is as it was."""
    block = GOOD.layout.parse(GOOD.block)
    phase = block.phase[data.draw(st.integers(0, GOOD.layout.phases - 1))]
    step = data.draw(st.integers(1, 2**32))
    plain = ("rounds", "lost", "duplicate", "torn", "stale", "left", "foreign", "ticks", "latency", "address", "cells")
    name = data.draw(st.sampled_from((*plain, "cpu")))
    if name == "cpu":
        entry = phase.cpu[data.draw(st.integers(0, 2))]
        name = data.draw(st.sampled_from(("puts", "takes", "tries")))
        setattr(entry, name, getattr(entry, name) + step)
    else:
        before = getattr(phase, name)
        setattr(phase, name, before + step)
        if getattr(phase, name) == before:
            return  # 2^32 more of a 32-bit number
    assert judge(GOOD.spec, GOOD.observed(block=bytes(block))).kind is VerdictKind.ERROR


@pytest.mark.parametrize("name", NAMES)
def test_the_two_channels_of_a_recorded_run_agree(name: str) -> None:
    serial, memory = records(load(name))
    assert serial.complete
    assert memory.complete
    assert differences(serial, memory) == ()


@pytest.mark.parametrize("item", [item.name for item in fields(Record)])
def test_every_field_of_a_record_is_compared_or_known_to_be_one_channels(item: str) -> None:
    """Adding a field to Record means deciding here whether both channels hold it."""
    # closing lines stand in the logs of suites only, memory counts cases in any kernel
    one_sided = {"spec", "said", "channel", "gap", "contradiction", "cpus", "case", "digest", "closed"}
    # the CPUs are told through memory
    one_sided |= {"phase_index", "handshake"}
    serial, memory = records(BAD)
    value = getattr(serial, item)
    other: Any = (
        value[:-1]
        if isinstance(value, tuple) and value
        else not value
        if isinstance(value, bool)
        else f"{value}x"
        if isinstance(value, str)
        else type(value)(value + 1)
        if isinstance(value, int) and item != "boot_path"
        else 3
    )
    if item == "faults":
        assert differences(serial, replace(memory, faults=())) == ()
        return
    found = differences(replace(serial, **{item: other}), memory)
    assert bool(found) == (item not in one_sided | {"complete"})


@pytest.mark.parametrize("first", FIRST)
def test_a_log_that_was_cut_contradicts_nothing(first: int) -> None:
    memory = from_memory(BAD.layout, BAD.block)
    for end in range(first, len(BAD.log), STRIDE):
        serial = from_log(parse_log(BAD.log[:end]))
        if serial is not None:
            assert differences(serial, memory) == ()


def test_a_frozen_run_is_read_as_far_as_it_came() -> None:
    """In a phase that is still running the counters are those of the CPU table."""
    block = GOOD.layout.parse(GOOD.block)
    block.state, block.phase[CASE].status = KernelState.RUNNING, PhaseStatus.RUNNING
    block.cpu[1].takes = 7
    record = from_memory(GOOD.layout, bytes(block))
    assert not record.complete
    assert record.gap == "the kernel was still in state RUNNING"
    assert record.phases[CASE].counts[1].takes == 7
    block.phase[CASE].status = PhaseStatus.PENDING
    assert len(from_memory(GOOD.layout, bytes(block)).phases) == CASE


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"magic": b"KGENRSL?"}, "no results block"),
        ({"version": 99}, "layout 99"),
        ({"size": 4}, "has 4 bytes"),
        ({"cpus_needed": 4}, "for 4 CPUs"),
        ({"witness_count": 0xFFFFFFFF}, "4294967295 witnesses"),
        ({"state": 77}, "77 is not a valid KernelState"),
        ({"clock": 77}, "77 is not a valid Clock"),
        ({"boot_path": 77}, "77 is not a valid BootPath"),
    ],
)
def test_a_block_that_makes_no_sense(change: dict[str, Any], complaint: str) -> None:
    block = GOOD.layout.parse(GOOD.block)
    for name, value in change.items():
        setattr(block, name, value)
    with pytest.raises(ProtocolError, match=complaint):
        from_memory(GOOD.layout, bytes(block))
    with pytest.raises(ProtocolError, match="cut off"):
        from_memory(GOOD.layout, GOOD.block[:-1])


_HEADER = MAGIC + GOOD.block[len(MAGIC) : GOOD.layout.results.state.offset]


@settings(max_examples=draws(150), deadline=None)
@given(seed=st.integers(0, 2**32).map(random.Random), header=st.booleans(), density=st.sampled_from([1, 3, 50]))
def test_random_memory_is_refused_in_words(seed: Any, header: bool, density: int) -> None:
    """With and without a header that fits; dense and sparse, so that it also gets past the first check."""
    size = GOOD.layout.size
    data = bytearray(size if density > 1 else seed.randbytes(size))
    for _ in range(density if density > 1 else 0):
        data[seed.randrange(size)] = seed.randrange(256)
    if header:
        data[: len(_HEADER)] = _HEADER
        data[GOOD.layout.results.cpus_needed.offset] = GOOD.layout.cpus
    try:
        record = from_memory(GOOD.layout, bytes(data))
    except ProtocolError:
        return
    judge(GOOD.spec, replace(GOOD.observed(), memory=record))


@settings(max_examples=draws(300), deadline=None)
@given(at=st.integers(0, GOOD.layout.size - 1), value=st.integers(0, 255), length=st.integers(1, 8))
@example(at=0, value=0, length=8)
def test_altered_memory_is_refused_or_judged(at: int, value: int, length: int) -> None:
    data = bytearray(GOOD.block)
    data[at : at + length] = bytes([value]) * min(length, len(data) - at)
    try:
        observation = GOOD.observed(block=bytes(data))
    except ProtocolError:
        return
    judge(GOOD.spec, observation)


def test_no_cpu_is_no_cpu() -> None:
    witnesses = from_memory(BAD.layout, BAD.block).witnesses
    assert {witness.other for witness in witnesses if witness.kind.name == "LOST"} == {None}
    assert ctypes.c_uint32(-1).value == NO_CPU


def test_the_probe_speaks_for_its_phase() -> None:
    serial, _ = records(GOOD)
    assert [phase.decode for phase in serial.phases] == [Decode.UNKNOWN] * 2 + [Decode.IO] * 4
