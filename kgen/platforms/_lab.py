"""What the platforms share that run in the lab: a QEMU in a Linux of its own, all on this host's QEMU/TCG."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import socket
import tarfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kgen.errors import DebuggerError, MachineError, PlatformUnavailable
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
COMMAND_SECONDS = 90.0

_KERNEL = "/job/kernel.elf"
_INNER_QEMU = "qemu-system-x86_64"
#: The lab's name of the disk that lab and host share.
_SHARED = "/dev/vda"
_SHOWN_LINES = 3


@dataclass(frozen=True)
class Place:
    """The labs that a platform runs in: those of a system."""

    system: str = cache.DEFAULT
    #: What follows 'kgen lab build' in the command that makes one.
    build: str = ""

    def lab_of(self, request: LaunchRequest) -> Lab | None:
        """Return the lab to run in, None where it has not been made. Without a choice it is the distribution's, or the
        one of this system that was used last."""
        if request.lab is not None:
            found = cache.load(request.lab)
        elif self.system == cache.DEFAULT:
            found = cache.default()
        else:
            found = cache.last_used(self.system)
        if found is not None:
            found.touch()
        return found

    def must(self, request: LaunchRequest) -> Lab:
        """Return a lab that was there a moment ago. Raises PlatformUnavailable."""
        lab = self.lab_of(request)
        if lab is None:
            raise PlatformUnavailable("the lab is gone", hint=f"run '{self._command}'")
        return lab

    def unavailable(self, request: LaunchRequest) -> str | None:
        """Return why there is no outer QEMU or no lab, None where there are both."""
        missing = _qemu.missing_binary(replace(request, qemu=request.qemu or outer.BINARY))
        if missing is None and self.lab_of(request) is None:
            return f"the lab has not been built; run '{self._command}', which says what it downloads"
        return missing

    def command(self, request: LaunchRequest) -> tuple[str, ...]:
        """Return the outer QEMU's command line."""
        lab = self.must(request)
        given = request.channels
        lines = None
        if given is not None:
            assert given.console is not None
            # a lab without a control session inside has that of the outer machine in its place
            inside = outer.carries(lab.ports, "control")
            lines = outer.Lines(
                console=given.console,
                serial=given.serial,
                gdb=given.gdb,
                control=given.qmp if inside else None,
                share=given.share,
                qmp=None if inside else given.qmp,
            )
        binary = shutil.which(request.qemu or outer.BINARY) or outer.BINARY
        return outer.command(lab, binary, lines, restore=outer.can_restore(lab, request.qemu))

    @property
    def _command(self) -> str:
        return f"kgen lab build {self.build}".rstrip()


class Shell:
    """Commands that are carried out in a lab, and files that go in and out on the disk that lab and host share.

    ``inside`` says in messages where the commands run.
    """

    def __init__(self, console: Console, request: LaunchRequest, inside: str) -> None:
        given = request.channels
        assert given is not None
        assert given.share is not None
        self._console = console
        self._inside = inside
        # its owner closes it once the machine runs
        self._share = os.dup(given.share)
        self._open = True

    def carry_out(self, command: str, timeout: float) -> tuple[str, ...]:
        """Return what a command prints. Raises MachineError where it fails."""
        status, lines = self._console.do(command, timeout)
        if status:
            said = f": {' / '.join(lines[-_SHOWN_LINES:])}" if lines else ""
            raise MachineError(f"'{command}' ended with status {status} in {self._inside}{said}", where="the lab")
        return lines

    def do(self, command: str) -> tuple[str, ...]:
        """Return what a command prints. Raises DebuggerError where it fails."""
        try:
            return self.carry_out(command, COMMAND_SECONDS)
        except MachineError as error:
            raise DebuggerError(error.message) from error

    def send(self, files: Mapping[str, bytes]) -> None:
        """Put files into /job. Raises MachineError."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in files.items():
                about = tarfile.TarInfo(name)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
        size = os.pwrite(self._share, packed.getvalue(), 0)
        # Linux may have read the disk before its contents were put there
        self.carry_out(f"blockdev --flushbufs {_SHARED} && head -c {size} {_SHARED} | tar -x -C /job", SEND_SECONDS)

    def fetch(self, name: str) -> bytes:
        """Return a file of the lab. Raises DebuggerError."""
        sizes = self.do(f"wc -c <{name} && dd if={name} of={_SHARED} bs=64k conv=fsync 2>/dev/null")
        return self._arrived(name, int(sizes[0]))

    def fetch_part(self, name: str, block: int, first: int, count: int) -> bytes:
        """Return so many blocks of a file of the lab, of that size in bytes; fewer bytes where it ends before. Raises
        DebuggerError."""
        sizes = self.do(
            f"wc -c <{name} && dd if={name} of={_SHARED} bs={block} skip={first} count={count} conv=fsync 2>/dev/null"
        )
        return self._arrived(name, max(0, min(int(sizes[0]) - first * block, count * block)))

    def close(self) -> None:
        """Close the disk's file. May be called twice."""
        if self._open:
            self._open = False
            os.close(self._share)

    def _arrived(self, name: str, size: int) -> bytes:
        data = os.pread(self._share, size, 0)
        if len(data) != size:
            raise DebuggerError(f"the lab's {name} did not arrive whole")
        return data


_KVM = Place()


def unavailable(request: LaunchRequest) -> str | None:
    """There is an outer QEMU, and a lab."""
    return _KVM.unavailable(request) or _variant.missing(request, "")


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
        return _Supervisor(Console(line, died), _KVM.must(request), request, accelerator)

    return Platform(
        name=name,
        summary=summary,
        provides=_qemu.PROVIDES,
        unavailable=unavailable,
        command=_KVM.command,
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
