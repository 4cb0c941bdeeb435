"""A comparison for a comment on a change, and for the summary of a CI job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgen.report.comparison import Comparison, Difference, Entry
from kgen.report.comparison_forms import (
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
from kgen.report.marks import escaped
from kgen.report.words import one_line

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, comparison: Comparison, everything: bool) -> None:
    """Print it; GitHub's and GitLab's Markdown have its tables."""
    console.file.write("\n".join(_lines(comparison, everything)) + "\n")


def _lines(comparison: Comparison, everything: bool) -> list[str]:
    found = []
    verdict = total(comparison)
    if verdict:
        found += [f"**{escaped(verdict)}**", ""]
    found += [f"- {escaped(line)}" for line in sums(comparison)] + [""]
    rows = [row for row in comparison.rows if everything or not row.is_alike]
    if rows:
        found.append("| case |" + "".join(f" {escaped(one_line(column.label))} |" for column in comparison.columns))
        found.append("|---|" + "---|" * len(comparison.columns))
        found += [
            f"| {escaped(case_name(row))} |" + "".join(f" {_field(each)} |" for each in row.entries) for row in rows
        ]
        found += ["", escaped(signs(rows)), ""]
    count, kinds = alike(comparison)
    if count and not everything:
        found += [f"Alike in every column, and left out: {escaped(kinds)}.", ""]
    for row, column, entry in comparison.told:
        found.append(f"- **{escaped(headline(row, column, entry))}**")
        for of, each in told_of(comparison, row, column, entry):
            found.append(f"  - {escaped(one_line(of.label))}: {escaped(verdict_of(each))}")
        found += [f"  - {escaped(one_line(remark))}" for remark in entry.remarks]
    found += [""] if comparison.told else []
    found += [f"- {escaped(one_line(column.label))}: {escaped(about(column))}" for column in comparison.columns]
    return found


def _field(entry: Entry) -> str:
    text = escaped(field(entry))
    return text if entry.difference is Difference.SAME or not text else f"**{text}**"


FORM = ComparisonForm("markdown", "tables for a comment on a change or a job's summary", show)
