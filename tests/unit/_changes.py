"""Observations altered a little, on one channel or on both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kgen.evidence.observation import Observation
from kgen.evidence.records import FaultRecord, Record
from kgen.kernel.results_block import ViolationKind

Change = Callable[[Observation], Observation]


def say(record: Record, index: int, **changes: Any) -> Record:
    """The record with one phase changed."""
    phases = [replace(phase, **changes) if phase.index == index else phase for phase in record.phases]
    return replace(record, phases=tuple(phases))


def both(change: Callable[[Record], Record]) -> Change:
    """A change that both channels agree on."""

    def apply(seen: Observation) -> Observation:
        assert seen.serial is not None
        assert seen.memory is not None
        return replace(seen, serial=change(seen.serial), memory=_counted(change(seen.memory)))

    return apply


def _counted(memory: Record) -> Record:
    """Memory's record, with each phase's count of witnesses as the guest would have it."""

    def count(index: int) -> dict[str, int]:
        kinds = [witness.kind for witness in memory.witnesses if witness.phase == index]
        return {kind.name.lower(): kinds.count(kind) for kind in ViolationKind}

    return replace(memory, phases=tuple(replace(phase, witnesses=count(phase.index)) for phase in memory.phases))


def phase(index: int, **changes: Any) -> Change:
    return both(lambda record: say(record, index, **changes))


def memory(**changes: Any) -> Change:
    return lambda seen: replace(seen, memory=replace(seen.memory, **changes))  # type: ignore[type-var]


def serial(**changes: Any) -> Change:
    return lambda seen: replace(seen, serial=replace(seen.serial, **changes))  # type: ignore[type-var]


def chain(*changes: Change) -> Change:
    def apply(seen: Observation) -> Observation:
        for change in changes:
            seen = change(seen)
        return seen

    return apply


def fault(cpu: int, vector: int, index: int | None = None) -> FaultRecord:
    return FaultRecord(cpu=cpu, vector=vector, error=0, eip=0x100000, eflags=2, cr2=0, phase=index)
