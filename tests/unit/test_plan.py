"""Which phases a kernel runs, and that the case is the last of them."""

from __future__ import annotations

import pytest

from kgen.instructions import Source
from kgen.plan import CASE_ENOUGH_IN_SUITE, CONTROL_ROUNDS, POWER_ENOUGH_IN_SUITE, layout_of, phases, phases_of
from kgen.results import WITNESSES_IN_SUITE, WITNESSES_PER_KIND, Role
from kgen.spec import MAX_BATCH, Case, KernelSpec, instructions, resolve_target, targets


def labels(**fields: object) -> list[str]:
    rest = {name: fields.pop(name) for name in ("rounds", "controls") if name in fields}
    return [phase.label for phase in phases(KernelSpec(Case("xchg", **fields), **rest))]  # type: ignore[arg-type]


def test_controls_come_first() -> None:
    assert labels() == [
        "sanity:xchg.32@ram",
        "power:mov-mov.32@vga-text",
        "power:cmpxchg.32.nolock@vga-text",
        "case:xchg.32@vga-text",
    ]
    assert labels(controls=False) == ["case:xchg.32@vga-text"]


def test_a_locked_case_on_ram_is_its_own_sanity_control() -> None:
    assert [label.split(":")[0] for label in labels(target="ram")] == ["power", "power", "case"]
    assert labels(target="ram", lock=False)[0] == "sanity:xchg.32@ram"


def test_without_lock_the_sanity_control_keeps_it() -> None:
    assert labels(lock=False)[0] == "sanity:xchg.32@ram"
    assert labels(lock=False)[-1] == "case:mov-mov.32@vga-text"


@pytest.mark.parametrize("rounds", [0, 1, 77])
def test_rounds(rounds: int) -> None:
    made = phases(KernelSpec(Case("xchg"), rounds=rounds))
    assert made[-1].rounds == rounds
    assert {phase.rounds for phase in made[:-1]} == {rounds or CONTROL_ROUNDS}


FORMS = [
    (name, width, source.value)
    for name, entry in sorted(instructions().items())
    for source, widths in entry.opcodes.items()
    for width in sorted(widths)
]


@pytest.mark.parametrize("target", sorted(targets()))
@pytest.mark.parametrize(("name", "width", "source"), FORMS)
@pytest.mark.parametrize("lock", [True, False])
def test_every_plan_is_sound(name: str, width: int, source: str, target: str, lock: bool) -> None:
    if width // 8 > resolve_target(target).reach:
        return
    entry = instructions()[name]
    spec = KernelSpec(Case(name, width=width, source=source, lock=lock, target=target))
    made = phases(spec)
    assert phases_of(spec, 0) == made
    assert [phase.index for phase in made] == list(range(len(made)))
    assert [phase.role for phase in made].count(Role.CASE) == 1
    assert made[-1].role is Role.CASE
    assert made[-1].form == spec.case.form
    assert made[-1].form.lock is (lock and entry.lockable)
    assert {(phase.case, phase.experiment, phase.cpus, phase.offset) for phase in made} == {(0, entry.experiment, 3, 0)}
    powers = [phase for phase in made if phase.role is Role.POWER]
    assert powers
    assert {phase.form for phase in powers} == set(entry.unlocked(width, Source(source)))
    assert all(phase.target == made[-1].target and not phase.form.lock for phase in powers)
    sanities = [phase for phase in made if phase.role is Role.SANITY]
    assert len(sanities) == int(target != "ram" or not lock)
    assert all(phase.target.name == "ram" and phase.form == spec.case.locked for phase in sanities)
    # only a power control may end before its rounds are over, and only a suite's N grows
    assert all(bool(phase.enough) == (phase.role is Role.POWER) for phase in made)
    assert not any(phase.adaptive for phase in made)
    assert len({phase.label for phase in made}) == len(made)
    assert layout_of(spec).phases == len(made)
    for phase in made:
        assert 1 <= phase.cells <= MAX_BATCH
        assert phase.length <= phase.target.reach
        assert phase.aligned == (phase.target.page_offset % (width // 8) == 0)


def suite(*cases: Case, **fields: object) -> KernelSpec:
    return KernelSpec(cases[0], more=cases[1:], suite="mine", budget=10, **fields)  # type: ignore[arg-type]


def test_the_cases_of_a_suite_share_sanity_controls() -> None:
    """One form in one experiment at one alignment is seen on RAM once."""
    cases = (
        Case("xchg"),
        Case("xchg", target="pc-testdev"),
        Case("xchg", offset=63),
        Case("xchg", lock=False),
        Case("xchg", experiment="mutex"),
        Case("xchg", width=16),
        Case("xchg", target="ram"),
    )
    spec = suite(*cases)
    assert [phase.label for phase in phases(spec) if phase.role is Role.SANITY] == [
        "sanity:xchg.32@ram",
        "sanity:xchg.32@ram+63",
        "sanity:xchg.32@ram/mutex",
        "sanity:xchg.16@ram",
    ]
    own = [phases_of(spec, number) for number in range(len(cases))]
    assert [made[0].index for made in own[:2]] == [0, 0]
    assert own[3][0] is own[0][0]
    assert own[6][0].role is Role.POWER
    assert [made[-1].label for made in own] == [
        "case:xchg.32@vga-text",
        "case:xchg.32@pc-testdev",
        "case:xchg.32@vga-text+63",
        "case:mov-mov.32@vga-text",
        "case:xchg.32@vga-text/mutex",
        "case:xchg.16@vga-text",
        "case:xchg.32@ram",
    ]
    assert {phase for made in own for phase in made} == set(phases(spec))
    assert [phase.index for phase in phases(spec)] == list(range(len(phases(spec))))
    for number, made in enumerate(own):
        assert made[-1].role is Role.CASE
        assert {phase.case for phase in made if phase.role is not Role.SANITY} == {number}
        assert all(phase.case <= number for phase in made)


def test_in_a_suite_the_power_controls_decide_how_long() -> None:
    made = phases(suite(Case("xchg"), Case("add"), rounds=500))
    for phase in made:
        assert phase.adaptive == (phase.role is not Role.SANITY)
        assert phase.rounds == 500
        assert (
            phase.enough
            == {Role.SANITY: 0, Role.POWER: POWER_ENOUGH_IN_SUITE, Role.CASE: CASE_ENOUGH_IN_SUITE}[phase.role]
        )
    assert layout_of(suite(Case("xchg"))).witnesses == WITNESSES_IN_SUITE
    assert layout_of(KernelSpec(Case("xchg"))).witnesses == WITNESSES_PER_KIND


def test_without_controls_there_is_a_phase_for_each_case() -> None:
    made = phases(suite(Case("xchg"), Case("add"), controls=False))
    assert [(phase.role, phase.case) for phase in made] == [(Role.CASE, 0), (Role.CASE, 1)]
