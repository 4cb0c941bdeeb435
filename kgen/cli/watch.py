"""kgen watch: look at a machine while it runs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import click
from rich.console import Console

from kgen.cli._options import GroupedCommand, option, seconds_from
from kgen.cli._watch_screen import shown
from kgen.files import read_bytes
from kgen.watch.pacing import Pace
from kgen.watch.watcher import Watched, watch

_EXAMPLES = """\b
Examples:
  kgen watch localhost:1234 build/xchg.32.vga-text.token/kernel.elf
  kgen watch gdb.sock kernel.elf --for 60
"""
_READING = "The machine"
_PACE = "The pace"
#: The highest --cost, in percent of the machine's time.
MOST = 5.0


def _percent(text: str) -> float:
    """Return the type of --cost: a share, as a part of 1."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%?", text)
    value = float(match[1]) if match else math.nan
    if not 0.01 <= value <= MOST:
        raise click.BadParameter(f"{text!r} is not a share from 0.01% to {MOST:g}%")
    return value / 100


@click.command("watch", cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("address", metavar="HOST:PORT|SOCKET")
@click.argument("kernel", type=click.Path(path_type=Path), metavar="KERNEL.ELF")
@option(_READING, "--qmp", metavar="HOST:PORT|SOCKET", help="QEMU's control socket, to tell whether the machine ran.")
@option(_READING, "--continue", "resume", is_flag=True, help="Let a machine run that was found stopped.")
@option(
    _READING,
    "--timeout",
    type=seconds_from(1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the stub may take to answer.",
)
@option(
    _PACE,
    "--cost",
    type=_percent,
    default="2%",
    show_default=True,
    metavar="PERCENT",
    help=f"How much of its time the machine may stand still, at most {MOST:g}%.",
)
@option(
    _PACE,
    "--interval",
    type=seconds_from(0.1),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="The least time from one look to the next.",
)
@option(_PACE, "--for", "seconds", type=seconds_from(0.1), metavar="SECONDS", help="Stop watching after that time.")
@option(_PACE, "--once", is_flag=True, help="Look once.")
def COMMAND(
    address: str,
    kernel: Path,
    qmp: str | None,
    resume: bool,
    timeout: float,
    cost: float,
    interval: float,
    seconds: float | None,
    once: bool,
) -> int:
    """Look at a machine with a gdb stub that runs a kgen kernel, again and again, while it runs.

    HOST:PORT or SOCKET is that of the stub (QEMU: -gdb tcp:127.0.0.1:1234 or -gdb unix:PATH,server,wait=off). Each look
    stops the machine for a moment; what that costs it is shown and bounded. The machine is left as it was found. On a
    terminal it is a screen, elsewhere a line a look. No verdict is stated: being stopped shifts the CPUs in time.
    """
    if Path(address).suffix == ".elf" and not kernel.is_file():
        raise click.UsageError(f"the stub comes first, then the ELF: kgen watch {kernel} {address}")
    elf = read_bytes(kernel)
    wanted = Watched(
        address=address,
        pace=Pace(cost, interval),
        qmp=qmp,
        resume=resume,
        timeout=timeout,
        seconds=seconds,
        once=once,
    )
    console = Console(highlight=False)
    with shown(console) as live:
        live.end(watch(elf, str(kernel), wanted, live.show, live.stopped))
    return 0
