"""A client of QEMU's gdb stub that controls single CPUs, thousands of times.

gdb does the same with ``set scheduler-locking on``, but reads far more at every stop, and its caches are wrong once the
machine has been put back to an earlier state. This client uses the few packets of the GDB remote serial protocol (gdb's
manual, appendix E) that are needed. Each question has its own deadline, however many packets answer it, and the length
of every answer is limited.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kgen.errors import DebuggerError, GuestCrash, KgenError, ending_with
from kgen.machine import greeting
from kgen.machine.registers import CpuRegisters

#: Deadline in seconds for an answer that the stub sends at once. Generous: a busy host is slow.
ANSWER_SECONDS = 10.0
#: Bytes that one packet reads at most: QEMU's packets are 4096 characters long, two of which make a byte.
READ_CHUNK = 2000
#: What frames a packet's text, in characters: $, # and two digits.
_FRAME = 4
#: The longest packet that is taken, in characters, packed and unpacked: QEMU's have 4096 at most, other stubs' a few
#: times as many.
MAX_PACKET = 1 << 16
#: More threads than any machine has CPUs.
MAX_THREADS = 4096
#: The longest answer of the stub's monitor to one line, in bytes.
MAX_TEXT = 1 << 20
_STOP = re.compile(r"T([0-9a-f]{2})(?:.*?thread:(?:p[0-9a-f]+\.)?([0-9a-f]+);)?")
#: The stops that QEMU's stub reports when the machine cannot go on.
_DEAD = {3: "the guest shut down or triple-faulted", 6: "the accelerator met an internal error"}
#: The registers in the order of the stub's ``g`` packet, 32 bits each, and that of a 64-bit machine, where r8 to r15
#: come between EDI's and EIP's.
_NARROW = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags")
_WIDE = (*"eax ebx ecx edx esi edi ebp esp".split(), *[""] * 8, "eip", "eflags")


#: From so many bytes of registers on they are a 64-bit machine's: those of a 32-bit one have 308 to 436, those of a
#: 64-bit one 536 and more.
_WIDE_BYTES = 480
#: A character that is repeated, and how often beyond that, as a character from 29 on.
_REPEATED = re.compile(rb"([^*])\*([ -~])", re.DOTALL)
_REPEATS_FROM = 29
#: What the stub announces about the length of packets.
_PACKET_SIZE = re.compile(r"(?:^|;)PacketSize=([0-9a-f]{1,8})(?:;|$)", re.IGNORECASE)
#: What makes a running machine stop, by the protocol.
_INTERRUPT = b"\x03"
#: How many characters of an unexpected answer are reported.
_TOLD = 80
_NO_STUB = "does a gdb stub listen there, such as QEMU's -gdb?"
_BUSY = "is another debugger connected?"
#: QEMU's only process. A packet may name it, whether or not QEMU does so in its answers.
_PROCESS = "1"
UNKNOWN = "it is not known whether the machine runs"


class Ended(GuestCrash):
    """The machine has ended: its emulator reported the exit or closed the connection."""


class _NoStub(DebuggerError):
    """What listens there is something else: no machine was touched."""


class _Late(DebuggerError):
    """An answer did not come in time."""


@dataclass(frozen=True)
class _Question:
    """A deadline for an answer."""

    #: What is reported where no answer comes.
    complaint: str
    seconds: float
    #: The end of ``seconds``, on the clock of time.monotonic.
    until: float
    hint: str = ""

    @classmethod
    def now(cls, complaint: str, seconds: float, hint: str = "") -> _Question:
        """Return a breakpoint that is set now."""
        return cls(complaint, seconds, time.monotonic() + seconds, hint)

    @property
    def left(self) -> float:
        """The remaining seconds, 0 or less when it is late."""
        return self.until - time.monotonic()


@dataclass(frozen=True)
class Halt:
    """The machine has stopped again."""

    #: The thread on which it stopped, by the stub's number.
    thread: int


class Stub:
    """A connection to a stub. Its machine is stopped, except while a call waits for a stop. A context manager.

    Threads are the stub's numbers of CPUs, from 1. ``wide`` is whether the machine is a 64-bit one; None decides it by
    the length of the registers that come. ``announced`` is true where the stub reported a stop before the first
    question: then the machine ran until kgen connected.
    """

    def __init__(self, address: str | Path, *, wide: bool | None = None, timeout: float = ANSWER_SECONDS) -> None:
        """Connect to HOST:PORT or to a socket's path, which stops the machine. ``timeout`` is for each answer, in
        seconds. Raises DebuggerError where no stub answers."""
        self._wide = wide
        self._where = str(address)
        self._data = b""
        #: The first bytes that came.
        self._head = b""
        self._refused = False
        self._timeout = timeout
        self._process = _PROCESS
        self._runs = self.announced = False
        self._chunk = READ_CHUNK
        self._names: dict[int, str] = {}
        self._socket = self._connect(str(address))
        try:
            question = _Question.now("the stub did not answer", timeout, _BUSY)
            self._send("qSupported:vContSupported+")
            said = self._receive(question)
            self.announced = _STOP.match(said) is not None
            if self.announced:
                said = self._receive(question)
            self._chunk = _chunk(said)
            self.numbers = self._thread_numbers()
        except BaseException as error:
            left = "" if isinstance(error, _NoStub) else self._abandon()
            self._socket.close()
            if isinstance(error, KgenError):
                raise ending_with(error, left) from error
            raise

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def _connect(self, address: str) -> socket.socket:
        try:
            return greeting.connected(address, self._timeout)
        except OSError as error:
            raise DebuggerError(f"no stub answers: {error.strerror or error}", where=self._where) from error

    def go(self) -> None:
        """Let all CPUs of the machine run. No question is allowed until it has stopped again."""
        self._send("c")
        self._runs = True

    def interrupt(self) -> None:
        """Stop the running machine, and wait until it has stopped."""
        self._send_bytes(_INTERRUPT)
        # Of two stops at the same time, kgen's and another debugger's, the stub reports one.
        self._halt(self._receive(_Question.now("the machine did not stop", self._timeout)))

    def halted(self, timeout: float) -> bool:
        """Wait while the machine runs.

        Returns whether it stops by itself within ``timeout`` seconds. Raises GuestCrash, and DebuggerError for an
        answer that reports no stop.
        """
        try:
            answer = self._receive(_Question.now("", timeout))
        except _Late:
            return False
        self._halt(answer)
        return True

    def leave(self) -> None:
        """Let the machine run and disconnect. Raises DebuggerError where the stub does not confirm it: the command was
        sent even then, and the stub obeys when it answers again."""
        detach = f"D;{self._process}" if self._process else "D"
        if self._runs:
            # QEMU reads any packet from a running machine's debugger as an interrupt.
            try:
                self.interrupt()
            except DebuggerError:
                # The interrupt is in its queue. With nothing after it, the machine would stay stopped.
                self._send(detach)
                raise
        self._expect(detach, "OK")

    def monitor(self, line: str) -> str:
        """Return the answer of the emulator's monitor to a line, "" where the stub has none."""
        question = _Question.now(f"the stub did not answer '{line}'", self._timeout)
        text = b""
        self._send("qRcmd," + line.encode().hex())
        while (answer := self._receive(question)).startswith("O") and answer != "OK":
            text += bytes.fromhex(answer[1:]) if re.fullmatch(r"([0-9a-f]{2})*", answer[1:]) else b""
            if len(text) > MAX_TEXT or question.left <= 0:
                raise self._failed(f"the stub's answer to '{line}' has no end", _NO_STUB)
        return text.decode("utf-8", "replace")

    def step(self, thread: int) -> Halt:
        """Let one CPU carry out one instruction while the others are stopped."""
        return self._resume(f"vCont;s:{self._name(thread)}", ANSWER_SECONDS)

    def run(self, threads: Collection[int], timeout: float) -> Halt:
        """Let only these CPUs run, until one of them reaches a breakpoint.

        Raises DebuggerError where none does within ``timeout`` seconds, GuestCrash where the guest dies.
        """
        return self._resume("vCont;" + ";".join(f"c:{self._name(thread)}" for thread in sorted(threads)), timeout)

    def registers(self, thread: int) -> CpuRegisters:
        """Return one CPU's registers."""
        self._expect(f"Hg{self._name(thread)}", "OK")
        data = self._bytes("g")
        wide = len(data) >= _WIDE_BYTES if self._wide is None else self._wide
        size, names = (8, _WIDE) if wide else (4, _NARROW)
        if len(data) < size * len(names):
            raise self._failed(f"only {len(data)} bytes of registers came")
        words = {
            name: int.from_bytes(data[size * at : size * at + 4], "little") for at, name in enumerate(names) if name
        }
        return CpuRegisters(thread=thread, target=f"CPU#{thread - 1}", cpu=thread - 1, **words)

    def threads(self) -> tuple[CpuRegisters, ...]:
        """Return every CPU with its registers."""
        return tuple(self.registers(thread) for thread in self.numbers)

    def read_memory(self, address: int, length: int) -> bytes:
        """Return bytes at a physical address (the kernel runs without paging). Raises DebuggerError."""
        data = b""
        while len(data) < length:
            size = min(self._chunk, length - len(data))
            chunk = self._bytes(f"m{address + len(data):x},{size:x}")
            # a stub may answer with less than it was asked for
            if not 0 < len(chunk) <= size:
                raise self._failed(f"{size} bytes at {address + len(data):#x} cannot be read")
            data += chunk
        return data

    def write_u32(self, address: int, value: int) -> None:
        """Write a word of RAM; QEMU drops writes to i/o without an error."""
        self._expect(f"M{address:x},4:{value.to_bytes(4, 'little').hex()}", "OK")

    def insert_breakpoints(self, addresses: Collection[int]) -> None:
        """Stop a CPU before it carries out an instruction at one of these addresses, unless it is stepped."""
        for address in sorted(addresses):
            self._expect(f"Z0,{address:x},1", "OK")

    def remove_breakpoints(self, addresses: Collection[int]) -> None:
        """Remove these breakpoints."""
        for address in sorted(addresses):
            self._expect(f"z0,{address:x},1", "OK")

    def _name(self, thread: int) -> str:
        return self._names.get(thread, f"{thread:x}")

    def _thread_numbers(self) -> tuple[int, ...]:
        question = _Question.now("the stub did not report its threads", self._timeout)
        found: list[int] = []
        answer = self._ask("qfThreadInfo", question)
        self._process = ""
        while answer.startswith("m"):
            # QEMU names the process too, once a debugger has asked for that: gdb does.
            try:
                for name in answer[1:].split(","):
                    process, _, number = name.rpartition(".")
                    found.append(int(number, 16))
                    # asked in the same form: a stub that names processes may want them named
                    self._names[found[-1]] = name if process else f"{found[-1]:x}"
                    self._process = f"{int(process[1:], 16):x}" if process else ""
            except ValueError as error:
                raise self._failed(f"the stub names its threads {_cut(answer)}") from error
            if len(found) > MAX_THREADS or question.left <= 0:
                raise self._failed("the stub's list of threads has no end", _NO_STUB)
            answer = self._ask("qsThreadInfo", question)
        return tuple(sorted(found))

    def _abandon(self) -> str:
        """Let a machine run, as far as possible, whose stub does not answer. Return how it was left, in words."""
        try:
            if self.announced:
                self.leave()
                return "the machine was left running"
            if not self._head:
                # QEMU keeps a second debugger waiting, even one that has disconnected. When the first has left, it
                # accepts the second one, which stops the machine, and reads what that one had sent.
                self._send(f"D;{self._process}")
                return "if it accepts this connection later, it is requested to let the machine run"
        except Ended:
            return ""
        except KgenError:
            pass  # the first failure is the one to report
        return UNKNOWN

    def _resume(self, packet: str, timeout: float) -> Halt:
        question = _Question.now("no CPU reached a breakpoint", timeout)
        self._send(packet)
        return self._halt(self._receive(question))

    def _halt(self, answer: str) -> Halt:
        match = _STOP.match(answer)
        if not match:
            if answer[:1] in ("W", "X"):
                raise Ended(f"the machine ended: {_cut(answer)}", where=self._where)
            # it may still run
            raise self._failed(f"the stub says {_cut(answer)} where a stop was expected", _NO_STUB)
        self._runs = False
        if int(match[1], 16) in _DEAD:
            raise GuestCrash(_DEAD[int(match[1], 16)], where=self._where)
        return Halt(int(match[2] or "0", 16))

    def _bytes(self, packet: str) -> bytes:
        answer = self._ask(packet)
        try:
            return bytes.fromhex(answer)
        except ValueError as error:
            raise self._failed(f"the stub answers {packet} with {_cut(answer)}") from error

    def _expect(self, packet: str, wanted: str) -> None:
        answer = self._ask(packet)
        if answer != wanted:
            raise self._failed(f"the stub answers {packet} with {_cut(answer)}")

    def _ask(self, packet: str, question: _Question | None = None) -> str:
        asked = question or _Question.now(f"the stub did not answer {packet}", self._timeout)
        self._send(packet)
        return self._receive(asked)

    def _send(self, packet: str) -> None:
        self._send_bytes(_framed(packet))

    def _send_bytes(self, data: bytes) -> None:
        self._socket.settimeout(self._timeout)
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._failed(f"the stub read nothing for {self._timeout:g} s", _BUSY) from error
        except OSError as error:
            raise self._gone() from error

    def _receive(self, question: _Question) -> str:
        """Return the next packet's text, repeated characters written out: any stub may shorten them unasked."""
        tried = False
        while (packet := self._packet(question)) is None:
            left = question.left
            # What has arrived is read once even after the deadline: this process may have been delayed.
            if (tried and left <= 0) or not select.select([self._socket], [], [], max(0.0, left))[0]:
                raise self._late(question)
            data = self._read()
            self._data += data
            if len(self._head) < greeting.HEAD:
                # a greeting may come in pieces
                self._head += data
                kind = greeting.kind_of(self._head)
                if kind not in ("", greeting.STUB):
                    what, hint = greeting.instead_of_a_stub(kind)
                    raise _NoStub(what, where=self._where, hint=hint)
            tried = True
        return packet

    def _packet(self, question: _Question) -> str | None:
        """Return the first complete packet that has arrived, None where there is none yet.

        A damaged packet is requested again, as the protocol demands. Packets are always acknowledged, because kgen does
        not ask for the mode without acknowledgements.
        """
        while (start := self._data.find(b"$")) >= 0:
            end = self._data.find(b"#", start)
            length = (end if end >= 0 else len(self._data)) - start
            if length > MAX_PACKET:
                self._data = b""
                raise self._failed(f"the stub sent a packet of more than {MAX_PACKET} characters", _NO_STUB)
            if not 0 <= end <= len(self._data) - 3:
                self._data = self._data[start:]
                return None
            packet, told, self._data = self._data[start + 1 : end], self._data[end + 1 : end + 3], self._data[end + 3 :]
            if told.lower() == _checksum(packet):
                self._acknowledge(b"+", question)
                return self._written_out(packet)
            self._refused = True
            self._acknowledge(b"-", question)
            if question.left <= 0:
                raise self._late(question)
        self._data = b""  # acknowledgements, and bytes outside packets
        return None

    def _written_out(self, packet: bytes) -> str:
        """Return a packet's text without run-length encoding. Raises DebuggerError where it is too long then."""
        length = len(packet) + sum(match[2][0] - _REPEATS_FROM - 2 for match in _REPEATED.finditer(packet))
        if length > MAX_PACKET:
            raise self._failed(f"the stub sent a packet of more than {MAX_PACKET} characters", _NO_STUB)
        return _REPEATED.sub(lambda match: match[1] * (match[2][0] - _REPEATS_FROM + 1), packet).decode("latin-1")

    def _acknowledge(self, sign: bytes, question: _Question) -> None:
        self._socket.settimeout(max(0.01, question.left))
        with contextlib.suppress(OSError):  # a stub that has closed the connection needs no answer
            self._socket.sendall(sign)

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(MAX_PACKET)
        except OSError as error:
            raise self._gone() from error
        if not data:
            raise self._gone()
        return data

    def _late(self, question: _Question) -> _Late:
        what, hint = f"{question.complaint} within {question.seconds:g} s", question.hint
        if self._refused:
            hint = "its packets had wrong checksums: check the connection"
        elif self._head and hint == _BUSY:
            hint = f"the answer is no packet: {_NO_STUB}"
        return _Late(what, where=self._where, hint=hint or "is its host busy, or the emulator held up?")

    def _failed(self, what: str, hint: str = "") -> DebuggerError:
        return DebuggerError(what, where=self._where, hint=hint)

    def _gone(self) -> Ended:
        return Ended("the emulator hung up", where=self._where)


def _chunk(said: str) -> int:
    """Return how many bytes to read at a time from a stub that says this of itself."""
    match = _PACKET_SIZE.search(said)
    return READ_CHUNK if match is None else max(1, min(READ_CHUNK, (int(match[1], 16) - _FRAME) // 2))


def _cut(answer: str) -> str:
    """Return an unexpected answer in the form of an error message."""
    return repr(answer) if len(answer) <= _TOLD else f"{answer[:_TOLD]!r}... ({len(answer)} characters)"


def _checksum(data: bytes) -> bytes:
    return b"%02x" % (sum(data) & 0xFF)


def _framed(packet: str) -> bytes:
    data = packet.encode("ascii")
    return b"$%s#%s" % (data, _checksum(data))
