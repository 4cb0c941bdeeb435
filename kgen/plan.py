"""From a specification to the phases one boot runs: sanity control, power controls, then the case."""

from __future__ import annotations

from dataclasses import dataclass

from kgen.instructions import Form
from kgen.results import ResultsLayout, Role, results_layout
from kgen.spec import KernelSpec, instructions, resolve_target
from kgen.targets import MemoryTarget

#: Rounds of a control when the case itself has no end.
CONTROL_ROUNDS = 10_000
#: A power control may stop after so many violations: what it showed by then it would also have shown by the end.
POWER_ENOUGH = 64


@dataclass(frozen=True)
class Phase:
    """One experiment run. ``rounds`` 0 means until stopped; ``cells`` is the batch size; ``enough``, if not 0, is the
    number of violations that end it early."""

    index: int
    role: Role
    form: Form
    target: MemoryTarget
    rounds: int
    cells: int
    enough: int

    @property
    def label(self) -> str:
        """What it is, for people and for the log: ``power:mov-mov.32@vga-text``."""
        return f"{self.role.name.lower()}:{self.form.name}@{self.target.name}"


def phases(spec: KernelSpec) -> tuple[Phase, ...]:
    """The phases of the kernel, in the order they run. The case is the last: the machine is frozen inside it."""
    case = spec.case
    target = resolve_target(case.target)
    ram = resolve_target("ram")
    entry = instructions()[case.instruction]
    wanted: list[tuple[Role, Form, MemoryTarget, int]] = []
    if spec.controls:
        controlled = spec.rounds or CONTROL_ROUNDS
        # A case on RAM is its own sanity control, unless it is the unlocked form.
        if target != ram or not case.lock:
            wanted.append((Role.SANITY, entry.locked[case.width], ram, controlled))
        wanted += [(Role.POWER, form, target, controlled) for form in entry.unlocked[case.width]]
    wanted.append((Role.CASE, case.form, target, spec.rounds))
    return tuple(
        Phase(index, role, form, where, rounds, spec.cells, POWER_ENOUGH if role is Role.POWER else 0)
        for index, (role, form, where, rounds) in enumerate(wanted)
    )


def layout_of(spec: KernelSpec) -> ResultsLayout:
    """The results block of that kernel."""
    return results_layout(cpus=spec.case.cpus, phases=len(phases(spec)))
