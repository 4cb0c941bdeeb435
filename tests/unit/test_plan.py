"""Which phases a kernel runs, and that the case is the last of them."""

from __future__ import annotations

import pytest

from kgen.plan import CONTROL_ROUNDS, layout_of, phases
from kgen.results import Role
from kgen.spec import Case, KernelSpec, instructions, targets


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


@pytest.mark.parametrize("target", sorted(targets()))
@pytest.mark.parametrize("name", sorted(instructions()))
@pytest.mark.parametrize("lock", [True, False])
def test_every_plan_is_sound(name: str, target: str, lock: bool) -> None:
    for width in instructions()[name].widths:
        spec = KernelSpec(Case(name, width=width, lock=lock, target=target))
        made = phases(spec)
        assert [phase.index for phase in made] == list(range(len(made)))
        assert [phase.role for phase in made].count(Role.CASE) == 1
        assert made[-1].role is Role.CASE
        assert made[-1].form == spec.case.form
        assert made[-1].form.atomic is lock
        powers = [phase for phase in made if phase.role is Role.POWER]
        assert powers
        assert {phase.form for phase in powers} == set(instructions()[name].unlocked[width])
        assert all(phase.target == made[-1].target and not phase.form.atomic for phase in powers)
        assert all(phase.target.name == "ram" and phase.form.atomic for phase in made if phase.role is Role.SANITY)
        # only a power control may end before its rounds are over
        assert all(bool(phase.enough) == (phase.role is Role.POWER) for phase in made)
        assert len({phase.label for phase in made}) == len(made)
        assert layout_of(spec).phases == len(made)
