"""kgen doctor: report what is installed, and try every platform."""

from __future__ import annotations

import click

from kgen.cli._options import GroupedCommand, check_gdb, gdb_option, option
from kgen.errors import KgenError
from kgen.files import check_program
from kgen.run.doctor import examine
from kgen.run.options import Options
from kgen.wording import visible

_RUN = "The tools"


@click.command("doctor", cls=GroupedCommand)
@option(_RUN, "--qemu", metavar="BINARY", help="The QEMU to run.")
@gdb_option(_RUN)
@click.pass_context
def COMMAND(context: click.Context, /, qemu: str | None, gdb: str) -> int:
    """Report what is installed, what is missing and how to get it, and boot a canary kernel on every platform,
    in every lab, and on every emulator that 'kgen lab build' made.

    Exit code 0 when at least one platform works, 9 when none does.
    """
    check_program("--qemu", qemu)
    check_gdb(context, gdb)
    works = False
    for finding in examine(Options(qemu=qemu, gdb=gdb)):
        # each as soon as it is known, because a boot takes a moment
        click.echo(f"{finding.subject:<16} {finding.state:<12} {visible(finding.detail)}")
        works |= finding.platform and finding.state == "ok"
    return 0 if works else KgenError.exit_code
