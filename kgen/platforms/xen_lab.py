"""Xen in the lab: an HVM domain of a real Xen with its dom0, under this host's QEMU/TCG."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kgen.errors import DebuggerError, MachineError, unknown
from kgen.evidence.kvm_trace import TraceEvent
from kgen.lab import outer
from kgen.lab.cache import Lab
from kgen.lab.console import Console
from kgen.lab.xentrace import MASK, parse
from kgen.machine.platform import COM1, LaunchRequest, Platform, Supervisor
from kgen.platforms._lab import SEND_SECONDS, Place, Shell

_XEN = Place("xen", "xen --release bookworm")
#: The stages' deadlines in seconds, generous: a loaded machine is slow.
READY_SECONDS = 180.0
START_SECONDS = 120.0
TRACE_SECONDS = 90.0

#: The graphics adapters, by what -vga calls them: xl's words (xl.cfg(5)). The standard one needs 16 MiB.
_VGA: Mapping[str, tuple[str, ...]] = {
    "std": ('vga = "stdvga"', "videoram = 16"),
    "cirrus": ('vga = "cirrus"', "videoram = 8"),
    "none": ('vga = "none"',),
}
#: HVM_MAX_VCPUS of all releases.
_MAX_CPUS = 128
_NAME = "kgen"
#: The domain's weight for Xen's scheduler (dom0's is 256), the least. A CPU whose request has been answered would run
#: at once otherwise, before those that wait, and its access would mostly be carried out whole.
_WEIGHT = 1
_TRACE = "/tmp/kgen.trace"
#: How much of the trace is kept, the newest: about ten seconds.
_TRACE_BYTES = 8 << 20
_TRACE_END = "kill -INT $(pidof xentrace)"
#: The clock of the trace is the CPU's.
_CLOCK = "xl dmesg | grep MHz.processor"
_MHZ = re.compile(r"Detected (\d+\.\d+) MHz processor")
#: Where every release's lab has them (kgen/systems/xen.py).
_MODEL = "/usr/bin/qemu-system-i386"
_CPUS = "/tmp/kgen.cpus"
_CONFIGURATION = "kgen.cfg"
_KERNEL = "kernel.elf"
_MONITOR = "kgen-qmp"
#: xl's number of the reason for which a domain has shut down, after the last CPU has halted for good.
_POWERED_OFF = "reason code 0 "


def unavailable(request: LaunchRequest) -> str | None:
    """There is an outer QEMU, and a lab."""
    missing = _XEN.unavailable(request)
    if missing is None and request.cpus > _MAX_CPUS:
        return f"Xen's domains have at most {_MAX_CPUS} CPUs"
    return missing


def medium(request: LaunchRequest) -> str:
    """See Platform. Raises SpecError for a graphics adapter that Xen's device model does not have."""
    if (request.vga or "std") not in _VGA:
        raise unknown("graphics adapter", request.vga or "", tuple(_VGA))
    return ""


def configuration(request: LaunchRequest, ports: tuple[str, ...]) -> str:
    """Return the domain's configuration (xl.cfg(5))."""
    before = (COM1, 0x2F8, 0x3E8, 0x2E8).index(request.serial_port)
    port = outer.device(ports, "serial")
    serial = ", ".join([*['"null"'] * before, f'"pipe:{port}"'])
    chardev = f"pipe,id={_MONITOR},path={outer.device(ports, 'control')}"
    lines = (
        f'name = "{_NAME}"',
        'type = "hvm"',
        f'device_model_override = "{_MODEL}"',
        f"memory = {request.memory_mib}",
        f"vcpus = {request.cpus}",
        f"maxvcpus = {request.cpus}",
        f"cpu_weight = {_WEIGHT}",
        f'kernel = "/job/{_KERNEL}"',
        *([f'cmdline = "{request.append}"'] if request.append else []),
        *_VGA[request.vga or "std"],
        "vnc = 0",
        f"serial = [ {serial} ]",
        "vif = [ ]",
        f'device_model_args_hvm = [ "-chardev", "{chardev}", "-qmp", "chardev:{_MONITOR}" ]',
        # A domain that has ended must leave its state to be looked at.
        *(f'on_{end} = "preserve"' for end in ("poweroff", "reboot", "crash", "watchdog")),
    )
    return "\n".join(lines) + "\n"


class _Supervisor:
    """See ``xen.Domain``."""

    def __init__(self, console: Console, lab: Lab, request: LaunchRequest) -> None:
        self._console = console
        self._lab = lab
        self._request = request
        self._shell = Shell(console, request, "dom0")
        self._traced = False
        self._configuration = configuration(request, lab.ports)
        self.command = ("xl", "create", "-q", f"/job/{_CONFIGURATION}")

    def fileno(self) -> int:
        return self._console.fileno()

    def bring_up(self, started: Callable[[], bool]) -> None:
        assert self._request.kernel is not None
        self._console.await_ready(READY_SECONDS, cold=not outer.can_restore(self._lab, self._request.qemu))
        self._shell.send({_KERNEL: self._request.kernel.read_bytes(), _CONFIGURATION: self._configuration.encode()})
        if self._request.traced:
            record = f"xentrace -D -e {MASK:#x} -s 300 -S 512 -M {_TRACE_BYTES} {_TRACE}"
            status, _ = self._console.do(f"{record} & usleep 200000; pidof xentrace", SEND_SECONDS)
            self._traced = status == 0
        self._shell.carry_out(shlex.join(self.command), START_SECONDS)
        # xl stays, waits for the end of the domain, and writes down how it ended
        log = f"/var/log/xen/xl-{_NAME}.log"
        watched = f"xl=$(pidof xl); while kill -0 $xl; do sleep 1; done; cat {log}"
        self._console.run(watched, started, START_SECONDS)

    def poll(self) -> str:
        self._console.poll()
        ended = self._console.ended
        return "" if ended is None or _POWERED_OFF in ended else f"the domain {ended}"

    def facts(self) -> Mapping[str, Any]:
        about: dict[str, Any] = {"linux": self._lab.linux, "qemu": self._lab.qemu, "key": self._lab.key}
        about |= {"sources": dict(self._lab.sources), "command": list(self.command)}
        return {"lab": about | {"configuration": self._configuration.splitlines()}}

    def kernel_log(self) -> None:
        # Xen has no words for how it carries an exchange out; its trace shows that
        return None

    def stop_trace(self) -> None:
        if self._traced:
            # a lab that is gone is noticed by those who wait for it
            with contextlib.suppress(MachineError):
                self._console.tell(_TRACE_END)

    def read_trace(self, addresses: Collection[int]) -> tuple[TraceEvent, ...]:
        if not self._traced or not addresses:
            return ()
        try:
            lines = self._shell.carry_out(
                f"{_TRACE_END}; while pidof xentrace; do usleep 50000; done; {_CLOCK}", TRACE_SECONDS
            )
            khz = next((round(1000 * float(match[1])) for line in lines if (match := _MHZ.search(line))), 0)
            return parse(self.fetch(_TRACE), addresses, khz) if khz else ()
        except (MachineError, DebuggerError):
            return ()

    def pause(self) -> None:
        self._shell.do(f"xl pause {_NAME}")

    def unpause(self) -> None:
        self._shell.do(f"xl unpause {_NAME}")

    def registers(self) -> str:
        self._shell.do(f"xen-hvmctx $(xl domid {_NAME}) >{_CPUS}")
        return self.fetch(_CPUS).decode(errors="replace")

    def fetch(self, name: str) -> bytes:
        return self._shell.fetch(name)

    def close(self) -> None:
        self._shell.close()
        self._console.close()


def _supervise(line: socket.socket, died: Callable[[float], str], request: LaunchRequest) -> Supervisor:
    return _Supervisor(Console(line, died), _XEN.must(request), request)


PLATFORM = Platform(
    name="xen-lab",
    summary="an HVM domain of Xen with its dom0, all inside QEMU/TCG",
    provides=frozenset({"hpet", "serial", "smp", "vga"}),
    unavailable=unavailable,
    command=_XEN.command,
    boot_seconds=120.0,
    known="NOT_ATOMIC",
    breakpoints="none",
    options=frozenset({"vga"}),
    medium=medium,
    # So many show about ten violations, and take half a minute with all else. For a proof of ATOMIC far too few batches
    # are live here in any time that a user waits.
    rounds=200,
    proof_seconds=5,
    patience=8.0,
    supervise=_supervise,
    engine="xen",
)
