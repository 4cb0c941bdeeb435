"""The log of the original program, which is only a table: CPU 0 puts one token and prints a row once it is taken.

    counts:	count0	count1	count2	count0-count1+count2
    counts:	1	0	1	0

Its numbers have no checksum and there are no controls, so such a log proves a violation or nothing. CPU 0 puts no token
while it prints, so the other two can by then have taken only what it had put. If they have taken more, a token was
taken twice. If they have taken less, nothing is proven: the token may not be counted yet, and a program that waits for
ever for a lost token leaves the same log as one that was watched for too short a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from kgen.kernel.protocol import TABLE_HEADER, Row, Rows, forwards, lines_of, parse_row
from kgen.verdict.model import Verdict, VerdictKind
from kgen.wording import plural

#: The program's counters may be 32 bits wide and wrap around.
_WRAP = 1 << 32
NOT_NATIVE = (
    "the log has a table and no kgen: lines, as that of the original program: nothing in it has a checksum, and which "
    "instruction on which memory it is of is not said"
)
#: The same for a log of a kgen kernel in which no line is whole; ``{}`` is the number of lines.
DAMAGED = (
    "the log has a table and {}, none of which is whole: a kgen kernel printed it, but nothing that is left has a "
    "checksum, and which instruction on which memory it is of cannot be read; capture the log again"
)


@dataclass(frozen=True)
class Table:
    """The original's table, as a log has it."""

    #: The rows of each start of the program. Rows of a long table that add nothing to their neighbours are left out
    #: (``Rows``).
    runs: tuple[tuple[Row, ...], ...]
    #: How many lines look like rows and are none, or contradict themselves or the rows next to them. They are no
    #: evidence.
    unreadable: int

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them."""
        return tuple(row for run in self.runs for row in run)


class _Start:
    """The rows of one start of the program, in order.

    A row counts if it fits the rows next to it: no counter goes back. If all of them go back, it is a new start without
    its header.
    """

    def __init__(self) -> None:
        self.rows = Rows(_no_duplicate)
        self.left_out = 0
        self._last: Row | None = None
        self._fits = True

    def add(self, row: Row) -> None:
        """Take the next row."""
        fits = self._last is None or _fit(self._last, row)
        self._decide(fits)
        self._last, self._fits = row, fits

    def close(self, kept: list[tuple[Row, ...]]) -> int:
        """Add the rows to those of earlier starts. Return how many were left out."""
        self._decide(True)
        if self.rows.kept:
            kept.append(tuple(self.rows.kept))
        return self.left_out

    def _decide(self, fits: bool) -> None:
        """Keep the last row if it fits the one before it and, by ``fits``, the one after it."""
        if self._last is None:
            return
        if self._fits and fits:
            self.rows.add(self._last)
        else:
            self.left_out += 1


def read(text: str) -> Table | None:
    """Return the table in a cleaned log (serial_log.clean), None where no row is readable. Never raises."""
    kept: list[tuple[Row, ...]] = []
    start = _Start()
    unreadable = at = 0
    for line in lines_of(text):
        at += len(line) + 1
        if line == TABLE_HEADER:
            unreadable += start.close(kept)
            start = _Start()
        elif line.startswith("counts:"):
            row = parse_row(line)
            # a number that was cut off is another number
            if row is None or at > len(text) or not _adds_up(row):
                unreadable += 1
            else:
                start.add(row)
    unreadable += start.close(kept)
    return Table(tuple(kept), unreadable) if kept else None


def difference(row: Row) -> int:
    """Return count0 - (count1 + count2), where the counters may have wrapped around."""
    found = row[0] - row[1] - row[2]
    if max(row[:3]) >= _WRAP:
        return found
    found %= _WRAP
    return found - _WRAP if found >= _WRAP // 2 else found


def judge_table(table: Table, damaged: int = 0) -> Verdict:
    """Return the verdict on the original program's log: NOT_ATOMIC or INCONCLUSIVE, nothing else. Pure.

    ``damaged`` is the number of other lines that look like a kgen kernel's.
    """
    rows = table.rows
    notes = [DAMAGED.format(plural(damaged, "kgen: line")) if damaged else NOT_NATIVE]
    if table.unreadable:
        notes.append(f"{table.unreadable} rows are unreadable or contradict themselves; they were left out")
    worst = min(rows, key=difference)
    rounds = max(row[0] for row in rows)
    if difference(worst) < 0:
        twice = sum(max(0, -min(map(difference, run))) for run in table.runs)
        reason = (
            f"{twice} duplicate in {rounds} rounds: when CPU 0 had put {worst[0]} tokens the others had taken "
            f"{worst[1] + worst[2]}, so at least one was taken twice"
        )
        violations = {"lost": 0, "duplicate": twice, "torn": 0, "stale": 0}
        return Verdict(VerdictKind.NOT_ATOMIC, reason, rounds=rounds, violations=violations, notes=tuple(notes))
    end = difference(table.runs[-1][-1])
    if end > 0:
        notes.append(
            f"the last row has {end} more put than taken: where a token is lost this program waits for ever, but a log "
            "that ends there looks the same"
        )
    else:
        notes.append(
            "if the program stopped there by itself a token may have been lost: this program then waits for ever"
        )
    reason = f"no token was taken twice in {rounds} rounds; without controls and checksums that proves nothing"
    none = dict.fromkeys(("lost", "duplicate", "torn", "stale"), 0)
    return Verdict(VerdictKind.INCONCLUSIVE, reason, rounds=rounds, violations=none, notes=tuple(notes))


def _adds_up(row: Row) -> bool:
    """Return whether the last column follows from the others, signed or unsigned, at the width of the counters."""
    made = row[0] - row[1] - row[2]
    return made == row[3] or (max(row[:3]) < _WRAP and (made - row[3]) % _WRAP == 0 and -_WRAP < row[3] < _WRAP)


def _no_duplicate(row: Row) -> bool:
    return difference(row) >= 0


def _fit(earlier: Row, later: Row) -> bool:
    """Return whether one row can follow another: no counter goes back, or none goes forwards."""
    return forwards(earlier, later) or forwards(later, earlier)
