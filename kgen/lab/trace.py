"""The lab's trace of memory-mapped I/O: one ``kvm:kvm_mmio`` event of the inner kernel in a line.

Event: include/trace/events/kvm.h of Linux (TRACE_EVENT(kvm_mmio)); line: Documentation/trace/ftrace.rst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from kgen.evidence.kvm_trace import TraceEvent

_LINE = re.compile(
    r"CPU (?P<cpu>\d+)/KVM-\d+ +(?:\(.*?\) +)?\[\d+\] +\S+ +(?P<seconds>\d+\.\d+): kvm_mmio: "
    r"mmio (?P<kind>unsatisfied-read|read|write) len (?P<length>\d+) gpa 0x(?P<address>[0-9a-f]+) "
    r"val 0x(?P<value>[0-9a-f]+)"
)


_KINDS: Mapping[str, Literal["ask", "read", "write"]] = {"unsatisfied-read": "ask", "read": "read", "write": "write"}


def parse(lines: Sequence[str]) -> tuple[TraceEvent, ...]:
    """Return the events of a trace, in its order. Lines without an event are left out."""
    return tuple(
        TraceEvent(
            seconds=float(match["seconds"]),
            cpu=int(match["cpu"]),
            kind=_KINDS[match["kind"]],
            address=int(match["address"], 16),
            width=8 * int(match["length"]),
            value=int(match["value"], 16),
        )
        for match in map(_LINE.search, lines)
        if match
    )
