"""QEMU's gdb stub, spoken to directly: one CPU at a time, thousands of times.

gdb does the same with ``set scheduler-locking on``, but asks for far more at every stop, and what it remembers of the
machine is wrong once the machine has been put back to an earlier state. So where only that is wanted, this speaks the
few packets of the GDB remote serial protocol (gdb's manual, appendix E) that it takes. Each has its own deadline.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kgen.engine import CpuRegisters
from kgen.errors import DebuggerError, GuestCrash

#: For an answer that the stub gives at once, in seconds. A busy host is slow.
ANSWER_SECONDS = 10.0
#: Bytes that one packet reads: QEMU's packets are 4096 characters long, two of which make a byte.
READ_CHUNK = 2000
_STOP = re.compile(r"T([0-9a-f]{2})(?:.*?thread:([0-9a-f]+);)?")
#: QEMU's stub says so when the machine cannot go on.
_DEAD = {3: "the guest shut down or triple-faulted", 6: "the accelerator met an internal error"}
#: The registers in the order of the stub's ``g`` packet, 32 bits each, and that of a 64-bit machine, where r8 to r15
#: come between EDI's and EIP's.
_NARROW = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags")
_WIDE = (*"eax ebx ecx edx esi edi ebp esp".split(), *[""] * 8, "eip", "eflags")


@dataclass(frozen=True)
class Halt:
    """The machine has stopped again: on which thread, by the stub's number."""

    thread: int


class Stub:
    """A connection to a stub, whose machine is stopped whenever nothing waits for it. A context manager.

    Threads are the stub's numbers of CPUs, from 1. ``wide`` is set where the machine is a 64-bit one.
    """

    def __init__(self, path: str | Path, *, wide: bool) -> None:
        """Connect, which stops the machine. Raises DebuggerError where nobody answers."""
        self._wide = wide
        self._where = str(path)
        self._data = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            try:
                self._socket.connect(str(path))
            except OSError as error:
                raise DebuggerError(f"nobody answers: {error.strerror or error}", where=self._where) from error
            self._ask("qSupported:vContSupported+")
            self.numbers = self._thread_numbers()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

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
            found += (int(number, 16) for number in answer[1:].split(","))
            answer = self._ask("qsThreadInfo")
        return tuple(sorted(found))

    def _resume(self, packet: str, timeout: float) -> Halt:
        self._send(packet)
        answer = self._receive(timeout, "no CPU came to where it is to stop")
        match = _STOP.match(answer)
        if not match:
            raise GuestCrash(f"the machine ended: {answer!r}" if answer[:1] in ("W", "X") else f"odd answer {answer!r}")
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
        return self._receive(ANSWER_SECONDS, f"the stub did not answer {packet}")

    def _send(self, packet: str) -> None:
        data = packet.encode("ascii")
        try:
            self._socket.sendall(b"$%s#%02x" % (data, sum(data) & 0xFF))
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

    def _gone(self) -> GuestCrash:
        return GuestCrash("the emulator hung up")
