"""kgen build: generate a kernel and its disk images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from kgen.build import build, write
from kgen.cli._options import CaseOptions, GroupedCommand, case_options, file_name, option
from kgen.cli._paths import named
from kgen.errors import unknown
from kgen.media import formats

_EXAMPLES = """\b
Examples:
  kgen build --instr xchg
  kgen build --instr xchg --target ram --cpus 8 -o /tmp/ram
  kgen build --instr xchg --rounds 0 --serial-port 0x2f8
  kgen build --suite full
  kgen build --instr xchg --format img,vmdk,vhdx
"""


@click.command("build", cls=GroupedCommand, epilog=_EXAMPLES)
@case_options
@option(
    "Output",
    "--format",
    "format_lists",
    multiple=True,
    default=("img",),
    metavar="NAME[,NAME...]",
    help="Image formats to write, one file each; see 'kgen list formats'.  [default: img]",
)
@option("Output", "-o", "--output", type=file_name, metavar="DIR", help="Default: build/CASE.")
def COMMAND(asked: CaseOptions, output: Path | None, format_lists: tuple[str, ...]) -> None:
    """Generate a kernel: ELF, bootable disk images, listing, manifest.

    The image boots on any PC or hypervisor, by BIOS or UEFI, and prints its record on the serial port, from which
    'kgen judge' makes the verdict. Disk formats all hold the same disk, which is a CD as well.
    """
    spec = asked.spec()
    chosen = _chosen(format_lists)
    directory = output or Path("build") / spec.name.replace(":", ".")
    for path in write(build(spec), directory, chosen):
        click.echo(named(path))


def _chosen(lists: Sequence[str]) -> tuple[str, ...]:
    """Return the formats that comma-separated lists name, each once. Raises SpecError for a name that is not known."""
    names = tuple(dict.fromkeys(name.strip() for each in lists for name in each.split(",")))
    for name in names:
        if name not in formats():
            raise unknown("image format", name, formats())
    return names
