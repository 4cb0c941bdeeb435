"""What was seen, raw: the same record from two channels, the guest's serial log and the debugger's memory reading."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from kgen.errors import ProtocolError
from kgen.evidence.kvm_trace import TraceEvent
from kgen.evidence.mtree import PathEvidence
from kgen.kernel.live import Live
from kgen.kernel.protocol import Line, Log
from kgen.kernel.results_block import (
    MAGIC,
    NO_CPU,
    NO_PHASE,
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

#: The state of a kernel that has ended.
FINAL_STATES = frozenset(KernelState) - {KernelState.BOOTING, KernelState.STARTING_CPUS, KernelState.RUNNING}
#: The platform whose only channel is the log: somebody ran the kernel elsewhere.
SERIAL_ONLY = "serial-log"
#: The channel of a record that was rebuilt from a result code (kgen.offline.result_code).
ABRIDGED = "code"
#: What both channels hold from the boot on, and what they hold alike once the guest has ended.
_FIXED_AT_BOOT = ("boot_path", "clock", "khz", "x2apic", "cpus_needed", "planned")
_FIXED_AT_END = ("state", "cpus_found", "lines", "phase")
#: Fields of a phase that stand in a line of their own, which a log that was cut may lack.
_ANNOUNCED = ("role", "address", "cells")
_PROBED = ("decode", "latency")
#: Fields of a phase that memory does not hold, and that only memory holds.
_SERIAL_FIELDS = ("label", "limit")
_MEMORY_FIELDS = ("witnesses",)


@dataclass(frozen=True)
class Count:
    """What one CPU did in one phase. ``tries`` counts a consumer's exchanges."""

    cpu: int
    puts: int
    takes: int
    tries: int


@dataclass(frozen=True)
class Witness:
    """The evidence of one violation. ``value`` is what was found, ``other`` the second CPU involved, if any.

    ``round`` counts from 1 within its phase, ``cell`` from 0 within its batch; ``tsc`` is in ticks of the BSP.
    """

    index: int
    phase: int
    kind: ViolationKind
    round: int
    cell: int
    token: int
    value: int
    cpu: int | None
    other: int | None
    tsc: int


@dataclass(frozen=True)
class PhaseRecord:
    """One phase's outcome. ``ticks`` and ``latency`` (of one read of the cell) are in TSC ticks.

    ``role``, ``address`` (physical, of the first cell) and ``cells`` (of a batch) are what the guest says it was about
    to do; ``label`` and ``limit`` (rounds, 0 for no limit) too, which only the serial channel holds ("" and None).
    ``judged`` counts the chances of an event, rounds of tokens and of all else batches, ``events`` those of them that
    showed anything. ``witnesses`` is how many witnesses the guest says it recorded, by kind in lower case; only memory
    holds it (None elsewhere).
    """

    index: int
    role: Role | None
    label: str
    address: int
    cells: int
    limit: int | None
    status: PhaseStatus
    rounds: int
    lost: int
    duplicate: int
    torn: int
    stale: int
    left: int
    foreign: int
    events: int
    judged: int
    ticks: int
    decode: Decode
    latency: int
    counts: tuple[Count, ...]
    witnesses: Mapping[str, int] | None = None
    #: what is counted of live batches, by style in the order of kgen.results.Style; empty where a kernel counts none
    live: tuple[Live, ...] = ()

    @property
    def violations(self) -> dict[str, int]:
        """Violations by kind, in lower case, every kind present."""
        return {kind.name.lower(): getattr(self, kind.name.lower()) for kind in ViolationKind}

    @property
    def total(self) -> int:
        """All violations."""
        return sum(self.violations.values())

    @property
    def row(self) -> tuple[int, int, int, int]:
        """The counters in the original program's form, as its table has them; there must be some."""
        takes = [count.takes for count in self.counts[1:]]
        count0, count1, count2 = self.counts[0].puts, sum(takes[:1]), sum(takes[1:])
        return count0, count1, count2, count0 - count1 - count2


@dataclass(frozen=True)
class FaultRecord:
    """A CPU exception that the guest caught. ``phase`` is the one that it ended, None where it ended the run."""

    cpu: int
    vector: int
    error: int
    eip: int
    eflags: int
    cr2: int
    phase: int | None = None


@dataclass(frozen=True)
class CpuRecord:
    """Where a CPU was when the machine was frozen. ``apic_id`` is the local APIC's."""

    cpu: int
    apic_id: int
    state: CpuState
    started: int
    ack: int
    cell: int
    token: int
    puts: int
    takes: int
    tries: int


@dataclass(frozen=True)
class Handshake:
    """What the BSP had told the other CPUs to do when the machine was frozen: the place of the cells, and the fields of
    kgen.results.Task. Addresses are physical."""

    #: Of the first cell.
    address: int
    #: Cells of the batch.
    cells: int
    #: The distance of cells in bytes.
    stride: int
    #: Addresses of routines; 0 for none.
    work: int
    visit: int
    put: int
    take: int
    load: int
    store: int
    #: The address of the experiment's table; 0 for none.
    data: int
    operand: int
    inverse: int
    returns: int
    token_mask: int
    cell_mask: int
    facts: int


@dataclass(frozen=True)
class Record:
    """One channel's account of a run. ``complete`` says that it reaches the end unbroken, ``gap`` why it does not;
    ``contradiction`` is what an undamaged account says against itself.

    ``planned`` is the number of phases the kernel holds, ``lines`` is the number of native lines printed, ``phase``
    the index of the phase that was begun last, -1 for none. ``closed`` is the number of cases that are finished, up to
    which the account is whole. ``spec`` is the specification as the kernel prints it (KernelSpec.from_text), ``said``
    its last sentence for people (protocol.SENTENCES); both are "" in memory's account. ``phase_index`` is the phase
    whose turn it was, and ``handshake`` what the CPUs were told for it; both are None in the serial account.
    """

    channel: str
    complete: bool
    gap: str
    contradiction: str
    build_id: str
    state: KernelState
    cpus_found: int
    cpus_needed: int
    x2apic: int
    boot_path: BootPath
    clock: Clock
    khz: int
    planned: int
    lines: int
    phase: int
    phases: tuple[PhaseRecord, ...]
    witnesses: tuple[Witness, ...]
    faults: tuple[FaultRecord, ...]
    cpus: tuple[CpuRecord, ...] = ()
    case: str = ""
    digest: str = ""
    closed: int = 0
    spec: str = ""
    said: str = ""
    phase_index: int | None = None
    handshake: Handshake | None = None

    @property
    def cpu_numbers(self) -> dict[int, int]:
        """The guest's number of a CPU by the emulator's. QEMU numbers its CPUs in the order of their APIC ids, the
        guest in the order in which they came."""
        arrived = sorted(self.cpus, key=lambda entry: entry.apic_id)
        return {number: entry.cpu for number, entry in enumerate(arrived)}

    @property
    def abridged(self) -> bool:
        """Whether witnesses and each CPU's counters are missing because the channel has no room for them."""
        return self.channel == ABRIDGED


@dataclass(frozen=True)
class SceneLine:
    """One instruction as memory held it: its address, its bytes in hex, and its text as a decoder reads them.

    ``file``, ``line`` (from 1) and ``source`` say where the listing has it; "", 0 and "" where it is none of the
    kernel's.
    """

    address: int
    data: str
    text: str
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class SceneCpu:
    """A CPU at the scene. ``cpu`` is the guest's number, None for one that the guest does not know; ``registers`` are
    32 bits wide. ``place`` says in words what it does, ``routine`` where it stands: a symbol and the distance from it.
    ``code`` are the instructions around its EIP; that one is the next that it executes.
    """

    cpu: int | None
    registers: Mapping[str, int]
    place: str
    routine: str
    code: tuple[SceneLine, ...]


@dataclass(frozen=True)
class SceneCell:
    """The cell of the witness: physical address, width in bits, and its value ``before`` and ``after``.

    ``before`` is the token that was put there or, where there are no tokens, what it held when the batch began; None
    where that is not kept. ``after`` is what it holds now that all CPUs are parked, as the debugger reads it; None
    where it cannot be read. ``around`` are its bytes and its neighbours', in hex, the first of them at ``start``.
    """

    address: int
    width: int
    before: int | None
    after: int | None
    start: int
    around: str

    def __post_init__(self) -> None:
        # a result that is read back may say anything
        if self.width not in (8, 16, 32, 64):
            raise ValueError(f"a cell of {self.width} bits")
        bytes.fromhex(self.around)


@dataclass(frozen=True)
class SceneEvent:
    """Something that happened on the way to the scene. ``step`` orders events; of those of one step only each CPU's own
    are known to be in their order.

    "witness" is an entry of the witness ring, and the last one is the scene's own. In between stands what happened to
    its cell: "batch" (it was opened), "put" (the token, or the value in question of a chain, was exchanged into the
    cell; it is ``value``), "take" (an exchange got ``value``), "empty" (its exchanges got nothing), "work" (its
    operations on the batch's cells), "parked" (the CPU has acknowledged the batch: it touches no cell any more) and
    "read" (what CPU 0 then found in the cell). ``phase`` and ``batch`` number what it belongs to, ``batch`` is None
    where that is not kept; ``tsc`` is in ticks of CPU 0, None where nobody took the time.
    """

    step: int
    cpu: int | None
    kind: Literal["witness", "batch", "put", "take", "empty", "work", "parked", "read"]
    phase: int
    batch: int | None
    cell: int | None
    value: int | None
    tsc: int | None
    text: str


@dataclass(frozen=True)
class Scene:
    """The machine at the moment at which the first violation of the case, or of what its verdict rests on as well, had
    been recorded, and nothing done since.

    ``timeline`` is in order of time: the witnesses before this one, the history of its cell in its batch, itself.
    """

    witness: Witness
    cpus: tuple[SceneCpu, ...]
    cell: SceneCell
    timeline: tuple[SceneEvent, ...]


@dataclass(frozen=True)
class Observation:
    """Everything seen of one run.

    ``problems`` are failures of kgen or its tools, ``crash`` is how guest or emulator died, ``cut`` why the run was
    ended before it ended itself. ``cells`` are the cells of the last case as the debugger saw them. ``kernel_log`` is
    what the hypervisor's kernel logged meanwhile, None where nobody listened, and ``trace`` what it recorded of the
    accesses to one cell around a witness, where it records them. ``path`` is that of the cells of the last case,
    ``paths`` are those of the cases of a suite by the index of their phase, asked when the guest had parked before
    them. ``scene`` is there where the run was stopped at the case's first violation, which is then the last that is
    known of it. ``symbols`` are the addresses, by the names in the kernel's ELF, that the handshake in memory is
    compared with (kgen.verdict.consistency.symbols_of); empty where there is no ELF.
    """

    platform: str
    serial: Record | None
    memory: Record | None
    path: PathEvidence
    crash: str = ""
    cut: str = ""
    problems: tuple[str, ...] = ()
    cells: tuple[int, ...] = ()
    registers: tuple[Mapping[str, Any], ...] = ()
    rows: tuple[tuple[int, int, int, int], ...] = ()
    log: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    kernel_log: tuple[str, ...] | None = None
    trace: tuple[TraceEvent, ...] = ()
    paths: Mapping[int, PathEvidence] = field(default_factory=dict)
    scene: Scene | None = None
    symbols: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> Record | None:
        """The record to judge by: the debugger's where there is one."""
        return self.memory or self.serial

    @functools.cached_property
    def differences(self) -> tuple[str, ...]:
        """Where the two channels contradict each other; found once, however many cases are judged by it."""
        return differences(self.serial, self.memory) if self.serial and self.memory else ()


#: The platform of what was found in a dump of a machine's memory.
MEMORY_DUMP = "memory-dump"
#: The platform of what was rebuilt from the code on a kernel's screen.
RESULT_CODE = "result-code"
#: Where there is no machine whose memory could be read.
WITHOUT_MEMORY = frozenset({SERIAL_ONLY, RESULT_CODE})
#: How an accelerator ends that cannot carry out an instruction.
EMULATION_FAILURE = "the accelerator stopped with an internal error"


def _cpu(value: int) -> int | None:
    return None if value == NO_CPU else value


def _phase_number(value: int) -> int | None:
    return None if value == NO_PHASE else value


def _witness(line: Line) -> Witness:
    return Witness(
        index=line.number("index"),
        phase=line.number("phase"),
        kind=ViolationKind(line.number("kind")),
        round=line.number("round"),
        cell=line.number("cell"),
        token=line.hexadecimal("token"),
        value=line.hexadecimal("value"),
        cpu=_cpu(line.number("cpu")),
        other=_cpu(line.number("other")),
        tsc=line.number("tsc"),
    )


def _fault(line: Line) -> FaultRecord:
    hexadecimal = {name: line.hexadecimal(name) for name in ("error", "eip", "eflags", "cr2")}
    return FaultRecord(
        cpu=line.number("cpu"), vector=line.number("vector"), phase=_phase_number(line.number("phase")), **hexadecimal
    )


def _phase(
    result: Line,
    announced: Mapping[int, Line],
    probes: Mapping[int, Line],
    counts: tuple[Count, ...],
    live: tuple[Live, ...],
) -> PhaseRecord:
    names = ("rounds", "lost", "duplicate", "torn", "stale", "left", "foreign", "events", "judged", "ticks")
    index = result.number("phase")
    announcement, probe = announced.get(index), probes.get(index)
    label = announcement.text("label") if announcement else ""
    return PhaseRecord(
        index=index,
        role=Role[label.split(":")[0].upper()] if announcement else None,
        label=label,
        address=announcement.hexadecimal("address") if announcement else 0,
        cells=announcement.number("cells") if announcement else 0,
        limit=announcement.number("rounds") if announcement else None,
        status=PhaseStatus(result.number("status")),
        decode=Decode(probe.number("decode")) if probe else Decode.UNKNOWN,
        latency=probe.number("latency") if probe else 0,
        counts=counts,
        witnesses=None,
        live=live,
        **{name: result.number(name) for name in names},
    )


def _count(line: Line) -> tuple[int, Count]:
    counts = (line.number(name) for name in ("cpu", "puts", "takes", "tries"))
    return line.number("phase"), Count(*counts)


_LIVE = tuple(item.name for item in fields(Live))


def _live(line: Line) -> tuple[int, Style, Live]:
    return (
        line.number("phase"),
        Style(line.number("style")),
        Live(**{name: line.number(name) for name in _LIVE}),
    )


def _by_style(found: Mapping[Style, Live]) -> tuple[Live, ...]:
    """Return the counts in the order of styles; nothing where a line of one is lost: the other alone proves nothing."""
    return tuple(found[style] for style in Style) if len(found) == len(Style) else ()


#: A phase that ended so may have ended before its cells were looked at.
_UNPROBED = frozenset({PhaseStatus.NO_STORAGE, PhaseStatus.ABSENT, PhaseStatus.FAULTED})
#: What may stand in a log only once: a kind, and within it these numbers.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "boot": (),
    "cpus": (),
    "phase": ("index",),
    "probe": ("phase",),
    "witness": ("index",),
    "count": ("phase", "cpu"),
    "live": ("phase", "style"),
    "result": ("phase",),
    "fault": ("cpu", "phase"),
    "code": ("text",),
    "done": ("case",),
    "end": (),
}


def _contradiction(lines: tuple[Line, ...]) -> str:
    """How a whole log contradicts itself, "" where it does not."""
    seen: set[tuple[str, ...]] = set()
    for line in lines:
        if line.kind not in _KEYS:
            continue
        key = (line.kind, *(line.text(name) for name in _KEYS[line.kind]))
        if key in seen:
            return f"line {line.sequence} repeats a {line.kind} line"
        seen.add(key)
    numbered = {key[1] for key in seen if key[0] == "witness"}
    missing = next((str(number) for number in range(len(numbered)) if str(number) not in numbered), "")
    if missing:
        return f"witness {missing} is missing"
    closed = [line.text("case") for line in lines if line.kind == "done"]
    if closed != [str(number) for number in range(len(closed))]:
        return "the cases did not end in order"
    # every case of a suite that has ended has its result code, and so has a single case, however it ended
    codes = sum(key[0] == "code" for key in seen)
    if codes != (len(closed) if lines[0].text("case").startswith("suite:") else 1):
        return f"there are {codes} result codes"
    announced = {key[1] for key in seen if key[0] == "phase"}
    for kind in ("probe", "count", "live", "result"):
        stray = {key[1] for key in seen if key[0] == kind} - announced
        if stray:
            return f"a {kind} line is of phase {min(stray)}, which was not announced"
    probed = {key[1] for key in seen if key[0] == "probe"}
    for line in lines:
        # cells that hold nothing, or are not there, are not looked at any further
        unprobed = line.kind == "result" and line.number("status") in _UNPROBED
        if line.kind == "result" and line.text("phase") not in probed and not unprobed:
            return f"phase {line.text('phase')} has no probe line"
    return ""


def from_log(log: Log) -> Record | None:
    """The serial channel's record, or None where the log holds not one native line. Never raises.

    Lines that passed their CRC but make no sense, or that contradict each other, count as a break in the record.
    """
    contradiction = ""
    by_kind: dict[str, list[Line]] = {}
    for line in log.lines:
        by_kind.setdefault(line.kind, []).append(line)

    def each(kind: str, convert: Callable[[Line], Any]) -> tuple[Any, ...]:
        nonlocal contradiction
        made = []
        for line in by_kind.get(kind, []):
            try:
                made.append(convert(line))
            except (ProtocolError, ValueError, KeyError) as error:
                contradiction = contradiction or f"line {line.sequence} makes no sense: {error}"
        return tuple(made)

    if not log.lines:
        return None
    announced = dict(each("phase", lambda line: (line.number("index"), line)))
    probes = dict(each("probe", lambda line: (line.number("phase"), line)))
    counts = each("count", _count)
    styles = each("live", _live)
    phases = each(
        "result",
        lambda line: _phase(
            line,
            announced,
            probes,
            tuple(count for phase, count in counts if phase == line.number("phase")),
            _by_style({style: live for phase, style, live in styles if phase == line.number("phase")}),
        ),
    )
    boot = each(
        "boot",
        lambda line: (
            line.text("build"),
            line.text("case"),
            line.text("digest"),
            BootPath(line.number("path")),
            line.number("phases"),
        ),
    )
    cpus = each(
        "cpus",
        lambda line: (
            line.number("found"),
            line.number("needed"),
            line.number("x2apic"),
            Clock(line.number("clock")),
            line.number("khz"),
        ),
    )
    ends = each("end", lambda line: (KernelState(line.number("state")), line.number("cpus")))
    witnesses = each("witness", _witness)
    faults = each("fault", _fault)
    build_id, case, digest, boot_path, planned = boot[0] if boot else ("", "", "", BootPath.UNKNOWN, 0)
    found, needed, x2apic, clock, khz = cpus[0] if cpus else (0, 0, 0, Clock.GUESS, 0)
    state, found_at_end = ends[0] if ends else (KernelState.RUNNING, found)
    if log.intact and not contradiction:
        contradiction = _contradiction(log.lines)
    if log.intact and not contradiction and state not in FINAL_STATES:
        contradiction = f"the guest ended in state {state.name}"
    if log.intact and not contradiction and found_at_end < found:
        contradiction = f"{found} CPUs at the beginning, {found_at_end} at the end"
    if log.intact and not contradiction and found < needed and announced:
        contradiction = f"{found} CPUs began what takes {needed}"
    gap = log.fault or contradiction or ("" if cpus else "the guest did not come to count its CPUs")
    return Record(
        channel="serial",
        complete=not gap,
        gap=gap,
        contradiction=contradiction,
        build_id=build_id,
        state=state,
        cpus_found=found_at_end,
        cpus_needed=needed,
        x2apic=x2apic,
        boot_path=boot_path,
        clock=clock,
        khz=khz,
        planned=planned,
        lines=len(log.lines),
        phase=max(announced, default=-1),
        phases=phases,
        witnesses=witnesses,
        faults=faults,
        case=case,
        digest=digest,
        closed=0 if contradiction else log.closed,
        spec="".join(each("spec", lambda line: line.text("text"))),
        said=log.said,
    )


def from_memory(layout: ResultsLayout, data: bytes) -> Record:
    """The debugger channel's record, out of the results block. Raises ProtocolError for a block that is not one."""
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
    # A phase keeps its counters when its turn is over; until then they are the CPU table's.
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
            Live(**{name: getattr(phase.style[number], name) for name in _LIVE})
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
        cpu=_cpu(entry.cpu),
        other=_cpu(entry.other),
        tsc=entry.tsc,
    )


def differences(serial: Record, memory: Record) -> tuple[str, ...]:
    """Where the two channels contradict each other, one sentence each.

    What one of them does not have (a log that was cut) is a gap, no contradiction; what both have must be equal.
    """
    found: list[str] = []
    if serial.build_id and serial.build_id != memory.build_id:
        found.append(f"serial is of build {serial.build_id}, memory of build {memory.build_id}")
    names: tuple[str, ...] = _FIXED_AT_BOOT if serial.complete else ()
    names += _FIXED_AT_END if serial.complete and memory.complete else ()
    found += _unequal("", serial, memory, names)
    # A phase that a fault broke off has no result line.
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
    # The BSP prints each fault that ends a phase. A CPU may fault after the BSP has printed what it knows, so of those
    # that end the run memory may hold more.
    ending = {fault for fault in memory.faults if fault.phase is not None}
    if serial.complete and memory.complete and not ending <= set(serial.faults):
        found.append("memory has faults of phases that serial does not")
    return tuple(found)


def _phase_differences(serial: PhaseRecord, memory: PhaseRecord, complete: bool) -> list[str]:
    skipped = {*_SERIAL_FIELDS, *_MEMORY_FIELDS}
    if not complete:
        # a log that lost lines may lack these, and counters, but may not have other counters
        skipped |= {"counts", *_PROBED}
        if not serial.label:
            skipped |= set(_ANNOUNCED)
    names = tuple(item.name for item in fields(serial) if item.name not in skipped)
    found = _unequal(f"phase {serial.index} ", serial, memory, names)
    if not complete and not set(serial.counts) <= set(memory.counts):
        found.append(f"phase {serial.index} counts: serial says {serial.counts}, memory says {memory.counts}")
    return found


def _unequal(of: str, serial: object, memory: object, names: tuple[str, ...]) -> list[str]:
    """The named fields in which the two differ."""
    return [
        f"{of}{name}: serial says {getattr(serial, name)}, memory says {getattr(memory, name)}"
        for name in names
        if getattr(serial, name) != getattr(memory, name)
    ]
