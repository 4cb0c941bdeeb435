"""What the platforms share that run in the lab: a QEMU in a Linux of its own, all on this host's QEMU/TCG."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kgen.errors import MachineError, PlatformUnavailable
from kgen.evidence.kvm_trace import TraceEvent
from kgen.lab import cache, outer
from kgen.lab.cache import Lab
from kgen.lab.console import Console
from kgen.lab.trace import parse
from kgen.machine.platform import LaunchRequest, Platform, Supervisor
from kgen.platforms import _qemu, _variant

#: The stages' deadlines in seconds, generous: a loaded machine is slow.
READY_SECONDS = 120.0
SEND_SECONDS = 60.0
START_SECONDS = 90.0
TRACE_SECONDS = 60.0

_KERNEL = "/job/kernel.elf"
_INNER_QEMU = "qemu-system-x86_64"


def lab_of(request: LaunchRequest) -> Lab | None:
    """Return the lab to run in, None where it has not been made."""
    found = cache.load(request.lab) if request.lab is not None else cache.default()
    if found is not None:
        found.touch()
    return found


def unavailable(request: LaunchRequest) -> str | None:
    """There is an outer QEMU, and a lab."""
    missing = _qemu.missing_binary(replace(request, qemu=request.qemu or outer.BINARY))
    if missing:
        return missing
    if lab_of(request) is None:
        return "the lab has not been built; run 'kgen lab build', which says what it downloads"
    return _variant.missing(request, "")


def command(request: LaunchRequest) -> tuple[str, ...]:
    """Return the outer QEMU's command line."""
    lab = _must(lab_of(request))
    given = request.channels
    lines = None
    if given is not None:
        assert given.console is not None
        lines = outer.Lines(console=given.console, serial=given.serial, gdb=given.gdb, control=given.qmp)
    binary = shutil.which(request.qemu or outer.BINARY) or outer.BINARY
    return outer.command(lab, binary, lines, restore=outer.can_restore(lab, request.qemu))


class _Supervisor:
    """Brings the inner machine up and listens to the inner Linux."""

    def __init__(self, console: Console, lab: Lab, request: LaunchRequest, accelerator: tuple[str, ...]) -> None:
        self._console = console
        self._lab = lab
        self._request = request
        self._traced = False
        self._log_from = 0
        inner = replace(request, qemu=_INNER_QEMU, channels=None, kernel=Path(_KERNEL))
        firmware = _variant.QBOOT if _variant.QBOOT in lab.firmware else None
        serial, stub, control = (outer.device(lab.ports, carried) for carried in ("serial", "gdb", "control"))
        lines = (
            *_qemu.serial_port(request, f"serial,path={serial}"),
            *("-name", "kgen,debug-threads=on", "-gdb", stub),
            *("-chardev", f"serial,id=kgen-qmp,path={control}", "-qmp", "chardev:kgen-qmp"),
        )
        self.command = _qemu.command(inner, accelerator, serial=lines, firmware=firmware)

    def fileno(self) -> int:
        return self._console.fileno()

    def bring_up(self, started: Callable[[], bool]) -> None:
        self._console.await_ready(READY_SECONDS, cold=not outer.can_restore(self._lab, self._request.qemu))
        if self._request.kernel is not None:
            self._console.send_file(Path(_KERNEL).name, self._request.kernel.read_bytes(), SEND_SECONDS)
        if self._request.traced:
            self._traced = self._console.trace_on(*self._request.traced, SEND_SECONDS)
        self._log_from = len(self._console.kernel_log)
        self._console.run(shlex.join(self.command), started, START_SECONDS)

    def poll(self) -> str:
        self._console.poll()
        return f"QEMU in the lab {self._console.ended}" if self._console.ended is not None else ""

    def facts(self) -> Mapping[str, Any]:
        about = {"linux": self._lab.linux, "qemu": self._lab.qemu, "key": self._lab.key}
        return {"lab": about | {"sources": dict(self._lab.sources), "command": list(self.command)}}

    def kernel_log(self) -> tuple[str, ...]:
        self._console.poll()
        return tuple(self._console.kernel_log[self._log_from :])

    def stop_trace(self) -> None:
        if self._traced:
            # a lab that is gone is noticed by those who wait for it
            with contextlib.suppress(MachineError):
                self._console.trace_off()

    def read_trace(self, addresses: Collection[int]) -> tuple[TraceEvent, ...]:
        if not self._traced or not addresses:
            return ()
        cells = "|".join(f"{address:#x}" for address in addresses)
        return parse(self._console.trace_read(f"gpa ({cells}) ", TRACE_SECONDS))

    def close(self) -> None:
        self._console.close()


def platform(name: str, summary: str, accelerator: tuple[str, ...], *, known: str, rounds: int) -> Platform:
    """Return a platform whose QEMU runs in the lab with this accelerator."""

    def supervise(line: socket.socket, died: Callable[[float], str], request: LaunchRequest) -> Supervisor:
        return _Supervisor(Console(line, died), _must(lab_of(request)), request, accelerator)

    return Platform(
        name=name,
        summary=summary,
        provides=_qemu.PROVIDES,
        unavailable=unavailable,
        command=command,
        boot_seconds=90.0,
        known=known,
        breakpoints="none",
        # the lab has no firmware for other graphics adapters, and no disk
        options=frozenset({"machine", "cpu"}),
        medium=_variant.medium,
        rounds=rounds,
        patience=6.0,
        supervise=supervise,
    )


def _must(lab: Lab | None) -> Lab:
    """Return a lab that was there a moment ago. Raises PlatformUnavailable."""
    if lab is None:
        raise PlatformUnavailable("the lab is gone", hint="run 'kgen lab build'")
    return lab
