"""A result as a few lines to paste into a mail or a bug tracker, for a machine that only its owner can run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kgen import __version__
from kgen.errors import ProtocolError
from kgen.offline.result_code import encode
from kgen.report.results.model import Result, Run
from kgen.verdict.case_run import was_run
from kgen.wording import one_line, plural

#: The most runs that are named one by one; with a code each has three lines.
MOST = 4
NO_SYSTEM = "(hypervisor and its version, host and CPU: kgen judge --system TEXT)"


def pasted(runs: Sequence[Run], system: str, code: str = "") -> tuple[str, ...]:
    """Return the lines for these runs, () where none has a request. ``system`` is what the user says of the machine,
    ``code`` the result code that the result was made from, "" where it was made from anything else."""
    told = [run for run in runs if run.spec is not None]
    if not told:
        return ()
    lines = [f"kgen    {__version__}", f"system  {one_line(system) or NO_SYSTEM}"]
    for run in told[:MOST]:
        lines += _of_run(run, code)
    if len(told) > MOST:
        lines.append(f"and {plural(len(told) - MOST, 'run')} more")
    return tuple(lines)


def _of_run(run: Run, code: str) -> Iterator[str]:
    spec, first = run.spec, run.results[0]
    assert spec is not None
    what = f"suite {spec.suite}, {plural(len(spec.cases), 'case')}" if spec.suite else spec.case.id
    verdict = run.verdict
    yield f"verdict {run.kind.name}: {one_line(verdict.reason)}"
    record = first.observation.best
    build = f", build {one_line(record.build_id)[:12]}" if record is not None and record.build_id else ""
    yield f"kernel  {one_line(what)}, {plural(spec.case.cpus, 'CPU')}{build}"
    found = code or ("" if spec.suite else _code(first))
    if found:
        yield f"code    {one_line(found)}"


def _code(result: Result) -> str:
    """Return the result code, as the kernel shows it on the screen; "" where the record does not hold it."""
    record, spec = result.observation.best, result.spec
    if record is None or spec is None or not was_run(spec, result.observation, 0):
        return ""
    try:
        return encode(spec, record)
    except ProtocolError:
        return ""
