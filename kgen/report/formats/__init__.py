"""Forms of a report: one module a form, each with a ``FORMAT = ReportFormat(...)``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kgen import registry
from kgen.report.reading import Run


@dataclass(frozen=True)
class ReportFormat:
    """One way to tell results.

    ``name`` is what the command line calls it, ``suffix`` the customary end of the file name (with the dot),
    ``summary`` one line for people. ``render(runs)`` gives the whole text, with a final newline; same runs, same text.
    """

    name: str
    suffix: str
    summary: str
    render: Callable[[Sequence[Run]], str]


@functools.cache
def formats() -> Mapping[str, ReportFormat]:
    """Every form by name."""
    return registry.discover("kgen.report.formats", "FORMAT", ReportFormat)
