"""Plain text: what ``kgen verify`` showed, once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kgen.report.compare.comparison import labels
from kgen.report.formats import ReportFormat
from kgen.report.results.read import Result, Run
from kgen.report.results.write import outcomes_of
from kgen.report.text.case import as_text, show, show_case, show_unknown
from kgen.report.text.suite import show_matrix

if TYPE_CHECKING:
    from rich.console import Console


def render(runs: Sequence[Run]) -> str:
    """Each run as it stood on the terminal, without colours."""

    def tell(console: Console) -> None:
        names = labels([run.where for run in runs])
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            if number:
                console.file.write("\n")
            if len(runs) > 1:
                console.file.write(f"{run.where or name}:\n")
            show_run(console, run)

    return as_text(tell)


def show_run(console: Console, run: Run) -> None:
    """Print one run: a suite's table, or everything about its only case."""
    first = run.results[0]
    if run.spec is None:
        show_unknown(console, first.observation, first.verdict)
    elif run.spec.suite:
        show_matrix(console, run.spec, run.platform, outcomes_of(run))
    else:
        show(console, run.spec, first.observation, first.verdict)


def explain(result: Result) -> str:
    """One result, with all it rests on; of a suite its case alone."""
    spec = result.spec
    if spec is None or spec.suite:
        return account(result)
    return as_text(lambda console: show(console, spec, result.observation, result.verdict))


def account(result: Result) -> str:
    """A verdict with its controls and witnesses: a case of its own is told as one of a suite."""
    spec, seen = result.spec, result.observation
    if spec is None:
        return as_text(lambda console: show_unknown(console, seen, result.verdict))
    return as_text(lambda console: show_case(console, spec, result.number, seen, result.verdict))


FORMAT = ReportFormat("text", ".txt", "plain text, as 'kgen verify' prints it", render)
