"""A web page in one file: for a phone, for paper, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from kgen.report.formats import ReportFormat
from kgen.report.results.model import Run


def render(runs: Sequence[Run]) -> str:
    """Return the page. It refers to nothing outside itself."""
    from kgen.report.html.page import render

    return render(runs)


FORMAT = ReportFormat("html", ".html", "one self-contained web page, for a screen, a phone and paper", render)
