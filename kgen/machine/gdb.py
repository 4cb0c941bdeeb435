"""gdb, driven through its machine interface (GDB/MI version 3).

Every command carries its own token and has its own deadline. Records arrive in order and are kept until the command
that waits for them reads them, so a stop that follows a result is never lost. Run control belongs to gdb alone: QMP's
``stop`` and ``cont`` would corrupt its view.
"""

from __future__ import annotations

import io
import re
import select
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pygdbmi.IoManager import IoManager

from kgen.errors import DebuggerError
from kgen.host.process import END_SECONDS, Child, finish, spawn
from kgen.host.temporary import scratch
from kgen.machine.gdb_registers import CORE_BYTES, MAX_BYTES, description
from kgen.machine.gdb_words import Refusal, is_gone, last_words, refusal
from kgen.machine.registers import CpuRegisters
from kgen.resources import data_dir

INSTALL_HINT = "install it with 'apt install gdb' or 'dnf install gdb', or name it with --gdb"
#: Seconds for a command that only reads.
COMMAND_SECONDS = 10.0
#: After so many seconds the machine is asked again to stop: the first request may have been lost.
AGAIN_SECONDS = 0.1
#: How many bytes one command reads or writes: few enough for its deadline on a slow line.
READ_CHUNK = 4096
WRITE_CHUNK = 1024

_REGISTERS = ("eip", "esp", "ebp", "eflags", "eax", "ebx", "ecx", "edx", "esi", "edi")
_SYMBOL = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]*")
_CPU = re.compile(r"CPU#(\d+)")
_LOOK_BEHIND = "see whether its machine is still there"
#: gdb repeats packets it refuses, thousands of digits; so many characters of one are reported.
_PACKET = re.compile(r"[0-9A-Fa-fxX*]{64,}")
_PACKET_SHOWN = 16
#: QEMU's stub reports a machine that cannot go on with these: SIGQUIT after a triple fault, SIGABRT after an internal
#: error of the accelerator.
_FATAL_SIGNALS = {"SIGQUIT": "shut down or triple-faulted", "SIGABRT": "met an internal error of the accelerator"}


@dataclass(frozen=True)
class Stop:
    """Why the machine stopped."""

    #: gdb's: "signal-received", "breakpoint-hit", ...
    reason: str
    #: The signal's name or "".
    signal: str
    #: gdb's number of the thread that stopped, 0 if it names none.
    thread: int

    @property
    def fatal(self) -> str | None:
        """Why the machine cannot go on, None where it can."""
        return _FATAL_SIGNALS.get(self.signal)


def has_python(gdb: str) -> bool:
    """Return whether a gdb runs Python code, True where it does not answer in time: it may be built without Python."""
    done = finish((gdb, "-nx", "-q", "-batch", "-ex", "python print('kgen' * 2)"), COMMAND_SECONDS)
    return done.status is None or "kgenkgen" in done.text


class _Pipe(io.FileIO):
    """The read end of gdb's output, which records the end of file: the library does not distinguish it."""

    eof = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what has arrived, b"" for nothing."""
        data = super().read(-1 if size is None else size)
        self.eof |= data == b""
        return data or b""


class GdbSession:
    """A gdb process and, once connected, its machine. A context manager that ends gdb."""

    def __init__(self, child: Child, started_until: float) -> None:
        """Do not call this directly: ``start`` makes the process."""
        assert child.stdin is not None
        assert child.stdout is not None
        self._child = child
        self._started_until = started_until
        self._pipe = _Pipe(child.stdout.fileno(), closefd=False)
        self._io = IoManager(child.stdin, self._pipe, None)
        self._files = ExitStack()
        self._token = 0
        self._results: dict[int, dict[str, Any] | None] = {}
        self._console: list[str] = []
        self._log: deque[str] = deque(maxlen=20)
        self._address = ""
        self._architecture = "auto"
        self._connected = False
        self._running = False
        self._weighs = False
        self._stop = Stop("", "", 0)
        self._numbers: dict[str, int] = {}
        script = _quote(f"source {data_dir('gdb_scripts') / 'attach.gdb'}")
        self._settings: int | None = self._send(f"-interpreter-exec console {script}")

    @classmethod
    def start(cls, gdb: str = "gdb", *, deadline: float = 10.0) -> GdbSession:
        """Start gdb and return at once: it loads while a machine boots.

        ``deadline`` in seconds is for its first answer, which ``connect`` waits for. Raises DebuggerError when
        the program cannot be run.
        """
        # No settings of the user, no code that is beside an ELF, no network, messages in English.
        command = [gdb, "-nx", "-q", "--interpreter=mi3"]
        # An internal error of gdb ends it, without a core in the user's directory.
        for setting in (
            "set auto-load no",
            "maint set internal-error quit yes",
            "maint set internal-error corefile no",
        ):
            command += ["-iex", setting]
        try:
            child = spawn(command, pipes=True, env={"LC_ALL": "C", "DEBUGINFOD_URLS": ""})
        except FileNotFoundError as error:
            raise DebuggerError(f"'{gdb}' is not to be found", hint=INSTALL_HINT) from error
        except OSError as error:
            raise DebuggerError(f"'{gdb}' cannot be run: {error.strerror}", hint=INSTALL_HINT) from error
        try:
            return cls(child, time.monotonic() + deadline)
        except BaseException:
            child.kill()
            raise

    def __enter__(self) -> GdbSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """gdb's own process."""
        return self._child.pid

    @property
    def died(self) -> str | None:
        """How gdb ended, in one sentence, None while it lives."""
        return None if self._child.poll() is None else f"gdb {self._child.epitaph()}"

    @property
    def connected(self) -> bool:
        """Whether a machine is attached, as of the last record read."""
        return self._connected

    @property
    def running(self) -> bool:
        """Whether the machine's CPUs run, as of the last record read."""
        return self._running

    def connect(
        self,
        address: str,
        *,
        elf: Path | None = None,
        timeout: float = COMMAND_SECONDS,
        architecture: str | None = None,
    ) -> None:
        """Attach to the stub at a socket's path or HOST:PORT, which stops the machine; ``elf`` has the symbols.

        No QEMU needs ``architecture``: a 64-bit stub is recognised and asked again. Raises DebuggerError within
        ``timeout`` seconds: no stub listens or answers, or gdb has ended.
        """
        if self._connected:
            raise DebuggerError(f"gdb is already connected to {self._address}")
        until = time.monotonic() + timeout
        if self._settings is not None:
            self._finish(self._settings, "its first command", self._started_until)
            self._settings = None
        if elf is not None:
            self._command(f"-file-exec-and-symbols {_quote(str(elf))}", timeout)
        # Shorter than our own deadline: when that is over, the connection is known to have been accepted.
        self._command(f"-gdb-set tcp connect-timeout {max(1, int(timeout / 2))}", timeout)
        self._command(f"-gdb-set remotetimeout {max(2, int(timeout))}", timeout)
        self._architecture = architecture or self._architecture
        self._command(f"-gdb-set architecture {self._architecture}", timeout)
        self._address = address
        try:
            self._select(address, until)
        except _Refused as error:
            if architecture is not None or refusal(error.message, "") is not Refusal.WIDER:
                raise
            # Kept for later connections: current gdbs abort when this error occurs twice.
            self._architecture = "i386:x86-64"
            self._command(f"-gdb-set architecture {self._architecture}", timeout)
            self._select_wide(address, until, timeout)
        self._connected = True
        self._running = False
        self._numbers = self._register_numbers()

    def threads(self) -> tuple[CpuRegisters, ...]:
        """Return every CPU with its registers, in gdb's order. The machine must be stopped."""
        self._must_be_stopped()
        listed = self._command("-thread-info", COMMAND_SECONDS)["threads"]
        numbers = " ".join(str(self._numbers[name]) for name in _REGISTERS)
        until = time.monotonic() + COMMAND_SECONDS
        # All questions at once: gdb answers while we parse.
        asked = [
            (entry, self._send(f"-data-list-register-values --thread {entry['id']} x {numbers}")) for entry in listed
        ]
        return tuple(
            self._registers(entry, self._finish(token, "registers", until)["register-values"]) for entry, token in asked
        )

    def read_memory(self, address: int, length: int) -> bytes:
        """Return bytes at a physical address (the kernel runs without paging). The machine must be stopped.

        Raises DebuggerError when any of them cannot be read.
        """
        self._must_be_stopped()
        data = b""
        while len(data) < length:
            at, size = address + len(data), min(READ_CHUNK, length - len(data))
            try:
                blocks = self._command(f"-data-read-memory-bytes {at:#x} {size}", COMMAND_SECONDS)["memory"]
            except _Refused as error:
                hint = f"gdb says: {error.message}"
                raise DebuggerError(
                    f"{size} bytes at {at:#x} cannot be read", where=self._address, hint=hint
                ) from error
            # gdb reads from the ELF what it cannot read from a target that has ended.
            self._must_be_connected()
            chunk = b"".join(bytes.fromhex(block["contents"]) for block in blocks)
            if len(chunk) != size:
                raise DebuggerError(f"only {len(chunk)} of {size} bytes at {at:#x} can be read", where=self._address)
            data += chunk
        return data

    def write_memory(self, address: int, data: bytes) -> None:
        """Write bytes at a physical address. QEMU drops writes to i/o without an error."""
        self._must_be_stopped()
        for offset in range(0, len(data), WRITE_CHUNK):
            chunk = data[offset : offset + WRITE_CHUNK]
            self._command(f"-data-write-memory-bytes {address + offset:#x} {chunk.hex()}", COMMAND_SECONDS)
            self._must_be_connected()

    def write_u32(self, address: int, value: int) -> None:
        """Write a 32-bit word in the machine's byte order."""
        self.write_memory(address, value.to_bytes(4, "little"))

    def symbol_address(self, name: str) -> int:
        """Return the address of a symbol of the ELF. Raises DebuggerError when there is none."""
        if not _SYMBOL.fullmatch(name):
            raise DebuggerError(f"'{name}' is no symbol's name")
        expression = _quote(f"(unsigned int)&'{name}'")
        try:
            answer = self._command(f"-data-evaluate-expression {expression}", COMMAND_SECONDS)
        except _Refused as error:
            raise DebuggerError(f"gdb knows no symbol '{name}'", hint="connect with the ELF that runs") from error
        return int(answer["value"], 0)

    def console(self, command: str, *, timeout: float = COMMAND_SECONDS) -> str:
        """Run one command of gdb's command line and return its output."""
        self._drain()
        self._console.clear()
        self._command(f"-interpreter-exec console {_quote(command)}", timeout)
        return "".join(self._console)

    def architecture(self) -> str:
        """Return gdb's name for the connected machine's architecture. Raises DebuggerError."""
        said = self.console("show architecture")
        named = re.findall(r'"([^"]+)"', said)
        if not named:
            raise DebuggerError(f"gdb does not name the machine's architecture: {said.strip()}", where=self._address)
        # the last one is what "auto" resolves to
        return str(named[-1])

    def insert_breakpoint(self, location: str, *, hardware: bool, condition: str = "") -> None:
        """Set a breakpoint at a place ("*0x100000", "*&name"). With a condition, gdb lets the CPUs run on where it does
        not hold. Use a kind that the platform's ``breakpoints`` names."""
        self._must_be_stopped()
        only = f"-c {_quote(condition)} " if condition else ""
        self._weighs |= bool(condition)
        self._command(f"-break-insert {'-h ' if hardware else ''}{only}{_quote(location)}", COMMAND_SECONDS)

    def delete_breakpoints(self) -> None:
        """Remove all breakpoints."""
        self._command("-break-delete", COMMAND_SECONDS)
        self._weighs = False

    def interrupt(self, *, timeout: float = COMMAND_SECONDS) -> Stop:
        """Stop all CPUs, if they run. Returns why they are stopped."""
        self._drain()
        self._must_be_connected()
        until = time.monotonic() + timeout
        if self._running:
            self._finish(self._send("-exec-interrupt"), "-exec-interrupt", until)
            if self._weighs:
                self._insist(until)
            self._await_stop(until, f"did not stop within {timeout:g} s")
        return self._stop

    def _insist(self, until: float) -> None:
        """Ask again and again: while gdb evaluates a breakpoint's condition, the machine is stopped and an interrupt is
        lost. ``until`` is on the monotonic clock."""
        while time.monotonic() < until - AGAIN_SECONDS:
            with suppress(_Late):
                self._await_stop(time.monotonic() + AGAIN_SECONDS, "")
                return
            with suppress(_Refused):  # it has stopped meanwhile
                self._finish(self._send("-exec-interrupt"), "-exec-interrupt", until)

    def resume(self) -> None:
        """Let all CPUs run. Raises DebuggerError when the machine died: it would never stop again."""
        self._must_be_stopped()
        if self._stop.fatal:
            raise DebuggerError(f"the machine {self._stop.fatal} and cannot go on", where=self._address)
        self._command("-exec-continue", COMMAND_SECONDS)

    def stopped(self) -> Stop | None:
        """Return why the CPUs are stopped, None while they run or when the machine has ended. Does not wait. Raises
        DebuggerError when gdb died."""
        self._drain()
        return self._stop if self._connected and not self._running else None

    def wait_stopped(self, timeout: float) -> Stop:
        """Wait until the CPUs stop by themselves: a breakpoint, a crash. Raises DebuggerError after ``timeout`` s."""
        self._drain()
        self._must_be_connected()
        self._await_stop(time.monotonic() + timeout, f"still runs after {timeout:g} s")
        return self._stop

    def disconnect(self) -> None:
        """Disconnect from the machine, which stays stopped. A running machine is stopped first."""
        self._leave("-target-disconnect")

    def detach(self) -> None:
        """Disconnect from the machine, which runs on."""
        self._leave("-target-detach")

    def close(self) -> None:
        """End gdb; a stopped machine stays stopped. May be called twice.

        gdb is killed: at an orderly end it would resume the machine. To leave the machine running, use ``detach``: a
        ``resume`` that the stub has not read yet is lost with the connection.
        """
        self._connected = False
        self._child.kill()
        self._files.close()

    def _leave(self, command: str) -> None:
        self.interrupt()
        self._command(command, COMMAND_SECONDS)
        self._connected = False

    def _select(self, address: str, until: float) -> None:
        """Connect. Errors say in kgen's words why that failed. ``until`` is on the monotonic clock."""
        silent = f"{address} accepted the connection but does not answer as a gdb stub"
        self._log.clear()
        token = self._send(f"-target-select remote {address}")
        try:
            self._finish(token, "-target-select", until)
        except _Late as error:
            # gdb waits for the stub and reads no command.
            self.close()
            raise DebuggerError(silent) from error
        except _Gone as error:
            hint = "a stub serves one debugger at a time"
            raise DebuggerError(f"{address} accepted the connection and hung up", hint=hint) from error
        except _Refused as error:
            text = error.message
            why = refusal(text, "".join(self._log))
            if why is Refusal.NO_HOST:
                raise Unreachable(f"there is no host of that name: {address}") from error
            if why is Refusal.NO_LISTENER:
                raise Unreachable(f"no stub listens on {address}") from error
            if why is Refusal.NO_ROUTE:
                raise Unreachable(f"{address} cannot be reached: {text}") from error
            if why is Refusal.SILENT:
                raise DebuggerError(silent) from error
            if why is Refusal.WIDER:
                raise
            raise DebuggerError(f"{address} does not talk as a gdb stub", hint=f"gdb says: {text}") from error

    def _select_wide(self, address: str, until: float, timeout: float) -> None:
        """Connect to a 64-bit stub; one that does not describe its registers and has more than gdb expects, too."""
        try:
            self._select(address, until)
        except _Refused as error:
            match = Refusal.WIDER.value.search(error.message)
            size = int(match[1] or 0) if match else 0
            if not CORE_BYTES <= size <= MAX_BYTES:
                hint = f"gdb says: {error.message}"
                raise DebuggerError(f"{address} has registers that gdb does not know", hint=hint) from error
            # read again at a later connection
            file = self._files.enter_context(scratch()) / "registers.xml"
            file.write_text(description(size), encoding="ascii")
            # the setting would take quotes for a part of the name
            self._command(f"-interpreter-exec console {_quote(f'set tdesc filename {file}')}", timeout)
            self._select(address, until)

    def _register_numbers(self) -> dict[str, int]:
        """Return gdb's number of each register that kgen shows; a 64-bit stub has them under their 64-bit names."""
        names: list[str] = self._command("-data-list-register-names", COMMAND_SECONDS)["register-names"]
        found = {}
        for name in _REGISTERS:
            wide = f"r{name[1:]}" if name != "eflags" else name
            known = next((candidate for candidate in (wide, name) if candidate in names), None)
            if known is None:
                raise DebuggerError(f"the stub has no register {name}", where=self._address)
            found[name] = names.index(known)
        return found

    def _registers(self, entry: dict[str, Any], values: list[dict[str, str]]) -> CpuRegisters:
        """Return a CPU from gdb's thread and register lists."""
        by_number = {int(value["number"]): value["value"] for value in values}
        target = " ".join(f"{entry['target-id']} {entry.get('details', '')}".split())
        cpu = _CPU.search(target)
        try:
            words = {name: int(by_number[self._numbers[name]], 0) & 0xFFFFFFFF for name in _REGISTERS}
        except (KeyError, ValueError) as error:
            raise DebuggerError(f"the registers of {target} cannot be read", where=self._address) from error
        return CpuRegisters(thread=int(entry["id"]), target=target, cpu=int(cpu[1]) if cpu else None, **words)

    def _must_be_connected(self) -> None:
        if not self._connected:
            what = f"the target {self._address} is gone" if self._address else "gdb is not connected"
            raise DebuggerError(what)

    def _must_be_stopped(self) -> None:
        self._drain()
        self._must_be_connected()
        if self._running:
            raise DebuggerError("the machine is running", where=self._address, hint="interrupt it first")

    def _await_stop(self, until: float, complaint: str) -> None:
        while self._running:
            try:
                self._pump(until)
            except _Late as error:
                raise _Late(f"the machine {complaint}", where=self._address) from error
        self._must_be_connected()

    def _command(self, text: str, timeout: float) -> dict[str, Any]:
        """Send one command and wait for its result."""
        return self._finish(self._send(text), text, time.monotonic() + timeout)

    def _send(self, text: str) -> int:
        """Send one command. Return the token of its result."""
        if "\n" in text:
            raise DebuggerError("a command is one line", where=text.partition("\n")[0])
        self._token += 1
        self._results[self._token] = None
        try:
            self._io.write(f"{self._token}{text}", timeout_sec=COMMAND_SECONDS, read_response=False)
        except (OSError, ValueError) as error:  # ValueError: the pipe has been closed
            raise self._dead() from error
        return self._token

    def _finish(self, token: int, text: str, until: float) -> dict[str, Any]:
        """Return the payload of a command's result.

        Raises DebuggerError for an error result, _Late after the deadline.
        """
        try:
            while self._results[token] is None:
                self._pump(until, text)
            record = self._results[token]
        finally:
            del self._results[token]
        assert record is not None
        payload = record["payload"] or {}
        if record["message"] == "error":
            message = without_packets(" ".join(str(payload.get("msg", "")).split()) or "without a reason")
            if is_gone(message):
                self._connected = self._running = False
                raise _Gone(f"the target {self._address} is gone")
            raise _Refused(message, where=self._address)
        return payload if isinstance(payload, dict) else {}

    def _drain(self) -> None:
        """Process the records that have arrived."""
        if select.select([self._alive()], [], [], 0)[0]:
            self._pump(time.monotonic())

    def _alive(self) -> io.FileIO:
        if self._pipe.eof or self._pipe.closed or self._child.stdout is None or self._child.stdout.closed:
            raise self._dead()
        return self._pipe

    def _pump(self, until: float, text: str = "") -> None:
        """Wait for records and process them. Raises _Late when none came by ``until``, DebuggerError when gdb died."""
        watched: list[Any] = [self._alive()]
        if self._child.stderr_fd >= 0:
            watched.append(self._child.stderr_fd)
        ready, _, _ = select.select(watched, [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise _Late(f"gdb did not answer {text or 'in time'}", where=self._address)
        self._child.drain_stderr()
        for record in self._io.get_gdb_response(timeout_sec=0, raise_error_on_timeout=False):
            self._note(record)
        if self._pipe.eof:
            raise self._dead()

    def _note(self, record: dict[str, Any]) -> None:
        """Keep one record and update the state of the machine by it."""
        kind, message, payload = record["type"], record["message"], record["payload"]
        if kind == "result":
            if record["token"] in self._results:
                self._results[record["token"]] = record
            if message == "running":
                self._running = True
        elif kind == "console":
            self._console.append(payload or "")
        elif kind == "log":
            self._log.append(payload or "")
        elif message == "running":
            self._running = True
        elif message == "stopped":
            fields = payload or {}
            thread = fields.get("thread-id", "0")
            self._running = False
            self._stop = Stop(fields.get("reason", ""), fields.get("signal-name", ""), int(thread))
        elif message == "thread-group-exited":
            self._connected = self._running = False

    def _dead(self) -> DebuggerError:
        """Return the error for a gdb that has ended, with its last messages."""
        was_connected = self._connected
        self._connected = self._running = False
        self._child.wait(END_SECONDS)
        said = "".join(self._log)
        if "internal-error" in said or "Fatal signal" in said:
            # gdb 13 does that when the connection ends while it reads the registers of a thread.
            return DebuggerError(f"gdb crashed; {_LOOK_BEHIND}", where=self._address)
        # gdb 16 and 18 exit instead, without a message
        hint = last_words(self._child.stderr_lines()) or (_LOOK_BEHIND if was_connected else "")
        return DebuggerError(f"gdb {self._child.epitaph()}", where=self._address, hint=hint)


class Unreachable(DebuggerError):
    """No stub accepted the connection, so no machine was touched."""


class _Late(DebuggerError):
    """A deadline passed without an answer."""


class _Refused(DebuggerError):
    """gdb answered with an error."""


class _Gone(DebuggerError):
    """The connection to the stub ended."""


def without_packets(text: str) -> str:
    """Return what gdb says, with its long packets cut."""
    return _PACKET.sub(lambda match: f"{match[0][:_PACKET_SHOWN]}... ({len(match[0])} digits)", text)


def _quote(text: str) -> str:
    """Return a C string as GDB/MI wants it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
