"""From a specification to the phases one boot runs: sanity control, power controls, then the case, for each case."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from kgen.experiments import Experiment, Work
from kgen.instructions import Form
from kgen.results import WITNESSES_IN_SUITE, WITNESSES_PER_KIND, ResultsLayout, Role, results_layout
from kgen.spec import KernelSpec, alignment, experiments, instructions, resolve_target, stride
from kgen.targets import MemoryTarget

#: Rounds of a control when the case itself has no end.
CONTROL_ROUNDS = 10_000
#: A power control may stop after so many violations: what it showed by then it would also have shown by the end.
POWER_ENOUGH = 64
#: In a suite: so many are enough for a power control, and for a case whose verdict they decide.
POWER_ENOUGH_IN_SUITE = 10
CASE_ENOUGH_IN_SUITE = 8


@dataclass(frozen=True)
class Phase:
    """One experiment run. ``case`` is the index of the case it belongs to (the first of them, where several share a
    sanity control), ``offset`` is in bytes from where the target begins. ``rounds`` 0 means until stopped; ``cells`` is
    the batch size; ``enough``, if not 0, is the number of events that end it early. Where it is ``adaptive``
    ``rounds`` is the least: a case goes on as long as its power controls did."""

    index: int
    role: Role
    case: int
    form: Form
    target: MemoryTarget
    offset: int
    experiment: str
    cpus: int
    rounds: int
    cells: int
    enough: int
    adaptive: bool

    @property
    def label(self) -> str:
        """What it is, for people and for the log: ``power:mov-mov.32@vga-text``, ``case:add.32@ram+63/counter``."""
        place = f"{self.target.name}+{self.offset}" if self.offset else self.target.name
        how = "" if self.experiment == "token" else f"/{self.experiment}"
        return f"{self.role.name.lower()}:{self.form.name}@{place}{how}"

    @property
    def stride(self) -> int:
        """The distance between cells in bytes."""
        return stride(self.target, self.offset, self.form.width)

    @property
    def length(self) -> int:
        """Bytes from the first cell's begin to the last one's end."""
        return (self.cells - 1) * self.stride + self.form.width // 8

    @property
    def aligned(self) -> bool:
        """Whether each cell is."""
        return alignment(self.target, self.offset, self.form.width) == "aligned"


def phases(spec: KernelSpec) -> tuple[Phase, ...]:
    """The phases of the kernel, in the order they run. The machine is frozen in the last of them, which is a case."""
    return _plan(spec)[0]


def phases_of(spec: KernelSpec, case: int) -> tuple[Phase, ...]:
    """The phases that the verdict on one case rests on, the case itself last. Cases may share a sanity control."""
    return _plan(spec)[1][case]


def work_of(phase: Phase, instruction: str) -> Work:
    """What the CPUs do in a phase of a case of that instruction."""
    return experiment_of(phase).work(instructions()[instruction], phase.form, phase.cpus, phase.cells)


def experiment_of(phase: Phase) -> Experiment:
    """The experiment it runs."""
    return experiments()[phase.experiment]


@functools.lru_cache(maxsize=8)
def _plan(spec: KernelSpec) -> tuple[tuple[Phase, ...], tuple[tuple[Phase, ...], ...]]:
    """All phases in order, and those of each case."""
    made: list[Phase] = []
    by_case: list[tuple[Phase, ...]] = []
    sanities: dict[object, Phase] = {}
    ram = resolve_target("ram")
    for number, case in enumerate(spec.cases):

        def run(role: Role, form: Form, target: MemoryTarget, rounds: int, number: int = number) -> Phase:
            case = spec.cases[number]
            phase = Phase(
                index=len(made),
                role=role,
                case=number,
                form=form,
                target=target,
                offset=case.offset,
                experiment=case.experiment,
                cpus=case.cpus,
                rounds=rounds,
                cells=spec.cells_of(case, target),
                enough=_enough(spec, role),
                adaptive=bool(spec.budget) and role is not Role.SANITY,
            )
            made.append(phase)
            return phase

        target = resolve_target(case.target)
        own: list[Phase] = []
        if spec.controls:
            rounds = spec.rounds or CONTROL_ROUNDS
            # A case on RAM is its own sanity control, unless it is the unlocked form.
            if target != ram or not case.lock:
                key = (case.locked.name, case.experiment, case.offset)
                if key not in sanities:
                    sanities[key] = run(Role.SANITY, case.locked, ram, rounds)
                own.append(sanities[key])
            own += [run(Role.POWER, form, target, rounds) for form in case.unlocked]
        own.append(run(Role.CASE, case.form, target, spec.rounds))
        by_case.append(tuple(own))
    return tuple(made), tuple(by_case)


def _enough(spec: KernelSpec, role: Role) -> int:
    if role is Role.POWER:
        return POWER_ENOUGH_IN_SUITE if spec.budget else POWER_ENOUGH
    return CASE_ENOUGH_IN_SUITE if spec.budget and role is Role.CASE else 0


def layout_of(spec: KernelSpec) -> ResultsLayout:
    """The results block of that kernel."""
    witnesses = WITNESSES_IN_SUITE if spec.budget else WITNESSES_PER_KIND
    return results_layout(cpus=spec.case.cpus, phases=len(phases(spec)), witnesses=witnesses)
