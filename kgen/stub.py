"""QEMU's gdb stub, spoken to directly: one CPU at a time, thousands of times.

gdb does the same with ``set scheduler-locking on``, but asks for far more at every stop, and what it remembers of the
machine is wrong once the machine has been put back to an earlier state. So where only that is wanted, this speaks the
few packets of the GDB remote serial protocol (gdb's manual, appendix E) that it takes. Each has its own deadline.
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

from kgen.engine import CpuRegisters
from kgen.errors import DebuggerError, GuestCrash, KgenError

#: For an answer that the stub gives at once, in seconds. A busy host is slow.
ANSWER_SECONDS = 10.0
#: Bytes that one packet reads: QEMU's packets are 4096 characters long, two of which make a byte.
READ_CHUNK = 2000
_STOP = re.compile(r"T([0-9a-f]{2})(?:.*?thread:(?:p[0-9a-f]+\.)?([0-9a-f]+);)?")
#: QEMU's stub says so when the machine cannot go on.
_DEAD = {3: "the guest shut down or triple-faulted", 6: "the accelerator met an internal error"}
#: The registers in the order of the stub's ``g`` packet, 32 bits each, and that of a 64-bit machine, where r8 to r15
#: come between EDI's and EIP's.
_NARROW = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags")
_WIDE = (*"eax ebx ecx edx esi edi ebp esp".split(), *[""] * 8, "eip", "eflags")


#: What makes a running machine stop, by the protocol.
_INTERRUPT = b"\x03"


class Ended(GuestCrash):
    """The machine is gone, whatever the reason: its emulator said goodbye or hung up."""


@dataclass(frozen=True)
class Halt:
    """The machine has stopped again: on which thread, by the stub's number."""

    thread: int


class Stub:
    """A connection to a stub, whose machine is stopped whenever nothing waits for it. A context manager.

    Threads are the stub's numbers of CPUs, from 1. ``wide`` is set where the machine is a 64-bit one. ``announced``
    tells that the stub spoke of a stop before it was asked anything: so the machine ran until we came.
    """

    def __init__(self, address: str | Path, *, wide: bool = False, timeout: float = ANSWER_SECONDS) -> None:
        """Connect to HOST:PORT or to a socket's path, which stops the machine. ``timeout`` is for each answer, in
        seconds. Raises DebuggerError where nobody answers."""
        self._wide = wide
        self._where = str(address)
        self._data = b""
        self._timeout = timeout
        self._process = ""
        self._runs = self.announced = False
        self._socket = self._connect(str(address))
        try:
            self._send("qSupported:vContSupported+")
            answer = self._receive(timeout, "the stub did not answer; is another debugger connected?")
            self.announced = _STOP.match(answer) is not None
            if self.announced:
                self._receive(timeout, "the stub did not answer")
            self.numbers = self._thread_numbers()
        except BaseException:
            if self.announced:
                with contextlib.suppress(KgenError):  # the first failure is the one to be told
                    self.leave()
            self._socket.close()
            raise

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def _connect(self, address: str) -> socket.socket:
        host, _, port = address.rpartition(":")
        try:
            if host and port.isdigit() and not Path(address).is_socket():
                found = socket.create_connection((host.strip("[]"), int(port)), self._timeout)
                # a packet waits for no other: each is answered before the next is sent
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return found
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                found.settimeout(self._timeout)
                found.connect(address)
            except BaseException:
                found.close()
                raise
            return found
        except OSError as error:
            raise DebuggerError(f"nobody answers: {error.strerror or error}", where=self._where) from error

    def go(self) -> None:
        """Let the machine run, all CPUs. Nothing may be asked until it has stopped again."""
        self._send("c")
        self._runs = True

    def interrupt(self) -> None:
        """Stop the running machine, and wait until it stands."""
        self._send_bytes(_INTERRUPT)
        # Of two stops at once, by us and by somebody else, one is told.
        self._halt(self._receive(self._timeout, "the machine did not stop"))

    def halted(self, timeout: float) -> bool:
        """Wait while the machine runs: whether it stops by itself within ``timeout`` seconds. Raises GuestCrash."""
        try:
            answer = self._receive(timeout, "")
        except DebuggerError:
            return False
        self._halt(answer)
        return True

    def leave(self) -> None:
        """Let the machine run and be done with it. Raises DebuggerError where the stub does not confirm it."""
        if self._runs:
            # QEMU takes a packet from a running machine's debugger for an interrupt, whatever is in it.
            self.interrupt()
        self._expect(f"D;{self._process}" if self._process else "D", "OK")

    def monitor(self, line: str) -> str:
        """What the emulator's monitor answers to a line, "" where the stub has none."""
        text = b""
        self._send("qRcmd," + line.encode().hex())
        while (answer := self._receive(self._timeout, f"the stub did not answer '{line}'")).startswith("O") and (
            answer != "OK"
        ):
            text += bytes.fromhex(answer[1:]) if re.fullmatch(r"([0-9a-f]{2})*", answer[1:]) else b""
        return text.decode("utf-8", "replace")

    def step(self, thread: int) -> Halt:
        """Let one CPU carry out one instruction while the others stand still."""
        return self._resume(f"vCont;s:{thread:x}", ANSWER_SECONDS)

    def run(self, threads: Collection[int], timeout: float) -> Halt:
        """Let these CPUs run, and no others, until one of them comes to a breakpoint.

        Raises DebuggerError where none does within ``timeout`` seconds, GuestCrash where the guest dies.
        """
        return self._resume("vCont;" + ";".join(f"c:{thread:x}" for thread in sorted(threads)), timeout)

    def registers(self, thread: int) -> CpuRegisters:
        """One CPU's registers."""
        self._expect(f"Hg{thread:x}", "OK")
        data = self._bytes("g")
        size, names = (8, _WIDE) if self._wide else (4, _NARROW)
        if len(data) < size * len(names):
            raise DebuggerError(f"only {len(data)} bytes of registers came", where=self._where)
        words = {
            name: int.from_bytes(data[size * at : size * at + 4], "little") for at, name in enumerate(names) if name
        }
        return CpuRegisters(thread=thread, target=f"CPU#{thread - 1}", cpu=thread - 1, **words)

    def threads(self) -> tuple[CpuRegisters, ...]:
        """Every CPU with its registers."""
        return tuple(self.registers(thread) for thread in self.numbers)

    def read_memory(self, address: int, length: int) -> bytes:
        """Bytes at a physical address (the kernel runs without paging). Raises DebuggerError."""
        data = b""
        while len(data) < length:
            size = min(READ_CHUNK, length - len(data))
            chunk = self._bytes(f"m{address + len(data):x},{size:x}")
            if len(chunk) != size:
                raise DebuggerError(f"{size} bytes at {address + len(data):#x} cannot be read", where=self._where)
            data += chunk
        return data

    def write_u32(self, address: int, value: int) -> None:
        """Write a word of RAM; QEMU drops writes to i/o without a word."""
        self._expect(f"M{address:x},4:{value.to_bytes(4, 'little').hex()}", "OK")

    def insert_breakpoints(self, addresses: Collection[int]) -> None:
        """Stop a CPU before it carries out an instruction at one of these addresses, unless it is stepped."""
        for address in sorted(addresses):
            self._expect(f"Z0,{address:x},1", "OK")

    def remove_breakpoints(self, addresses: Collection[int]) -> None:
        """The reverse."""
        for address in sorted(addresses):
            self._expect(f"z0,{address:x},1", "OK")

    def _thread_numbers(self) -> tuple[int, ...]:
        found: list[int] = []
        answer = self._ask("qfThreadInfo")
        while answer.startswith("m"):
            # QEMU goes on to name the process, too, once a debugger has asked for that: gdb does.
            try:
                for name in answer[1:].split(","):
                    process, _, number = name.rpartition(".")
                    found.append(int(number, 16))
                    self._process = f"{int(process[1:], 16):x}" if process else ""
            except ValueError as error:
                raise DebuggerError(f"the stub names its threads {answer!r}", where=self._where) from error
            answer = self._ask("qsThreadInfo")
        return tuple(sorted(found))

    def _resume(self, packet: str, timeout: float) -> Halt:
        self._send(packet)
        return self._halt(self._receive(timeout, "no CPU came to where it is to stop"))

    def _halt(self, answer: str) -> Halt:
        self._runs = False
        match = _STOP.match(answer)
        if not match:
            if answer[:1] in ("W", "X"):
                raise Ended(f"the machine ended: {answer!r}")
            raise GuestCrash(f"odd answer {answer!r}")
        if int(match[1], 16) in _DEAD:
            raise GuestCrash(_DEAD[int(match[1], 16)])
        return Halt(int(match[2] or "0", 16))

    def _bytes(self, packet: str) -> bytes:
        answer = self._ask(packet)
        try:
            return bytes.fromhex(answer)
        except ValueError as error:
            raise DebuggerError(f"the stub answers {packet} with {answer!r}", where=self._where) from error

    def _expect(self, packet: str, wanted: str) -> None:
        answer = self._ask(packet)
        if answer != wanted:
            raise DebuggerError(f"the stub answers {packet} with {answer!r}", where=self._where)

    def _ask(self, packet: str) -> str:
        self._send(packet)
        return self._receive(self._timeout, f"the stub did not answer {packet}")

    def _send(self, packet: str) -> None:
        self._send_bytes(_framed(packet))

    def _send_bytes(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone() from error

    def _receive(self, timeout: float, complaint: str) -> str:
        """The next packet's text. Run-length encoding is not asked for, and QEMU does not use it."""
        until = time.monotonic() + timeout
        while True:
            start = self._data.find(b"$")
            end = self._data.find(b"#", start) if start >= 0 else -1
            if 0 <= end <= len(self._data) - 3:
                packet, self._data = self._data[start + 1 : end], self._data[end + 3 :]
                with contextlib.suppress(OSError):  # the last word of one who has hung up needs no answer
                    self._socket.sendall(b"+")
                return packet.decode("latin-1")
            if not select.select([self._socket], [], [], max(0.0, until - time.monotonic()))[0]:
                raise DebuggerError(f"{complaint} within {timeout:g} s", where=self._where)
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self._data += data

    def _gone(self) -> Ended:
        return Ended("the emulator hung up")


def _framed(packet: str) -> bytes:
    data = packet.encode("ascii")
    return b"$%s#%02x" % (data, sum(data) & 0xFF)
