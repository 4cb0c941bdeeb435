"""Charts of lanes: what is marked where, for every kind of violation, and how a long chart is cut into strips."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import runs_of, with_scene
from recordings import load

from kgen.evidence.kvm_trace import TraceEvent
from kgen.evidence.records import Witness
from kgen.evidence.scene import SceneEvent
from kgen.kernel.results_block import ViolationKind
from kgen.report.html import lanes
from kgen.report.html.chart import Chart, Mark, strips

LOST, DUPLICATE, TORN, STALE = ViolationKind
EXPERIMENTS = ("token", "counter", "mutex")


def witness(kind: ViolationKind, cpu: int | None, other: int | None = None, number: int = 1) -> Witness:
    return Witness(0, 3, kind, number, 0, 0x9E3779B1, 0, cpu, other, 0)


def drawn(chart: Chart | None) -> list[tuple[str, str, str]]:
    """The marks: the name of the lane, the shape, the word."""
    assert chart is not None
    return [(chart.lanes[mark.lane], mark.shape, mark.text) for mark in chart.marks]


def test_what_became_of_a_token() -> None:
    put = ("CPU 0", "put", "put")
    lost = lanes.of_witnesses([witness(LOST, 0)], "token")
    assert drawn(lost) == [put, ("cell", "gone", "lost")]
    assert lost is not None
    assert [link.broken for link in lost.links] == [True]
    twice = lanes.of_witnesses([witness(DUPLICATE, 1, 2)], "token")
    assert drawn(twice) == [put, ("CPU 1", "take", "taken"), ("CPU 2", "again", "again")]
    assert twice is not None
    assert [link.broken for link in twice.links] == [False]
    assert drawn(lanes.of_witnesses([witness(TORN, 2)], "token")) == [("CPU 2", "wrong", "found")]
    assert drawn(lanes.of_witnesses([witness(TORN, None)], "token")) == [("cell", "wrong", "torn")]
    stale = drawn(lanes.of_witnesses([witness(STALE, 0)], "token"))
    assert stale == [("CPU 0", "wrong", "found"), ("cell", "full", "full")]


def test_where_there_are_no_tokens() -> None:
    chart = lanes.of_witnesses([witness(LOST, None)], "counter")
    assert drawn(chart) == [("cell", "gone", "lost")]
    found = drawn(lanes.of_witnesses([witness(DUPLICATE, 4, 2)], "mutex"))
    assert found == [("CPU 4", "take", "had it"), ("CPU 2", "take", "had it"), ("cell", "again", "twice")]
    assert lanes.of_witnesses([], "token") is None


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            witness,
            st.sampled_from(ViolationKind),
            st.none() | st.integers(-1, 1 << 32),
            st.none() | st.integers(0, 40),
            st.integers(0, 10**6),
        ),
        max_size=80,
    ),
    st.sampled_from(EXPERIMENTS),
)
def test_every_mark_is_in_its_chart(found: list[Witness], experiment: str) -> None:
    shown = lanes.in_order(found)
    assert len(shown) == min(len(found), lanes.COLUMNS)
    assert all(first.round <= second.round for first, second in itertools.pairwise(shown))
    chart = lanes.of_witnesses(shown, experiment)
    if chart is None:
        assert not found
        return
    assert len(chart.heads) == len(chart.feet) == len(shown)
    assert all(0 <= mark.lane < len(chart.lanes) and 0 <= mark.column < len(shown) for mark in chart.marks)
    assert {mark.column for mark in chart.marks} == set(range(len(shown)))
    parts = strips(chart)
    assert sum(len(part.marks) for part in parts) == len(chart.marks)
    for part in parts:
        assert all(0 < mark.x < part.width and 0 < mark.y < part.height for mark in part.marks)
        assert part.width <= 660


def test_events_of_one_step_stand_beside_each_other() -> None:
    own = {"phase": 3, "batch": 1, "cell": 0, "value": 0, "tsc": None, "text": ""}
    steps = [(0, 0, "batch"), (1, 1, "empty"), (1, 1, "parked"), (1, 2, "empty"), (2, 0, "read")]
    timeline = tuple(SceneEvent(step, cpu, kind, **own) for step, cpu, kind in steps)  # type: ignore[arg-type]
    ((result,),) = (run.results for run in runs_of(with_scene()))
    assert result.observation.scene is not None
    chart = lanes.of_scene(replace(result.observation.scene, timeline=timeline))
    assert chart is not None
    assert chart.heads == ("step 1", "step 2", "step 2", "step 3")
    assert [(mark.column, chart.lanes[mark.lane]) for mark in chart.marks] == [
        (0, "CPU 0"),
        (1, "CPU 1"),
        (2, "CPU 1"),
        (1, "CPU 2"),
        (3, "CPU 0"),
    ]


def test_accesses_are_those_of_the_guests_cpus() -> None:
    trace = tuple(TraceEvent(at, cpu, "write", 0, 32, 1, at) for at, cpu in enumerate((0, 1)))
    chart = lanes.of_trace(trace, {0: 2, 1: 0})
    assert drawn(chart) == [("CPU 2", "take", "write"), ("CPU 0", "take", "write")]
    assert lanes.of_trace((), {}) is None


@pytest.mark.parametrize(("columns", "parts"), [(1, 1), (8, 1), (9, 2), (64, 8)])
def test_a_long_chart_is_cut(columns: int, parts: int) -> None:
    marks = tuple(Mark(column, 0, "put", "a word too long for its place") for column in range(columns))
    chart = Chart("t", "s", ("CPU 0",), ("",) * columns, (("", ""),) * columns, marks, ())
    made = strips(chart)
    assert len(made) == parts
    assert all(mark.text.endswith("\u2026") for part in made for mark in part.marks)


def test_the_recorded_runs_have_their_charts() -> None:
    for name in ("kvm-lost", "tcg-no-lock"):
        seen = load(name).observed()
        assert seen.best is not None
        assert lanes.of_witnesses(lanes.in_order(seen.best.witnesses), "token") is not None
