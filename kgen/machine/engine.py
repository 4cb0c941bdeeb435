"""What a run needs of its machine, for every emulator: a serial port, a stop, a look, an end.

Two kinds of engine satisfy these protocols: QEMU with gdb at its stub (``qemu_engine``), and Bochs with the debugger it
has built in (``bochs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from kgen.evidence.mtree import PathEvidence
from kgen.machine.platform import LaunchRequest, Platform, Supervisor
from kgen.machine.registers import Frozen


class Engine(Protocol):
    """A machine that runs, with its debugger. A context manager that ends both."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def supervisor(self) -> Supervisor | None:
        """The connection to the machine that runs the emulator, None where this host does."""
        ...

    @property
    def died(self) -> str | None:
        """How the debugger ended, in one sentence, None while it lives."""
        ...

    def read_serial(self, timeout: float) -> bytes:
        """Return what the guest has sent, waiting at most ``timeout`` seconds for a first byte; b"" when none came.
        Raises GuestCrash when guest or emulator has died and everything it sent has been read."""
        ...

    def crashed(self) -> str | None:
        """Return why guest or emulator is dead, in one sentence, None while both live. Wait only where a channel has
        broken, once and for a moment: the process may not have ended yet."""
        ...

    def freeze(self) -> Frozen:
        """Stop all CPUs, if they run, for a look. Raises DebuggerError, MachineError, GuestCrash."""
        ...

    def thaw(self) -> None:
        """Let all CPUs run again. Raises DebuggerError."""
        ...

    def run_until(self, address: int, condition: str) -> None:
        """Set a breakpoint in a machine that was started ``paused``, and let it run.

        All CPUs stop before the instruction at ``address`` when one of them reaches it while the condition, a gdb
        expression, holds. Only where the platform's ``breakpoints`` work. Raises DebuggerError.
        """
        ...

    def caught(self) -> bool:
        """Return whether the machine has stopped at the breakpoint of ``run_until``.

        Does not wait. Raises DebuggerError.
        """
        ...

    def attest(self, address: int, length: int, cpus: int) -> PathEvidence:
        """Return what backs a physical address for CPU 0 to ``cpus`` - 1 according to the emulator; NOT_ASKED where it
        cannot be asked. Raises MachineError, GuestCrash."""
        ...

    def attend(self, address: int, length: int, cpus: int, *, declared: str) -> PathEvidence:
        """``attest`` while a suite's guest waits before a case, then let the case begin: for a moment only, where
        ordinary memory backs a target that is ``declared`` "io". Raises MachineError, GuestCrash."""
        ...

    def ask_to_stop(self, word: int) -> None:
        """Request the guest to park and print its final record. ``word`` is the physical address of the word that the
        guest polls beside its serial port. Raises MachineError, DebuggerError, GuestCrash."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return the facts on what runs the guest, and how it was started, for the observation's environment."""
        ...

    def let_in(self) -> None:
        """Disconnect, so that the user's own debugger can connect. The machine stays stopped."""
        ...

    def join(self, elf: Path) -> tuple[str, ...]:
        """Return the command that connects the user to the frozen machine after ``let_in``, () where there is none."""
        ...


class Start(Protocol):
    """How an engine of one kind is started."""

    def __call__(
        self, platform: Platform, request: LaunchRequest, *, gdb: str, pinned: AbstractContextManager[None]
    ) -> Engine:
        """Start the machine; the guest runs when this returns. ``gdb`` is the debugger's program, where one is needed.
        The emulator is started within ``pinned``.

        Raises PlatformUnavailable when it cannot run here, MachineError with the emulator's own words when it does not
        start, DebuggerError when its debugger does not.
        """
        ...
