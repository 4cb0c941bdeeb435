"""Forms of a comparison: one module a form, each with a ``FORM = ComparisonForm(...)``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgen import registry
from kgen.report.compare.comparison import Column, Comparison, Difference, Entry, Row
from kgen.report.text.case import bound_words
from kgen.report.text.suite import SIGNS
from kgen.wording import one_line

if TYPE_CHECKING:
    from rich.console import Console

#: Stands before a case that differs from the baseline's.
MARKS: Mapping[Difference, str] = {
    Difference.WORSE: "!",
    Difference.VANISHED: "x",
    Difference.UNPROVEN: "<",
    Difference.NEW: "*",
    Difference.CHANGED: "~",
    Difference.BETTER: "+",
    Difference.SAME: "",
}


@dataclass(frozen=True)
class ComparisonForm:
    """One way to show a comparison."""

    #: What the command line calls it.
    name: str
    #: One line for people.
    summary: str
    #: Prints a comparison on a console. The last argument asks for the cases that are alike in all columns too.
    show: Callable[[Console, Comparison, bool], None]


@functools.cache
def forms() -> Mapping[str, ComparisonForm]:
    """Return every form by name."""
    return registry.discover("kgen.report.compare.forms", "FORM", ComparisonForm)


def case_name(row: Row) -> str:
    """Return what a row is called."""
    return one_line(row.case) or "(case not known)"


def field(entry: Entry) -> str:
    """Return what stands in the table: a mark, the verdict, the kinds of violation; "" where neither has the case."""
    if entry.cell is None:
        text = "vanished" if entry.difference is Difference.VANISHED else ""
    else:
        text = " ".join((SIGNS[entry.cell.verdict], "+".join(sorted(map(one_line, entry.cell.kinds))))).strip()
    return f"{MARKS[entry.difference]} {text}".strip()


def headline(row: Row, column: Column, entry: Entry) -> str:
    """Return one difference as a sentence, remarks apart."""
    what = "remark" if entry.difference is Difference.SAME else entry.difference.value
    return f"{what}: {case_name(row)} in {one_line(column.label)}" + (f": {one_line(entry.why)}" if entry.why else "")


def verdict_of(entry: Entry) -> str:
    """Return a verdict with its reason, which states N; for ATOMIC with the bound on the rate."""
    cell = entry.cell
    if cell is None:
        return "not there"
    bound = f"; {bound_words(cell.bound)}" if cell.bound is not None else ""
    return f"{cell.verdict.name}: {one_line(cell.reason)}{bound}"


def told_of(comparison: Comparison, row: Row, column: Column, entry: Entry) -> tuple[tuple[Column, Entry], ...]:
    """Return the verdicts that a difference is shown with, the baseline's first; none for a case that is not there any
    more, of which the headline says all.
    """
    if entry.cell is None:
        return ()
    return tuple((of, each) for of, each in ((comparison.columns[0], row.entries[0]), (column, entry)) if each.cell)


def signs(rows: Iterable[Row]) -> str:
    """Return what stands for which verdict in these rows, where it is not the verdict's own name."""
    used = {entry.cell.verdict for row in rows for entry in row.entries if entry.cell}
    return "  ".join(f"{sign} {kind.name}" for kind, sign in SIGNS.items() if kind in used and sign != kind.name)


def about(column: Column) -> str:
    """Return what ran where."""
    version = f"kgen {column.kgen}"
    parts = (column.platform, column.hypervisor, column.host, version)
    return "; ".join(one_line(part) for part in parts if part)


def alike(comparison: Comparison) -> tuple[int, str]:
    """Return how many cases are alike in all columns, and what they are."""
    kinds = [row.entries[0].cell.verdict for row in comparison.rows if row.is_alike and row.entries[0].cell]
    counts = {kind: kinds.count(kind) for kind in SIGNS if kind in kinds}
    return len(kinds), ", ".join(f"{count} {kind.name}" for kind, count in counts.items())


def total(comparison: Comparison) -> str:
    """Return the outcome of a comparison, "" where none was requested."""
    if not comparison.fatal:
        return ""
    found = [entry.difference for _, _, entry in comparison.failed]
    counts = ", ".join(f"{found.count(kind)} {kind.value}" for kind in Difference if kind in found)
    watched = " or ".join(kind.value for kind in Difference if kind in comparison.fatal)
    return f"FAILED: {counts}" if found else f"passed: no case is {watched} (that would fail)"


def sums(comparison: Comparison) -> tuple[str, ...]:
    """For each column but the baseline how many cases differ how."""
    return tuple(
        f"{one_line(column.label)}: "
        + (", ".join(f"{count} {kind.value}" for kind, count in comparison.counts(at).items()) or "no case")
        for at, column in enumerate(comparison.columns)
        if at
    )
