"""A running QEMU: its serial port, its control socket, the address of its debugger stub, and its end.

Every channel is a socket that kgen makes and QEMU inherits, so nothing depends on a free port or on timing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from kgen.errors import GuestCrash, KgenError, MachineError, PlatformUnavailable, SpecError
from kgen.evidence.mtree import PathEvidence, ask
from kgen.evidence.observation import EMULATION_FAILURE
from kgen.host.process import END_SECONDS, Child, spawn
from kgen.host.temporary import socket_scratch
from kgen.kernel.parameters import ATTEND_BRIEF_BYTE, ATTEND_BYTE
from kgen.machine import qemu_words
from kgen.machine.platform import SHARE_BYTES, Channels, LaunchRequest, Platform, Supervisor
from kgen.machine.qmp import Qmp

_QMP_SECONDS = 5.0
_SERIAL_CHUNK = 65536
#: How often kgen checks whether the program that it started still lives, in seconds.
_CHILD_SECONDS = 0.25
#: The same where a channel has broken.
_ENDING_SECONDS = 0.05
_NO_QEMU = "is this a QEMU? check --qemu"
#: QEMU's run states that the guest cannot leave (qapi/run-state.json), in words.
_DEAD_STATES = {
    "shutdown": "the guest shut down or reset itself; a triple fault does that",
    "internal-error": EMULATION_FAILURE,
    "guest-panicked": "the guest reported a panic",
    "io-error": "the guest's disk failed",
}


def launch(platform: Platform, request: LaunchRequest, *, deadline: float = 30.0) -> Machine:
    """Start a machine; the guest runs when this returns. ``deadline`` in seconds is for QEMU to set it up.

    Raises PlatformUnavailable when it cannot run here, MachineError with QEMU's own words when it does not start,
    SpecError with them where it does not know the board or the CPU model.
    """
    reason = platform.unavailable(request)
    if reason:
        raise PlatformUnavailable(reason, where=platform.name)
    with contextlib.ExitStack() as undo:
        files = undo.enter_context(contextlib.ExitStack())
        directory = files.enter_context(socket_scratch("gdb"))
        gdb_path = directory / "gdb"
        serial, serial_end = map(undo.enter_context, socket.socketpair())
        control, control_end = map(undo.enter_context, socket.socketpair())
        stub = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        stub.bind(str(gdb_path))
        stub.listen(1)
        supervise = platform.supervise
        console: socket.socket | None = None
        share: IO[bytes] | None = None
        ours: list[socket.socket] = [serial_end, control_end, stub]
        if supervise:
            console, console_end = map(undo.enter_context, socket.socketpair())
            ours.append(console_end)
            share = undo.enter_context(tempfile.TemporaryFile())
            share.truncate(SHARE_BYTES)
        channels = Channels(
            serial=serial_end.fileno(),
            qmp=control_end.fileno(),
            gdb=stub.fileno(),
            console=console_end.fileno() if supervise else None,
            share=share.fileno() if share else None,
        )
        request = dataclasses.replace(request, channels=channels)
        command = platform.command(request)
        try:
            inherited = [fd for fd in dataclasses.astuple(channels) if fd is not None]
            child = spawn(command, pass_fds=inherited, guarded=True)
        except OSError as error:
            raise MachineError(f"cannot be run: {error.strerror}", where=command[0]) from error
        undo.callback(child.stop)
        # Only QEMU may hold its ends now: otherwise its death would not end our channels.
        for end in ours:
            end.close()
        supervisor: Supervisor | None = None
        if supervise and console is not None:
            supervisor = supervise(console, lambda seconds: _epitaph(child, seconds), request)
            supervisor.bring_up(lambda: bool(select.select([control], [], [], 0)[0]))
        give_up = time.monotonic() + deadline * platform.patience
        try:
            session = Qmp(control, deadline * platform.patience)
        except MachineError as error:
            # a QEMU that has hung up is about to end; one that was silent until the deadline is not
            child.wait(END_SECONDS if time.monotonic() < give_up else 0.5)
            raise _failed_start(child, deadline, request) from error
        undo.callback(session.close)
        machine = Machine(child, files, gdb_path, serial, session, supervisor, platform.patience)
        undo.pop_all()
    return machine


def _epitaph(child: Child, seconds: float = 0.0) -> str:
    """Return how QEMU has ended, with its last messages; "" while it runs. Wait at most so many seconds for its end."""
    if child.wait(seconds) is None:
        return ""
    lines = qemu_words.causes(child.stderr_lines())[-3:]
    return f"QEMU {child.epitaph()}" + (f": {' / '.join(lines)}" if lines else "")


class Machine:
    """A running machine and a context manager that ends it.

    ``pid`` and ``command`` are QEMU's, ``gdb_address`` is the path of its stub's socket. Where a platform runs QEMU on
    another machine than this host, they belong to the outer QEMU, and ``supervisor`` listens to that machine;
    everything else belongs to the inner QEMU. Not for use by two threads.
    """

    def __init__(
        self,
        child: Child,
        files: contextlib.ExitStack,
        gdb_address: Path,
        serial: socket.socket,
        qmp: Qmp,
        supervisor: Supervisor | None = None,
        patience: float = 1.0,
    ) -> None:
        self.pid = child.pid
        self.command = child.command
        self.gdb_address = str(gdb_address)
        self.eof = False
        self.supervisor = supervisor
        self._seconds = _QMP_SECONDS * patience
        self._child = child
        self._files = files
        self._serial = serial
        self._qmp = qmp
        self._judged = 0
        self._crash: str | None = None
        #: Broken channels for which QEMU's end has been waited for.
        self._known_broken: frozenset[str] = frozenset()
        self._closed = False
        serial.setblocking(False)
        # Events before the control session began are lost; the run state that they led to is not.
        self._look_at_status()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def events(self) -> tuple[Mapping[str, Any], ...]:
        """Every QMP event so far, oldest first, as QEMU sent it."""
        return tuple(self._qmp.events)

    @property
    def stderr(self) -> tuple[str, ...]:
        """QEMU's error output, in lines; the middle is missing when it was long."""
        return self._child.stderr_lines()

    def read_serial(self, timeout: float) -> bytes:
        """Return what the guest has sent, waiting at most ``timeout`` seconds for a first byte; b"" when none came.

        Raises GuestCrash, as soon as it is known, when the guest or QEMU has died and all it sent has been read;
        ``eof`` is set then if QEMU's end of the line is closed.
        """
        self._must_be_open()
        until = time.monotonic() + timeout
        while True:
            data = self._take_serial()
            if data:
                return data
            reason = self.crashed()
            if reason:
                # The guest's last bytes may have arrived between the two reads.
                last = self._take_serial()
                if last:
                    return last
                raise GuestCrash(reason)
            remaining = until - time.monotonic()
            if remaining <= 0:
                return b""
            # A wrapper script that is killed closes none of the channels, which are QEMU's.
            self._wait(min(remaining, _CHILD_SECONDS))

    def attest(self, address: int, length: int, cpus: int) -> PathEvidence:
        """See ``engine.Engine``."""
        return ask(self.hmp, address, length, cpus=cpus)

    def attend(self, address: int, length: int, cpus: int, *, declared: str) -> PathEvidence:
        """See ``engine.Engine``."""
        evidence = self.attest(address, length, cpus)
        brief = (evidence.kind, declared) == ("ram", "io")
        self.send_serial(ATTEND_BRIEF_BYTE if brief else ATTEND_BYTE)
        return evidence

    def send_serial(self, data: bytes, timeout: float = 5.0) -> None:
        """Send bytes to the guest's serial port.

        Raises MachineError when QEMU does not read them within ``timeout`` seconds, GuestCrash when it has ended.
        """
        self._must_be_open()
        self._serial.settimeout(timeout)
        try:
            self._serial.sendall(data)
        except TimeoutError as error:
            raise MachineError(f"the guest's serial port took no byte for {timeout:g} s") from error
        except OSError as error:
            raise GuestCrash(self.crashed(broken=True) or f"the serial line broke: {error.strerror}") from error
        finally:
            self._serial.setblocking(False)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run one QMP command and return its value. Raises MachineError, GuestCrash when QEMU has ended."""
        self._must_be_open()
        try:
            return self._qmp.execute(command, arguments, self._seconds)
        except MachineError as error:
            reason = self.crashed()
            if reason:
                raise GuestCrash(reason) from error
            raise

    def hmp(self, line: str) -> str:
        """Run one line of the human monitor ("info mtree -f") and return its output. Raises as ``qmp`` does."""
        return str(self.qmp("human-monitor-command", **{"command-line": line}))

    def query_status(self) -> str:
        """QEMU's run state: "running", "paused", "debug" (gdb holds it), "shutdown", "internal-error" ..."""
        return str(self.qmp("query-status")["status"])

    def gdb_architecture(self) -> str | None:
        """Return the architecture that must be set in gdb before it connects, None where its default is right."""
        return "i386:x86-64" if self.qmp("query-target")["arch"] == "x86_64" else None

    def forget_events(self) -> None:
        """Drop the events that no caller has read: a caller that stops the machine thousands of times causes as
        many."""
        self._qmp.forget()

    def crashed(self, *, broken: bool = False) -> str | None:
        """Return why the guest or QEMU is dead, in one sentence, or None while it lives.

        Does not wait while the channels hold. Where one has broken, waits for QEMU's end, once and at most END_SECONDS:
        a process that dies closes its channels before it can be reaped. ``broken`` reports a channel that is not ours,
        the debugger's.
        """
        self._must_be_open()
        if self._crash is None:
            self._wait(0)
        ends = {"serial": self.eof, "control": not self._qmp.alive, "other": broken}
        gone = frozenset(name for name, has_ended in ends.items() if has_ended)
        if self._crash is None and gone - self._known_broken:
            self._await_end()
            self._known_broken |= gone
        return self._crash

    def close(self) -> None:
        """End QEMU: by a request, SIGTERM, SIGKILL. Then close its channels and remove its files. May be called
        twice."""
        if self._closed:
            return
        self._closed = True
        try:
            # an outer machine has no data that it would have to write before its end
            ask = None if self.supervisor else self._quit
            if ask and self._child.poll() is not None:
                # a script that has ended may have started QEMU in a session of its own
                ask()
            self._child.stop(ask)
        finally:
            if self.supervisor:
                self.supervisor.close()
            self._qmp.close()
            self._serial.close()
            self._files.close()

    def _quit(self) -> None:
        """Request QEMU to end. It may have ended, be stopped or not answer; then the signals follow."""
        with contextlib.suppress(MachineError):
            self._qmp.execute("quit", {}, 1.0)

    def _must_be_open(self) -> None:
        if self._closed:
            raise MachineError("the machine has been closed")

    def _take_serial(self) -> bytes:
        """Return what has arrived, without waiting."""
        try:
            data = self._serial.recv(_SERIAL_CHUNK)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            data = b""
        self.eof |= not data
        return data

    def _wait(self, timeout: float) -> None:
        """Wait for output or an event, then handle the events that arrived."""
        fds = [] if self.eof else [self._serial.fileno()]
        if self._child.stderr_fd >= 0:
            fds.append(self._child.stderr_fd)
        if self.supervisor:
            fds.append(self.supervisor.fileno())
        self._qmp.wait(timeout, fds)
        self._child.drain_stderr()
        if self.supervisor and self._crash is None:
            self._crash = self.supervisor.poll() or None
        fresh = self._qmp.events[self._judged :]
        self._judged = len(self._qmp.events)
        for event in fresh:
            self._judge(event)
        if self._crash is None and self._child.poll() is not None:
            self._crash = _epitaph(self._child)

    def _judge(self, event: Mapping[str, Any]) -> None:
        """Record the guest's death where an event (qapi/run-state.json) means it."""
        name = event.get("event")
        data = event.get("data", {})
        if name == "SHUTDOWN" and data.get("guest") and self._crash is None:
            # Under -no-reboot a reset shows as a shutdown with this reason, a triple fault like any other.
            reset = data.get("reason") == "guest-reset"
            self._crash = "the guest reset itself; a triple fault does that" if reset else "the guest shut itself down"
        elif name in ("STOP", "GUEST_PANICKED"):
            self._look_at_status()

    def _look_at_status(self) -> None:
        """Ask for the run state, because a STOP event does not distinguish a debugger's stop from the end."""
        with contextlib.suppress(MachineError):
            status = self._qmp.execute("query-status", {}, self._seconds)["status"]
            if self._crash is None and status in _DEAD_STATES:
                said = self._first_words() if status == "internal-error" else ""
                self._crash = _DEAD_STATES[status] + (f" ({said})" if said else "")

    def _await_end(self) -> None:
        """Wait at most END_SECONDS for QEMU's end, or that of the guest inside. Output is still read meanwhile: where
        another machine runs QEMU, that machine reports its end."""
        until = time.monotonic() + END_SECONDS
        while self._crash is None and (left := until - time.monotonic()) > 0:
            self._child.wait(min(left, _ENDING_SECONDS))
            self._wait(0)

    def _first_words(self) -> str:
        lines = qemu_words.causes(self.stderr)
        return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")


def _failed_start(child: Child, deadline: float, request: LaunchRequest) -> KgenError:
    """Return why QEMU did not start: its first error line, or that it printed nothing in time.

    A choice of the user's that QEMU does not know is a mistake in the request, a SpecError; one that it knows and has
    not, because its package is not installed, is a PlatformUnavailable.
    """
    lines = child.stderr_lines()
    words = next(iter(qemu_words.causes(lines)), "")
    if child.poll() is None:
        return MachineError(f"QEMU did not set the machine up within {deadline:g} s", hint=words or _NO_QEMU)
    for option, complaint in qemu_words.UNKNOWN.items():
        chosen = getattr(request, option)
        if chosen is not None and complaint.search(words):
            hint = f"'{Path(child.command[0]).name} -{option} help' lists what there is"
            return SpecError(words, where=f"--{option} {chosen}", hint=hint)
    lacking = qemu_words.lacking_adapter(words)
    if lacking and request.vga is not None:
        adapter, package = lacking
        hint = (
            f"install it with 'apt install {package}', or choose another --vga" if package else "choose another --vga"
        )
        return PlatformUnavailable(f"this QEMU lacks its {adapter}", where=f"--vga {request.vga}", hint=hint)
    if words:
        return MachineError(words, where="QEMU")
    return MachineError(f"QEMU {child.epitaph()} without {'saying why' if lines else 'a word'}", hint=_NO_QEMU)
