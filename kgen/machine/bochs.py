"""Bochs as an engine: the machine and the debugger that is built into it are one process.

Its debugger reads commands from standard input and prints a prompt, ``<bochs:N> ``, whenever the machine stands still.
SIGINT stops a running machine. Bochs writes to a file what the guest sends on its serial port.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kgen.errors import DebuggerError, GuestCrash, MachineError, PlatformUnavailable, SpecError
from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.host.environment import gathering
from kgen.host.process import END_SECONDS, Child, spawn
from kgen.host.temporary import scratch
from kgen.machine.bochs_config import CONFIGURATION, LOG, MEDIA, SERIAL, configuration
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.registers import CpuRegisters

#: How long the first prompt may take, in seconds.
START_SECONDS = 30.0
#: How long a command, and the stop of the machine, may take.
COMMAND_SECONDS = 10.0
#: How many bytes one command reads.
READ_CHUNK = 4096
#: How long a signal may take to stop the machine before it is sent again, in seconds.
_AGAIN_SECONDS = 0.5
#: How long Bochs may take to show the command that it has read.
_ECHO_SECONDS = 1.0
#: How often the serial port's file is read, in seconds.
_POLL_SECONDS = 0.01
_CHUNK = 65536
#: How many bytes of Bochs's output are kept while the guest runs. It prints almost nothing then.
_KEPT = 1 << 16

_PROMPT = re.compile(rb"<bochs:\d+> $")
_VERSION = re.compile(r"Bochs x86 Emulator \S+")
#: Stopped, Bochs shows the next instruction of every CPU.
_CPU = re.compile(r"^\((\d+)\) \[", re.MULTILINE)
_REGISTER = re.compile(r"^r([abcd]x|[sb]p|[sdi][ip])\s*: [0-9a-f]{8}_([0-9a-f]{8})$", re.MULTILINE)
#: Bochs 2.7 prints "eflags 0x00000002: id ...", 3.0 "eflags: 0x00000002: id ...".
_FLAGS = re.compile(r"^e(flags):? 0x([0-9a-f]{8})", re.MULTILINE)
_ROW = re.compile(r"^0x([0-9a-f]{16}) <[^>]*>:((?:\s+0x[0-9a-f]{2})+)\s*$")
_LAST_WORDS = "Bochs is exiting with the following message:"
_TOO_MANY = "too many registered timers"
#: Warnings about our own file. Of its cpu lines the user chooses only the model.
_NO_CPU = re.compile(rf"{CONFIGURATION}:\d+: cpu directive malformed")
#: The last words of Bochs up to 3.0; from 3.1 on a warning in its log, "0005901225w[CPU1  ] exception(): 3rd (13) ...
#: with no resolution", after which the CPU stands still for ever.
_TRIPLE_FAULT = re.compile(r"^.*3rd \(\d+\) exception with no resolution.*$", re.MULTILINE)


def start(platform: Platform, request: LaunchRequest, *, gdb: str, pinned: AbstractContextManager[None]) -> Bochs:
    """See ``engine.Start``. No gdb is needed."""
    reason = platform.unavailable(request)
    if reason:
        raise PlatformUnavailable(reason, where=platform.name)
    assert request.image is not None
    text = configuration(request)
    command = platform.command(request)
    with contextlib.ExitStack() as undo:
        try:
            directory = undo.enter_context(scratch())
            (directory / CONFIGURATION).write_text(text, encoding="utf-8")
            (directory / MEDIA[platform.medium(request)]).symlink_to(request.image)
            serial = (directory / SERIAL).open("w+b", buffering=0)
            undo.callback(serial.close)
            log = (directory / LOG).open("w+b", buffering=0)
            undo.callback(log.close)
        except OSError as error:
            raise MachineError(f"no files can be made for Bochs: {error.strerror}", hint="set TMPDIR") from error
        try:
            with pinned:
                child = spawn(command, pipes=True, cwd=directory, guarded=True, offline=True)
        except OSError as error:
            raise MachineError(f"cannot be run: {error.strerror}", where=command[0]) from error
        undo.callback(child.kill)
        gather = undo.enter_context(gathering("", ""))
        talk = Talk(child)
        try:
            banner = talk.await_prompt(START_SECONDS * platform.patience)
            talk.go()
        except DebuggerError as error:
            if _TOO_MANY in talk.gone:
                reason = f"this Bochs has not the timers for {request.cpus} CPUs"
                raise PlatformUnavailable(reason, where=platform.name, hint="2.7 has them for 15") from error
            if request.cpu is not None and _NO_CPU.search(talk.gone):
                hint = f"'{Path(command[0]).name} --help cpu' lists what there is"
                raise SpecError("Bochs knows no such model", where=f"--cpu {request.cpu}", hint=hint) from error
            hint = "" if talk.gone else "is its debugger built in? configure it with --enable-debugger"
            raise MachineError(talk.gone or error.message, where=command[0], hint=hint) from error

        def facts() -> Mapping[str, Any]:
            about = gather()
            about["versions"] |= {"emulator": _version(banner, child)}
            return about | {"command": list(command), "bochsrc": text.splitlines(), "in_turn": True}

        return Bochs(talk, serial.fileno(), log.fileno(), request, platform.patience, facts, undo.pop_all())


def _version(banner: str, child: Child) -> str:
    found = _VERSION.search("\n".join((banner, *child.stderr_lines())))
    return found[0] if found else ""


class Talk:
    """The dialogue with Bochs's debugger: a command, then what it prints up to the next prompt."""

    def __init__(self, child: Child) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self.child = child
        #: The output since the last answer that was read.
        self.heard = b""
        self._out = child.stdout.fileno()
        self._eof = False
        self._waited = False

    @property
    def gone(self) -> str:
        """Return how Bochs has ended, with its last messages, "" while it runs. Where its output has ended, wait for
        its end: once, and for a moment."""
        patience = END_SECONDS if self._eof and not self._waited else 0.0
        self._waited |= self._eof
        if self.child.wait(patience) is None:
            return ""
        lines = self.child.stderr_lines()
        said = [lines[n + 1] for n, line in enumerate(lines[:-1]) if _LAST_WORDS in line]
        words = said[-1] if said else " / ".join(lines[-3:])
        return triple_fault(words) or f"Bochs {self.child.epitaph()}" + (f": {words}" if words else "")

    @property
    def prompted(self) -> bool:
        """Whether the machine stands still and the debugger waits for a command, by the output read last."""
        return _PROMPT.search(self.heard) is not None

    def look(self, timeout: float) -> None:
        """Read Bochs's output, waiting at most so many seconds for a first byte."""
        fds = [] if self._eof else [self._out]
        if self.child.stderr_fd >= 0:
            fds.append(self.child.stderr_fd)
        if not fds:
            self.child.wait(timeout)
            return
        ready, _, _ = select.select(fds, [], [], timeout)
        self.child.drain_stderr()
        if self._out in ready:
            data = os.read(self._out, _CHUNK)
            self._eof = not data
            self.heard += data

    def say(self, command: str) -> None:
        """Send a command without waiting for an answer. Raises DebuggerError when Bochs has ended."""
        assert self.child.stdin is not None
        self.heard = b""
        try:
            self.child.stdin.write(f"{command}\n".encode())
        except (OSError, ValueError) as error:  # ValueError: the pipe has been closed
            raise DebuggerError(self._dead()) from error

    def ask(self, command: str) -> str:
        """Send a command and return what it prints. Raises DebuggerError."""
        self.say(command)
        return self.await_prompt(COMMAND_SECONDS)

    def await_prompt(self, seconds: float) -> str:
        """Return what Bochs prints before its next prompt. Raises DebuggerError when it does not come in time."""
        until = time.monotonic() + seconds
        while not self.prompted:
            if self._eof:
                raise DebuggerError(self._dead())
            if time.monotonic() > until:
                raise DebuggerError(f"Bochs's debugger did not answer within {seconds:g} s")
            self.look(0.1)
        answer = _PROMPT.sub(b"", self.heard)
        self.heard = b""
        return answer.decode(errors="replace").replace("\r", "")

    def go(self) -> None:
        """Let the machine run. Raises DebuggerError when Bochs has ended."""
        self.say("c")
        # A signal that arrives while Bochs still reads the line would make it drop the line. Bochs shows what it has
        # read, if it was built with a library that does.
        until = time.monotonic() + _ECHO_SECONDS
        while b"\n" not in self.heard and (left := until - time.monotonic()) > 0 and not self._eof:
            self.look(left)

    def interrupt(self, seconds: float) -> str:
        """Stop the running machine and return what Bochs prints then. Raises DebuggerError.

        A signal that arrives before Bochs has begun to carry the command out is lost; one that arrives when the machine
        stands still does nothing. So it is sent until it has worked.
        """
        until = time.monotonic() + seconds
        while True:
            self.child.interrupt()
            try:
                return self.await_prompt(max(0.0, min(_AGAIN_SECONDS, until - time.monotonic())))
            except DebuggerError:
                if self.gone or time.monotonic() > until:
                    raise

    def _dead(self) -> str:
        self.child.wait(END_SECONDS)
        return self.gone or "Bochs has closed its output"


class Bochs:
    """See ``engine.Engine`` and ``engine.Frozen``. ``serial`` and ``log`` are descriptors of the serial port's file and
    of Bochs's own log."""

    supervisor = None
    #: The debugger is part of the emulator: it does not end before it.
    died = None

    def __init__(
        self,
        talk: Talk,
        serial: int,
        log: int,
        request: LaunchRequest,
        patience: float,
        facts: Callable[[], Mapping[str, Any]],
        ends: contextlib.ExitStack,
    ) -> None:
        self.facts = facts
        self.pid = talk.child.pid
        self._talk = talk
        self._serial = serial
        self._log = log
        self._logged = b""
        self._memory = request.memory_mib << 20
        self._seconds = COMMAND_SECONDS * patience
        self._ends = ends
        self._running = True
        self._cpus = 0

    def __enter__(self) -> Bochs:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def read_serial(self, timeout: float) -> bytes:
        until = time.monotonic() + timeout
        while True:
            data = os.read(self._serial, _CHUNK)
            if data:
                return data
            reason = self.crashed()
            if reason:
                # its last messages may have arrived between the two reads
                last = os.read(self._serial, _CHUNK)
                if last:
                    return last
                raise GuestCrash(reason)
            left = until - time.monotonic()
            if left <= 0:
                return b""
            # no event reports that a file grows
            self._talk.look(min(left, _POLL_SECONDS))

    def crashed(self) -> str | None:
        self._talk.look(0)
        if self._running and self._talk.prompted:
            lines = self._talk.heard.decode(errors="replace").splitlines()
            return f"Bochs stopped the guest: {next(filter(None, map(str.strip, lines)), '')}"
        self._talk.heard = self._talk.heard[-_KEPT:]
        self._logged = (self._logged + os.read(self._log, _CHUNK))[-_KEPT:]
        return self._talk.gone or triple_fault(self._logged.decode(errors="replace")) or None

    def freeze(self) -> Bochs:
        if self._running:
            try:
                shown = self._talk.interrupt(self._seconds)
            except DebuggerError as error:
                if self._talk.gone:
                    raise GuestCrash(self._talk.gone) from error
                raise
            self._running = False
            self._cpus = len(set(_CPU.findall(shown)))
        return self

    def thaw(self) -> None:
        self._talk.go()
        self._running = True

    def threads(self) -> tuple[CpuRegisters, ...]:
        found = []
        for cpu in range(self._cpus):
            self._talk.ask(f"set $cpu = {cpu}")
            found.append(registers_of(cpu, self._talk.ask("r")))
        return tuple(found)

    def read_memory(self, address: int, length: int) -> bytes:
        end = address + length
        # Asked for memory that does not exist, or for a device's registers, this debugger ends Bochs.
        if address < 0 or end > self._memory:
            raise DebuggerError(f"Bochs's debugger cannot read {length} bytes at {address:#x}")
        data = b""
        for at in range(address, end, READ_CHUNK):
            size = min(READ_CHUNK, end - at)
            data += bytes_of(self._talk.ask(f"xp /{size}bx {at:#x}"), at, size)
        return data

    def run_until(self, address: int, condition: str) -> None:
        raise DebuggerError("Bochs's debugger cannot wait for this")

    def caught(self) -> bool:
        return False

    def attest(self, address: int, length: int, cpus: int) -> PathEvidence:
        return NOT_ASKED

    def attend(self, address: int, length: int, cpus: int, *, declared: str) -> PathEvidence:
        # A kernel that was booted from a disk has no command line that could make it wait.
        return NOT_ASKED

    def ask_to_stop(self, word: int) -> None:
        self.freeze()
        self._talk.ask(f"setpmem {word:#x} 4 0x1")
        self.thaw()

    def let_in(self) -> None:
        pass

    def join(self, elf: Path) -> tuple[str, ...]:
        return ()


def triple_fault(text: str) -> str:
    """Return how the guest died, in a sentence with Bochs's words, where they speak of a triple fault; otherwise ""."""
    found = _TRIPLE_FAULT.search(text)
    return f"the guest died of a triple fault; Bochs says: {found[0].strip()}" if found else ""


def registers_of(cpu: int, text: str) -> CpuRegisters:
    """Return a CPU from the output of the command ``r``. Raises DebuggerError."""
    words = {f"e{name}": int(value, 16) for name, value in (*_REGISTER.findall(text), *_FLAGS.findall(text))}
    try:
        return CpuRegisters(thread=cpu + 1, target=f"CPU{cpu}", cpu=cpu, **words)
    except TypeError as error:
        raise DebuggerError(f"the registers of CPU {cpu} cannot be read") from error


def bytes_of(text: str, address: int, length: int) -> bytes:
    """Return memory from the output of ``xp /NNbx``. Raises DebuggerError for any other text."""
    data = b""
    for row in map(_ROW.match, text.splitlines()):
        if row is not None and int(row[1], 16) == address + len(data):
            data += bytes(int(value, 16) for value in row[2].split())
    if len(data) != length:
        raise DebuggerError(f"only {len(data)} of {length} bytes at {address:#x} can be read")
    return data
