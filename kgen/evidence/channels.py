"""Find where the two channels differ although they must be equal."""

from __future__ import annotations

from dataclasses import fields

from kgen.evidence.records import PhaseRecord, Record
from kgen.kernel.results_block import PhaseStatus

#: Fields that both channels hold from the boot on, and those that are equal once the guest has ended.
_FIXED_AT_BOOT = ("boot_path", "clock", "khz", "x2apic", "cpus_needed", "planned")


_FIXED_AT_END = ("state", "cpus_found", "lines", "phase")


#: Fields of a phase that the guest prints in a line of their own. A log that was cut may lack that line.
_ANNOUNCED = ("role", "address", "cells")


_PROBED = ("decode", "latency")


#: Fields of a phase that memory does not hold, and that only memory holds.
_SERIAL_FIELDS = ("label", "limit")


_MEMORY_FIELDS = ("witnesses",)


def differences(serial: Record, memory: Record) -> tuple[str, ...]:
    """Return where the two channels contradict each other, one sentence each.

    What one of them lacks (a log may be cut) is a gap, not a contradiction. What both have must be equal.
    """
    found: list[str] = []
    if serial.build_id and serial.build_id != memory.build_id:
        found.append(f"serial is of build {serial.build_id}, memory of build {memory.build_id}")
    names: tuple[str, ...] = _FIXED_AT_BOOT if serial.complete else ()
    names += _FIXED_AT_END if serial.complete and memory.complete else ()
    found += _unequal("", serial, memory, names)
    # A phase that a fault ended has no result line.
    ended = [phase for phase in memory.phases if phase.status is not PhaseStatus.RUNNING]
    if serial.complete and memory.complete and len(serial.phases) != len(ended):
        found.append(f"serial has {len(serial.phases)} phases, memory {len(ended)}")
    memory_phases = {phase.index: phase for phase in memory.phases}
    for phase in serial.phases:
        other = memory_phases.get(phase.index)
        if other is None:
            found.append(f"phase {phase.index} is in the serial log and not in memory")
        else:
            found += _phase_differences(phase, other, serial.complete)
    if serial.complete and memory.complete and serial.witnesses != memory.witnesses:
        found.append("the witnesses differ")
    elif not set(serial.witnesses) <= set(memory.witnesses):
        found.append("serial has witnesses that memory does not")
    if not set(serial.faults) <= set(memory.faults):
        found.append("serial has faults that memory does not")
    # The BSP prints each fault that ends a phase. A CPU may fault after the BSP has printed the faults that end the
    # run, so memory may hold more of these.
    ending = {fault for fault in memory.faults if fault.phase is not None}
    if serial.complete and memory.complete and not ending <= set(serial.faults):
        found.append("memory has faults of phases that serial does not")
    return tuple(found)


def _phase_differences(serial: PhaseRecord, memory: PhaseRecord, complete: bool) -> list[str]:
    skipped = {*_SERIAL_FIELDS, *_MEMORY_FIELDS}
    if not complete:
        # a log that lost lines may lack these and counters, but the counters it has must be equal
        skipped |= {"counts", *_PROBED}
        if not serial.label:
            skipped |= set(_ANNOUNCED)
    names = tuple(item.name for item in fields(serial) if item.name not in skipped)
    found = _unequal(f"phase {serial.index} ", serial, memory, names)
    if not complete and not set(serial.counts) <= set(memory.counts):
        found.append(f"phase {serial.index} counts: serial says {serial.counts}, memory says {memory.counts}")
    return found


def _unequal(of: str, serial: object, memory: object, names: tuple[str, ...]) -> list[str]:
    """Return the named fields in which the two differ."""
    return [
        f"{of}{name}: serial says {getattr(serial, name)}, memory says {getattr(memory, name)}"
        for name in names
        if getattr(serial, name) != getattr(memory, name)
    ]
