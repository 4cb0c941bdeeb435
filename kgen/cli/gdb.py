"""kgen gdb: run a kernel to a chosen moment and go on in gdb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kgen.cli._options import (
    GroupedCommand,
    case_options,
    check_gdb,
    gdb_option,
    machine_options,
    make_spec,
    option,
    seconds_from,
)
from kgen.errors import SpecError

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
DEFAULT_TIMEOUT = 600.0


@click.command("gdb", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Run to the first violation and go on in gdb.")
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
    help="For the run up to there.",
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
@click.pass_context
def COMMAND(context: click.Context, /, **values: Any) -> None:
    """Build a kernel, run it to a chosen moment, and go on in gdb with kgen's commands.

    The machine is frozen at the case's first violation, where there is one, otherwise at the end. It ends when gdb
    does. Arguments after -- go to QEMU as they are.
    """
    if values["script"]:
        from kgen.resources import data_dir

        click.echo(data_dir("gdb_scripts") / "kgen.py")
        return
    from kgen.build import build
    from kgen.files import STDOUT, check_writable
    from kgen.machine.platform import CHOICES
    from kgen.platforms import platform_named
    from kgen.run.gdb_terminal import hand_over, moment_for
    from kgen.run.options import Options, check_available, check_choices, request_of
    from kgen.run.verify import check_arguments

    platform = platform_named(values["platform"])
    moment = moment_for(platform, values["stop"])
    check_gdb(context, values["gdb"])
    if str(values["log"]) == STDOUT:
        raise SpecError("the terminal is gdb's", where="--log -", hint="name a file")
    check_writable(values["log"])
    check_arguments(platform, values["qemu"], values["qemu_args"])
    spec = make_spec(values)
    if spec.suite:
        raise SpecError("gdb is for one case", where="--suite", hint="name the case with --instr")
    options = Options(
        qemu=values["qemu"],
        gdb=values["gdb"],
        extra=values["qemu_args"],
        timeout=values["timeout"],
        **{name: values[name] for name in CHOICES},
    )
    request = request_of(spec, options)
    check_choices(platform, request)
    check_available(spec, platform, request)
    click.echo(f"kgen: {spec.name} on {platform.name} runs; gdb follows", err=True)
    hand_over(
        build(spec),
        platform,
        options,
        moment,
        log=values["log"],
        tell=lambda line: click.echo(f"kgen: {line}", err=True),
    )
