"""Result documents in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kgen.errors import SpecError
from kgen.files import MAX_INPUT, STDIN, bounded, read_or_stdin, write_text

if TYPE_CHECKING:
    from kgen.report.results.model import Run


def write_result(path: Path | None, *runs: Run) -> None:
    """Write the result of runs as docs/result-schema.md describes it; None is no file. Raises OutputError."""
    if path is None:
        return
    from kgen.report.results.write import to_json

    write_text(path, to_json(runs))


def read_runs(paths: Sequence[Path]) -> tuple[Run, ...]:
    """Return the runs of all these result files, in order; "-" is standard input.

    Raises SpecError where a file cannot be read or is no result.
    """
    return tuple(run for result in read_results(paths) for run in result.runs)


@dataclass(frozen=True)
class ResultFile:
    """A result file."""

    #: Its name, for people.
    where: str
    #: Its bytes.
    data: bytes
    runs: tuple[Run, ...]


def read_results(paths: Sequence[Path]) -> tuple[ResultFile, ...]:
    """Return all these result files, in order; "-" is standard input. Raises as ``read_runs`` does."""
    from kgen.report.results.read import load

    if [str(path) for path in paths].count(STDIN) > 1:
        raise SpecError("is named more than once", where="standard input", hint="it can be read but once")
    found: list[ResultFile] = []
    for path in paths:
        data, where = read_or_stdin(path, MAX_INPUT)
        found.append(ResultFile(where, data, load(bounded(data, MAX_INPUT, where, "a result"), where)))
    return tuple(found)
