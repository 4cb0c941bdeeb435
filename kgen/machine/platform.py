"""Where a kernel can run, and the request that starts a machine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from kgen.evidence.kvm_trace import TraceEvent
from kgen.spec.defaults import DEFAULT_ROUNDS, PROOF_SECONDS

#: The I/O port of a PC's first serial port.
COM1 = 0x3F8
#: The size of ``Channels.share``: a restored machine must find its disks in the size that they had.
SHARE_BYTES = 32 << 20


def setting_value(path: Path | str) -> str:
    """Return a path as the value of one of QEMU's settings, with its commas doubled: a single one would end the
    value."""
    return str(path).replace(",", ",,")


@dataclass(frozen=True)
class Channels:
    """Descriptors that the machine inherits: connected stream sockets and, for gdb, a listening one."""

    serial: int
    qmp: int
    gdb: int
    #: The line to the machine that runs QEMU where that is not this host, None where it is.
    console: int | None = None
    #: A file that this host and that machine share, None where there is no such machine.
    share: int | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """What to run, and how.

    The user chooses ``machine``, ``vga``, ``firmware``, ``cpu``, ``boot``, ``engine`` and ``ring3`` among the
    platform's ``options``; None and False are no choice.
    """

    #: The ELF to boot, None where ``extra`` brings the boot medium.
    kernel: Path | None
    cpus: int = 3
    memory_mib: int = 64
    #: The QEMU to run in place of the default: a path or a name.
    qemu: str | None = None
    #: The user's own arguments. They come last, so that they can override ours.
    extra: tuple[str, ...] = ()
    #: The kernel command line.
    append: str = ""
    #: The board.
    machine: str | None = None
    #: The graphics adapter.
    vga: str | None = None
    #: "auto" (the one that boots fastest) or a file.
    firmware: str | None = None
    #: The CPU model.
    cpu: str | None = None
    #: What to boot from: "kernel" (the ELF), a bus that a disk is on ("ide", "usb" ...), or "cdrom".
    boot: str | None = None
    #: The part of the hypervisor that carries the guest out.
    engine: str | None = None
    #: Whether the device's accesses are carried out in ring 3 alone.
    ring3: bool = False
    #: The file that is booted instead where the platform's ``medium`` names a format.
    image: Path | None = None
    #: TCG's thread mode, always stated because QEMU's default depends on the host.
    thread: Literal["multi", "single"] = "multi"
    #: Values of ``-device``.
    devices: tuple[str, ...] = ()
    #: Whole arguments that the targets bring.
    fixtures: tuple[str, ...] = ()
    #: None yields a command to be run by hand, with the serial port on the terminal.
    channels: Channels | None = None
    #: The directory of the lab to run in, None for the distribution's.
    lab: Path | None = None
    #: The directory with the emulator's programs of another release, None for this host's.
    programs: Path | None = None
    #: The range of physical addresses whose accesses are recorded where the platform can, from its first to below its
    #: second.
    traced: tuple[int, int] | None = None
    #: The I/O port that the kernel writes its serial log to.
    serial_port: int = COM1
    #: Whether the machine waits for its debugger before it runs.
    paused: bool = False


#: What the user may choose of a machine, by the names in LaunchRequest. A platform supports all, some or none of them.
CHOICES = ("machine", "vga", "firmware", "cpu", "boot", "engine", "ring3")


class Supervisor(Protocol):
    """Starts QEMU on another machine than this host, and returns what that machine reports on it."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``poll`` has something to read."""
        ...

    def bring_up(self, started: Callable[[], bool]) -> None:
        """Start QEMU and return when ``started`` is true: QEMU has answered. Raises MachineError with the stage that
        failed."""
        ...

    def poll(self) -> str:
        """Read what has arrived. Return how QEMU has ended on that machine, "" while it runs."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return names and versions of what runs QEMU, for the observation's environment."""
        ...

    def kernel_log(self) -> tuple[str, ...] | None:
        """Return what the kernel under QEMU has logged since QEMU was started, None where its log is not read."""
        ...

    def stop_trace(self) -> None:
        """Stop recording, and keep what has been recorded."""
        ...

    def read_trace(self, addresses: Collection[int]) -> tuple[TraceEvent, ...]:
        """Return the recorded accesses to the cells at these physical addresses, in their order."""
        ...

    def close(self) -> None:
        """Disconnect. May be called twice."""
        ...


@dataclass(frozen=True)
class Platform:
    """Something that runs a kernel."""

    name: str
    summary: str
    #: The capabilities that targets may require.
    provides: frozenset[str]
    #: Why it cannot run here, in one line, None where it can.
    unavailable: Callable[[LaunchRequest], str | None]
    #: The program and its arguments.
    command: Callable[[LaunchRequest], tuple[str, ...]]
    #: How long to wait for the first serial byte before the boot counts as dead.
    boot_seconds: float
    #: The verdict that a LOCKed exchange on emulated I/O is known to get.
    known: str
    #: The kinds of breakpoints that work.
    breakpoints: Literal["any", "hardware", "none"]
    #: The default number of rounds of a run.
    rounds: int = DEFAULT_ROUNDS
    #: How long a case without a number of rounds may go on until its proof is reached, in seconds.
    proof_seconds: int = PROOF_SECONDS
    #: The factor for deadlines that fit QEMU on this host.
    patience: float = 1.0
    #: The fields of LaunchRequest that the user may choose.
    options: frozenset[str] = frozenset()
    #: The image format that the platform boots for a request, "" for the ELF itself. Raises SpecError for choices that
    #: do not go together.
    medium: Callable[[LaunchRequest], str] = lambda _: ""
    #: Only where QEMU does not run on this host. Its arguments are the line to the machine that runs QEMU, a function,
    #: and the request. The function waits at most so many seconds for the end of ``command`` and returns how it ended,
    #: "" while it runs.
    supervise: Callable[[socket.socket, Callable[[float], str], LaunchRequest], Supervisor] | None = None
    #: The known verdict by the facts on what ran the guest, only where these decide it.
    known_by: Callable[[Mapping[str, Any]], str] | None = None
    #: The kind of program that carries the guest.
    engine: Literal["qemu", "bochs", "virtualbox", "virtualbox-lab", "xen"] = "qemu"

    def known_on(self, environment: Mapping[str, Any]) -> str:
        """Return the verdict that a LOCKed exchange on emulated I/O is known to get in a run with these facts."""
        return self.known_by(environment) if self.known_by else self.known
