"""Long logs: the work grows with their length and not with its square, and memory is bounded."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

import pytest
from recordings import DIRECTORY, load

from kgen.evidence.from_serial import from_log
from kgen.kernel.protocol import TABLE_HEADER, Rows, lines_of, parse_log
from kgen.offline.original_table import judge_table, read
from kgen.offline.runs import MAX_RUNS, from_capture, results, verdicts
from kgen.verdict.model import VerdictKind

#: The longer input is so many times the shorter one.
TIMES = 4
#: For TIMES the length at most so many times the work: an algorithm of the square has TIMES * TIMES.
GENEROUS = 1.5 * TIMES


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, of Python's own and of its libraries in C."""
    count = 0

    def tell(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tell)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def judged(data: bytes) -> None:
    for run in from_capture(data):
        results(run)


def table(rows: int) -> bytes:
    lines = "".join(f"counts:\t{n}\t{n // 3}\t{n - n // 3}\t0\n" for n in range(1, rows + 1))
    return f"{TABLE_HEADER}\n{lines}".encode()


def _first_lines(count: int) -> bytes:
    return load("kvm-lost").log[load("kvm-lost").log.index(b"kgen:0 boot") :].split(b"\n")[0].join([b"", b"\n"]) * count


def _repeated(kind: str) -> Callable[[int], bytes]:
    """A run in which one line is there again and again."""

    def make(count: int) -> bytes:
        lines = load("kvm-suite").log.splitlines(keepends=True)
        at = next(at for at, line in enumerate(lines) if f" {kind} ".encode() in line)
        return b"".join(lines[: at + 1]) + lines[at] * count

    return make


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda count: b"kgen:0 boot x\n" * count, 500),
        (lambda count: b"kgen:0 boot\n" * count, 500),
        (table, 500),
        (lambda count: (TABLE_HEADER.encode() + b"\n" + b"counts:\t1\t1\t1\t-1\n") * count, 200),
        (_first_lines, 40),
        *((_repeated(kind), 300) for kind in ("count", "live", "result", "done", "phase", "witness")),
    ],
)
def test_the_work_grows_with_the_length(make: Callable[[int], bytes], count: int) -> None:
    shorter, longer = make(count), make(TIMES * count)
    assert len(longer) > 0.6 * TIMES * len(shorter)
    judged(shorter)  # what is read and compiled once
    assert calls(lambda: judged(longer)) < GENEROUS * calls(lambda: judged(shorter))


@pytest.mark.parametrize("tail", ["x", "x\nx", ""])
def test_line_ends_without_end_take_no_square_of_time(tail: str) -> None:
    """No function is called for each of them, so this is measured: a square would be 16 times as much."""

    def seconds(count: int) -> float:
        data = b"kgen:1 " + b"\r" * count + tail.encode()
        begun = time.process_time()
        judged(data)
        parse_log(data)
        return time.process_time() - begun

    shorter = max(seconds(20_000), 0.02)
    assert seconds(TIMES * 20_000) < 10 * shorter


def test_each_line_is_counted_with_its_phase() -> None:
    """The lines of a phase are collected once; a record has them as before."""
    record = from_log(parse_log(load("kvm-suite").log))
    assert record is not None
    assert all(len(phase.counts) in (0, 3) and len(phase.live) in (0, 2) for phase in record.phases)
    assert any(phase.counts for phase in record.phases)


def test_broken_starts_are_one_run() -> None:
    (run,) = from_capture(b"kgen:0 boot x\n" * 5000)
    (verdict,) = verdicts(run)
    assert (verdict.kind, verdict.reason) == (
        VerdictKind.INCONCLUSIVE,
        "nothing but broken lines of a kernel is left of the log",
    )


def test_broken_starts_hide_no_run() -> None:
    broken = b"kgen:0 boot x\n" * 3
    kinds = [verdicts(run)[0].kind for run in from_capture(broken + load("kvm-lost").log + broken)]
    assert kinds == [VerdictKind.INCONCLUSIVE, VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE]


def test_a_machine_that_resets_without_end_is_named() -> None:
    (run,) = from_capture(_first_lines(MAX_RUNS + 1))
    (verdict,) = verdicts(run)
    assert verdict.kind is VerdictKind.ERROR
    assert verdict.reason.startswith(f"the log holds {MAX_RUNS + 1} starts of a kernel")
    assert len(from_capture(_first_lines(MAX_RUNS))) == MAX_RUNS


def test_a_long_table_is_not_kept() -> None:
    rows = 3 * Rows.ALL
    found = read(table(rows).decode())
    assert found is not None
    assert len(found.rows) < Rows.ALL + 10
    assert found.rows[-1][0] == rows
    assert judge_table(found).rounds == rows


@pytest.mark.parametrize("at", [0, 1, Rows.ALL, Rows.ALL + 1, 2 * Rows.ALL, 3 * Rows.ALL - 1])
def test_a_violation_anywhere_in_a_long_table_is_found(at: int) -> None:
    rows = [(2 * n, n, n, 0) for n in range(1, 3 * Rows.ALL + 1)]
    puts, first, second, _ = rows[at]
    rows[at] = (puts, first, second + 1, -1)
    found = read("".join("counts:\t" + "\t".join(map(str, row)) + "\n" for row in rows))
    assert found is not None
    verdict = judge_table(found)
    assert (verdict.kind, verdict.violations["duplicate"], found.unreadable) == (VerdictKind.NOT_ATOMIC, 1, 0)


@pytest.mark.parametrize("wrong", ["counts:\t2500\t1\t1\t7", "counts:\t9\t3\t6\t0"])
def test_a_row_that_does_not_fit_is_kept_of_a_long_table(wrong: str) -> None:
    """It does not add up, or counts backwards: the rules of consistency must see it."""
    head = load("kvm-lost").log.splitlines()[0].decode() + "\n"
    lines = table(3 * Rows.ALL).decode().splitlines()
    lines[2500] = wrong
    rows = parse_log((head + "\n".join(lines) + "\n").encode()).rows
    assert len(rows) < Rows.ALL + 10
    assert tuple(int(word) for word in wrong.split("\t")[1:]) in rows
    assert 2499 in [row[0] for row in rows]


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "\n\na", "a\n\nb\n"])
def test_lines_without_a_list(text: str) -> None:
    assert list(lines_of(text)) == text.split("\n")


#: More memory than this, in bytes, beyond that of the program itself, no small log takes.
_MORE = 24 << 20
_JUDGE = """
import re, resource, sys
import kgen.cli.judge, kgen.offline.runs, kgen.report.text.suite, rich.console
size = int(re.search(r"VmSize:\\s+([0-9]+)", open("/proc/self/status").read())[1]) << 10
limit = size + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from kgen.__main__ import run
run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the size of a process")
@pytest.mark.parametrize("stdin", [False, True])
def test_a_log_is_read_in_pieces(stdin: bool) -> None:
    """Not into a buffer of the longest that may be."""
    path = DIRECTORY / "kvm-lost.log"
    words = [sys.executable, "-c", _JUDGE, str(_MORE), "judge", "-" if stdin else str(path)]
    with path.open("rb") as file:
        done = subprocess.run(words, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == VerdictKind.NOT_ATOMIC.value, done.stderr
