"""kgen gdb: run to the first violation and go on in gdb."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kgen.build import build
from kgen.cli._options import (
    CaseOptions,
    GroupedCommand,
    MachineOptions,
    case_options,
    gdb_option,
    machine_options,
    option,
    seconds_from,
)
from kgen.errors import SpecError
from kgen.files import STDOUT, check_writable
from kgen.platforms import platform_named
from kgen.resources import data_dir
from kgen.run.gdb_terminal import hand_over, moment_for
from kgen.run.options import Options
from kgen.run.request import Request, check, ready
from kgen.spec.defaults import DEFAULT_TIMEOUT

_EXAMPLES = """\b
Examples:
  kgen gdb --instr xchg --platform qemu-kvm    frozen at the first violation
  kgen gdb --instr xchg --no-lock              the same on QEMU/TCG
  kgen gdb --instr xchg --stop case            where the case begins
  kgen gdb --instr xadd --machine q35 --stop end

\b
In gdb:
  kgen status          where everything is
  kgen freeze-proof    why a token is lost
  help kgen            what else there is
"""
_RUN = "The run"
_MACHINE = "The machine"


@click.command("gdb", cls=GroupedCommand, epilog=_EXAMPLES)
@case_options
@option(_RUN, "--platform", default="qemu-tcg", show_default=True, metavar="NAME", help="What runs the kernel.")
@option(
    _RUN,
    "--stop",
    type=click.Choice(["start", "controls", "case", "violation", "end"]),
    help="Where gdb takes over.  [default: violation; where breakpoints do not hit: end]",
)
@option(
    _RUN,
    "--timeout",
    type=seconds_from(1),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for the run up to that moment.",
)
@option(
    _RUN,
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the guest's serial log there; otherwise it is deleted with the machine.",
)
@option(_RUN, "--qemu", metavar="BINARY", help="The QEMU to run.")
@gdb_option(_RUN)
@machine_options(_MACHINE)
@option(
    "",
    "--script",
    is_flag=True,
    help="Print where the script with the commands is, for a gdb of your own, and do nothing else.",
)
@click.argument("qemu_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- QEMU-ARGS]")
def COMMAND(
    asked: CaseOptions,
    board: MachineOptions,
    platform: str,
    stop: str | None,
    timeout: float,
    log: Path | None,
    qemu: str | None,
    gdb: str,
    script: bool,
    qemu_args: tuple[str, ...],
) -> None:
    """Build a kernel, run it to a chosen moment, and go on in gdb with kgen's commands.

    The machine is frozen at the case's first violation, where there is one, otherwise at the end. It ends when gdb
    does. Arguments after -- go to QEMU as they are.
    """
    if script:
        click.echo(data_dir("gdb_scripts") / "kgen.py")
        return
    there = platform_named(platform)
    moment = moment_for(there, stop)
    if str(log) == STDOUT:
        raise SpecError("the terminal is gdb's", where="--log -", hint="name a file")
    check_writable(log)
    spec = asked.spec()
    if spec.suite:
        raise SpecError("gdb is for one case", where="--suite", hint="name the case with --instr")
    options = Options(qemu=qemu, gdb=gdb, extra=qemu_args, timeout=timeout, **asdict(board))
    request = Request(spec, there, options)
    check(request)
    ready(request)
    click.echo(f"kgen: {spec.name} on {there.name} runs; gdb follows", err=True)
    hand_over(
        build(spec),
        there,
        options,
        moment,
        log=log,
        tell=lambda line: click.echo(f"kgen: {line}", err=True),
    )
