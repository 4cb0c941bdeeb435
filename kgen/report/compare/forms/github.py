"""A comparison as GitHub Actions' workflow commands: lines that it shows as annotations of the change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgen.report.compare.comparison import FATAL, Comparison, Entry
from kgen.report.compare.forms import ComparisonForm, headline, sums, total, verdict_of

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, comparison: Comparison, everything: bool) -> None:
    """Print one annotation a difference, and one for the whole. GitHub shows the first ten of each level in a step, so
    what matters most comes first."""
    for row, column, entry in comparison.told:
        parts = (verdict_of(row.entries[0]), verdict_of(entry), *entry.remarks)
        console.file.write(_command(_level(comparison, entry), headline(row, column, entry), "\n".join(parts)))
    level = "error" if comparison.failed else "notice"
    console.file.write(_command(level, "kgen compare", "\n".join((*sums(comparison), total(comparison))).strip()))


def _level(comparison: Comparison, entry: Entry) -> str:
    if entry.difference in comparison.fatal:
        return "error"
    return "warning" if entry.difference in FATAL else "notice"


def _command(level: str, title: str, message: str) -> str:
    data = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{data}\n"


FORM = ComparisonForm("github", "annotations of a change, for a step of GitHub Actions", show)
