"""Markdown: a bug report to be pasted into a tracker."""

from __future__ import annotations

from kgen.report.bug.report import render
from kgen.report.formats import ReportFormat

FORMAT = ReportFormat("markdown", ".md", "a bug report for a tracker: steps, output, explanation, code", render, render)
