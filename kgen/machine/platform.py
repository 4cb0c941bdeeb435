"""Where a kernel can run, and what a machine is started with."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from kgen.evidence.kvm_trace import TraceEvent

#: The I/O port of a PC's first serial port.
COM1 = 0x3F8


def setting_value(path: Path | str) -> str:
    """Return a path as the value of one of QEMU's settings, which a comma would end."""
    return str(path).replace(",", ",,")


@dataclass(frozen=True)
class Channels:
    """Descriptors the machine inherits: connected stream sockets and, for gdb, a listening one. ``console`` is the line
    to whatever runs QEMU where that is not this host, None where it is."""

    serial: int
    qmp: int
    gdb: int
    console: int | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """What to run, and how.

    ``kernel`` is the ELF to boot, None when ``extra`` brings the boot medium. ``image`` is the file that is booted
    instead where the platform's ``medium`` names a format. ``machine``, ``vga``, ``firmware``, ``cpu`` and ``boot`` are
    the user's choices among the platform's ``options``, None where there is none: the board, the graphics adapter, the
    firmware ("auto": what is fastest) or its file, the CPU model, and what to boot from: "kernel" (the ELF), a bus that
    a disk is on ("ide", "usb" ...), or "cdrom". ``qemu`` overrides the binary (a path or a name). ``append`` is the
    kernel command line. ``thread`` is TCG's thread mode, always stated because QEMU's default depends on the host.
    ``devices`` are values of ``-device``, ``fixtures`` whole arguments that the targets bring. ``extra`` holds the
    user's own arguments and comes last, so that it can override ours. ``channels`` None yields a command to be run by
    hand, with the serial port on the terminal. ``lab`` is the directory of the lab to run in, None for the
    distribution's. ``traced`` is the range of physical addresses whose accesses are to be recorded where the platform
    can, from its first to below its second. ``serial_port`` is the I/O port that the kernel talks on. A ``paused``
    machine waits for its debugger to let it run.
    """

    kernel: Path | None
    cpus: int = 3
    memory_mib: int = 64
    qemu: str | None = None
    extra: tuple[str, ...] = ()
    append: str = ""
    machine: str | None = None
    vga: str | None = None
    firmware: str | None = None
    cpu: str | None = None
    boot: str | None = None
    image: Path | None = None
    thread: Literal["multi", "single"] = "multi"
    devices: tuple[str, ...] = ()
    fixtures: tuple[str, ...] = ()
    channels: Channels | None = None
    lab: Path | None = None
    traced: tuple[int, int] | None = None
    serial_port: int = COM1
    paused: bool = False


#: What may be chosen of a machine, by the names in LaunchRequest; a platform takes all of it, some or nothing.
CHOICES = ("machine", "vga", "firmware", "cpu", "boot")


class Supervisor(Protocol):
    """Starts QEMU on another machine than this host and tells what that machine says of it."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something for ``poll``."""
        ...

    def bring_up(self, started: Callable[[], bool]) -> None:
        """Do what must be done until ``started`` says that QEMU has spoken. Raises MachineError naming the stage."""
        ...

    def poll(self) -> str:
        """Take what has come; how QEMU has ended over there, "" while it runs."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what it is that runs QEMU: names and versions, for the observation's environment."""
        ...

    def kernel_log(self) -> tuple[str, ...]:
        """Return what the kernel under QEMU has logged since QEMU was started."""
        ...

    def stop_trace(self) -> None:
        """Keep what has been recorded; record no more."""
        ...

    def read_trace(self, addresses: Collection[int]) -> tuple[TraceEvent, ...]:
        """Return the recorded accesses to the cells at these physical addresses, in their order."""
        ...

    def close(self) -> None:
        """Hang up. May be called twice."""
        ...


@dataclass(frozen=True)
class Platform:
    """Something that runs a kernel.

    ``provides`` holds the capabilities that targets may require. ``unavailable`` says in one line why it cannot run
    here, None when it can. ``command`` is the program and its arguments. ``boot_seconds`` is how long to wait for the
    first serial byte before the boot counts as dead. ``known`` is the verdict that a LOCKed exchange on emulated I/O is
    known to get. ``breakpoints`` says which kinds hit. ``rounds`` is the default number of rounds of a run.
    ``patience`` is what deadlines that fit QEMU on this host are multiplied by. ``supervise`` is there where QEMU does
    not run on this host: it is given the line to the machine that runs it, a function that waits at most so many
    seconds for the end of ``command`` and tells how it ended ("" while it runs), and the request. ``options`` are the
    fields of LaunchRequest that the user may choose there. ``medium`` names the image format that the platform boots
    for a request, "" for the ELF itself; it raises SpecError for choices that do not go together. ``engine`` is the
    kind of program that carries the guest.
    """

    name: str
    summary: str
    provides: frozenset[str]
    unavailable: Callable[[LaunchRequest], str | None]
    command: Callable[[LaunchRequest], tuple[str, ...]]
    boot_seconds: float
    known: str
    breakpoints: Literal["any", "hardware", "none"]
    rounds: int = 10_000
    patience: float = 1.0
    options: frozenset[str] = frozenset()
    medium: Callable[[LaunchRequest], str] = lambda _: ""
    supervise: Callable[[socket.socket, Callable[[float], str], LaunchRequest], Supervisor] | None = None
    engine: Literal["qemu", "bochs"] = "qemu"
