"""The contents of the page for one case: the reasons of the verdict, counters, controls, rates, witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kgen.evidence.kvm_trace import remarks
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.evidence.records import PhaseRecord, Witness
from kgen.evidence.scene import Scene
from kgen.experiments import ORIGINAL, experiments
from kgen.kernel.plan import Phase, decisive, experiment_of, phases_of
from kgen.kernel.results_block import Decode
from kgen.report.html import lanes
from kgen.report.html.chart import Strip, strips
from kgen.report.html.heat import style_of
from kgen.report.html.rates import RateRow, rate_rows
from kgen.report.results.model import Result
from kgen.report.text.case import experiment_told, explanations, mark, meaning, summary
from kgen.report.text.scene import cell_lines, cpu_lines, timeline_lines
from kgen.verdict.model import ControlResult
from kgen.wording import plural

#: CPUs whose counters are shown, lines of the kernel's log, notes, controls, and witnesses in a table.
_CPUS = 16
_LOG_LINES = 16
_NOTES = 40
_CONTROLS = 40


@dataclass(frozen=True)
class Table:
    """A table."""

    caption: str
    #: The names of the columns.
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    #: The columns that are set to the right.
    numbers: frozenset[int] = frozenset()
    #: What was left out, "" where nothing was.
    more: str = ""


@dataclass(frozen=True)
class Lanes:
    """A chart, and its content in words."""

    strips: tuple[Strip, ...]
    table: Table | None
    #: The kinds of violation in it, each with what it means.
    meanings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SceneView:
    """The scene of a violation."""

    chart: Lanes | None
    #: Headings, each with its lines of text.
    parts: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class CaseView:
    """One case, ready for the page."""

    anchor: str
    #: Its id, or "" where the request is unknown.
    name: str
    platform: str
    kind: str
    style: str
    reason: str
    why: tuple[str, ...]
    counters: Table | None
    path: str
    controls: Table | None
    rates: tuple[RateRow, ...]
    unit: str
    witnesses: Lanes | None
    scene: SceneView | None
    trace: Lanes | None


def _own(result: Result) -> set[int]:
    """Return the indexes of the phases whose violations are the case's."""
    return {phase.index for phase in decisive(result.spec, result.number)} if result.spec else set()


def case_view(result: Result, anchor: str) -> CaseView:
    """Return everything about one case."""
    spec, seen, verdict = result.spec, result.observation, result.verdict
    phase = phases_of(spec, result.number)[-1] if spec else None
    experiment = experiment_of(phase) if phase else None
    name = experiment.name if experiment else ORIGINAL
    record = result.phase_record
    alone = not result.suite
    return CaseView(
        anchor=anchor,
        name=result.case,
        platform=seen.platform,
        kind=verdict.kind.name,
        style=style_of(verdict.kind),
        reason=verdict.reason,
        why=_why(result),
        counters=_counters(record, name) if record else _rows(seen),
        path=_path(seen, phase, record, alone) if phase else "",
        controls=_controls(result),
        rates=rate_rows(result),
        unit=experiment.units if experiment else "rounds",
        witnesses=_witnesses(
            verdict.witnesses, experiment_told(spec, verdict.witnesses, phase) if phase and spec else name
        ),
        scene=_scene(seen.scene, seen) if seen.scene and seen.scene.witness.phase in _own(result) else None,
        trace=_trace(seen) if alone else None,
    )


def _why(result: Result) -> tuple[str, ...]:
    """Return sentences on the verdict, at most _NOTES of them."""
    spec, verdict = result.spec, result.verdict
    found = verdict.notes if spec is None else explanations(spec, verdict, result.number)
    logged = () if result.suite else (result.observation.kernel_log or ())
    found += tuple(f"the kernel under it logged: {line}" for line in logged[:_LOG_LINES])
    rest = len(found) - _NOTES
    return (*found[:_NOTES], f"and {rest} more") if rest > 0 else found


def _counters(record: PhaseRecord, experiment: str) -> Table:
    """Return what each CPU did."""
    counts = record.counts[:_CPUS]
    rest = len(record.counts) - len(counts)
    kind = experiments()[experiment]
    if kind.tabled:
        rows = [
            (
                f"CPU {count.cpu}",
                "consumer" if count.cpu else "producer",
                *map(str, (count.puts, count.takes, count.tries)),
            )
            for count in counts
        ]
        put = sum(count.puts for count in record.counts)
        taken = sum(count.takes for count in record.counts)
        rows.append(("put \u2212 taken", "", "", str(put - taken), ""))
        columns: tuple[str, ...] = ("", "role", "put", "taken", "exchanges")
    else:
        columns = ("", kind.units, *([kind.takes] if kind.takes else []))
        rows = [(f"CPU {count.cpu}", *map(str, (count.puts, count.takes)[: len(columns) - 1])) for count in counts]
    return Table(
        caption="What each CPU did",
        columns=columns,
        rows=tuple(rows),
        numbers=frozenset(range(2 if kind.tabled else 1, len(columns))),
        more=f"{plural(rest, 'more CPU')}" if rest > 0 else "",
    )


def _rows(seen: Observation) -> Table | None:
    """Return the original's table, for results that hold no other counters."""
    if not seen.rows:
        return None
    rows = tuple(tuple(map(str, row)) for row in seen.rows[-2:])
    columns = ("count0", "count1", "count2", "count0 \u2212 (count1 + count2)")
    return Table("The last rows of the table that was printed", columns, rows, frozenset(range(4)))


def _path(seen: Observation, phase: Phase, record: PhaseRecord | None, alone: bool) -> str:
    """Return what backs the cells, with the source of that statement."""
    path = seen.path if alone else seen.paths.get(phase.index, NOT_ASKED)
    if path == NOT_ASKED and record is not None and record.decode is not Decode.UNKNOWN:
        return f"{record.decode.name.lower()}: by the guest's own probe of VGA; there is no other source"
    return f"{path.kind}: {path.line.strip()}" if path.line.strip() else path.kind


def _control(control: ControlResult, stopped: bool) -> tuple[str, str, str, str]:
    # only the last column is wrapped, and a file may hold a text of any length
    power = f"; violated in {control.power}" if control.power else ""
    outcome = f"{control.unit}: {mark(control, stopped)}{power}"
    return control.label, summary(control.violations), str(control.rounds), outcome


def _controls(result: Result) -> Table | None:
    found = result.verdict.controls
    if not found:
        return None
    rest = len(found) - _CONTROLS
    stopped = result.observation.scene is not None
    shown = found[:_CONTROLS]
    return Table(
        caption="Controls: sanity must pass, power must fail",
        columns=("control", "seen", "in", "of, and is"),
        numbers=frozenset({2}),
        rows=tuple(_control(each, stopped) for each in shown),
        more=f"{plural(rest, 'more control')}" if rest > 0 else "",
    )


def _witnesses(witnesses: Sequence[Witness], experiment: str) -> Lanes | None:
    shown = lanes.in_order(witnesses)
    chart = lanes.of_witnesses(shown, experiment)
    if chart is None:
        return None
    rest = len(witnesses) - len(shown)
    table = Table(
        caption="The witnesses in words",
        columns=("round", "cell", "kind", experiments()[experiment].token_name, "found", "CPUs"),
        rows=tuple(
            (
                str(each.round),
                str(each.cell),
                each.kind.name.lower(),
                f"{each.token:08x}",
                f"{each.value:08x}",
                " and ".join(str(cpu) for cpu in (each.cpu, each.other) if cpu is not None),
            )
            for each in shown
        ),
        numbers=frozenset({0, 1}),
        more=f"{plural(rest, 'more witness')} in the result" if rest > 0 else "",
    )
    kinds = sorted({each.kind for each in shown})
    return Lanes(strips(chart), table, tuple((kind.name.lower(), meaning(kind, experiment)) for kind in kinds))


def _scene(scene: Scene, seen: Observation) -> SceneView:
    """Return the machine at the first violation."""
    chart = lanes.of_scene(scene)
    khz = seen.best.khz if seen.best else 0
    parts = [("The cell", tuple(cell_lines(scene.cell)))]
    parts += [(f"CPU {cpu.cpu}" if cpu.cpu is not None else "a CPU", tuple(cpu_lines(cpu))) for cpu in scene.cpus]
    told = ("In words (where there is a *, the order between CPUs is open)", tuple(timeline_lines(scene, khz)))
    return SceneView(Lanes(strips(chart), None) if chart else None, (told, *parts))


def _trace(seen: Observation) -> Lanes | None:
    names = seen.best.cpu_numbers if seen.best else {}
    chart = lanes.of_trace(seen.trace, names)
    return Lanes(strips(chart), _accesses(seen, names)) if chart else None


def _accesses(seen: Observation, names: dict[int, int]) -> Table:
    def rows() -> Iterator[tuple[str, ...]]:
        trace = seen.trace[: lanes.COLUMNS]
        for event, remark in zip(trace, remarks(trace), strict=True):
            value = "" if event.kind == "ask" else f"{event.value:08x}"
            at = f"{1000 * (event.seconds - trace[0].seconds):.3f}"
            yield at, f"CPU {names.get(event.cpu, event.cpu)}", event.kind, value, remark

    rest = len(seen.trace) - lanes.COLUMNS
    return Table(
        caption="The accesses in words",
        columns=("ms", "CPU", "access", "value", ""),
        rows=tuple(rows()),
        numbers=frozenset({0}),
        more=f"{plural(rest, 'more access')} in the result" if rest > 0 else "",
    )
