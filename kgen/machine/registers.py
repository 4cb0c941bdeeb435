"""Registers of a stopped machine's CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class CpuRegisters:
    """One CPU of the stopped machine; registers are 32 bits wide."""

    #: The debugger's number.
    thread: int
    #: The debugger's text for the thread: "Thread 1.1 CPU#0 [running]".
    target: str
    #: The emulator's own number where that text has one.
    cpu: int | None
    eip: int
    esp: int
    ebp: int
    eflags: int
    eax: int
    ebx: int
    ecx: int
    edx: int
    esi: int
    edi: int


class Frozen(Protocol):
    """A machine that stands still, and can be looked at."""

    def threads(self) -> tuple[CpuRegisters, ...]:
        """Return every CPU with its registers. Raises DebuggerError."""
        ...

    def read_memory(self, address: int, length: int) -> bytes:
        """Return bytes at a physical address. Raises DebuggerError when any of them cannot be read."""
        ...
