"""Forms of a report: one module a form, each with a ``FORMAT = ReportFormat(...)``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kgen import registry
from kgen.report.bug.report import Enclosed
from kgen.report.results.model import Run


@dataclass(frozen=True)
class ReportFormat:
    """One form of a report.

    ``name`` is what the command line calls it, ``suffix`` the customary end of the file name (with the dot),
    ``summary`` one line for people. ``render(runs)`` returns the whole text, with a final newline; the same runs make
    the same text. ``render_with(runs, enclosed)`` does the same where the form also lists the files that go with it,
    otherwise it is None.
    """

    name: str
    suffix: str
    summary: str
    render: Callable[[Sequence[Run]], str]
    render_with: Callable[[Sequence[Run], Sequence[Enclosed]], str] | None = None


@functools.cache
def formats() -> Mapping[str, ReportFormat]:
    """Return every form by name."""
    return registry.discover("kgen.report.formats", "FORMAT", ReportFormat)
