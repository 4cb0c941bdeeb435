"""The original program's log: a violation or nothing, from numbers that have no checksum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import load

from kgen.kernel.protocol import TABLE_HEADER
from kgen.offline.original_table import difference, judge_table, read
from kgen.offline.runs import from_capture, verdicts
from kgen.verdict.model import Verdict, VerdictKind

NOT_ATOMIC, INCONCLUSIVE = VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE


def log(*rows: tuple[int, int, int, int], header: bool = True) -> bytes:
    lines = [TABLE_HEADER] if header else []
    lines += ["counts:\t" + "\t".join(map(str, row)) for row in rows]
    return "".join(f"{line}\r\n" for line in lines).encode()


def judged(data: bytes) -> Verdict:
    (run,) = from_capture(data)
    (verdict,) = verdicts(run)
    assert run.spec is None
    assert verdict.kind in (NOT_ATOMIC, INCONCLUSIVE)
    return verdict


#: What the program prints where all goes well.
CLEAN = [(n, n // 3, n - n // 3, 0) for n in range(1, 30)]


def test_a_clean_table_proves_nothing() -> None:
    verdict = judged(log(*CLEAN))
    assert verdict.kind is INCONCLUSIVE
    assert verdict.rounds == 29
    assert not any(verdict.violations.values())
    assert any("no kgen: lines" in note for note in verdict.notes)
    assert any("waits for ever" in note for note in verdict.notes)


def test_more_taken_than_put_is_a_duplicate() -> None:
    """As VMware Workstation 16 shows it."""
    verdict = judged(log(*CLEAN, (30, 11, 20, -1)))
    assert verdict.kind is NOT_ATOMIC
    assert verdict.violations == {"lost": 0, "duplicate": 1, "torn": 0, "stale": 0}
    assert "when CPU 0 had put 30 tokens the others had taken 31" in verdict.reason


def test_the_rows_before_and_behind_it_may_be_missing() -> None:
    for data in (log((30, 11, 20, -1), header=False), log((30, 11, 20, -1), (31, 11, 21, -1))):
        assert judged(data).kind is NOT_ATOMIC
    assert judged(b"t\t5\t0\r\n" + log((30, 11, 20, -1), header=False)).kind is NOT_ATOMIC


@pytest.mark.parametrize("more", [1, 2, 3, 40])
def test_more_put_than_taken_proves_nothing(more: int) -> None:
    verdict = judged(log(*CLEAN, (30 + more, 10, 20, more)))
    assert verdict.kind is INCONCLUSIVE
    assert any(f"the last row has {more} more put than taken" in note for note in verdict.notes)


@pytest.mark.parametrize("row", [(30, 11, 20, 0), (30, 10, 20, -1), (30, 11, 20, 1), (30, 111, 20, -1)])
def test_a_row_that_contradicts_itself_is_no_evidence(row: tuple[int, int, int, int]) -> None:
    verdict = judged(log(*CLEAN, row))
    assert verdict.kind is INCONCLUSIVE
    assert any("1 rows are unreadable" in note for note in verdict.notes)


def test_a_row_that_does_not_fit_the_rows_beside_it_is_no_evidence() -> None:
    """It adds up, and its counters stand above those of the next row."""
    wrong = [*CLEAN[:10], (11, 80, 8, -77), *CLEAN[11:]]
    assert judged(log(*wrong)).kind is INCONCLUSIVE


def test_a_row_that_was_cut_off_is_no_evidence() -> None:
    data = log(*CLEAN, (300, 110, 200, -10))
    assert judged(data).kind is NOT_ATOMIC
    for end in range(1, len(b"counts:\t300\t110\t200\t-10\r\n")):
        assert judged(data[:-end]).kind is INCONCLUSIVE


def test_counters_may_go_round() -> None:
    wrapped = (5, 2**32 - 10, 15, 0)
    assert difference(wrapped) == 0
    assert judged(log((2**32 - 1, 2**32 - 11, 10, 0))).kind is INCONCLUSIVE
    assert judged(log(wrapped)).kind is INCONCLUSIVE
    assert judged(log((5, 3, 3, 2**32 - 1))).kind is NOT_ATOMIC  # -1 printed without a sign
    assert difference((2**40, 2**40, 1, -1)) == -1


def test_two_starts_are_two_tables() -> None:
    first, second = log(*CLEAN, (30, 11, 20, -1)), log(*CLEAN)
    for data in (first + second, second + first):
        assert judged(data).kind is NOT_ATOMIC
    headless = log((1, 0, 1, 0), (2, 1, 2, -1), header=False)
    assert judged(second + headless).kind is NOT_ATOMIC


def test_the_table_of_a_kgen_log_is_read_as_one() -> None:
    """Copied by hand, or from a photo: nothing else of it is left."""
    for name, kind in (("kvm-lost", NOT_ATOMIC), ("tcg-atomic", INCONCLUSIVE)):
        rows = [line for line in load(name).log.splitlines(keepends=True) if line.startswith(b"counts:")]
        assert judged(b"".join(rows)).kind is kind
        assert judged(b"".join(rows).replace(b"\t", b"   ")).kind is kind


def test_lines_of_a_kernel_that_are_damaged_are_named() -> None:
    """They are there, so it is not the original program's log."""
    lines = [line.replace(b"crc=", b"crc-") for line in load("kvm-lost").log.splitlines(keepends=True)]
    damaged = sum(line.startswith(b"kgen:") for line in lines)
    verdict = judged(b"".join(lines))
    assert verdict.kind is judged(b"".join(line for line in lines if line.startswith(b"counts:"))).kind
    assert f"a table and {damaged} kgen: lines, none of which is whole" in verdict.notes[0]
    assert "no kgen: lines" not in str(verdict.notes)
    (one,) = [line for line in lines if line.startswith(b"kgen:0 ")]
    assert "a table and 1 kgen: line, none" in judged(one + log(*CLEAN)).notes[0]


_COUNT = st.integers(0, 2**34)


@given(st.lists(st.tuples(_COUNT, _COUNT, _COUNT, st.integers(-(2**34), 2**34)), max_size=12))
def test_any_table_can_be_judged(rows: list[tuple[int, int, int, int]]) -> None:
    table = read(log(*rows).decode().replace("\r", ""))
    if table is None:
        return
    verdict = judge_table(table)
    assert verdict.kind is (NOT_ATOMIC if any(difference(row) < 0 for row in table.rows) else INCONCLUSIVE)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40))
def test_no_order_of_atomic_exchanges_is_called_a_violation(steps: list[tuple[int, int]]) -> None:
    """Every token is taken by one of the two, sooner or later: what a correct machine can print."""
    counts = [0, 0, 0]
    owed: list[int] = []
    rows = []
    for taker, late in steps:
        counts[0] += 1
        owed.append(taker)
        while len(owed) > late:
            counts[1 + owed.pop(0)] += 1
        rows.append((counts[0], counts[1], counts[2], counts[0] - counts[1] - counts[2]))
    assert judged(log(*rows)).kind is INCONCLUSIVE
