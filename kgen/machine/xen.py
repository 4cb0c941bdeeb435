"""A domain of Xen as an engine: QEMU is its device model, and xl, in dom0, stops it and reads its CPUs.

The device model's control session attests what backs an address and saves memory to a file in dom0, which is then
brought here. Xen's own gdb stub (gdbsx) is not part of the distributions' packages.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

from kgen.errors import DebuggerError, MachineError
from kgen.evidence.mtree import PathEvidence
from kgen.host.environment import gathering
from kgen.machine.pieces import Pieces
from kgen.machine.platform import LaunchRequest, Platform, Supervisor
from kgen.machine.qemu import Machine, launch
from kgen.machine.registers import CpuRegisters
from kgen.wording import one_line, quoted

#: Memory is brought here in pieces of this size, because each takes a while: a domain's kernel is two of them.
CHUNK = 1 << 16
#: Below this address is memory that a read of its neighbours might change: devices.
_LOWEST = 1 << 20
#: Where the device model puts a copy of memory, in dom0.
_SAVED = "/tmp/kgen.mem"

#: What xen-hvmctx prints: a line for each record, then its fields.
_ENTRY = re.compile(r"^Entry \d+: type (\d+) instance (\d+),", re.MULTILINE)
_QUOTED = 100
#: The type of a CPU's record (HVM_SAVE_CODE(CPU) in xen/include/public/arch-x86/hvm/save.h).
_CPU = "2"
_REGISTER = re.compile(r"\br([abcd]x|[sb]p|[sd]i|ip|flags) +0x([0-9a-f]{16})\b")


class Domain(Supervisor, Protocol):
    """The lab's side of a domain."""

    def pause(self) -> None:
        """Stop all CPUs of the domain. Raises DebuggerError."""
        ...

    def unpause(self) -> None:
        """Let them run again. Raises DebuggerError."""
        ...

    def registers(self) -> str:
        """Return what xen-hvmctx prints. Raises DebuggerError."""
        ...

    def fetch(self, name: str) -> bytes:
        """Return a file of dom0. Raises DebuggerError."""
        ...


def start(platform: Platform, request: LaunchRequest, *, gdb: str, pinned: AbstractContextManager[None]) -> XenEngine:
    """See ``engine.Start``. No gdb is needed."""
    with contextlib.ExitStack() as undo:
        with pinned:
            machine = undo.enter_context(launch(platform, request))
        gather = undo.enter_context(gathering(machine.command[0], ""))
        return XenEngine(machine, request.memory_mib << 20, gather, undo.pop_all())


class XenEngine:
    """See ``engine.Engine`` and ``registers.Frozen``."""

    #: xl runs in dom0, and does not end before it.
    died = None

    def __init__(
        self, machine: Machine, memory: int, gather: Callable[[], dict[str, Any]], ends: contextlib.ExitStack
    ) -> None:
        self.machine = machine
        self._domain = cast(Domain, machine.supervisor)
        self._memory = memory
        self._gather = gather
        self._ends = ends
        self._running = True
        self._pieces = Pieces(self._saved, CHUNK)
        self.read_serial = machine.read_serial

    def __enter__(self) -> XenEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def supervisor(self) -> Supervisor | None:
        return self._domain

    def crashed(self) -> str | None:
        return self.machine.crashed()

    def freeze(self) -> XenEngine:
        if self._running:
            self._domain.pause()
            self._running = False
            self._pieces.forget()
        return self

    def thaw(self) -> None:
        if not self._running:
            self._domain.unpause()
            self._running = True

    def threads(self) -> tuple[CpuRegisters, ...]:
        return registers_of(self._domain.registers())

    def read_memory(self, address: int, length: int) -> bytes:
        if address < 0 or length < 1:
            raise DebuggerError(f"no such memory: {length} bytes at {address:#x}")
        if address < _LOWEST or address + length > self._memory:
            return self._saved(address, length)
        return self._pieces.read(address, length)

    def run_until(self, address: int, condition: str) -> None:
        raise DebuggerError("xl cannot wait for this")

    def caught(self) -> bool:
        return False

    def attest(self, address: int, length: int, cpus: int) -> PathEvidence:
        return self.machine.attest(address, length, cpus)

    def attend(self, address: int, length: int, cpus: int, *, declared: str) -> PathEvidence:
        return self.machine.attend(address, length, cpus, declared=declared)

    def ask_to_stop(self, word: int) -> None:
        self.machine.send_serial(b"s")

    def facts(self) -> Mapping[str, Any]:
        """Return versions, the outer QEMU's command line, the accelerator, and the lab."""
        return self._gather() | {"command": list(self.machine.command), "accel": "xen"} | dict(self._domain.facts())

    def let_in(self) -> None:
        pass

    def join(self, elf: Path) -> tuple[str, ...]:
        return ()

    def _saved(self, address: int, length: int) -> bytes:
        """Return memory of the domain as its CPUs would read it, devices included. Raises DebuggerError."""
        try:
            self.machine.qmp("pmemsave", val=address, size=length, filename=_SAVED)
        except MachineError as error:
            raise DebuggerError(f"{length} bytes at {address:#x} cannot be read: {error.message}") from error
        data = self._domain.fetch(_SAVED)
        if len(data) != length:
            raise DebuggerError(f"only {len(data)} of {length} bytes at {address:#x} can be read")
        return data


def registers_of(text: str) -> tuple[CpuRegisters, ...]:
    """Return every CPU from the output of xen-hvmctx. Raises DebuggerError where a register is missing.

    A CPU that has halted for good is left out there: Xen has taken it off line. So a guest that has printed its closing
    line may have none.
    """
    heads = [*_ENTRY.finditer(text)]
    if not heads:
        raise DebuggerError(f"xen-hvmctx has printed no record: {quoted(one_line(text), _QUOTED)}")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found = []
    for head, end in zip(heads, ends, strict=True):
        if head[1] != _CPU:
            continue
        cpu = int(head[2])
        words = {f"e{name}": int(value, 16) & 0xFFFFFFFF for name, value in _REGISTER.findall(text[head.end() : end])}
        try:
            found.append(CpuRegisters(thread=cpu + 1, target=f"vCPU {cpu}", cpu=cpu, **words))
        except TypeError as error:
            raise DebuggerError(f"the registers of vCPU {cpu} cannot be read") from error
    return tuple(found)
