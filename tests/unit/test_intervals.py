"""The limits of a rate: against the binomial distribution itself, and against published values."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import document, runs_of, with_scene

from kgen.report.html.rates import level, overall, percent, rate_rows
from kgen.report.statistics import rate


def at_least(events: int, chances: int, value: float) -> float:
    """The probability of so many events or more, exactly."""
    part = Fraction(value)
    return float(sum(math.comb(chances, k) * part**k * (1 - part) ** (chances - k) for k in range(events, chances + 1)))


@settings(max_examples=50, deadline=None)
@given(chances=st.integers(1, 120), data=st.data())
def test_the_limits_leave_a_fortieth_on_either_side(chances: int, data: st.DataObject) -> None:
    events = data.draw(st.integers(1, chances))
    found = rate(events, chances)
    assert found is not None
    assert found.low <= found.value <= found.high
    assert at_least(events, chances, found.low) == pytest.approx(0.025, rel=1e-4)
    if events < chances:
        assert 1 - at_least(events + 1, chances, found.high) == pytest.approx(0.025, rel=1e-4)
    else:
        assert found.high == 1.0


@pytest.mark.parametrize(
    ("events", "chances", "low", "high"),
    [(1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 100, 0.0490, 0.1762), (50, 1000, 0.0373, 0.0654)],
)
def test_values_that_stand_in_tables(events: int, chances: int, low: float, high: float) -> None:
    found = rate(events, chances)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(("events", "chances"), [(100_000, 10_000_000), (100_000, 200_001), (100_000, 1 << 40)])
def test_the_normal_distribution_takes_over_without_a_step(events: int, chances: int) -> None:
    before, after = rate(events, chances), rate(events + 1, chances)
    assert before is not None
    assert after is not None
    assert after.low == pytest.approx(before.low, rel=1e-4)
    assert after.high == pytest.approx(before.high, rel=1e-4)


def test_nothing_seen_is_the_verdicts_own_bound() -> None:
    (run,) = runs_of(document("tcg-atomic"))
    (result,) = run.results
    seen = overall(result)
    assert seen is not None
    assert (seen.low, seen.high) == (0.0, result.verdict.bound)
    assert {row.limits for row in rate_rows(result)} == {f"below {percent(seen.high)}"}


@pytest.mark.parametrize(("events", "chances"), [(-1, 10), (11, 10), (0, 0), (1, -1), (1, 1 << 60)])
def test_counts_that_make_no_sense_have_no_rate(events: int, chances: int) -> None:
    assert rate(events, chances) is None


def test_the_rows_of_a_run() -> None:
    (run,) = runs_of(document("kvm-lost"))
    (result,) = run.results
    rows = {row.kind: row for row in rate_rows(result)}
    assert rows["any"].count == sum(result.verdict.violations.values())
    for kind, count in result.verdict.violations.items():
        assert rows[kind].count == count
        assert rows[kind].rate == rate(count, result.verdict.judged)
    assert rows["lost"].limits == f"{percent(rows['lost'].rate.low)} to {percent(rows['lost'].rate.high)}"  # type: ignore[union-attr]


def test_several_updates_of_one_cell_are_at_most_as_many_cells() -> None:
    (run,) = runs_of(document("kvm-suite"))
    counters = [each for each in run.results if each.case.endswith(".counter") and each.verdict.violations.get("lost")]
    assert counters
    for result in counters:
        lost = next(row for row in rate_rows(result) if row.kind == "lost")
        assert lost.at_most
        assert lost.seen.startswith("at most ")
        assert lost.limits.startswith("below ")


def test_a_run_that_stopped_because_of_what_it_saw_has_no_rate() -> None:
    ((result,),) = (run.results for run in runs_of(with_scene()))
    assert overall(result) is None
    assert {row.limits for row in rate_rows(result)} == {"not known"}


def test_numbers_for_people() -> None:
    told = [percent(value) for value in (0.0, 1.0, 0.121, 0.0003, 0.00000003, 0.5)]
    assert told == ["0 %", "100 %", "12 %", "0.03 %", "3.0e-06 %", "50 %"]
    assert [level([rate(events, 10_000)]) for events in (0, 9, 10, 100, 1000)] == [1, 1, 2, 3, 4]
    assert level([None]) == 1
