"""The model of one round of tokens, held against another way of writing it, and what it says of every order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgen.errors import SpecError
from kgen.experiments import Poll
from kgen.interleave import model
from kgen.interleave.model import (
    SHAPES,
    Exploration,
    Kind,
    Point,
    Step,
    Trial,
    Window,
    completed,
    count,
    follow,
    kind_of,
    outcome_of,
    schedules,
    shape_of,
)
from kgen.interleave.report import examples, heading, listing, remarks, summary, to_json
from kgen.interleave.stepper import spec_of, window_of
from kgen.kernel.plan import phases
from kgen.kernel.results_block import Role
from kgen.spec import Case, KernelSpec

TOKEN = 0x9E3779B1
WHOLE, SPLIT, COMPARED = SHAPES
#: Windows that are small enough to be gone through in no time.
windows = st.builds(
    Window,
    shape=st.sampled_from(SHAPES),
    reads_first=st.tuples(st.booleans(), st.booleans()),
    token=st.just(TOKEN),
    bound=st.sampled_from((0, 1)),
)


class Shared:
    """What the CPUs of the oracle share."""

    def __init__(self) -> None:
        self.cell = 0
        self.filled = False
        self.old = 0
        self.got: dict[int, int] = {}
        self.tries: Counter[int] = Counter()


def exchange(shared: Shared, kind: tuple[Kind, ...], new: int) -> Generator[None, None, int]:
    """One exchange as a program would make it; it yields before each access."""
    if kind == WHOLE:
        yield
        found, shared.cell = shared.cell, new
        return found
    if kind == SPLIT:
        yield
        found = shared.cell
        yield
        shared.cell = new
        return found
    expected = 0
    while True:
        yield
        if shared.cell == expected:
            shared.cell = new
            return expected
        expected = shared.cell


def producer(shared: Shared, window: Window) -> Generator[None, None, None]:
    shared.old = yield from exchange(shared, window.shape, window.token)
    shared.filled = True


def consumer(shared: Shared, window: Window, cpu: int) -> Generator[None, None, None]:
    while True:
        saw = shared.filled
        if window.reads_first[cpu - 1]:
            yield
            if not shared.cell and not saw:
                continue
        found = yield from exchange(shared, window.shape, 0)
        shared.tries[cpu] += 1
        if found or saw:
            shared.got[cpu] = found
            return


def oracle(window: Window, schedule: tuple[int, ...]) -> tuple[Shared, list[int]]:
    """The experiment as programs that take turns: how it ends, and what the cell held after each access."""
    shared = Shared()
    programs = [producer(shared, window), *(consumer(shared, window, cpu) for cpu in range(1, window.cpus))]
    cells = []
    for program in programs:
        next(program)
    for cpu in schedule:
        next(programs[cpu], None)
        cells.append(shared.cell)
    assert all(program.gi_frame is None for program in programs), "the schedule ends before the programs do"
    return shared, cells


def held_against_the_oracle(window: Window, schedule: tuple[int, ...]) -> None:
    accesses, world = follow(window, schedule)
    said = outcome_of(window, world)
    shared, cells = oracle(window, schedule)
    consumers = range(1, window.cpus)
    assert [access.cell for access in accesses] == cells
    assert (said.cell, said.old) == (shared.cell, shared.old)
    assert said.takes == tuple(shared.got[cpu] for cpu in consumers)
    assert said.tries == tuple(shared.tries[cpu] for cpu in consumers)
    takers = sum(take == window.token for take in shared.got.values())
    assert said.lost == (takers == 0 and shared.cell == 0)
    assert said.duplicate == max(0, takers - 1)


@given(window=windows, data=st.data())
def test_any_order_ends_as_programs_that_take_turns_do(window: Window, data: st.DataObject) -> None:
    unbounded = replace(window, bound=data.draw(st.sampled_from((None, 3))))
    begun = data.draw(st.lists(st.integers(0, 2), max_size=12))
    schedule: tuple[int, ...] = ()
    world = unbounded.begin()
    for cpu in begun:
        if cpu in unbounded.ready(world):
            world, _ = unbounded.step(world, cpu)
            schedule += (cpu,)
    held_against_the_oracle(unbounded, completed(unbounded, schedule))


@settings(max_examples=12, deadline=None)
@given(window=windows)
def test_every_schedule_is_there_once_and_is_whole(window: Window) -> None:
    found = list(schedules(window))
    assert len(found) == len(set(found)) == count(window)
    assert found == sorted(found)
    for schedule in found:
        held_against_the_oracle(window, schedule)
        assert completed(window, schedule) == schedule


@pytest.mark.parametrize(
    ("shape", "reads_first", "bound", "wanted"),
    [
        # all orders of 2 + 2 accesses in which the second consumer's try is over: by hand, 6 = 4! / (2! 2!)
        (SPLIT, (False, False), 0, {"fine": 2, "duplicate": 4}),
        (SPLIT, (False, True), 1, {"fine": 104, "lost": 288, "duplicate": 108}),
        (SPLIT, (False,), 1, {"fine": 4, "lost": 2}),
        (WHOLE, (False, False), 0, {"fine": 2}),
        (WHOLE, (False, True), 2, {"fine": 57}),
        (COMPARED, (False, True), 1, {"fine": 50}),
    ],
)
def test_what_a_window_holds(
    shape: tuple[Kind, ...], reads_first: tuple[bool, ...], bound: int, wanted: dict[str, int]
) -> None:
    """An exchange of one instruction never fails, a pair loses tokens and duplicates them."""
    window = Window(shape, reads_first, TOKEN, bound)
    outcomes = [outcome_of(window, follow(window, schedule)[1]) for schedule in schedules(window)]
    assert Counter(outcome.name for outcome in outcomes) == wanted
    assert not any(outcome.stale or outcome.left or outcome.old for outcome in outcomes)


def test_a_window_too_large_to_go_through_is_counted() -> None:
    assert count(Window(SPLIT, (False, True, False), TOKEN, 1)) == 2_197_814


def test_what_cannot_be_counted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST_WORLDS", 1000)
    with pytest.raises(SpecError, match="too many schedules"):
        count(Window(SPLIT, (False, True, False), TOKEN, 1))
    with pytest.raises(SpecError, match="too many schedules"):
        count(Window(SPLIT, (False,) * 7, TOKEN, 1))


@pytest.mark.parametrize(("schedule", "words"), [((0, 0, 0), "nothing more to do"), ((0, 3), "the CPUs are 0 to 2")])
def test_a_schedule_that_cannot_be(schedule: tuple[int, ...], words: str) -> None:
    with pytest.raises(SpecError, match="step ") as caught:
        completed(Window(SPLIT, (False, True), TOKEN, None), schedule)
    assert words in caught.value.line


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("mov edx, dword ptr [edi]", Kind.READ),
        ("movzx eax, byte ptr [edi]", Kind.READ),
        ("mov word ptr [edi], ax", Kind.WRITE),
        ("xchg dword ptr [edi], eax", Kind.EXCHANGE),
        ("lock cmpxchg dword ptr [edi], edx", Kind.COMPARE),
        ("mov eax, edx", None),
        ("ret", None),
        ("mov eax, dword ptr [esi]", None),
    ],
)
def test_what_a_statement_does_with_the_cell(statement: str, kind: Kind | None) -> None:
    assert kind_of(statement) is kind


def test_a_routine_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(SpecError, match="not one the model knows"):
        shape_of(("mov edx, dword ptr [edi]", "lock cmpxchg dword ptr [edi], edx"))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case("inc"), "counter"),
        (Case("bts", experiment="token"), "sets and clears"),
        (Case("cmpxchg8b", experiment="token"), "64 bits"),
        (Case("xchg", target="edu"), "not known beforehand"),
    ],
)
def test_a_case_that_cannot_be_interleaved(case: Case, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        window_of(spec_of(case, KernelSpec(case).poll), 1)


# --- what people are told ---------------------------------------------------------------------------------------


def trial(window: Window, schedule: tuple[int, ...], *disagreements: str) -> Trial:
    """As a machine that does what the model says would make it."""
    accesses, world = follow(window, schedule)
    steps = tuple(Step(access, Point(0x100000, "mov", access.kind, "eax")) for access in accesses)
    outcome = outcome_of(window, world)
    return Trial(schedule, steps, outcome, "NOT_ATOMIC" if outcome.violated else "INCONCLUSIVE", disagreements)


PAIR = Window(SPLIT, (False, False), TOKEN, 1)
LOST = (0, 1, 0, 1, 1, 1, 2, 2)
TWICE = (0, 0, 1, 2, 1, 2)


def test_remarks_point_at_what_went_wrong() -> None:
    assert remarks(trial(PAIR, LOST))[2:4] == [
        "the token is put",
        "overwrites the token, which was put after CPU 1 had read",
    ]
    assert remarks(trial(PAIR, TWICE))[2:] == ["CPU 1 has the token", "CPU 2 has the token, as CPU 1 had", "", ""]
    # what only looked has taken nothing, and an order that is fine has nothing to be remarked on
    fine = trial(Window(WHOLE, (True, False), TOKEN, 1), (0, 1, 2, 1))
    assert remarks(fine) == ["the token is put", "only looks", "CPU 2 has the token", ""]


def test_a_listing_tells_what_each_step_did() -> None:
    lines = listing(trial(PAIR, TWICE)).splitlines()
    assert lines[0] == "  --schedule 0,0,1,2,1,2"
    assert lines[5].split()[:2] == ["4", "2"]
    assert "9e3779b1" in lines[5]
    assert lines[-1].endswith("CPU 1 and 2 took the token, the cell is empty: duplicate; the verdict is NOT_ATOMIC")


def test_an_exploration_says_how_much_was_tried_and_what_came_of_it() -> None:
    found = Exploration(total=4)
    assert not found.exhausted
    for schedule in (LOST, TWICE, LOST):
        found = found.having(trial(PAIR, schedule))
    assert "tried 3 of 4 schedules: --limit left 1 out" in summary(found)
    found = found.having(trial(PAIR, TWICE, "lost: the model says 1, the guest 0"))
    assert (found.exhausted, found.disagreements, dict(found.outcomes)) == (True, 1, {"lost": 2, "duplicate": 1})
    told = "\n".join(examples(found))
    assert "lost: the model says 1, the guest 0" in told
    assert found.first["lost"].schedule == LOST
    spec = KernelSpec(Case("xchg", lock=False), rounds=1)
    assert '"evidence_about_lock": false' in to_json(spec, PAIR, found, ("kgen", "interleave"))
    assert "4 schedules, the first 2" in heading(spec, "mov-mov.32", PAIR, 4, 2)


@pytest.mark.parametrize("lock", [True, False])
def test_the_kernel_has_no_phase_but_the_one_that_is_stepped(lock: bool) -> None:
    """One that had controls would run what its verdict rests on as well."""
    spec = spec_of(Case("xchg", lock=lock), Poll.BOTH)
    assert [phase.role for phase in phases(spec)] == [Role.CASE]
    assert Role.PROOF in [phase.role for phase in phases(replace(spec, controls=True))]
