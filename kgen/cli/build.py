"""kgen build: generate a kernel and its boot image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kgen.cli._options import GroupedCommand, case_options, file_name, make_spec, option

_EXAMPLES = """\b
Examples:
  kgen build --instr xchg
  kgen build --instr xchg --target ram --cpus 8 -o /tmp/ram
  kgen build --instr xchg --rounds 0 --serial-port 0x2f8
  kgen build --suite full
"""


@click.command("build", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Generate a kernel and its disk image.")
@case_options
@option("Output", "-o", "--output", type=file_name, metavar="DIR", help="Default: build/CASE.")
def COMMAND(output: Path | None, **values: Any) -> None:
    """Generate a kernel: ELF, bootable disk image, listing, manifest.

    The image boots on any PC or hypervisor and prints its table on the serial port; its record can be
    held against the ELF by 'kgen inspect' wherever there is a gdb stub.
    """
    spec = make_spec(values)
    from kgen.builder import build, write

    directory = output or Path("build") / spec.name.replace(":", ".")
    for path in write(build(spec), directory):
        click.echo(path)
