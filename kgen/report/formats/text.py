"""Plain text: what ``kgen verify`` showed, once more."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kgen.report.formats import ReportFormat
from kgen.report.matrix import Outcome, show_matrix
from kgen.report.reading import Result, Run
from kgen.report.text import show, show_case, show_unknown
from kgen.report.words import printable

if TYPE_CHECKING:
    from rich.console import Console


def render(runs: Sequence[Run]) -> str:
    """Each run as it stood on the terminal, without colours."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, color_system=None, highlight=False)
    for number, run in enumerate(runs):
        if number:
            console.file.write("\n")
        if len(runs) > 1:
            console.file.write(f"{run.where}:\n")
        _show(console, run)
    assert isinstance(console.file, io.StringIO)
    # a result may come from anybody, and is shown on a terminal
    return "\n".join(printable(line) for line in console.file.getvalue().split("\n"))


def explain(result: Result) -> str:
    """One result, with what it rests on; of a suite its case alone."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, color_system=None, highlight=False)
    if result.spec is not None and result.spec.suite:
        show_case(console, result.spec, result.number, result.observation.platform, result.verdict)
    elif result.spec is not None:
        show(console, result.spec, result.observation, result.verdict)
    else:
        show_unknown(console, result.observation, result.verdict)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _show(console: Console, run: Run) -> None:
    first = run.results[0]
    if run.spec is None:
        show_unknown(console, first.observation, first.verdict)
    elif run.spec.suite:
        cases = dict(zip((case.id for case in run.spec.cases), run.spec.cases, strict=True))
        outcomes = [Outcome(cases[result.case], result.verdict, 0) for result in run.results]
        show_matrix(console, run.spec, run.platform, outcomes)
    else:
        show(console, run.spec, first.observation, first.verdict)


FORMAT = ReportFormat("text", ".txt", "plain text, as 'kgen verify' prints it", render)
