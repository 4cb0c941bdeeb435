"""kgen report: report results in another form."""

from __future__ import annotations

from pathlib import Path

import click

from kgen.cli._options import GroupedCommand, file_name, option
from kgen.errors import unknown
from kgen.files import STDOUT, check_writable, write_bytes, write_text
from kgen.report.bug.bundle import REPORT, Packed, collect, pack
from kgen.report.bug.report import render
from kgen.report.formats import formats
from kgen.report.results.store import read_results

_EXAMPLES = """\b
Examples:
  kgen report result.json
  kgen report result.json --format markdown --bundle bug.zip
  kgen report tcg.json kvm.json --format html -o report.html
  kgen report suite.json --format junit -o junit.xml
"""
_OUTPUT = "Output"


def _names() -> list[str]:
    return list(formats())


@click.command("report", cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT...")
@option(_OUTPUT, "--format", "name", default="text", show_default=True, metavar="NAME", help="", entries=_names)
@option(_OUTPUT, "-o", "--output", type=file_name, metavar="FILE", help="Where the report goes.  [default: stdout]")
@option(
    _OUTPUT,
    "--bundle",
    type=file_name,
    metavar="FILE.zip",
    help="Pack results, logs, image, ELF, listing and bug report for a tracker.",
)
def COMMAND(results: tuple[Path, ...], name: str, output: Path | None, bundle: Path | None) -> int:
    """Report results in another form.

    RESULT is what 'kgen verify --json', 'kgen inspect --json' or 'kgen judge --json' wrote; - is standard input. It
    exits 0 whatever the verdicts are: they have been judged.
    """
    if name not in formats():
        raise unknown("report format", name, formats())
    check_writable(output, *results)
    check_writable(bundle, *results)
    _check_bundle(bundle, output)
    found = read_results(results)
    runs = [run for result in found for run in result.runs]
    form = formats()[name]
    if bundle is None:
        write_text(output or Path(STDOUT), form.render(runs))
        return 0
    files = collect(runs, [(result.where, result.data) for result in found])
    enclosed = [each.enclosed for each in files]
    report = Packed(REPORT, render(runs, enclosed).encode(), "the bug report")
    packed = pack([*files, report])
    text = form.render_with(runs, enclosed) if form.render_with else form.render(runs)
    write_bytes(bundle, packed)
    write_text(output or Path(STDOUT), text)
    return 0


def _check_bundle(bundle: Path | None, output: Path | None) -> None:
    """Raise click.UsageError for a bundle that would go to the same place as the report."""
    if bundle is None:
        return
    if str(bundle) == STDOUT:
        raise click.UsageError("--bundle is no text for standard output; name a file")
    if output is not None and str(output) != STDOUT and output.resolve() == bundle.resolve():
        raise click.UsageError("--bundle and -o name the same file; choose two")
