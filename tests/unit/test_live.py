"""The rule for ATOMIC: what live batches prove, against exact distributions and simulated chains."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction

import pytest
from draws import draws
from grouped import grouped
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import load

from kgen.evidence.records import PhaseRecord
from kgen.kernel.live import LEAST, MOST_VIOLATED, NEEDED, PAIR_LEAST, Live, design, least, missing, needed
from kgen.kernel.plan import may_be_silent, phases
from kgen.kernel.results_block import Role, Style
from kgen.verdict.proof import UNINTERRUPTED, Group, Weighed, findings, inconsistencies, lacks

GOOD = load("tcg-atomic")
PROOF, PAIR, SINGLE = 4, 2, 3
#: What lies outside an upper or a lower limit of one side.
TAIL = Fraction(1, 20)


def poisson_tail(seen: int, mean: int) -> Fraction:
    """Return the probability of ``seen`` events or more where ``mean`` are expected, and not less than that."""
    # e, rounded up: so e^-mean, and with it the sum that is left out, is rounded down
    euler = Fraction(271828182845904523537, 10**20)
    term, total = Fraction(1), Fraction(0)
    for count in range(1, seen):
        total += term
        term = term * mean / count
    total += term if seen else 0
    return 1 - total / euler**mean


def binomial_tail(seen: int, chances: int, rate: Fraction) -> Fraction:
    """Return the probability of ``seen`` events or more in so many chances."""
    return sum(
        (
            math.comb(chances, count) * rate**count * (1 - rate) ** (chances - count)
            for count in range(seen, chances + 1)
        ),
        Fraction(0),
    )


@grouped(((seen,) for seen in range(MOST_VIOLATED + 1)), by=lambda member: f"below {member[0] // 64 * 64 + 64}")
def test_the_least_number_lies_below_poissons_exact_limit(seen: int) -> None:
    """The exact limit is the mean by which so many or more are seen once in 20 times; a smaller mean, more seldom."""
    assert least(seen) >= 0
    assert not least(seen) or poisson_tail(seen, least(seen)) <= TAIL


@pytest.mark.parametrize("chances", [20, 100, 300])
def test_the_least_number_lies_below_the_exact_binomial_limit(chances: int) -> None:
    """Of Clopper and Pearson, one-sided."""
    for seen in range(0, min(chances, MOST_VIOLATED) + 1, max(1, chances // 25)):
        if least(seen):
            assert binomial_tail(seen, chances, Fraction(least(seen), chances)) <= TAIL


def test_the_least_number_is_of_use() -> None:
    """Zero would lie below every limit."""
    assert [seen for seen in range(MOST_VIOLATED + 1) if not least(seen)] == [0, 1, 2, 3, 4]
    assert [least(seen) for seen in (5, 10, 64, 255)] == [1, 4, 50, 227]
    for seen in range(1, MOST_VIOLATED + 1):
        assert 0 <= least(seen) - least(seen - 1) <= 1


def chain_of_states(rate: float, correlation: float, length: int, seed: int) -> Live:
    """Count a chain of two states, violated and not, as the kernel counts it."""
    random_source, state, last = random.Random(seed), False, False
    violated = switches = 0
    state = random_source.random() < rate
    for at in range(length):
        if at and random_source.random() >= correlation:
            state = random_source.random() < rate
        violated += state
        switches += bool(at) and state != last
        last = state
    return Live(batches=length, live=length, violated=violated, switches=switches)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_the_design_effect_is_that_of_a_chain_of_two_states(rate: float, correlation: float) -> None:
    """Of batches that resemble the one before with that correlation, (1 + r) / (1 - r) are worth one."""
    true = (1 + correlation) / (1 - correlation)
    found = [design(chain_of_states(rate, correlation, 4000, seed)) / 16 for seed in range(8)]
    assert sum(found) / len(found) == pytest.approx(true, rel=0.12, abs=0.12)


def test_the_design_effect_says_how_much_the_mean_varies() -> None:
    """Measured, not by formula: the variance of many chains' means by that of independent batches."""
    rate, correlation, length = 0.4, 0.5, 400
    chains = [chain_of_states(rate, correlation, length, seed) for seed in range(600)]
    means = [live.violated / length for live in chains]
    middle = sum(means) / len(means)
    variance = sum((mean - middle) ** 2 for mean in means) / (len(means) - 1)
    measured = variance / (rate * (1 - rate) / length)
    assert sum(design(live) for live in chains) / len(chains) / 16 == pytest.approx(measured, rel=0.2)


def test_batches_that_take_turns_are_worth_no_more_than_independent_ones() -> None:
    assert design(Live(batches=100, live=100, violated=50, switches=99)) == 16
    assert design(Live(batches=100, live=100, violated=50, switches=1)) > 16 * 90


def counted(live: int, violated: int, switches: int) -> Live:
    """A control's counts that agree with each other."""
    most = 2 * min(violated, live - violated) + 1
    return Live(batches=live, live=live, violated=violated, switches=min(switches, most), struck=violated)


LIVES = st.builds(
    lambda live, part, switches: counted(live, round(part * min(live, MOST_VIOLATED)), switches),
    st.integers(0, 1 << 20),
    st.floats(0, 1),
    st.integers(0, 300),
)


@settings(max_examples=draws(400), deadline=None)
@given(control=LIVES)
def test_what_is_needed_is_the_stated_rule(control: Live) -> None:
    """L >= 100 and L * q / d >= 14, q at most a half, in exact numbers; and one less is too few."""
    number = needed(control)
    if not least(control.violated):
        assert number is None
        return
    assert number is not None
    rate = min(Fraction(1, 2), Fraction(least(control.violated), control.live))

    def proves(live: int) -> bool:
        return live >= LEAST and live * rate / Fraction(design(control), 16) >= NEEDED

    assert proves(number)
    assert not proves(number - 1)


@settings(max_examples=draws(300), deadline=None)
@given(live=st.integers(10, 5000), violated=st.integers(0, MOST_VIOLATED - 1), switches=st.integers(0, 200))
def test_a_control_that_fails_more_often_never_asks_for_more(live: int, violated: int, switches: int) -> None:
    """By the rate alone: the design effect is the same."""
    if violated >= live // 2:
        return

    def by_rate(count: int) -> Fraction | None:
        return Fraction(least(count), live) if least(count) else None

    fewer, more = by_rate(violated), by_rate(violated + 1)
    assert fewer is None or (more is not None and more >= fewer)
    first, second = (needed(counted(live, count, live)) for count in (violated, violated + 1))
    if first is not None and design(counted(live, violated, live)) >= design(counted(live, violated + 1, live)):
        assert second is not None
        assert second <= first


@settings(max_examples=draws(300), deadline=None)
@given(case=st.integers(0, 3000), controls=st.lists(LIVES, max_size=3), more=st.integers(0, 3000))
def test_more_live_batches_never_lack_more(case: int, controls: list[Live], more: int) -> None:
    first, second = (missing(Live(live=live), controls) for live in (case, case + more))
    assert (first is None) is (second is None)
    assert first is None or second is None or 0 <= second <= first
    # and another control never makes it less
    others = missing(Live(live=case), [*controls, counted(200, 100, 100)])
    assert first is None or (others is not None and others >= first)


# --- a whole group -------------------------------------------------------------------------------------------------


def record(index: int, *styles: Live) -> PhaseRecord:
    memory = GOOD.observed().memory
    assert memory is not None
    return replace(memory.phases[index], live=styles)


def group(case: tuple[Live, Live], pair: tuple[Live, Live], single: tuple[Live, Live]) -> Group:
    planned = phases(GOOD.spec)
    made = {
        index: Weighed(planned[index], record(index, *styles))
        for index, styles in ((PROOF, case), (PAIR, pair), (SINGLE, single))
    }
    return Group(GOOD.spec, made[PROOF], (made[PAIR], made[SINGLE]), tuple(made.values()), 1_000_000)


def clean(live: int) -> Live:
    return Live(batches=live, live=live)


def proven(found: Group, *, in_turn: bool = False) -> bool:
    return not list(lacks(found, in_turn=in_turn))


STRONG = counted(100, 64, 50)


def test_the_phases_are_those_that_the_tests_mean() -> None:
    planned = phases(GOOD.spec)
    assert [planned[index].role for index in (PAIR, SINGLE, PROOF)] == [Role.POWER, Role.POWER, Role.PROOF]
    assert [may_be_silent(GOOD.spec, planned[index]) for index in (PAIR, SINGLE)] == [False, True]


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("live", [0, 1, 50, 99])
def test_below_the_least_number_in_a_style_nothing_is_proven(style: Style, live: int) -> None:
    """However strong the controls are."""
    counts = tuple(clean(live if each is style else 10**6) for each in Style)
    found = group((counts[0], counts[1]), (STRONG, STRONG), (STRONG, STRONG))
    assert not proven(found)
    (reason,) = lacks(found, in_turn=False)
    assert f"the proof needs {LEAST - live} {style.name.lower()} more" in reason
    assert proven(group((clean(LEAST), clean(LEAST)), (STRONG, STRONG), (STRONG, STRONG)))


PAIRS = st.tuples(LIVES, LIVES)


@settings(max_examples=draws(300), deadline=None)
@given(
    case=st.tuples(st.integers(0, 3000), st.integers(0, 3000)),
    pair=PAIRS,
    single=PAIRS,
    more=st.tuples(st.integers(0, 3000), st.integers(0, 3000)),
    in_turn=st.booleans(),
)
def test_more_live_batches_of_the_case_never_undo_a_proof(
    case: tuple[int, int], pair: tuple[Live, Live], single: tuple[Live, Live], more: tuple[int, int], in_turn: bool
) -> None:
    first = group((clean(case[0]), clean(case[1])), pair, single)
    second = group((clean(case[0] + more[0]), clean(case[1] + more[1])), pair, single)
    if proven(first, in_turn=in_turn):
        assert proven(second, in_turn=in_turn)
        assert min(case) >= LEAST


@settings(max_examples=draws(300), deadline=None)
@given(
    case=st.tuples(st.integers(0, 3000), st.integers(0, 3000)),
    pair=PAIRS,
    single=PAIRS,
    style=st.sampled_from(Style),
    control=st.sampled_from([PAIR, SINGLE]),
)
def test_a_control_that_is_violated_once_more_never_undoes_a_proof(
    case: tuple[int, int], pair: tuple[Live, Live], single: tuple[Live, Live], style: Style, control: int
) -> None:
    """One more violated live batch of a control that already counts, next to another violated one: never less proof."""
    cases = (clean(case[0]), clean(case[1]))
    before = {PAIR: list(pair), SINGLE: list(single)}
    old = before[control][style]
    if not least(old.violated) or old.violated + 1 > min(old.live // 2, MOST_VIOLATED):
        return
    new = replace(old, violated=old.violated + 1, struck=old.struck + 1)
    if design(new) > design(old):
        # it came in a burst: it may be worth less than what it adds
        return
    after = {index: list(styles) for index, styles in before.items()}
    after[control][style] = new

    def of(styles: dict[int, list[Live]]) -> Group:
        (free, race), (other_free, other_race) = styles[PAIR], styles[SINGLE]
        return group(cases, (free, race), (other_free, other_race))

    if proven(of(before)):
        assert proven(of(after))


def test_a_silent_single_instruction_beside_a_pair_that_fails() -> None:
    silent = (clean(LEAST), clean(LEAST))
    found = group((clean(300), clean(300)), (STRONG, STRONG), silent)
    assert proven(found)
    assert [control.phase.index for control in found.silent] == [SINGLE]
    assert next(findings(found)).startswith(UNINTERRUPTED)
    assert not proven(found, in_turn=True)


@pytest.mark.parametrize(
    ("pair", "single"),
    [
        ((STRONG, STRONG), (clean(LEAST - 1), clean(LEAST))),
        ((STRONG, STRONG), (clean(LEAST), replace(clean(LEAST), violated=1, struck=1))),
        ((STRONG, STRONG), (clean(LEAST), replace(clean(LEAST), struck=1))),
        ((STRONG, STRONG), (clean(LEAST), replace(clean(LEAST), blind=1, blind_violated=1))),
        ((clean(LEAST), clean(LEAST)), (clean(LEAST), clean(LEAST))),
        ((counted(LEAST, PAIR_LEAST - 1, 9), clean(LEAST)), (clean(LEAST), clean(LEAST))),
        ((clean(LEAST), clean(LEAST)), (STRONG, STRONG)),
    ],
    ids=["few", "violated", "violated, not live", "violated without tickets", "no pair", "a weak pair", "silent pair"],
)
def test_where_the_exception_does_not_hold(pair: tuple[Live, Live], single: tuple[Live, Live]) -> None:
    """A pair of instructions may never be silent, and a single one only where the pair was not."""
    found = group((clean(10**5), clean(10**5)), pair, single)
    assert not found.silent
    assert not proven(found)
    assert any(
        "which is too seldom to tell how often a defect would show" in reason for reason in lacks(found, in_turn=False)
    )


def test_five_violated_batches_of_a_pair_show_that_accesses_meet() -> None:
    few = (counted(LEAST, PAIR_LEAST, 9), clean(LEAST))
    silent = (clean(LEAST), clean(LEAST))
    assert group((clean(LEAST), clean(LEAST)), few, silent).silent


def test_how_long_the_rest_takes_is_told_by_what_was_counted() -> None:
    found = group((clean(50), clean(100)), (STRONG, STRONG), (STRONG, STRONG))
    ticks = sum(each.record.ticks for each in found.everyone)
    assert found.seconds(Style.FREE, 50) == pytest.approx(ticks / 10**9)
    (reason,) = lacks(found, in_turn=False)
    assert f"about {ticks / 10**9:.0f} s more here" in reason
    (none,) = lacks(group((clean(0), clean(100)), (STRONG, STRONG), (STRONG, STRONG)), in_turn=False)
    assert "how long that takes is not known" in none


@settings(max_examples=draws(200), deadline=None)
@given(
    style=st.sampled_from(Style),
    name=st.sampled_from(["batches", "live", "violated", "switches", "blind", "blind_violated", "struck"]),
    value=st.integers(0, 1 << 32),
)
def test_counts_agree_with_each_other_or_are_named(style: Style, name: str, value: int) -> None:
    """What a guest may say has an order and a sum; one number changed alone breaks one of them or stays within it."""
    memory = GOOD.observed().memory
    assert memory is not None
    old = memory.phases[PAIR]
    assert not list(inconsistencies(old, counts=True, abridged=False))
    new = tuple(replace(live, **{name: value}) if each == style else live for each, live in enumerate(old.live))
    live = new[style]
    agrees = (
        live.violated <= live.live <= live.batches
        and live.violated <= live.struck <= live.batches
        and live.blind_violated <= live.blind
        and live.switches <= 2 * min(live.violated, live.live - live.violated) + 1
        and sum(each.batches + each.blind for each in new) == old.judged
        and sum(each.struck + each.blind_violated for each in new) == old.events
    )
    assert bool(list(inconsistencies(replace(old, live=new), counts=True, abridged=False))) is not agrees
