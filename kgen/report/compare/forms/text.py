"""A comparison on a terminal: what ran where, the table, each difference in full, the sum."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kgen.report.compare.comparison import Comparison, Difference, Row
from kgen.report.compare.forms import (
    MARKS,
    ComparisonForm,
    about,
    alike,
    case_name,
    field,
    headline,
    signs,
    sums,
    told_of,
    total,
    verdict_of,
)
from kgen.report.text.case import Printer
from kgen.wording import one_line

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Mapping[Difference, str | None] = {
    Difference.WORSE: "bold red",
    Difference.VANISHED: "bold red",
    Difference.UNPROVEN: "bold yellow",
    Difference.NEW: "bold cyan",
    Difference.CHANGED: "yellow",
    Difference.BETTER: "bold green",
    Difference.SAME: None,
}
#: How many differences of a kind are shown in full, unless everything is requested.
_TOLD = 20
#: Between two columns of the table.
_GAP = "  "


def show(console: Console, comparison: Comparison, everything: bool) -> None:
    """Print it, at the console's width. Only a word that is longer is not broken."""
    say = Printer(console)
    size = max(len(one_line(column.label)) for column in comparison.columns)
    for at, column in enumerate(comparison.columns):
        note = "" if at else "; the baseline"
        _wrapped(say, f"{one_line(column.label):<{size}}{_GAP}", f"{about(column)}{note}", console.width)
    rows = [row for row in comparison.rows if everything or not row.is_alike]
    if rows:
        say.line("")
        _table(say, console, comparison, rows)
        used = {entry.difference for row in rows for entry in row.entries} - {Difference.SAME}
        key = _GAP.join(f"{MARKS[kind]} {kind.value}" for kind in Difference if kind in used)
        say.line("")
        for line in (key, signs(rows)):
            if line:
                say.line(line)
    count, kinds = alike(comparison)
    if count and not everything:
        say.line("")
        say.line(f"alike in every column: {kinds} (--all shows them)")
    _differences(say, comparison, everything, console.width)
    say.line("")
    for line in sums(comparison):
        say.line(line)
    if comparison.fatal:
        say.line(total(comparison), "bold red" if comparison.failed else "bold green")


def _table(say: Printer, console: Console, comparison: Comparison, rows: Sequence[Row]) -> None:
    """Print the table in as many parts as the width requires. Every part has the baseline's column."""
    from rich.text import Text

    names = [one_line(column.label) for column in comparison.columns]
    sizes = [max(len(name), *(len(field(row.entries[at])) for row in rows)) for at, name in enumerate(names)]
    first = max(len(case_name(row)) for row in rows)
    left = list(range(1, len(names)))
    while left or len(names) == 1:
        part, used = [0], first + len(_GAP) + sizes[0]
        while left and (len(part) == 1 or used + len(_GAP) + sizes[left[0]] <= console.width):
            used += len(_GAP) + sizes[left[0]]
            part.append(left.pop(0))
        lines = [Text(" " * first + "".join(f"{_GAP}{names[at]:<{sizes[at]}}" for at in part))]
        for row in rows:
            line = Text(f"{case_name(row):<{first}}")
            for at in part:
                entry = row.entries[at]
                line.append(_GAP)
                line.append(f"{field(entry):<{sizes[at]}}", style=_STYLES[entry.difference])
            lines.append(line)
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)
        if not left:
            break
        say.line("")


def _differences(say: Printer, comparison: Comparison, everything: bool, width: int) -> None:
    """Print every difference with both verdicts in full."""
    sizes = {column.label: len(one_line(column.label)) for column in comparison.columns}
    shown: dict[Difference, int] = dict.fromkeys(Difference, 0)
    brief = False
    for row, column, entry in comparison.told:
        shown[entry.difference] += 1
        if shown[entry.difference] > _TOLD and not everything:
            continue
        # differences that have a headline only make a list
        if not brief or entry.cell is not None:
            say.line("")
        brief = entry.cell is None
        for line in textwrap.wrap(headline(row, column, entry), width, subsequent_indent="  ", break_on_hyphens=False):
            say.line(line, _STYLES[entry.difference])
        told = told_of(comparison, row, column, entry)
        size = max((sizes[of.label] for of, _ in told), default=0)
        for of, each in told:
            _wrapped(say, f"  {one_line(of.label):<{size}}{_GAP}", verdict_of(each), width)
        for remark in entry.remarks:
            _wrapped(say, "  - ", one_line(remark), width)
    for kind, count in shown.items():
        if count > _TOLD and not everything:
            say.line("")
            what = "remark" if kind is Difference.SAME else kind.value
            say.line(f"{what}: and {count - _TOLD} more (--all shows them)")


def _wrapped(say: Printer, before: str, text: str, width: int) -> None:
    indent = min(len(before), width // 2)
    lines = textwrap.wrap(
        before + text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    for line in lines:
        say.line(line)


FORM = ComparisonForm("text", "a table with the differences marked, and each of them in full", show)
