"""Records of runs that never were: counts as a kernel could have left them, at random, near where a verdict turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any

from kgen.evidence.records import Count, PhaseRecord, Record
from kgen.kernel.live import Live, needed
from kgen.kernel.plan import Phase, experiment_of, phases
from kgen.kernel.results_block import BootPath, Clock, Decode, KernelState, PhaseStatus, ResultsLayout, Role, Style
from kgen.spec import KernelSpec

#: Where RAM's cells are in these.
RAM_ADDRESS = 0x200000
_KINDS = ("lost", "duplicate", "torn", "stale")


def some(random: Random, most: int) -> int:
    """A number of any order up to that one."""
    return random.randint(0, min(most, (1 << random.randint(0, most.bit_length())) - 1))


def control(random: Random) -> Live:
    """Counts of one style of a power control."""
    violated = random.choice((0, some(random, 255), random.randint(40, 90)))
    clean = random.choice((some(random, (1 << 20) - violated), random.randint(0, 300)))
    switches = random.randint(0, 2 * min(violated, clean) + 1) if violated and clean else int(bool(violated and clean))
    struck = violated + random.choice((0, 0, 3))
    batches = violated + clean + random.randint(0, 50) + 3
    blind = random.randint(0, 20)
    return Live(batches, violated + clean, violated, switches, blind, min(blind, random.choice((0, 0, 1))), struck)


def clean(live: int, random: Random) -> Live:
    """Counts of one style of a phase that was never violated."""
    return Live(batches=live + random.randint(0, 50), live=live, blind=random.randint(0, 20))


def record(spec: KernelSpec, random: Random) -> Record:
    """The account of a whole run, as far as a result code and a verdict that rests on one ask for it."""
    made: list[PhaseRecord] = []
    violated = random.random() < 0.25
    for phase in phases(spec):
        live: tuple[Live, ...] = ()
        if phase.counts_meetings:
            controls = [each for each in made if each.role is Role.POWER and each.live]
            live = _styles(phase, controls, random, violated=violated)
        made.append(_phase(phase, live, random, violated=violated))
    return Record(
        channel="serial",
        complete=True,
        gap="",
        contradiction="",
        build_id="",
        state=random.choice((KernelState.FINISHED, KernelState.FINISHED, KernelState.STOPPED)),
        cpus_found=spec.case.cpus,
        cpus_needed=spec.case.cpus,
        x2apic=0,
        boot_path=BootPath.UNKNOWN,
        clock=Clock.GUESS,
        khz=0,
        planned=len(made),
        lines=0,
        phase=len(made) - 1,
        phases=tuple(made),
        witnesses=(),
        faults=(),
        case=spec.name,
        digest=spec.digest(),
        closed=1,
        spec=spec.to_text(),
    )


def _styles(phase: Phase, controls: Sequence[PhaseRecord], random: Random, *, violated: bool) -> tuple[Live, ...]:
    if phase.role is Role.POWER:
        good = random.random() < 0.8
        drawn = tuple(control(random) for _ in Style)
        # one that says something, mostly; now and then one that was never violated at all
        if good:
            drawn = tuple(each if needed(each) else Live(*(150, 140, 70, 40, 5, 0, 75)) for each in drawn)
        elif random.random() < 0.5:
            drawn = tuple(clean(random.randint(95, 200), random) for _ in Style)
        return drawn
    asked = [[needed(each.live[style]) or 100 for each in controls] for style in Style]
    lives = [max(100, *wanted, 0) + random.choice((-3, -1, 0, 0, 1, 40)) for wanted in asked]
    if phase.role is Role.SANITY or not violated or random.random() < 0.5:
        return tuple(clean(live, random) for live in lives)
    return tuple(replace(clean(live, random), violated=1, switches=1, struck=1) for live in lives)


def _phase(phase: Phase, live: tuple[Live, ...], random: Random, *, violated: bool) -> PhaseRecord:
    events = sum(each.struck + each.blind_violated for each in live)
    judged = sum(each.batches + each.blind for each in live)
    rounds = max(phase.rounds, 2 * judged + some(random, 1 << 40))
    if not live:
        rounds = judged = phase.rounds or some(random, 1 << 20) + 1
        lossy = phase.role is Role.POWER or (phase.role is Role.CASE and violated)
        events = some(random, rounds // 4) if lossy else 0
    counts = dict.fromkeys(_KINDS, 0)
    kinds = [kind for kind in experiment_of(phase).kinds if kind in ("lost", "duplicate")] or ["torn"]
    while events > sum(counts.values()):
        counts[random.choice(kinds)] += random.randint(1, 3 * events) if live else 1 + (events - 1) // 2
    first = rounds // 3
    taken = rounds - counts["lost"] + counts["duplicate"] - first
    cpus = range(2, phase.cpus)
    rest = [Count(cpu, 0, taken if cpu == 2 else 0, rounds) for cpu in cpus]
    each = [Count(0, rounds, 0, 0), Count(1, 0, first, rounds), *rest]
    if live:
        each = [Count(cpu, rounds // phase.cpus or 1, 0, 0) for cpu in range(phase.cpus)]
    if phase.role in (Role.CASE, Role.PROOF) and random.random() < 0.1:
        idle = random.randrange(2, phase.cpus)
        each = [replace(count, puts=0, tries=0) if count.cpu == idle else count for count in each]
    return PhaseRecord(
        index=phase.index,
        role=phase.role,
        label=phase.label,
        address=RAM_ADDRESS if phase.target.address is None else phase.target.address + phase.offset,
        cells=phase.cells,
        limit=phase.rounds,
        status=random.choice((PhaseStatus.DONE if live or phase.rounds else PhaseStatus.STOPPED, PhaseStatus.LIMIT)),
        rounds=rounds,
        left=0,
        foreign=0,
        events=events,
        judged=judged,
        ticks=0,
        decode=Decode.IO if phase.target.vga else Decode.UNKNOWN,
        latency=0,
        counts=tuple(each),
        live=live,
        **counts,
    )


def block(layout: ResultsLayout, made: Record) -> bytes:
    """The phases of a record as the results block has them."""
    results: Any = layout.results()
    for phase in made.phases:
        row = results.phase[phase.index]
        for name in ("role", "status", "decode", "rounds", "events", "judged", "left", "foreign", *_KINDS):
            setattr(row, name, getattr(phase, name))
        for count in phase.counts:
            row.cpu[count.cpu] = (count.puts, count.takes, count.tries)
        row.styles = len(phase.live)
        for style, live in enumerate(phase.live):
            for item in fields(live):
                setattr(row.style[style], item.name, getattr(live, item.name))
    return bytes(results.phase)
