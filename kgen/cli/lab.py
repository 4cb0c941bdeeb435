"""kgen lab: make, show and remove KVM for a host without /dev/kvm."""

from __future__ import annotations

import click
from rich.console import Console

from kgen.cli._lab_options import lab_options
from kgen.cli._options import GroupedCommand, check_gdb, gdb_option, option
from kgen.cli._progress import stages
from kgen.errors import PlatformUnavailable
from kgen.files import check_program
from kgen.lab import cache
from kgen.lab.build import Tools, build_lab
from kgen.lab.cache import Lab
from kgen.lab.recipe import Choice
from kgen.run.canary import canary
from kgen.run.request import check_choice
from kgen.wording import plural

_PIECES = "What goes into it"
_RUN = "The tools"
_MIB = 1 << 20

_EXAMPLES = """\b
Examples:
  kgen lab build
  kgen verify --instr xchg --platform kvm-lab
  kgen lab build --kernel arch/x86/boot/bzImage --modules .

verify takes --kernel and --modules too, and makes that lab when it is not
there yet.
"""


@click.group("lab")
def COMMAND() -> None:
    """The lab: a Linux with KVM inside QEMU's translator, for --platform kvm-lab. It needs neither /dev/kvm nor root.

    It is made of the distribution's own kernel, busybox and QEMU, and kept in the user's cache directory.
    """


@COMMAND.command("build", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Make the lab where it does not exist.")
@lab_options(_PIECES)
@option(_RUN, "--qemu", metavar="BINARY", help="The outer QEMU.  [default: qemu-system-x86_64]")
@gdb_option(_RUN)
@option(_PIECES, "--rebuild", is_flag=True, help="Make it anew, with the newest packages.")
@click.pass_context
def build(context: click.Context, /, choice: Choice, qemu: str | None, gdb: str, rebuild: bool) -> int:
    """Make the lab: download the distribution's kernel and busybox (about 27 MiB; nothing is installed), pack them with
    this system's QEMU, boot once, save the state, and try it with a canary.

    With --kernel (and --modules, where KVM is not built in) the Linux inside is your own. A lab that exists is not
    made again.
    """
    check_program("--qemu", qemu)
    check_gdb(context, gdb)
    check_choice(choice)
    known = {there.directory: there.state_of for there in cache.labs()}
    with stages(Console(highlight=False)) as show:
        lab = build_lab(choice, Tools(qemu, gdb), show, canary, rebuild=rebuild)
    click.echo(f"the lab is ready: {_title(lab)}")
    times = "it took: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in lab.seconds.items())
    was_there = known.get(lab.directory) == lab.state_of
    click.echo(f"{lab.size() / _MIB:.0f} MiB in {lab.directory}; {'it existed already' if was_there else times}")
    return 0


@COMMAND.command("status", short_help="List the labs.")
def status() -> int:
    """List the labs: their parts and their size. Exit code 0 where there is one, 8 where there is none."""
    found = cache.labs()
    default = cache.default()
    for lab in found:
        mark = "*" if default and lab.key == default.key else " "
        click.echo(f"{mark} {lab.key}  {_title(lab)}, {lab.size() / _MIB:.0f} MiB")
        for name, source in lab.sources.items():
            click.echo(f"      {name:<8} {source}")
    click.echo(f"{cache.root()}: {plural(len(found), 'lab')}" + ("; * is the distribution's" if default else ""))
    return 0 if found else PlatformUnavailable.exit_code


@COMMAND.command("clean", short_help="Remove every lab.")
def clean() -> int:
    """Remove every lab from the cache."""
    click.echo(f"{cache.clean() / _MIB:.0f} MiB removed from {cache.root()}")
    return 0


def _title(lab: Lab) -> str:
    return f"Linux {lab.linux}, {lab.qemu}"
