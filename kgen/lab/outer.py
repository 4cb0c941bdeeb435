"""The machine that a lab runs on: QEMU with its translator, what the lab says of it, four serial ports, no more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from kgen.lab.cache import Lab
from kgen.lab.recipe import HERE, fingerprint

#: The outer QEMU must emulate a 64-bit CPU with SVM.
BINARY = "qemu-system-x86_64"
#: ISA's COM1 to COM4, each with an interrupt of its own: sharing one would cost time.
_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 5), (0x2E8, 7))
#: In the order of the ports: the lab's console, then the inner machine's serial port, gdb stub and control session.
INNER_SERIAL, INNER_GDB, INNER_QMP = "/dev/ttyS1", "/dev/ttyS2", "/dev/ttyS3"


@dataclass(frozen=True)
class Lines:
    """Descriptors that the outer QEMU inherits: connected stream sockets and, for gdb, a listening one."""

    console: int
    serial: int
    gdb: int
    control: int
    #: The outer machine's own control session, None for none.
    qmp: int | None = None


def command(lab: Lab, qemu: str | None, lines: Lines | None, *, restore: bool) -> tuple[str, ...]:
    """Return the outer QEMU's whole command line.

    ``restore`` starts from the lab's saved state; the rest must be the same.
    """
    parts = [qemu or BINARY, *(word.replace(HERE, str(lab.directory)) for word in lab.machine)]
    parts += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    descriptors = (lines.console, lines.serial, lines.gdb, lines.control) if lines else (None,) * len(_PORTS)
    for number, ((port, irq), descriptor) in enumerate(zip(_PORTS, descriptors, strict=True)):
        listening = ",server=on,wait=off" if number == 2 else ""
        backend = "null" if descriptor is None else f"socket,fd={descriptor}{listening}"
        parts += ["-chardev", f"{backend},id=kgen-{number}"]
        parts += ["-device", f"isa-serial,iobase={port:#x},irq={irq},index={number},chardev=kgen-{number}"]
    if lines and lines.qmp is not None:
        parts += ["-chardev", f"socket,id=kgen-outer,fd={lines.qmp}", "-qmp", "chardev:kgen-outer"]
    if restore:
        parts += ["-incoming", f"exec:cat {shlex.quote(str(lab.state))}"]
    return tuple(parts)


def saved_by(machine: Sequence[str], qemu: str | None) -> str:
    """Return what identifies the outer machine whose saved state can be restored: its QEMU and what it consists of."""
    program = fingerprint(qemu or BINARY)
    return f"{program} {shlex.join(machine)}" if program else ""


def can_restore(lab: Lab, qemu: str | None) -> bool:
    """Return whether this outer machine is the one that saved the lab's state."""
    return bool(lab.state_of) and lab.state_of == saved_by(lab.machine, qemu) and lab.state.is_file()
