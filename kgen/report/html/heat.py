"""The matrix as a heat map: a row for each case, a column for each target of a run, a colour and a word in each
cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kgen.instructions import Source, instructions
from kgen.report.html.rates import level, overall, percent
from kgen.report.results.model import Result, Run
from kgen.report.text.suite import SIGNS, lies_of
from kgen.spec import Case
from kgen.verdict.model import VerdictKind

_TITLES = {"aligned": "Aligned", "misaligned": "Misaligned within a cache line"}

#: The places of results in the page, by the number of the run and the case's id.
Anchors = Mapping[tuple[int, str], str]


@dataclass(frozen=True)
class HeatCell:
    """One case in one run."""

    #: Names the style.
    colour: str
    #: The verdict.
    sign: str
    #: How often violations were seen.
    rate: str
    #: Their kinds.
    kinds: str
    #: All of it in words.
    title: str
    #: Where the details are, "" where there are none.
    anchor: str


@dataclass(frozen=True)
class HeatRow:
    """One row of a map."""

    #: What the CPUs did.
    name: str
    #: On how many bits.
    width: int
    #: How many rows, from this one on, share ``name``; 0 where an earlier row has it.
    span: int
    #: The result in each column, None where the run does not have the case.
    cells: tuple[HeatCell | None, ...]


@dataclass(frozen=True)
class HeatMap:
    """One map."""

    title: str
    #: The runs, each with the number of its columns.
    groups: tuple[tuple[str, int], ...]
    #: The targets.
    columns: tuple[str, ...]
    rows: tuple[HeatRow, ...]


def heat_maps(runs: Sequence[Run], labels: Sequence[str], anchors: Anchors) -> tuple[HeatMap, ...]:
    """Return a map for each kind of alignment.

    ``labels`` name the runs; ``anchors`` lead to the results that are shown in full.
    """
    found: dict[str, dict[tuple[str, int], dict[tuple[int, str], Result]]] = {}
    for number, run in enumerate(runs):
        for result, case in _cases(run):
            rows = found.setdefault(lies_of(case), {})
            place = f"{case.target}+{case.offset}" if case.offset else case.target
            rows.setdefault((row_name(case), case.width), {})[number, place] = result
    return tuple(_map(_TITLES.get(lies, f"Across a {lies}"), rows, labels, anchors) for lies, rows in found.items())


def _cases(run: Run) -> list[tuple[Result, Case]]:
    return [(result, result.spec.cases[result.number]) for result in run.results if result.spec]


def row_name(case: Case) -> str:
    """Return what the CPUs do, without width and target."""
    first = instructions()[case.instruction].sources[0]
    how = "" if Source(case.source) is first else f" {case.source}"
    return f"{case.instruction}{how}{'' if case.lock else ' without LOCK'}, {case.experiment}"


def _map(
    title: str,
    rows: Mapping[tuple[str, int], Mapping[tuple[int, str], Result]],
    labels: Sequence[str],
    anchors: Anchors,
) -> HeatMap:
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    columns.sort(key=lambda column: column[0])
    names = list(dict.fromkeys(name for name, _ in rows))
    made: list[HeatRow] = []
    for name in names:
        widths = sorted({width for other, width in rows if other == name})
        for at, width in enumerate(widths):
            cells = rows[name, width]
            shown = tuple(
                heat_cell(result, anchors.get((column[0], result.case), "")) if (result := cells.get(column)) else None
                for column in columns
            )
            made.append(HeatRow(name, width, len(widths) if not at else 0, shown))
    groups = tuple(
        (labels[number], sum(column[0] == number for column in columns))
        for number in dict.fromkeys(column[0] for column in columns)
    )
    return HeatMap(title, groups, tuple(target for _, target in columns), tuple(made))


def heat_cell(result: Result, anchor: str) -> HeatCell:
    """Return the map's cell for one case."""
    verdict = result.verdict
    bad = verdict.kind is VerdictKind.NOT_ATOMIC
    seen = overall(result) if bad else None
    kinds = [kind for kind, count in verdict.violations.items() if count] if bad else []
    return HeatCell(
        colour=f"{style_of(verdict.kind)}{f' l{level([seen])}' if bad else ''}",
        sign=SIGNS[verdict.kind],
        rate=percent(seen.value) if seen else "",
        kinds="".join(kind[:1].upper() for kind in kinds),
        title=f"{result.case}: {verdict.kind.name}: {verdict.reason}",
        anchor=anchor,
    )


def style_of(kind: VerdictKind) -> str:
    """Return the name of a verdict's colours in the style sheet."""
    return f"v-{kind.name.lower().replace('_', '-')}"
