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
    """One form of a report."""

    #: What the command line calls it.
    name: str
    #: The customary end of the file name, with the dot.
    suffix: str
    #: One line for people.
    summary: str
    #: The whole text, with a final newline. The same runs make the same text.
    render: Callable[[Sequence[Run]], str]
    #: The same where the form also lists the files that go with it, otherwise None.
    render_with: Callable[[Sequence[Run], Sequence[Enclosed]], str] | None = None


@functools.cache
def formats() -> Mapping[str, ReportFormat]:
    """Return every form by name."""
    return registry.discover("kgen.report.formats", "FORMAT", ReportFormat)
