"""A suite's verdicts, as a table on a terminal and as one JSON document."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgen.instructions import Source, instructions
from kgen.report.text.case import STYLES, Printer
from kgen.spec import KernelSpec
from kgen.spec.case import Case, alignment, resolve_target
from kgen.verdict.model import SEVERITY, Verdict, VerdictKind, worst
from kgen.wording import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: What the table shows for a verdict; the width follows it.
SIGNS: Mapping[VerdictKind, str] = {
    VerdictKind.ATOMIC: "ok",
    VerdictKind.NOT_ATOMIC: "NOT",
    VerdictKind.INCONCLUSIVE: "?",
    VerdictKind.RAM_BACKED: "ram",
    VerdictKind.UNSUPPORTED: "unsup",
    VerdictKind.NO_STORAGE: "none",
    VerdictKind.SKIP: "skip",
    VerdictKind.ERROR: "ERROR",
    VerdictKind.CRASH: "CRASH",
}


#: Keys that a suite's document has only once, not for each boot.
OF_THE_WHOLE = ("schema", "kgen", "invocation")


@dataclass(frozen=True)
class Outcome:
    """One case of a suite."""

    case: Case
    verdict: Verdict
    #: The number of the boot in which it ran, from 0.
    boot: int


def show_matrix(console: Console, spec: KernelSpec, platform: str, outcomes: Sequence[Outcome]) -> None:
    """Print the summary, the table, the exceptional verdicts, and the summary again."""
    say = Printer(console)
    say.line(f"{spec.name} on {platform}: {plural(len(outcomes), 'case')}", "bold")
    kinds = [outcome.verdict.kind for outcome in outcomes]
    total = sum_of(kinds), STYLES.get(worst(kinds), "bold yellow")
    say.line(*total)
    width = console.width if console.file.isatty() else 120
    for lies in dict.fromkeys(lies_of(outcome.case) for outcome in outcomes):
        say.line("")
        say.line({"aligned": "aligned:", "misaligned": "misaligned within a line:"}.get(lies, f"across a {lies}:"))
        _table(console, [outcome for outcome in outcomes if lies_of(outcome.case) == lies], width)
    say.line("")
    for outcome in outcomes:
        if outcome.verdict.kind is not VerdictKind.ATOMIC:
            say.line(f"{outcome.case.id}: {outcome.verdict.kind.name}: {outcome.verdict.reason}")
    say.line("")
    clean = [outcome.verdict for outcome in outcomes if outcome.verdict.kind is VerdictKind.ATOMIC]
    bounds = [verdict.bound for verdict in clean if verdict.bound is not None]
    if bounds:
        counted = _range([f"{number}" for number in sorted(verdict.judged for verdict in clean)])
        rates = _range([f"{bound:.2g}" for bound in sorted(bounds)])
        middle = f", in the median {statistics.median(bounds):.2g}" if len(bounds) > 1 else ""
        say.line(f"where ATOMIC, N is {counted} live batches: at most {rates} per live batch at 95 %{middle}")
    say.line(*total)


def _range(ordered: Sequence[str]) -> str:
    """Return the least and the greatest of the numbers, or one where they are equal."""
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def sum_of(kinds: Sequence[VerdictKind]) -> str:
    """Return the verdict of a suite with these verdicts, and the number of each."""
    numbers = ", ".join(f"{kinds.count(kind)} {kind.name}" for kind in SEVERITY if kind in kinds)
    return f"{worst(kinds).name}: {numbers}"


def lies_of(case: Case) -> str:
    """Return how the case's operand is aligned on its target: see ``Case.alignment``."""
    return alignment(resolve_target(case.target), case.offset, case.width)


def _table(console: Console, outcomes: Sequence[Outcome], width: int) -> None:
    """Print one table, in as many parts as the width requires."""
    from rich.text import Text

    fields: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        fields.setdefault(_row(outcome.case), {}).setdefault(outcome.case.target, []).append(outcome)
    widths = {
        row: " ".join(sorted({str(each.case.width) for part in cells.values() for each in part}, key=int))
        for row, cells in fields.items()
    }
    columns = list(dict.fromkeys(outcome.case.target for outcome in outcomes))
    cells = {
        (row, column): _cell(found[column], widths[row]) if column in found else Text("")
        for row, found in fields.items()
        for column in columns
    }
    sizes = {column: max(len(column), *(len(cells[row, column]) for row in fields)) + 2 for column in columns}
    first = max(len(row) for row in fields) + 2
    second = max(len(text) for text in widths.values()) + 2
    while columns:
        count, used = 0, first + second
        while count < len(columns) and (not count or used + sizes[columns[count]] <= width):
            used += sizes[columns[count]]
            count += 1
        part, columns = columns[:count], columns[count:]
        lines = [Text(" " * (first + second) + "".join(f"{column:<{sizes[column]}}" for column in part))]
        for row in fields:
            if not any(len(cells[row, column]) for column in part):
                continue
            line = Text(f"{row:<{first}}{widths[row]:<{second}}")
            for column in part:
                line.append_text(cells[row, column])
                line.append(" " * (sizes[column] - len(cells[row, column])))
            lines.append(line)
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)


def _row(case: Case) -> str:
    entry = instructions()[case.instruction]
    how = "" if Source(case.source) is entry.sources[0] else f" {case.source}"
    return f"{case.instruction}{how}{'' if case.lock else ' nolock'} {case.experiment}"


def _cell(outcomes: Sequence[Outcome], widths: str) -> Text:
    """Return the verdict, with the widths where they differ from the row's: ``ok``, ``8 ok 16 NOT lost``."""
    from rich.text import Text

    cell = Text()
    by_kind: dict[VerdictKind, list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault(outcome.verdict.kind, []).append(outcome)
    for kind, members in by_kind.items():
        found = {name for member in members for name, count in member.verdict.violations.items() if count}
        seen = f" {'+'.join(sorted(found))}" if found and kind is VerdictKind.NOT_ATOMIC else ""
        mine = " ".join(sorted({str(member.case.width) for member in members}, key=int))
        label = "" if mine == widths else f"{mine} "
        cell.append(f"{', ' if len(cell) else ''}{label}{SIGNS[kind]}{seen}", style=STYLES.get(kind, "yellow"))
    return cell
