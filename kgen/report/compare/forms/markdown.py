"""A comparison for a comment on a change, and for the summary of a CI job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgen.report.compare.comparison import Comparison, Difference, Entry
from kgen.report.compare.forms import (
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
from kgen.report.markdown import words

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, comparison: Comparison, everything: bool) -> None:
    """Print it; GitHub's and GitLab's Markdown have its tables."""
    console.file.write("\n".join(_lines(comparison, everything)) + "\n")


def _lines(comparison: Comparison, everything: bool) -> list[str]:
    found = []
    verdict = total(comparison)
    if verdict:
        found += [f"**{words(verdict)}**", ""]
    found += [f"- {words(line)}" for line in sums(comparison)] + [""]
    rows = [row for row in comparison.rows if everything or not row.is_alike]
    if rows:
        found.append("| case |" + "".join(f" {words(column.label)} |" for column in comparison.columns))
        found.append("|---|" + "---|" * len(comparison.columns))
        found += [
            f"| {words(case_name(row))} |" + "".join(f" {_field(each)} |" for each in row.entries) for row in rows
        ]
        found += ["", words(signs(rows)), ""]
    count, kinds = alike(comparison)
    if count and not everything:
        found += [f"Alike in every column, and left out: {words(kinds)}.", ""]
    for row, column, entry in comparison.told:
        found.append(f"- **{words(headline(row, column, entry))}**")
        for of, each in told_of(comparison, row, column, entry):
            found.append(f"  - {words(of.label)}: {words(verdict_of(each))}")
        found += [f"  - {words(remark)}" for remark in entry.remarks]
    found += [""] if comparison.told else []
    found += [f"- {words(column.label)}: {words(about(column))}" for column in comparison.columns]
    return found


def _field(entry: Entry) -> str:
    text = words(field(entry))
    return text if entry.difference is Difference.SAME or not text else f"**{text}**"


FORM = ComparisonForm("markdown", "tables for a comment on a change or a job's summary", show)
