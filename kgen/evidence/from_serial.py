"""The serial channel: a record from the guest's log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from kgen.errors import ProtocolError
from kgen.evidence.records import (
    FINAL_STATES,
    Count,
    FaultRecord,
    PhaseRecord,
    Record,
    Witness,
    cpu_number,
    phase_number,
)
from kgen.kernel.live import Live
from kgen.kernel.protocol import Line, Log
from kgen.kernel.results_block import BootPath, Clock, Decode, KernelState, PhaseStatus, Role, Style, ViolationKind


def _witness(line: Line) -> Witness:
    return Witness(
        index=line.number("index"),
        phase=line.number("phase"),
        kind=ViolationKind(line.number("kind")),
        round=line.number("round"),
        cell=line.number("cell"),
        token=line.hexadecimal("token"),
        value=line.hexadecimal("value"),
        cpu=cpu_number(line.number("cpu")),
        other=cpu_number(line.number("other")),
        tsc=line.number("tsc"),
    )


def _fault(line: Line) -> FaultRecord:
    hexadecimal = {name: line.hexadecimal(name) for name in ("error", "eip", "eflags", "cr2")}
    return FaultRecord(
        cpu=line.number("cpu"), vector=line.number("vector"), phase=phase_number(line.number("phase")), **hexadecimal
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


LIVE = tuple(item.name for item in fields(Live))


def _live(line: Line) -> tuple[int, Style, Live]:
    return (
        line.number("phase"),
        Style(line.number("style")),
        Live(**{name: line.number(name) for name in LIVE}),
    )


def _by_style(found: Mapping[Style, Live]) -> tuple[Live, ...]:
    """Return the counts in the order of styles, () where the line of a style is lost: the other style alone proves
    nothing."""
    return tuple(found[style] for style in Style) if len(found) == len(Style) else ()


#: A phase with such a status may have ended before its cells were probed.
_UNPROBED = frozenset({PhaseStatus.NO_STORAGE, PhaseStatus.ABSENT, PhaseStatus.FAULTED})


#: The lines that may be in a log only once: the kind of a line, and the fields that number it.
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
    """Return how a complete log contradicts itself, "" where it does not."""
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
    # every finished case of a suite has its result code, and so has a single case, however it ended
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
        # cells that are absent or store nothing are not probed
        unprobed = line.kind == "result" and line.number("status") in _UNPROBED
        if line.kind == "result" and line.text("phase") not in probed and not unprobed:
            return f"phase {line.text('phase')} has no probe line"
    return ""


def from_log(log: Log) -> Record | None:
    """Return the serial channel's record, None where the log has no native line. Never raises.

    Lines with a right CRC that are invalid or contradict each other count as a break in the record.
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
    counts: dict[int, list[Count]] = {}
    for phase, count in each("count", _count):
        counts.setdefault(phase, []).append(count)
    styles: dict[int, dict[Style, Live]] = {}
    for phase, style, live in each("live", _live):
        styles.setdefault(phase, {})[style] = live
    phases = each(
        "result",
        lambda line: _phase(
            line,
            announced,
            probes,
            tuple(counts.get(line.number("phase"), ())),
            _by_style(styles.get(line.number("phase"), {})),
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
    gap = log.fault or contradiction or ("" if cpus else "the guest ended before it counted its CPUs")
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
