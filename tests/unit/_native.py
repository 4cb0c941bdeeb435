"""Runs code of the catalogue on this machine's own CPU.

The catalogue is 32-bit code. Its forms and routines mean the same in 64-bit code: [edi] is encoded as [rdi] is, PUSH
and POP take whole registers, and nothing uses the opcodes that became REX prefixes.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from kgen.instructions import STATUS_FLAGS

#: Bit 1 is always set; the others that we leave alone are clear in a well-behaved program.
_FIXED_FLAGS = 1 << 1


class State(NamedTuple):
    """What code finds and leaves: the eight bytes at [EDI], the lower halves of registers, status flags, and how far
    RDI was moved."""

    cell: int
    eax: int = 0
    edx: int = 0
    ebx: int = 0
    ecx: int = 0
    esi: int = 0
    flags: int = 0
    moved: int = 0


# One block for each State in memory, which RDI points to. R8 remembers it.
_LOAD = bytes.fromhex(
    "4989f8"  # mov r8, rdi
    "488b4708"  # mov rax, [rdi + 8]
    "488b5710"  # mov rdx, [rdi + 16]
    "488b5f18"  # mov rbx, [rdi + 24]
    "488b4f20"  # mov rcx, [rdi + 32]
    "488b7728"  # mov rsi, [rdi + 40]
    "ff7730"  # push [rdi + 48]
    "9d"  # popfq
)
_STORE = bytes.fromhex(
    "9c"  # pushfq
    "49894008"  # mov [r8 + 8], rax
    "49895010"  # mov [r8 + 16], rdx
    "49895818"  # mov [r8 + 24], rbx
    "49894820"  # mov [r8 + 32], rcx
    "49897028"  # mov [r8 + 40], rsi
    "418f4030"  # pop [r8 + 48]
    "4c29c7"  # sub rdi, r8
    "49897838"  # mov [r8 + 56], rdi
    "498d7840"  # lea rdi, [r8 + 64]
)
# The convention of System V: the argument comes in RDI; RBX is the only register here that must be kept.
_ENTER, _LEAVE = bytes.fromhex("53"), bytes.fromhex("5bc3")


def _executable(size: int) -> mmap.mmap:
    return mmap.mmap(
        -1,
        size,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
    )


def _unavailable() -> str:
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.maxsize < 1 << 32:
        return f"this is no 64-bit x86 program but one for {platform.machine()}"
    if sys.platform == "win32":
        return "written for the calling convention of System V"
    try:
        _executable(mmap.PAGESIZE).close()
    except OSError as error:
        return f"no memory that can be written and executed: {error}"
    return ""


#: Why code cannot be run here, "" where it can.
UNAVAILABLE = _unavailable()


def run(codes: Iterable[bytes], states: Sequence[State]) -> list[State]:
    """What each code makes of its state; codes and states go together in pairs."""
    program = b"".join((_ENTER, *(_LOAD + code + _STORE for code in codes), _LEAVE))
    words = array("Q", chain.from_iterable(state._replace(flags=state.flags | _FIXED_FLAGS) for state in states))
    assert program.count(_LOAD) == len(states)
    with _executable(len(program)) as memory:
        memory.write(program)
        start = ctypes.c_char.from_buffer(memory)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(start))(words.buffer_info()[0])
        del start  # or the mapping could not be closed
    return [_state(*words[at : at + 8]) for at in range(0, len(words), 8)]


def _state(cell: int, eax: int, edx: int, ebx: int, ecx: int, esi: int, flags: int, moved: int) -> State:
    low = 0xFFFFFFFF
    return State(cell, eax & low, edx & low, ebx & low, ecx & low, esi & low, flags & STATUS_FLAGS, moved)
