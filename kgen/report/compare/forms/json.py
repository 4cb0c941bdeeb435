"""A comparison for machines. The schema is versioned and described in docs/compare.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kgen import __version__
from kgen.report.compare.comparison import Comparison, Difference, Entry
from kgen.report.compare.forms import ComparisonForm
from kgen.report.results.document import plain

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1


def document(comparison: Comparison, everything: bool) -> dict[str, Any]:
    """Return the comparison as plain JSON values."""
    return {
        "comparison_schema": SCHEMA,
        "kgen": __version__,
        "fatal": [kind.value for kind in Difference if kind in comparison.fatal],
        "failed": bool(comparison.failed),
        "columns": [
            plain(column) | {"counts": {kind.value: count for kind, count in comparison.counts(at).items()}}
            for at, column in enumerate(comparison.columns)
        ],
        "rows": [
            {"case": row.case, "entries": [_entry(entry) for entry in row.entries]}
            for row in comparison.rows
            if everything or not row.is_alike
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    cell = plain(entry.cell)
    return {
        "difference": entry.difference.value,
        "why": entry.why,
        "remarks": list(entry.remarks),
        "result": cell,
    }


def show(console: Console, comparison: Comparison, everything: bool) -> None:
    """Print the document, with a final newline."""
    console.file.write(json.dumps(document(comparison, everything), indent=2) + "\n")


FORM = ComparisonForm("json", "one JSON document", show)
