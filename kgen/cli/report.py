"""kgen report: results told once more, in another form."""

from __future__ import annotations

from pathlib import Path

import click

from kgen.cli._files import STDOUT, check_writable, read_runs, write_text
from kgen.cli._options import GroupedCommand, file_name, option

_EXAMPLES = """\b
Examples:
  kgen report result.json
  kgen report result.json --format markdown
  kgen report tcg.json kvm.json --format html -o report.html
"""
_OUTPUT = "Output"


@click.command("report", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Tell results in another form.")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT...")
@option(_OUTPUT, "--format", "name", default="text", show_default=True, metavar="NAME", help="See 'kgen list reports'.")
@option(_OUTPUT, "-o", "--output", type=file_name, metavar="FILE", help="Where the report goes.  [default: stdout]")
def COMMAND(results: tuple[Path, ...], name: str, output: Path | None) -> int:
    """Tell results once more, in another form.

    RESULT is what 'kgen verify --json', 'kgen inspect --json' or 'kgen judge --json' wrote; - is standard input.
    """
    from kgen.report.formats import formats
    from kgen.spec import unknown

    if name not in formats():
        raise unknown("report format", name, formats())
    check_writable(output, *results)
    write_text(output or Path(STDOUT), formats()[name].render(read_runs(results)))
    return 0
