"""The witnesses of a case, the scene and the accesses that a hypervisor recorded, as charts of lanes."""

from __future__ import annotations

from collections.abc import Sequence

from kgen.evidence.kvm_trace import TraceEvent, remarks
from kgen.evidence.records import Witness
from kgen.evidence.scene import Scene, SceneEvent
from kgen.experiments import experiments
from kgen.kernel.results_block import ViolationKind
from kgen.report.html.chart import Chart, Link, Mark, Shape, lane_names
from kgen.wording import plural

#: The most lanes of CPUs. Events of other CPUs are in the table.
_LANES = 12
#: The most witnesses, events and accesses that are drawn.
COLUMNS = 64

_EVENTS: dict[str, tuple[Shape, str]] = {
    "witness": ("gone", "records"),
    "batch": ("note", "opens"),
    "put": ("put", "puts"),
    "take": ("take", "takes"),
    "empty": ("empty", "empty"),
    "work": ("take", "works"),
    "parked": ("rest", "parked"),
    "read": ("empty", "reads"),
}
#: The mark of a cell where there are no tokens.
_UPDATES: dict[ViolationKind, tuple[Shape, str]] = {
    ViolationKind.LOST: ("gone", "lost"),
    ViolationKind.DUPLICATE: ("again", "twice"),
    ViolationKind.TORN: ("wrong", "torn"),
    ViolationKind.STALE: ("full", "stale"),
}
_ACCESSES: dict[str, tuple[Shape, str]] = {"ask": ("note", "asks"), "read": ("empty", ""), "write": ("take", "")}


def in_order(witnesses: Sequence[Witness]) -> tuple[Witness, ...]:
    """Return the witnesses by their round, at most as many as are drawn."""
    return tuple(sorted(witnesses, key=lambda each: (each.round, each.index))[:COLUMNS])


def of_witnesses(witnesses: Sequence[Witness], experiment: str) -> Chart | None:
    """Return a chart with one column for each witness: the history of its token or, where there are no tokens, of its
    cell. None where there are no witnesses.

    In the token experiment CPU 0 puts and the others take. The last lane is the cell.
    """
    if not witnesses:
        return None
    token = experiments()[experiment].tabled
    seen = [cpu for each in witnesses for cpu in (each.cpu, each.other)] + ([0] if token else [])
    cpus, more = lane_names(seen, _LANES)
    lane = {cpu: at for at, cpu in enumerate(cpus)}
    cell = len(cpus)
    marks: list[Mark] = []
    links: list[Link] = []
    for column, witness in enumerate(witnesses):
        own = _of_token(witness, column, lane, cell) if token else _of_update(witness, column, lane, cell)
        marks += own
        lanes = [mark.lane for mark in own]
        if len(set(lanes)) > 1:
            links.append(Link(column, min(lanes), max(lanes), witness.kind is ViolationKind.LOST))
    what = "token" if token else "cell"
    left_out = f"; {plural(more, 'further CPU')} only in the table" if more else ""
    return Chart(
        title=f"{plural(len(witnesses), 'witness')} in the order of their rounds",
        story=f"One column a witness: what happened to the {what}, in the lanes of the CPUs involved"
        f"{left_out}. The table below says the same in words.",
        lanes=(*(f"CPU {cpu}" for cpu in cpus), "cell"),
        heads=tuple(f"#{witness.round}" for witness in witnesses),
        feet=tuple((witness.kind.name.lower(), f"{witness.token:08x}") for witness in witnesses),
        marks=tuple(marks),
        links=tuple(links),
    )


def _lanes_of(lane: dict[int, int], *cpus: int | None) -> list[int]:
    """Return the lanes of these CPUs, each once; some CPUs have none."""
    return [lane[cpu] for cpu in dict.fromkeys(cpus) if cpu is not None and cpu in lane]


def _of_token(witness: Witness, column: int, lane: dict[int, int], cell: int) -> list[Mark]:
    """Return what happened to a token, in order."""
    producer = [Mark(column, at, "put", "put") for at in _lanes_of(lane, 0)]
    if witness.kind is ViolationKind.LOST:
        return [*producer, Mark(column, cell, "gone", "lost")]
    if witness.kind is ViolationKind.DUPLICATE:
        first, *again = _lanes_of(lane, witness.cpu, witness.other) or [cell]
        return [*producer, Mark(column, first, "take", "taken"), *(Mark(column, at, "again", "again") for at in again)]
    found = [Mark(column, at, "wrong", "found") for at in _lanes_of(lane, witness.cpu)]
    if witness.kind is ViolationKind.TORN:
        return found or [Mark(column, cell, "wrong", "torn")]
    return [*found, Mark(column, cell, "full", "full")]


def _of_update(witness: Witness, column: int, lane: dict[int, int], cell: int) -> list[Mark]:
    """Return marks for the CPUs that took part in a violation of a cell."""
    shape, word = _UPDATES[witness.kind]
    involved = [Mark(column, at, "take", "had it") for at in _lanes_of(lane, witness.cpu, witness.other)]
    return [*involved, Mark(column, cell, shape, word)]


def of_scene(scene: Scene) -> Chart | None:
    """Return a chart of the events that led to the scene's violation, from the opening of its batch on; None where
    there are none. Events of one step are side by side: the order between their CPUs is unknown."""
    opened = [at for at, event in enumerate(scene.timeline) if event.kind == "batch"]
    events = scene.timeline[opened[-1] if opened else 0 :][:COLUMNS]
    if not events:
        return None
    cpus, _ = lane_names([event.cpu for event in events], _LANES)
    lane = {cpu: at for at, cpu in enumerate(cpus)}
    places = _places(events)
    heads, feet = [""] * (max(places) + 1), [("", "")] * (max(places) + 1)
    for event, column in zip(events, places, strict=True):
        heads[column] = f"step {event.step - events[0].step + 1}"
        if event.value is not None and event.kind != "empty":
            feet[column] = (f"{event.value:08x}", "")
    return Chart(
        title="How the violation happened",
        story="From left to right in order of time. In columns of the same step the order between CPUs is unknown.",
        lanes=tuple(f"CPU {cpu}" for cpu in cpus),
        heads=tuple(heads),
        feet=tuple(feet),
        marks=tuple(
            Mark(column, lane[event.cpu], *_EVENTS[event.kind])
            for event, column in zip(events, places, strict=True)
            if event.cpu in lane and event.cpu is not None
        ),
        links=(),
    )


def _places(events: Sequence[SceneEvent]) -> list[int]:
    """Return a column for each event: those of one step share columns, but a CPU's own follow each other."""
    found: list[int] = []
    first = 0
    for at, event in enumerate(events):
        if at and event.step != events[at - 1].step:
            first = max(found) + 1
        own = [place for other, place in zip(events, found, strict=False) if other.cpu == event.cpu and place >= first]
        found.append(max(own) + 1 if own else first)
    return found


def of_trace(trace: Sequence[TraceEvent], names: dict[int, int]) -> Chart | None:
    """Return the accesses to one cell as the hypervisor's kernel recorded them, None where there are none.

    ``names`` are the guest's numbers of the CPUs by the hypervisor's.
    """
    shown = trace[:COLUMNS]
    if not shown:
        return None
    cpus, _ = lane_names([names.get(event.cpu, event.cpu) for event in shown], _LANES)
    lane = {cpu: at for at, cpu in enumerate(cpus)}
    start = shown[0].seconds
    marks = []
    for column, event in enumerate(shown):
        shape, word = _ACCESSES[event.kind]
        cpu = names.get(event.cpu, event.cpu)
        if cpu in lane:
            marks.append(Mark(column, lane[cpu], shape, word or event.kind))
    told = [at for at, remark in enumerate(remarks(shown)) if remark]
    return Chart(
        title="What the hypervisor did to the cell",
        story="One column an access, in order of time; 'between' marks one that came between two halves of another.",
        lanes=tuple(f"CPU {cpu}" for cpu in cpus),
        heads=tuple(f"{1000 * (event.seconds - start):.3f}" for event in shown),
        feet=tuple(
            ("" if event.kind == "ask" else f"{event.value:08x}", "between" if at in told else "")
            for at, event in enumerate(shown)
        ),
        marks=tuple(marks),
        links=(),
    )
