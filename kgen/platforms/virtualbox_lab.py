"""VirtualBox in the lab: with its driver, on AMD-V, under this host's QEMU/TCG."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kgen.errors import DebuggerError, MachineError
from kgen.evidence.kvm_trace import TraceEvent
from kgen.lab import outer
from kgen.lab.cache import Lab
from kgen.lab.console import Console
from kgen.machine.platform import LaunchRequest, Platform, Supervisor
from kgen.machine.virtualbox_engine import NAME, VGA
from kgen.machine.virtualbox_words import complaint, complete, death_of
from kgen.platforms import virtualbox
from kgen.platforms._lab import Place, Shell
from kgen.systems.virtualbox_lab import MACHINES

_PLACE = Place("virtualbox-lab", "virtualbox-lab")
#: The stages' deadlines in seconds, generous: a loaded machine is slow.
READY_SECONDS = 180.0
START_SECONDS = 180.0
#: How long the reason of a machine's end is waited for, in seconds.
WHY_SECONDS = 10.0
#: The names of disk and log in the lab.
_DISK = "kernel.vdi"
_LOG = f"{MACHINES}/{NAME}/Logs/VBox.log"
#: Sends the lines of the log that tell of the machine's start and end, as they are written.
_WATCH = (
    f"( until [ -e {_LOG} ]; do usleep 50000; done; tail -n +1 -f {_LOG} | "
    "awk '/Changing the VM state|Guru Meditation/ { print \"kgen-lab: log \" $0; fflush() }' >&3 ) &"
)
_RUNNING = "to 'RUNNING'"
#: The state of a machine that VirtualBox has stopped, and the beginning of the reason.
_GURU, _WHY = "GURU_MEDITATION", "Guru Meditation"


def unavailable(request: LaunchRequest) -> str | None:
    """There is an outer QEMU, and a lab."""
    return _PLACE.unavailable(request) or virtualbox.lacking(request)


class _Supervisor:
    """See ``virtualbox_lab.Domain``."""

    def __init__(self, console: Console, lab: Lab, request: LaunchRequest) -> None:
        self._console = console
        self._lab = lab
        self._request = request
        self._shell = Shell(console, request, "the lab")
        #: When the machine's end was seen.
        self._dead: float | None = None
        self.commands: list[list[str]] = []
        self.command = ("VBoxHeadless", "--startvm", NAME, "--vrde", "off")

    def fileno(self) -> int:
        return self._console.fileno()

    def bring_up(self, started: Callable[[], bool]) -> None:
        request = self._request
        assert request.image is not None
        self._console.await_ready(READY_SECONDS, cold=not outer.can_restore(self._lab, request.qemu))
        self._shell.send({_DISK: request.image.read_bytes()})
        for words in complete(
            NAME,
            cpus=request.cpus,
            memory=request.memory_mib,
            vga=request.vga or VGA,
            port=request.serial_port,
            serial=(outer.device(self._lab.ports, "serial"),),
            engine="",
            disk=f"/job/{_DISK}",
            ring3=request.ring3,
            extra=request.extra,
        ):
            self.manage(*words, seconds=START_SECONDS)
        self._shell.carry_out(_WATCH, START_SECONDS)
        self._console.run(shlex.join(self.command), self._runs, START_SECONDS, "VirtualBox")

    def poll(self) -> str:
        self._console.poll()
        log = "\n".join(self._console.log)
        death = death_of(log)
        ended = self._console.ended
        if not death:
            return "" if ended is None else f"VirtualBox's machine {ended}"
        if self._dead is None:
            self._dead = time.monotonic()
        # VirtualBox writes down why a moment later
        known = _WHY in log or _GURU not in death or time.monotonic() > self._dead + WHY_SECONDS
        return death if known else ""

    def facts(self) -> Mapping[str, Any]:
        about = {"linux": self._lab.linux, "qemu": self._lab.qemu, "key": self._lab.key}
        return {"lab": about | {"sources": dict(self._lab.sources), "command": list(self.command)}}

    def kernel_log(self) -> None:
        # VirtualBox has no words for how it carries an exchange out
        return None

    def stop_trace(self) -> None:
        pass

    def read_trace(self, addresses: Collection[int]) -> tuple[TraceEvent, ...]:
        return ()

    def manage(self, *words: str, seconds: float) -> str:
        command = ["VBoxManage", "-q", *words]
        self.commands.append(command)
        status, lines = self._console.do(shlex.join(command), seconds)
        text = "\n".join(lines) + "\n"
        if status:
            raise MachineError(complaint(text), where=f"VBoxManage {words[0]}")
        return text

    def log(self) -> str:
        try:
            return self._shell.fetch(_LOG).decode(errors="replace")
        except DebuggerError:
            return ""

    def fetch_part(self, name: str, block: int, first: int, count: int) -> bytes:
        return self._shell.fetch_part(name, block, first, count)

    def remove(self, name: str) -> None:
        self._shell.do(shlex.join(("rm", "-f", name)))

    def close(self) -> None:
        self._shell.close()
        self._console.close()

    def _runs(self) -> bool:
        return any(line.endswith(_RUNNING) for line in self._console.log)


def _supervise(line: socket.socket, died: Callable[[float], str], request: LaunchRequest) -> Supervisor:
    return _Supervisor(Console(line, died), _PLACE.must(request), request)


PLATFORM = Platform(
    name="virtualbox-lab",
    summary="VirtualBox with AMD-V, in a Linux inside QEMU/TCG",
    provides=frozenset({"hpet", "serial", "smp", "vga"}),
    unavailable=unavailable,
    command=_PLACE.command,
    boot_seconds=120.0,
    known="ATOMIC",
    known_by=virtualbox.known_by,
    breakpoints="none",
    options=frozenset({"vga", "ring3"}),
    medium=virtualbox.medium,
    # a token is passed in some milliseconds; the chain decides
    rounds=200,
    patience=8.0,
    supervise=_supervise,
    engine="virtualbox-lab",
)
