"""kgen compare: compare results with each other."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from kgen.cli._options import GroupedCommand, file_name, option
from kgen.errors import SpecError, unknown
from kgen.files import STDIN, STDOUT, check_writable, write_text
from kgen.report.compare.comparison import FATAL, Difference, compare
from kgen.report.compare.forms import forms
from kgen.report.results.model import Run
from kgen.report.results.store import read_runs

#: The exit code where something differs in a way that must not pass.
FAILED = 1
#: The columns of the table where the output is no terminal.
WIDTH = 120

_EXAMPLES = """\b
Examples:
  kgen compare tcg.json kvm.json lab.json
  kgen compare today.json --baseline known.json
  kgen compare today.json --baseline known.json --fail-on worse,vanished
  kgen compare today.json --baseline known.json --format markdown -o diff.md

\b
Differences:
  worse     a violation, crash or error that was not there, or another kind
            of violation than before
  vanished  no longer there, or SKIP where it was run
  unproven  was ATOMIC; no violation now either, but no proof
  new       not in the baseline
  changed   another verdict, neither better nor worse
  better    ATOMIC now, or an answer where there was ERROR or CRASH

\b
Exit codes:
   0 shown; with --baseline: nothing differs in a way named by --fail-on
   1 something does
   2 wrong usage, or a file that is no result
"""
_VERDICT = "What must not pass"
_OUTPUT = "Output"


def _forms() -> list[str]:
    return list(forms())


@click.command("compare", cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT...")
@option(
    _VERDICT,
    "--baseline",
    type=file_name,
    metavar="FILE",
    help="Compare all with this result, and let the exit code state the outcome.",
)
@option(
    _VERDICT,
    "--fail-on",
    metavar="DIFFERENCE,...",
    help="Which differences exit 1.  [default: worse,vanished,unproven]",
)
@option(_OUTPUT, "--format", "name", default="text", show_default=True, metavar="NAME", help="", entries=_forms)
@option(_OUTPUT, "--all", "everything", is_flag=True, help="Also show cases that are alike in all columns.")
@option(_OUTPUT, "-o", "--output", type=file_name, metavar="FILE", help="Where the table goes.  [default: stdout]")
def COMMAND(
    results: tuple[Path, ...],
    baseline: Path | None,
    fail_on: str | None,
    name: str,
    everything: bool,
    output: Path | None,
) -> int:
    """Show one table, a row for each case and a column for each result, and mark differences from the first column.

    RESULT is what 'kgen verify --json', 'kgen inspect --json' or 'kgen judge --json' wrote; - is standard input.
    Without --baseline the others are compared with the first one, and the exit code is 0 whatever they say.
    """
    if name not in forms():
        raise unknown("format", name, forms())
    if fail_on is not None and baseline is None:
        raise click.UsageError("--fail-on goes with --baseline")
    check_writable(output, *results, baseline)
    comparison = compare(_runs(results, baseline), _fatal(fail_on) if baseline else ())
    _print(lambda console: forms()[name].show(console, comparison, everything), output)
    return FAILED if comparison.failed else 0


def _fatal(text: str | None) -> frozenset[Difference]:
    """Return the differences that --fail-on names. Raises SpecError."""
    if text is None:
        return FATAL
    known = {kind.value: kind for kind in Difference if kind is not Difference.SAME}
    for word in text.split(","):
        if word.strip() not in known:
            raise unknown("difference", word.strip(), known)
    return frozenset(known[word.strip()] for word in text.split(","))


def _runs(results: tuple[Path, ...], baseline: Path | None) -> tuple[Run, ...]:
    """Return the runs of all files, the baseline first and once. Raises SpecError and click.UsageError."""
    if baseline is None:
        runs = read_runs(results)
        if len(runs) < 2:
            raise click.UsageError("there is one result only; give another one, or --baseline FILE")
        return runs
    first = read_runs([baseline])
    if len(first) != 1:
        raise SpecError(f"holds {len(first)} runs", where=str(baseline), hint="a baseline is one run")
    others = [path for path in results if not _same(path, baseline)]
    if not others:
        raise click.UsageError(
            "the result is the baseline itself, which counts once; name another one to compare with it"
        )
    return first + read_runs(others)


def _same(path: Path, other: Path) -> bool:
    """Return whether both name one file: the baseline may be among the results."""
    if STDIN in (str(path), str(other)):
        return str(path) == str(other)
    return path.exists() and path.samefile(other)


def _print(show: Callable[[Console], None], output: Path | None) -> None:
    """Print to standard output, or write a file, whole or not at all."""
    output = output or Path(STDOUT)
    # a closed standard output is None, which ``write_text`` reports
    if str(output) == STDOUT and sys.stdout is not None and sys.stdout.isatty():
        show(Console(highlight=False))
        return
    file = io.StringIO()
    show(Console(file=file, width=WIDTH, color_system=None, highlight=False))
    write_text(output, file.getvalue())
