"""kgen inspect: read and judge a machine by its gdb stub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from kgen.cli._options import GroupedCommand, check_gdb, gdb_option, invocation, json_option, option, seconds_from
from kgen.files import STDOUT, check_writable, read_bytes
from kgen.report.results.model import show_run
from kgen.report.results.store import write_result
from kgen.run.attach import Attachment, attach
from kgen.run.verify import judged

_EXAMPLES = """\b
Examples:
  kgen inspect build/xchg.32.vga-text.token/kernel.elf localhost:1234
  kgen inspect kernel.elf gdb.sock --qmp qmp.sock --serial serial.log
"""
_READING = "The machine"


@click.command("inspect", cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("kernel", type=click.Path(path_type=Path), metavar="KERNEL.ELF")
@click.argument("address", metavar="HOST:PORT|SOCKET")
@option(_READING, "--qmp", metavar="HOST:PORT|SOCKET", help="QEMU's control socket, to attest the path.")
@option(_READING, "--serial", type=click.Path(path_type=Path), metavar="FILE", help="Its serial log.")
@option(
    _READING,
    "--after",
    type=click.Choice(["found", "resume", "stop"]),
    default="found",
    show_default=True,
    help="How to leave the machine: as it was found where --qmp can tell, otherwise stopped.",
)
@gdb_option(_READING)
@option(
    _READING,
    "--timeout",
    type=seconds_from(1),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the stub may take to answer.",
)
@json_option
@click.pass_context
def COMMAND(
    context: click.Context,
    /,
    kernel: Path,
    address: str,
    qmp: str | None,
    serial: Path | None,
    after: Literal["found", "resume", "stop"],
    gdb: str,
    timeout: float,
    json_file: Path | None,
) -> int:
    """Read a machine with a gdb stub that runs a kgen kernel, and judge it.

    ADDRESS is that of the stub (QEMU: -gdb tcp:127.0.0.1:1234 or -gdb unix:PATH,server,wait=off). Reading stops
    the machine. Exit codes as for 'kgen verify'. Only with the whole serial log can the verdict be ATOMIC.
    """
    if Path(address).suffix == ".elf" and not kernel.is_file():
        raise click.UsageError(f"the ELF comes first, then the stub: kgen inspect {address} {kernel}")
    check_gdb(context, gdb)
    check_writable(json_file, kernel, serial)
    log = read_bytes(serial) if serial else None
    wanted = Attachment(address=address, qmp=qmp, log=log, after=after, gdb=gdb, timeout=timeout)
    spec, observation, left = attach(read_bytes(kernel), str(kernel), wanted)
    console = Console(stderr=str(json_file) == STDOUT, highlight=False)
    run = judged(spec, observation, invocation(context))
    show_run(console, run)
    console.file.flush()
    write_result(json_file, run)
    console.print(f"the machine was left {left}", markup=False, soft_wrap=True)
    return run.kind.value
