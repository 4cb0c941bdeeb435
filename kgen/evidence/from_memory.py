"""The debugger channel: a record from the results block in memory."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kgen.errors import ProtocolError
from kgen.evidence.from_serial import LIVE
from kgen.evidence.records import (
    FINAL_STATES,
    Count,
    CpuRecord,
    FaultRecord,
    Handshake,
    PhaseRecord,
    Record,
    Witness,
    cpu_number,
)
from kgen.kernel.live import Live
from kgen.kernel.results_block import (
    MAGIC,
    BootPath,
    Clock,
    CpuState,
    Decode,
    KernelState,
    PhaseStatus,
    ResultsLayout,
    Role,
    Style,
    ViolationKind,
)


def from_memory(layout: ResultsLayout, data: bytes) -> Record:
    """Return the debugger channel's record, read from the results block.

    Raises ProtocolError where the bytes are no results block.
    """
    if len(data) < layout.size:
        raise ProtocolError(f"the results block is cut off after {len(data)} of {layout.size} bytes")
    block = layout.parse(data)
    if bytes(block.magic) != MAGIC:
        raise ProtocolError("there is no results block in memory", hint="has the kernel booted?")
    if block.size != layout.size:
        raise ProtocolError(f"the results block has {block.size} bytes where its ELF says {layout.size}")
    if block.version != layout.version or block.cpus_needed != layout.cpus:
        raise ProtocolError(
            f"the results block is of layout {block.version} for {block.cpus_needed} CPUs "
            f"where its ELF says layout {layout.version} for {layout.cpus}"
        )
    if block.witness_count > len(block.witness):
        raise ProtocolError(f"the results block counts {block.witness_count} witnesses, there is no room for so many")
    try:
        return _from_block(layout, block)
    except ValueError as error:
        raise ProtocolError(f"the results block makes no sense: {error}") from error


def _from_block(layout: ResultsLayout, block: Any) -> Record:
    state = KernelState(block.state.value)
    phases = tuple(_phase_from_block(index, block) for index in range(layout.phases) if block.phase[index].status.value)
    witnesses = tuple(_witness_from_block(index, block.witness[index]) for index in range(block.witness_count))
    faults = tuple(
        _fault_from_block(phase.fault, phase.fault_cpu, index)
        for index, phase in enumerate(block.phase)
        if phase.fault.vector_plus_1
    )
    faults += tuple(
        _fault_from_block(cpu.fault, index, None) for index, cpu in enumerate(block.cpu) if cpu.fault.vector_plus_1
    )
    cpus = tuple(
        CpuRecord(
            cpu=index,
            apic_id=cpu.apic_id,
            state=CpuState(cpu.state.value),
            started=cpu.started,
            ack=cpu.ack,
            cell=cpu.cell,
            token=cpu.token,
            puts=cpu.puts,
            takes=cpu.takes,
            tries=cpu.tries,
        )
        for index, cpu in enumerate(block.cpu)
        if cpu.state.value
    )
    final = state in FINAL_STATES
    return Record(
        channel="debugger",
        complete=final,
        gap="" if final else f"the kernel was still in state {state.name}",
        contradiction="",
        build_id=bytes(block.build_id).hex(),
        state=state,
        cpus_found=block.cpus_found,
        cpus_needed=block.cpus_needed,
        x2apic=block.x2apic,
        boot_path=BootPath(block.boot_path.value),
        clock=Clock(block.clock.value or Clock.GUESS),
        khz=block.ticks_per_ms,
        planned=layout.phases,
        lines=block.records,
        # the index counts up before a phase begins, and stays 0 until the first one does
        phase=max((phase.index for phase in phases), default=-1),
        phases=phases,
        witnesses=witnesses,
        faults=faults,
        cpus=cpus,
        closed=block.cases_done,
        phase_index=block.phase_index,
        handshake=_handshake_from_block(block.handshake),
    )


def _handshake_from_block(handshake: Any) -> Handshake:
    own = {name: getattr(handshake, name) for name in ("address", "cells")}
    return Handshake(
        **own, **{item.name: getattr(handshake.task, item.name) for item in fields(Handshake) if item.name not in own}
    )


def _fault_from_block(fault: Any, cpu: int, phase: int | None) -> FaultRecord:
    return FaultRecord(
        cpu=cpu,
        vector=fault.vector_plus_1 - 1,
        error=fault.error,
        eip=fault.eip,
        eflags=fault.eflags,
        cr2=fault.cr2,
        phase=phase,
    )


def _phase_from_block(index: int, block: Any) -> PhaseRecord:
    phase = block.phase[index]
    status = PhaseStatus(phase.status.value)
    # A phase gets its counters when its turn is over. Until then they are in the CPU table.
    source = block.cpu if status is PhaseStatus.RUNNING and index == block.phase_index else phase.cpu
    counts = tuple(
        Count(cpu, source[cpu].puts, source[cpu].takes, source[cpu].tries) for cpu in range(block.cpus_needed)
    )
    names = ("rounds", "lost", "duplicate", "torn", "stale", "left", "foreign", "events", "judged", "ticks")
    return PhaseRecord(
        index=index,
        role=Role(phase.role.value),
        label="",
        address=phase.address,
        cells=phase.cells,
        limit=None,
        status=status,
        decode=Decode(phase.decode.value),
        latency=phase.latency,
        counts=counts,
        live=tuple(
            Live(**{name: getattr(phase.style[number], name) for name in LIVE})
            for number in range(min(getattr(phase, "styles", 0), len(Style)))
        ),
        witnesses={kind.name.lower(): phase.witnesses[kind] for kind in ViolationKind},
        **{name: getattr(phase, name) for name in names},
    )


def _witness_from_block(index: int, entry: Any) -> Witness:
    return Witness(
        index=index,
        phase=entry.phase,
        kind=ViolationKind(entry.kind.value),
        round=entry.round,
        cell=entry.cell,
        token=entry.token,
        value=entry.value,
        cpu=cpu_number(entry.cpu),
        other=cpu_number(entry.other),
        tsc=entry.tsc,
    )
