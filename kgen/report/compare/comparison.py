"""Results compared with each other, case by case: what got worse, what vanished, what is new.

The others are compared with the first run. A verdict is an answer, and only ATOMIC is a good one, because it
alone is proven; so only becoming ATOMIC, or coming to an end again, is an improvement. That a defect has not been seen
this time is none. What is rare may be seen in one run and not in the next; it decides only where chance is excluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kgen.errors import SpecError
from kgen.report.results.model import Result, Run
from kgen.report.statistics import LEVEL, excess
from kgen.report.text.case import bound_words
from kgen.report.text.labels import labels
from kgen.spec import KernelSpec
from kgen.verdict.model import SEVERITY, VerdictKind
from kgen.wording import fact

#: The verdicts that say something bad was seen.
BAD = frozenset({VerdictKind.NOT_ATOMIC, VerdictKind.CRASH, VerdictKind.ERROR})
#: A bound that is so many times the other is worth a remark.
WEAKER = 10


class Difference(Enum):
    """How a case came out beside the baseline, what matters most first. The value is its name for people."""

    WORSE = "worse"
    VANISHED = "vanished"
    UNPROVEN = "unproven"
    NEW = "new"
    CHANGED = "changed"
    BETTER = "better"
    SAME = "same"


#: The differences that fail a comparison by default.
FATAL = frozenset({Difference.WORSE, Difference.VANISHED, Difference.UNPROVEN})


@dataclass(frozen=True)
class Column:
    """One run. A text is "" where the result does not have it."""

    #: Short, and different for each column.
    label: str
    #: Names the file.
    where: str
    platform: str
    hypervisor: str
    host: str
    kgen: str


@dataclass(frozen=True)
class Cell:
    """What one run says of one case."""

    verdict: VerdictKind
    reason: str
    violations: Mapping[str, int]
    #: N in the experiment's unit.
    rounds: int
    #: The number of chances of an event, in the unit ``chance``.
    judged: int
    #: The chances that showed a violation, None where that is unknown.
    events: int | None
    #: The upper limit on their rate at 95 %, for ATOMIC only.
    bound: float | None
    #: The part of the request that has an influence on the verdict.
    asked: Mapping[str, str]
    chance: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of violation that were seen."""
        return tuple(kind for kind, count in self.violations.items() if count)


@dataclass(frozen=True)
class Entry:
    """A case in one column."""

    #: None where the run does not have the case.
    cell: Cell | None
    #: From the baseline's cell.
    difference: Difference
    #: The difference in words.
    why: str = ""
    #: Facts that did not decide.
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One case."""

    #: Its id, "" where the request is unknown.
    case: str
    #: One for each column; the baseline's is first.
    entries: tuple[Entry, ...]

    @property
    def is_alike(self) -> bool:
        """Whether there is nothing to be said about it."""
        return all(entry.difference is Difference.SAME and not entry.remarks for entry in self.entries)


@dataclass(frozen=True)
class Comparison:
    """The whole table."""

    #: The baseline's is first.
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    #: The differences that make the comparison fail; empty where it is only shown.
    fatal: frozenset[Difference]

    def counts(self, column: int) -> Mapping[Difference, int]:
        """Return how many cases of a column differ how; those that neither it nor the baseline has are not counted."""
        known = (row for row in self.rows if row.entries[column].cell or row.entries[0].cell)
        found = Counter(row.entries[column].difference for row in known)
        return {difference: found[difference] for difference in Difference if found[difference]}

    @property
    def failed(self) -> tuple[tuple[Row, Column, Entry], ...]:
        """Every entry that may not pass."""
        return tuple(each for each in self.told if each[2].difference in self.fatal)

    @property
    def told(self) -> tuple[tuple[Row, Column, Entry], ...]:
        """Every entry there is something to be said about, what matters most first."""
        found = [
            (row, column, entry)
            for row in self.rows
            for column, entry in zip(self.columns, row.entries, strict=True)
            if entry.difference is not Difference.SAME or entry.remarks
        ]
        order = list(Difference)
        return tuple(sorted(found, key=lambda each: order.index(each[2].difference)))


def compare(runs: Sequence[Run], fatal: Collection[Difference] = ()) -> Comparison:
    """Hold runs against the first of them. Raises SpecError for a run that has one case twice."""
    columns = tuple(_column(label, run) for label, run in zip(labels([run.where for run in runs]), runs, strict=True))
    tables = [_cells(run) for run in runs]
    cases = dict.fromkeys(case for table in tables for case in table)
    rows = [Row(case, tuple(_entry(tables[0].get(case), table.get(case)) for table in tables)) for case in cases]
    return Comparison(columns, tuple(rows), frozenset(fatal))


def difference(before: Cell | None, now: Cell | None) -> tuple[Difference, str]:
    """Return how a case differs from the baseline's, and that in words, "" where it does not."""
    if before is None or now is None:
        if now is not None:
            return Difference.NEW, f"is {now.verdict.name}, was not there"
        if before is not None:
            return Difference.VANISHED, f"was {before.verdict.name}, is not there"
        return Difference.SAME, ""
    kind = _difference(before.verdict, now.verdict)
    if kind is Difference.SAME:
        grown = [text for name in now.kinds for text in [_new_kind(name, before, now)] if text]
        return (Difference.WORSE, "; ".join(grown)) if grown else (kind, "")
    comment = {Difference.UNPROVEN: ": the proof is gone", Difference.VANISHED: ": it is no longer run"}.get(kind, "")
    return kind, f"was {before.verdict.name}, is {now.verdict.name}{comment}"


def _difference(before: VerdictKind, now: VerdictKind) -> Difference:
    if before is now:
        return Difference.SAME
    if now is VerdictKind.SKIP:
        return Difference.VANISHED
    if now is VerdictKind.ATOMIC:
        return Difference.BETTER
    if now in BAD:
        return Difference.WORSE if SEVERITY.index(now) < SEVERITY.index(before) else Difference.CHANGED
    if before is VerdictKind.ATOMIC:
        return Difference.UNPROVEN
    return Difference.BETTER if before in BAD - {VerdictKind.NOT_ATOMIC} else Difference.CHANGED


def _new_kind(name: str, before: Cell, now: Cell) -> str:
    """Return what to say of a kind of violation that the baseline does not have, where that cannot be chance."""
    if before.violations.get(name):
        return ""
    (found, exact), of = _events_with(name, now), now.chance
    if before.chance != of and before.verdict is now.verdict:
        # a round of tokens and a batch are no chances of one kind
        return ""
    if excess(0, before.judged, found, now.judged) >= LEVEL:
        return ""
    count = f"{found}" if exact else f"at least {found}"
    return f"violations of a new kind: {name} in {count} of {now.judged} {of}, before in none of {before.judged}"


def _remarks(before: Cell | None, now: Cell | None) -> tuple[str, ...]:
    """Facts about the two that decide nothing."""
    if before is None or now is None:
        return ()
    found = [
        f"asked with {name} {before.asked[name]} before, {now.asked[name]} now"
        for name in now.asked
        if name in before.asked and before.asked[name] != now.asked[name]
    ]
    if before.bound is not None and now.bound is not None and now.bound >= WEAKER * before.bound:
        found.append(f"the proof is weaker: {bound_words(now.bound)}, it was {before.bound:.2g}")
    if VerdictKind.NOT_ATOMIC is before.verdict is now.verdict:
        for name in now.kinds:
            if not before.violations.get(name) and not _new_kind(name, before, now):
                found.append(f"{name} was not seen before; that may be chance")
        gone = [name for name in before.kinds if not now.violations.get(name) and _new_kind(name, now, before)]
        found += [f"{name} is no longer seen, and that is hardly chance" for name in gone]
        found += _rates(before, now)
    return tuple(found)


def _rates(before: Cell, now: Cell) -> list[str]:
    """Return what to say where violations show more often than before, or less often, and that cannot be chance."""
    if before.events is None or now.events is None or not (before.judged > 0 and now.judged > 0):
        return []
    if before.chance != now.chance:
        return []
    old, new = (before.events, before.judged), (now.events, now.judged)
    # either way counts, so each has half of what may happen by chance
    if 2 * min(excess(*old, *new), excess(*new, *old)) >= LEVEL:
        return []
    of = now.chance
    change = "more" if old[0] * new[1] < new[0] * old[1] else "less"
    return [
        f"violations show {change} often: in {new[0]} of {new[1]} {of} ({new[0] / new[1]:.2g}), it was {old[0]} of "
        f"{old[1]} ({old[0] / old[1]:.2g})"
    ]


def _events_with(name: str, cell: Cell) -> tuple[int, bool]:
    """In how many events that kind was, and whether that is the very number. A batch may hold many violations of more
    than one kind: then it is the least, for no more can be without it than there were violations of other kinds."""
    if cell.events is None:
        return cell.violations[name], True
    if cell.chance == "rounds":
        return min(cell.violations[name], cell.events), True
    others = sum(count for kind, count in cell.violations.items() if kind != name)
    return (cell.events, True) if not others else (max(1, cell.events - others), False)


def _entry(before: Cell | None, now: Cell | None) -> Entry:
    # the baseline's own cell is the very same
    if before is now:
        return Entry(now, Difference.SAME)
    return Entry(now, *difference(before, now), _remarks(before, now))


def _cells(run: Run) -> dict[str, Cell]:
    """Return what a run says, by the case's id. Raises SpecError where it has a case twice."""
    found: dict[str, Cell] = {}
    for result in run.results:
        case = result.spec.cases[result.number].id if result.spec else ""
        if case in found:
            raise SpecError(f"has {case} twice", where=run.where, hint="give the result of one run")
        found[case] = _cell(result, run)
    return found


def _cell(result: Result, run: Run) -> Cell:
    verdict, spec = result.verdict, run.spec
    return Cell(
        verdict=verdict.kind,
        reason=verdict.reason,
        violations=verdict.violations,
        rounds=verdict.rounds,
        judged=verdict.judged,
        chance=verdict.chance,
        events=events_of(result),
        bound=verdict.bound,
        asked=_asked(spec) if spec else {},
    )


def _asked(spec: KernelSpec) -> dict[str, str]:
    """Return what bears on what can be seen, beside the case itself and the rounds: N tells those better."""
    return {
        "controls": "on" if spec.controls else "off",
        "poll": spec.poll.name.lower(),
        "batch": str(spec.batch or "default"),
    }


def events_of(result: Result) -> int | None:
    """Return how many rounds or batches showed anything, of the phase whose violations the verdict counts; None where
    they were not counted."""
    record = result.told_record
    return record.events if record else None


def _column(label: str, run: Run) -> Column:
    first = run.results[0]
    environment = first.observation.environment
    cpu, kernel = fact(environment, "host", "cpu"), fact(environment, "host", "kernel")
    emulator, lab = fact(environment, "versions", "emulator"), fact(environment, "lab", "qemu")
    inner = fact(environment, "lab", "linux")
    return Column(
        label=label,
        where=run.where,
        platform=run.platform,
        hypervisor=f"{lab} on Linux {inner}" if lab else emulator,
        host=", ".join(part for part in (cpu, f"Linux {kernel}" if _is_linux(environment) else kernel) if part),
        kgen=first.kgen,
    )


def _is_linux(environment: Mapping[str, Any]) -> bool:
    return fact(environment, "host", "system") == "Linux"
