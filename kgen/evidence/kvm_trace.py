"""Accesses of several CPUs to one cell, recorded by KVM's kernel or by Xen: which write came between the two halves of
another CPU's exchange.

An exchange on emulated memory is a read and then a write by one CPU. The hypervisor passes each on to the emulator. A
read is carried out between its request and its answer. A write is carried out after it was passed on and before the
same CPU makes another access.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class TraceEvent:
    """One access to emulated memory that the hypervisor's kernel recorded when it carried it out."""

    #: On the clock of that kernel.
    seconds: float
    #: The hypervisor's number of the virtual CPU.
    cpu: int
    #: "ask" where a read was passed on to the emulator, "read" where its answer came, "write" where a write was passed
    #: on. Xen records "ask" before a write alone, too: what follows it on the same CPU says what it began.
    kind: Literal["ask", "read", "write"]
    #: Physical.
    address: int
    #: In bits.
    width: int
    #: 0 for "ask", which has no value.
    value: int
    #: The number of the access among those recorded of the cell. Where a number is missing, accesses were left out.
    index: int = 0


#: How many accesses are kept before and after the relevant ones.
_BEFORE = 4
_AFTER = 12


def surroundings(events: Sequence[TraceEvent], address: int, token: int) -> tuple[TraceEvent, ...]:
    """Return the accesses around the last one that put ``token`` into the cell at ``address``, () where none did.
    Exchanges that they are part of, or that were under way at that time, are returned whole, however long they took."""
    here = [replace(event, index=at) for at, event in enumerate(e for e in events if e.address == address)]
    put = next((at for at in reversed(range(len(here))) if (here[at].kind, here[at].value) == ("write", token)), None)
    if put is None:
        return ()
    near = range(max(0, put - _BEFORE), min(len(here), put + _AFTER + 1))
    before = {event.cpu: at for at, event in enumerate(here[:put])}
    under_way = (exchange for exchange in (_exchange(here, at) for at in before.values()) if max(exchange) > put)
    kept = set(near).union(*(_exchange(here, at) for at in near if at >= put), *under_way)
    return tuple(here[at] for at in sorted(kept))


def _exchange(trace: Sequence[TraceEvent], at: int) -> set[int]:
    """Return the events of the access or exchange that event ``at`` is a part of."""
    return {at} | _begun(trace, at) | _ended(trace, at)


def _begun(trace: Sequence[TraceEvent], at: int) -> set[int]:
    """Return the events before ``at`` of the access or exchange that it is a part of."""
    return _followed(trace, range(at - 1, -1, -1), at, {"write": "read", "read": "ask"})


def _ended(trace: Sequence[TraceEvent], at: int) -> set[int]:
    """Return the events after ``at`` of the access or exchange that it is a part of."""
    return _followed(trace, range(at + 1, len(trace)), at, {"ask": "read", "read": "write"})


def _followed(trace: Sequence[TraceEvent], way: range, at: int, expected: dict[str, str]) -> set[int]:
    found: set[int] = set()
    kind = expected.get(trace[at].kind)
    for number in way:
        if kind is None:
            break
        if trace[number].cpu != trace[at].cpu:
            continue
        if trace[number].kind != kind:
            break
        found.add(number)
        kind = expected.get(kind)
    return found


def remarks(trace: Sequence[TraceEvent]) -> list[str]:
    """Return a remark for each event. It is "" unless a write ends an exchange between whose halves another CPU
    wrote."""
    return [_remark(trace, at) if event.kind == "write" else "" for at, event in enumerate(trace)]


def _remark(trace: Sequence[TraceEvent], at: int) -> str:
    event = trace[at]
    own = sorted(_begun(trace, at))
    if not own:
        return ""
    first, read = own[0], trace[own[-1]]
    half = f"the other half of the exchange begun {1000 * (event.seconds - trace[first].seconds):.3f} ms before"
    between = [other for other in trace[first + 1 : at] if other.kind == "write" and other.cpu != event.cpu]
    if between:
        return f"{half}: {between[-1].value:08x} came between"
    pending = _pending(trace, first)
    if pending is not None and pending.value != read.value:
        return f"{half}: it had not seen {pending.value:08x}, which was under way"
    return ""


def _pending(trace: Sequence[TraceEvent], at: int) -> TraceEvent | None:
    """Return the last write before event ``at`` if it may not have been carried out by then: another CPU made it and
    has made no access since."""
    latest = next((n for n in reversed(range(at)) if trace[n].kind == "write"), None)
    if latest is None or trace[latest].cpu == trace[at].cpu:
        return None
    # what lies in a gap is unknown
    whole = trace[at].index - trace[latest].index == at - latest
    silent = all(event.cpu != trace[latest].cpu for event in trace[latest + 1 : at])
    return trace[latest] if whole and silent else None
