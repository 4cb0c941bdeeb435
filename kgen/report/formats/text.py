"""Plain text: what ``kgen verify`` showed, once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kgen.report.formats import ReportFormat
from kgen.report.results.model import Run, show_run
from kgen.report.text.case import as_text
from kgen.report.text.labels import labels

if TYPE_CHECKING:
    from rich.console import Console


def render(runs: Sequence[Run]) -> str:
    """Return each run as it stood on the terminal, without colours."""

    def tell(console: Console) -> None:
        names = labels([run.where for run in runs])
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            if number:
                console.file.write("\n")
            if len(runs) > 1:
                console.file.write(f"{run.where or name}:\n")
            show_run(console, run)

    return as_text(tell)


FORMAT = ReportFormat("text", ".txt", "plain text, as 'kgen verify' prints it", render)
