"""What Bochs needs to run a kernel: the program and its firmware, its command line, its configuration."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
from pathlib import Path

from kgen.errors import SpecError
from kgen.host.process import finish
from kgen.machine.platform import LaunchRequest
from kgen.media.img import DISK_BYTES

#: The names of the program. Where a distribution has two, the first is the one with the debugger.
BINARIES = ("bochs-debugger", "bochs")
INSTALL_HINT = "install it with 'apt install bochs bochsbios vgabios' or 'dnf install bochs bochs-debugger'"
#: Files of the package beside it, in the directory that Bochs calls BXSHARE.
FIRMWARE = ("BIOS-bochs-latest", "VGABIOS-lgpl-latest")
#: Bochs numbers 8-bit APIC ids from 0, and keeps the last two.
MAX_CPUS = 254
#: Bochs's names of the serial ports, by I/O port.
SERIAL_PORTS = {0x3F8: "com1", 0x2F8: "com2", 0x3E8: "com3", 0x2E8: "com4"}

#: Names in the directory that Bochs runs in. The configuration contains no path, which could have characters of its
#: syntax.
CONFIGURATION = "bochsrc"
SERIAL = "serial.txt"
LOG = "bochs.log"
#: By the name of the image's format.
MEDIA = {"img": "disk.img", "iso": "cd.iso"}

#: Emulated instructions a second: Bochs's clock counts instructions. Few, because firmware and kernel wait for the
#: clock; and a UART byte takes some hundred instructions, not thousands.
INSTRUCTIONS_PER_SECOND = 4_000_000
#: The default model is the first of these that 'bochs --help cpu' lists: Bochs 3 has no bx_generic.
CPUS = ("bx_generic", "corei7_skylake_x")
#: From Bochs 3.0 on the debugger has to be asked for; an older Bochs does not know the word.
DEBUGGER = "-debugger"
#: For Bochs to print its help.
_HELP_SECONDS = 10.0
#: Exactly the geometry of DISK_BYTES.
CYLINDERS, HEADS, SECTORS = 512, 4, 17

assert CYLINDERS * HEADS * SECTORS * 512 == DISK_BYTES


def find_binary(request: LaunchRequest) -> str | None:
    """Return the path of the Bochs to run, None when there is none."""
    place = str(request.programs) if request.programs else None
    return next((path for name in BINARIES if (path := shutil.which(name, path=place))), None)


def default_cpu(models: str) -> str:
    """Return the model to take where the user names none, from what ``bochs --help cpu`` prints."""
    lines = {line.strip() for line in models.splitlines()}
    return next((name for name in CPUS if name in lines), CPUS[0])


def switches(usage: str) -> tuple[str, ...]:
    """Return the words that start the debugger, from what ``bochs --help`` prints."""
    return (DEBUGGER,) if re.search(rf"^\s*{DEBUGGER}\s", usage, re.MULTILINE) else ()


@functools.cache
def _help(binary: str | None, *topic: str) -> str:
    """Return what a Bochs prints about itself, "" where there is none."""
    return finish((binary, "--help", *topic), _HELP_SECONDS).text if binary else ""


def unavailable(request: LaunchRequest) -> str | None:
    """Return why no Bochs with its firmware can run the request, None where one can."""
    if sys.platform != "linux":
        return "Bochs is run on Linux only: elsewhere kgen cannot keep its display from listening on the network"
    binary = find_binary(request)
    if binary is None:
        return f"{' or '.join(BINARIES)} is not to be found; {INSTALL_HINT}"
    share = Path(os.environ.get("BXSHARE") or Path(binary).parent.parent / "share" / "bochs")
    missing = [name for name in FIRMWARE if share.is_dir() and not (share / name).exists()]
    if missing:
        return f"there is no {missing[0]} in {share}; {INSTALL_HINT}"
    if request.cpus > MAX_CPUS:
        return f"Bochs has at most {MAX_CPUS} CPUs"
    if request.serial_port not in SERIAL_PORTS:
        return f"Bochs has no serial port at {request.serial_port:#x}"
    return None


def command(request: LaunchRequest) -> tuple[str, ...]:
    """Return the command line, to be run in the configuration's directory.

    Words of the user's own come last: each is a line of a configuration file, and a later line overrides an earlier
    one.
    """
    binary = find_binary(request)
    return (binary or BINARIES[-1], "-q", *switches(_help(binary)), "-unlock", "-f", CONFIGURATION, *request.extra)


def medium(request: LaunchRequest) -> str:
    """See Platform. Raises SpecError for a medium that Bochs does not boot from."""
    if request.boot in (None, "ide"):
        return "img"
    if request.boot == "cdrom":
        return "iso"
    raise SpecError("Bochs boots from an IDE disk or a CD", where=f"--boot {request.boot}", hint="choose ide or cdrom")


def configuration(request: LaunchRequest) -> str:
    """Return the configuration file (bochsrc(5)). It names the image as MEDIA does.

    Nothing in it depends on the host's clock: the same kernel executes the same instructions in every run.
    """
    name = medium(request)
    disk = f"type=disk, path={MEDIA[name]}, mode=flat, cylinders={CYLINDERS}, heads={HEADS}, spt={SECTORS}"
    drive = disk if name == "img" else f"type=cdrom, path={MEDIA[name]}, status=inserted"
    port = SERIAL_PORTS[request.serial_port]
    model = request.cpu or default_cpu(_help(find_binary(request), "cpu"))
    lines = (
        "config_interface: textconfig",
        # The one display that every Bochs has and that needs no screen. Without the option it waits half a minute for a
        # viewer.
        'display_library: rfb, options="timeout=0"',
        f"memory: guest={request.memory_mib}, host={request.memory_mib}",
        # fastboot: without the menu
        f"romimage: file=$BXSHARE/{FIRMWARE[0]}, options=fastboot",
        f"vgaromimage: file=$BXSHARE/{FIRMWARE[1]}",
        "pci: enabled=1, chipset=i440fx, slot1=pcivga",
        "vga: extension=vbe, realtime=0",
        # A triple fault must be reported, not restart the guest.
        f"cpu: model={model}, count={request.cpus}, reset_on_triple_fault=0",
        f"cpu: ips={INSTRUCTIONS_PER_SECOND}",
        "clock: sync=none, time0=946684800",
        "ata0: enabled=1",
        f"ata0-master: {drive}",
        f"boot: {'disk' if name == 'img' else 'cdrom'}",
        # The only mode that loses no byte, however late it is read. It accepts no input.
        f"{port}: enabled=1, mode=file, dev={SERIAL}",
        # It has no sound card to play on.
        "plugin_ctrl: speaker=0",
        # A panic ends Bochs, with a message on standard error. From 3.1 on a triple fault is but a warning, which is
        # logged by default; older ones know no such setting. Bochs's other messages could fill a disk.
        f"log: {LOG}",
        "panic: action=fatal",
        "error: action=ignore",
        "info: action=ignore",
        "debug: action=ignore",
    )
    return "\n".join(lines) + "\n"
