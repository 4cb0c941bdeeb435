"""Xen's trace of memory-mapped I/O: the binary records of xentrace(8).

Format: xen/include/public/trace.h. A record is a word with its event, the number of its further words and whether the
time stands between, and these words. A record of an access says neither which CPU made it nor when: both are those of
the records before it, one of which is made whenever Xen lets another virtual CPU run.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Literal

from kgen.evidence.kvm_trace import TraceEvent

#: Classes SCHED and HVM, and of them the scheduler's changes, entries and exits, and their handlers.
MASK = 0x000A3000

_EVENT = 0x0FFFFFFF
_WORDS_SHIFT, _WORDS = 28, 7
_TIMED = 1 << 31
#: A virtual CPU's state changes; bits 4 and 5 are its new state, bits 8 and 9 its old one.
_RUNSTATE, _STATES, _NEW_STATE_SHIFT, _RUNNING = 0x00021001, 0x330, 4, 0
#: A nested page fault, whose first two words are the address: the guest begins an access to what is no RAM. It says not
#: which kind of access. One that is followed by a write alone began no exchange.
_FAULT = 0x00082021
#: An access that was carried out: words are the address and the value.
_READ, _WRITE = 0x00082017, 0x00082217
#: Set in an event whose addresses take two words; a fault's always do.
_WIDE = 0x100


def parse(data: bytes, addresses: Collection[int], khz: int) -> tuple[TraceEvent, ...]:
    """Return the accesses to these physical addresses, in the order of the trace; ``khz`` is the rate of its clock. A
    trace that ends within a record loses that record."""
    wanted = frozenset(addresses)
    seconds, cpu = 0.0, -1
    found: list[TraceEvent] = []
    for event, time, words in _records(data):
        if time is not None:
            seconds = time / (1000 * khz)
        if event & ~_STATES == _RUNSTATE and words:
            state = event >> _NEW_STATE_SHIFT & 3
            # domain 0 runs no test; one that is not known yet makes no access that could be told of
            if state == _RUNNING:
                cpu = words[0] & 0xFFFF if words[0] >> 16 else -1
            continue
        kind: Literal["ask", "read", "write"] | None = None
        if event & ~_WIDE == _FAULT and len(words) > 1:
            kind, address, value = "ask", words[0] | words[1] << 32, 0
        elif event in (_READ, _WRITE) and len(words) > 1:
            kind, address, value = "read" if event == _READ else "write", words[0], words[1]
        if kind is not None and cpu >= 0 and address in wanted:
            found.append(TraceEvent(seconds=seconds, cpu=cpu, kind=kind, address=address, width=32, value=value))
    return tuple(found)


def _records(data: bytes) -> Iterator[tuple[int, int | None, tuple[int, ...]]]:
    """Yield each record's event, time and words."""
    at = 0
    while at + 4 <= len(data):
        (head,) = struct.unpack_from("<I", data, at)
        timed, count = bool(head & _TIMED), head >> _WORDS_SHIFT & _WORDS
        end = at + 4 + 8 * timed + 4 * count
        if end > len(data):
            return
        time = struct.unpack_from("<Q", data, at + 4)[0] if timed else None
        yield head & _EVENT, time, struct.unpack_from(f"<{count}I", data, end - 4 * count)
        at = end
