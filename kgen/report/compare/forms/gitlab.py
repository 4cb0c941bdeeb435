"""A comparison as GitLab's Code Quality report: GitLab shows its findings in the merge request.

The fields are those of https://docs.gitlab.com/ci/testing/code_quality/: a JSON array, a finding an object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kgen.report.compare.comparison import FATAL, Column, Comparison, Difference, Entry, Row
from kgen.report.compare.forms import ComparisonForm, headline, verdict_of
from kgen.wording import one_line

if TYPE_CHECKING:
    from rich.console import Console

#: GitLab calls every new finding a degradation, so what is none has no finding.
_NONE = (Difference.SAME, Difference.BETTER, Difference.NEW)


def show(console: Console, comparison: Comparison, everything: bool) -> None:
    """Print one array; it is empty where nothing got worse."""
    baseline = comparison.columns[0]
    found = [
        _finding(_severity(comparison, entry), baseline, row, column, entry)
        for row, column, entry in comparison.told
        if entry.difference in comparison.fatal or entry.difference not in _NONE
    ]
    console.file.write(json.dumps(found, indent=2) + "\n")


def _severity(comparison: Comparison, entry: Entry) -> str:
    if entry.difference in comparison.fatal:
        return "critical"
    return "major" if entry.difference in FATAL else "minor"


def _finding(severity: str, baseline: Column, row: Row, column: Column, entry: Entry) -> Mapping[str, Any]:
    """Return one finding, at the baseline's file: that is what the repository has of it."""
    path = one_line(baseline.where).removeprefix("./") or baseline.label
    # the same finding of another run has the same one: GitLab knows by it what is new
    identity = json.dumps([entry.difference.value, row.case, path, column.platform, column.label])
    return {
        "description": f"{headline(row, column, entry)} ({verdict_of(entry)})",
        "check_name": f"kgen-{entry.difference.value}",
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
        "severity": severity,
        "location": {"path": path, "lines": {"begin": 1}},
    }


FORM = ComparisonForm("gitlab", "findings of GitLab's Code Quality report, for a merge request", show)
