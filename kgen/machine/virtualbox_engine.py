"""A machine of VirtualBox as an engine, wherever its programs run: VBoxManage stops it and reads it.

The guest's memory is read from the core that VirtualBox writes of the paused machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from kgen.errors import DebuggerError, GuestCrash, LinkError, MachineError
from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.machine.pieces import Pieces
from kgen.machine.platform import Supervisor
from kgen.machine.registers import CpuRegisters
from kgen.machine.virtualbox_words import REGISTERS, engine_of, facts_of, path_of, registers_of, version_of
from kgen.toolchain.elf_reader import core_segments

#: The machine's name in its own server.
NAME = "kgen"
#: The default graphics adapter.
VGA = "vboxvga"
#: How long each may take, in seconds: a command of VBoxManage, a core.
COMMAND_SECONDS = 30.0
CORE_SECONDS = 60.0
#: A core is read in pieces of this size: a kernel of kgen is two of them.
CHUNK = 1 << 16


class Site(Protocol):
    """Where a machine of VirtualBox's runs."""

    @property
    def supervisor(self) -> Supervisor | None:
        """See ``engine.Engine``."""
        ...

    def read_serial(self, timeout: float) -> bytes:
        """See ``engine.Engine``."""
        ...

    def send_serial(self, data: bytes) -> None:
        """Send bytes to the guest. Raises MachineError, GuestCrash."""
        ...

    def crashed(self) -> str | None:
        """See ``engine.Engine``."""
        ...

    def manage(self, *words: str, seconds: float) -> str:
        """Run VBoxManage and return what it prints. Raises MachineError with its complaint."""
        ...

    def core(self, name: str) -> str:
        """Return the name that VirtualBox knows a core's file by."""
        ...

    def read_core(self, name: str, begin: int, length: int) -> bytes:
        """Return so many bytes of a core, fewer at its end. Raises DebuggerError."""
        ...

    def drop_core(self, name: str) -> None:
        """Remove a core."""
        ...


class VirtualBox:
    """See ``engine.Engine`` and ``engine.Frozen``."""

    #: The debugger is VBoxManage, a new process each time.
    died = None

    def __init__(
        self,
        site: Site,
        cpus: int,
        patience: float,
        facts: Callable[[], Mapping[str, Any]],
        ends: contextlib.ExitStack,
    ) -> None:
        self.facts = facts
        self.read_serial = site.read_serial
        self.crashed = site.crashed
        self._site = site
        self._ends = ends
        self._cpus = cpus
        self._patience = patience
        self._running = True
        self._core = ""
        self._cores = 0
        self._pieces = Pieces(lambda begin, length: site.read_core(self._core, begin, length), CHUNK)
        self._parts: tuple[tuple[int, int, int], ...] = ()

    def __enter__(self) -> VirtualBox:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def supervisor(self) -> Supervisor | None:
        return self._site.supervisor

    def freeze(self) -> VirtualBox:
        if self._running:
            self._manage("controlvm", NAME, "pause")
            self._running = False
        return self

    def thaw(self) -> None:
        if self._core:
            # that of a machine that runs again
            self._site.drop_core(self._core)
            self._core = ""
        self._manage("controlvm", NAME, "resume")
        self._running = True

    def threads(self) -> tuple[CpuRegisters, ...]:
        ask = ("debugvm", NAME, "getregisters", "--cpu")
        return tuple(registers_of(cpu, self._manage(*ask, str(cpu), *REGISTERS)) for cpu in range(self._cpus))

    def read_memory(self, address: int, length: int) -> bytes:
        if not self._core:
            self._dump()
        for start, offset, size in self._parts:
            if start <= address and address + length <= start + size:
                data = self._pieces.read(offset + address - start, length)
                if len(data) == length:
                    return data
        raise DebuggerError(f"VirtualBox's core does not have the {length} bytes at {address:#x}")

    def run_until(self, address: int, condition: str) -> None:
        raise DebuggerError("VBoxManage sets no breakpoints")

    def caught(self) -> bool:
        return False

    def attest(self, address: int, length: int, cpus: int) -> PathEvidence:
        return path_of(lambda what: self._manage("debugvm", NAME, "info", what), address, length)

    def attend(self, address: int, length: int, cpus: int, *, declared: str) -> PathEvidence:
        # A kernel that was booted from a disk has no command line that could make it wait.
        return NOT_ASKED

    def ask_to_stop(self, word: int) -> None:
        self._site.send_serial(b"s")

    def let_in(self) -> None:
        pass

    def join(self, elf: Path) -> tuple[str, ...]:
        return ()

    def _manage(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run VBoxManage. Raises GuestCrash where the machine is dead, otherwise DebuggerError."""
        try:
            return self._site.manage(*words, seconds=seconds * self._patience)
        except MachineError as error:
            reason = self.crashed()
            if reason:
                raise GuestCrash(reason) from error
            raise DebuggerError(error.line) from error

    def _dump(self) -> None:
        self._cores += 1
        name = f"core{self._cores}"
        words = ("debugvm", NAME, "dumpvmcore", "--filename", self._site.core(name))
        self._manage(*words, seconds=CORE_SECONDS)
        self._core = name
        self._pieces.forget()
        try:
            self._parts = core_segments(BytesIO(self._pieces.read(0, CHUNK)))
        except LinkError as error:
            raise DebuggerError(f"VirtualBox's core cannot be read: {error}") from error


def about(log: str, *, driverless: bool, ring3: bool, commands: list[list[str]]) -> Mapping[str, Any]:
    """Return what VirtualBox's log says of the machine, and what was chosen, for the observation's environment."""
    said = {"engine": engine_of(log), "log": list(facts_of(log))}
    return said | {"driverless": driverless, "ring3": ring3, "commands": commands}


def title(log: str) -> str:
    """Return VirtualBox's version and the engine that ran, "" where its log has neither."""
    return ", ".join(filter(None, (version_of(log), engine_of(log))))
