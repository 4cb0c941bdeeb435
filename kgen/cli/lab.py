"""kgen lab: make, list and remove hypervisors that need neither root nor /dev/kvm."""

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
from kgen.lab.choice import Choice
from kgen.lab.programs import build_programs, installed
from kgen.lab.programs import load as load_programs
from kgen.lab.system import System, title
from kgen.run.canary import canary
from kgen.run.request import check_choice
from kgen.systems import system_named, systems
from kgen.wording import mebibytes, plural

_PIECES = "What goes into it"
_RUN = "The tools"

_EXAMPLES = """\b
Examples:
  kgen lab build
  kgen verify --instr xchg --platform kvm-lab
  kgen lab build --release bullseye
  kgen lab build --kernel arch/x86/boot/bzImage --modules .
  kgen lab build qemu --release trixie
  kgen lab build virtualbox

verify takes the same options, and makes a lab when it is not there yet and
nothing has to be downloaded for it.
"""


@click.group("lab")
def COMMAND() -> None:
    """The lab: a hypervisor inside QEMU's translator, for --platform kvm-lab and its like; and emulators of other
    releases. It needs neither /dev/kvm nor root.

    It is made of the distribution's own packages, none of which is installed, and kept in the user's cache directory.
    """


@COMMAND.command("build", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Make a lab where it does not exist.")
@click.argument("system", default=cache.DEFAULT)
@lab_options(_PIECES)
@option(_RUN, "--qemu", metavar="BINARY", help="The outer QEMU.  [default: qemu-system-x86_64]")
@gdb_option(_RUN)
@option(_PIECES, "--rebuild", is_flag=True, help="Make it anew, with the newest packages.")
@click.pass_context
def build(context: click.Context, /, system: str, choice: Choice, qemu: str | None, gdb: str, rebuild: bool) -> int:
    """Make the lab of a SYSTEM ('kgen lab list'; by default kvm): download the distribution's packages, pack what is
    needed, boot once, save the state, and try it with a canary. What is downloaded, how much that is and what it
    takes on disk is said before.

    Without a release kvm is made of this host's QEMU and its distribution's kernel and busybox (about 27 MiB), and
    virtualbox of Debian sid (about 145 MiB). With one everything inside is of that release. With --kernel (and
    --modules, where KVM is not built in) the Linux inside is your own. A lab that exists is not made again.
    """
    check_program("--qemu", qemu)
    check_gdb(context, gdb)
    there = system_named(system)
    check_choice(there, choice)
    if there.in_lab:
        _build_lab(there, choice, Tools(qemu, gdb), rebuild)
    else:
        _build_programs(there, choice, rebuild)
    return 0


def _build_lab(system: System, choice: Choice, tools: Tools, rebuild: bool) -> None:
    known = {there.directory: there.state_of for there in cache.labs()}
    with stages(Console(highlight=False)) as show:
        lab = build_lab(system, choice, tools, show, canary, rebuild=rebuild)
    click.echo(f"the lab is ready: {_title(lab)}")
    times = "it took: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in lab.seconds.items())
    was_there = known.get(lab.directory) == lab.state_of
    click.echo(f"{mebibytes(lab.size())} in {lab.directory}; {'it existed already' if was_there else times}")


def _build_programs(system: System, choice: Choice, rebuild: bool) -> None:
    was_there = load_programs(title(system, choice)) is not None
    with stages(Console(highlight=False)) as show:
        made = build_programs(system, choice, show, rebuild=rebuild)
    click.echo(f"ready: {', '.join(made.sources.values())}{'; it existed already' if was_there else ''}")
    click.echo(f"{' '.join(sorted(path.name for path in made.programs.iterdir()))} in {made.programs}")


@COMMAND.command("list", short_help="List what can be made.")
def list_() -> int:
    """List the systems: what can be made, which platforms run in it, and the options that choose its parts."""
    for system in systems().values():
        click.echo(f"{system.name:<12} {system.summary}")
        click.echo(f"{'':<12} platforms: {', '.join(system.platforms)}; about {system.seconds} s to make")
        click.echo(f"{'':<12} {' '.join(f'--{name}' for name in sorted(system.options))}")
    return 0


@COMMAND.command("status", short_help="List what was made.")
def status() -> int:
    """List the labs and programs: their names, parts and sizes. Exit code 0 where there is one, 8 where there is
    none."""
    found = cache.labs()
    for lab in found:
        names = ", ".join(cache.names(lab.key)) or "of your own parts"
        click.echo(f"{lab.key}  {names}: {_title(lab)}, {mebibytes(lab.size())}")
        for name, source in lab.sources.items():
            click.echo(f"      {name:<8} {source}")
    programs = installed()
    for each in programs:
        click.echo(f"{each.name}: {', '.join(each.sources.values())}, in {each.programs}")
    click.echo(f"{cache.root()}: {plural(len(found), 'lab')}; {cache.roots()}: {len(programs)}")
    return 0 if found or programs else PlatformUnavailable.exit_code


@COMMAND.command("clean", short_help="Remove labs.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Remove labs but for the N that were used last.")
def clean(keep: int | None) -> int:
    """Remove every lab from the cache, with all programs and downloads; or the labs that were not used for longest."""
    click.echo(f"{mebibytes(cache.clean(keep or 0))} removed from {cache.root().parent}")
    return 0


def _title(lab: Lab) -> str:
    return f"Linux {lab.linux}, {lab.qemu}"
