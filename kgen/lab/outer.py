"""The machine that a lab runs on: QEMU with its translator, what the lab says of it, four serial ports, no more.

The lab says what each port carries: "console" is the dialogue with its /init; "serial", "gdb" and "control" are the
inner machine's serial port, gdb stub and control session; "log" is what a hypervisor prints on a port of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from kgen.lab.cache import Lab
from kgen.lab.recipe import HERE, SHARE, fingerprint

#: The outer QEMU must emulate a 64-bit CPU with SVM.
BINARY = "qemu-system-x86_64"
#: What the name of a port begins with that is no UART but one of virtio: far faster where every access to an I/O port
#: is trapped. The lab's machine has its controller.
VIRTIO = "virtio:"
#: ISA's COM1 to COM4, each with an interrupt of its own: sharing one would cost time.
_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 5), (0x2E8, 7))


@dataclass(frozen=True)
class Lines:
    """Descriptors that the outer QEMU inherits, by what the ports carry: connected stream sockets, for gdb a listening
    one, for the log a file. A port of a lab that has no descriptor here goes nowhere."""

    console: int
    serial: int
    gdb: int
    control: int | None = None
    log: int | None = None
    #: The file that lab and host share.
    share: int | None = None
    #: The outer machine's own control session, None for none.
    qmp: int | None = None


def command(lab: Lab, qemu: str | None, lines: Lines | None, *, restore: bool) -> tuple[str, ...]:
    """Return the outer QEMU's whole command line.

    ``restore`` starts from the lab's saved state; the rest must be the same.
    """
    shared = f"/dev/fd/{lines.share}" if lines and lines.share is not None else "FILE"
    words = (word.replace(HERE, str(lab.directory)).replace(SHARE, shared) for word in lab.machine)
    parts = [qemu or BINARY, *words]
    parts += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    # a state that was saved of a machine that stood still is restored to a running one
    parts += ["-global", "migration.store-global-state=off"]
    for number, ((port, irq), named) in enumerate(zip(_PORTS, lab.ports, strict=True)):
        carried = named.removeprefix(VIRTIO)
        descriptor: int | None = getattr(lines, carried) if lines else None
        listening = ",server=on,wait=off" if carried == "gdb" else ""
        backend = "null" if descriptor is None else f"socket,fd={descriptor}{listening}"
        if carried == "log" and descriptor is not None:
            # a socket that is read late takes few bytes, and a hypervisor waits for its console
            backend = f"file,path=/dev/fd/{descriptor}"
        parts += ["-chardev", f"{backend},id=kgen-{number}"]
        isa = f"isa-serial,iobase={port:#x},irq={irq},index={number}"
        parts += ["-device", f"{isa if named == carried else f'virtserialport,nr={number}'},chardev=kgen-{number}"]
    if lines and lines.qmp is not None:
        parts += ["-chardev", f"socket,id=kgen-outer,fd={lines.qmp}", "-qmp", "chardev:kgen-outer"]
    if restore:
        parts += ["-incoming", f"exec:cat {shlex.quote(str(lab.state))}"]
    return tuple(parts)


def carries(ports: Sequence[str], carried: str) -> bool:
    """Return whether one of a lab's ports carries this."""
    return carried in ports or VIRTIO + carried in ports


def device(ports: Sequence[str], carried: str) -> str:
    """Return the lab's name of the port that carries this."""
    if carried in ports:
        return f"/dev/ttyS{ports.index(carried)}"
    return f"/dev/vport0p{ports.index(VIRTIO + carried)}"


def saved_by(machine: Sequence[str], qemu: str | None) -> str:
    """Return what identifies the outer machine whose saved state can be restored: its QEMU and what it consists of."""
    program = fingerprint(qemu or BINARY)
    return f"{program} {shlex.join(machine)}" if program else ""


def can_restore(lab: Lab, qemu: str | None) -> bool:
    """Return whether this outer machine is the one that saved the lab's state."""
    return bool(lab.state_of) and lab.state_of == saved_by(lab.machine, qemu) and lab.state.is_file()
