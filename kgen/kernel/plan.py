"""From a specification to the phases of one boot. For each case: the sanity control, the power controls, the case."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from kgen.experiments import ORIGINAL, Experiment, Work, experiments
from kgen.instructions import Form, instructions
from kgen.kernel.results_block import (
    LAYOUT_VERSION,
    LAYOUT_WITHOUT_MEETINGS,
    WITNESSES_IN_SUITE,
    WITNESSES_PER_KIND,
    ResultsLayout,
    Role,
    results_layout,
)
from kgen.spec.case import Case, alignment, proof_of, resolve_target, stride
from kgen.spec.kernel_spec import RULES, KernelSpec
from kgen.targets import MemoryTarget

#: Rounds of a control when the case itself has no end.
CONTROL_ROUNDS = 10_000
#: A power control may stop after this many violations: more would prove no more.
POWER_ENOUGH = 64
#: In a suite, this many violations are enough for a power control, and for a case whose verdict they decide.
POWER_ENOUGH_IN_SUITE = 10
CASE_ENOUGH_IN_SUITE = 8
#: This many violated batches end a case that goes on until its proof is reached, and a proof phase before its case.
CASE_ENOUGH = 64
PROOF_ENOUGH = 8


@dataclass(frozen=True)
class Phase:
    """One run of an experiment."""

    index: int
    role: Role
    #: The index of its case; of the first of them, where several share a sanity control.
    case: int
    form: Form
    target: MemoryTarget
    #: The bytes from the target's beginning to the first cell.
    offset: int
    experiment: str
    cpus: int
    #: N; 0 for a phase that goes on until it is stopped or its proof is reached. The least N where it is ``adaptive``.
    rounds: int
    #: Of a batch.
    cells: int
    #: The number of events that ends it early, 0 for none.
    enough: int
    #: Whether the case goes on as long as its power controls did.
    adaptive: bool
    #: The index of the first phase of those that take turns with it, batch by batch.
    group: int
    #: Whether the kernel counts in which of its batches operations of different CPUs met.
    counts_meetings: bool

    @property
    def label(self) -> str:
        """Its name for people and for the log: ``power:mov-mov.32@vga-text``, ``case:add.32@ram+63/counter``."""
        place = f"{self.target.name}+{self.offset}" if self.offset else self.target.name
        how = "" if self.experiment == ORIGINAL else f"/{self.experiment}"
        return f"{self.role.name.lower()}:{self.form.name}@{place}{how}"

    @property
    def stride(self) -> int:
        """The distance between cells in bytes."""
        return stride(self.target, self.offset, self.form.width)

    @property
    def length(self) -> int:
        """The bytes from the first cell's beginning to the last one's end."""
        return (self.cells - 1) * self.stride + self.form.width // 8

    @property
    def aligned(self) -> bool:
        """Whether each cell is aligned."""
        return alignment(self.target, self.offset, self.form.width) == "aligned"


def phases(spec: KernelSpec) -> tuple[Phase, ...]:
    """Return the phases of the kernel, in the order they run.

    The machine is frozen in the last of them, which is a case.
    """
    return _plan(spec)[0]


def phases_of(spec: KernelSpec, case: int) -> tuple[Phase, ...]:
    """Return the phases that the verdict on one case rests on, the case itself last.

    Cases may share a sanity control.
    """
    return _plan(spec)[1][case]


def work_of(phase: Phase, instruction: str) -> Work:
    """Return what the CPUs do in a phase of a case of that instruction."""
    return experiment_of(phase).work(instructions()[instruction], phase.form, phase.cpus, phase.cells)


def may_be_silent(spec: KernelSpec, phase: Phase) -> bool:
    """Return whether a phase is a power control of one instruction, and there is another of several instructions. Where
    the machine never interrupts an instruction, with LOCK or without, the former cannot fail."""
    first, *others = spec.cases[phase.case].unlocked
    return phase.role is Role.POWER and phase.form in others and phase.form != first


def experiment_of(phase: Phase) -> Experiment:
    """Return the experiment of a phase."""
    return experiments()[phase.experiment]


@functools.lru_cache(maxsize=8)
def _plan(spec: KernelSpec) -> tuple[tuple[Phase, ...], tuple[tuple[Phase, ...], ...]]:
    """Return all phases in order, and those of each case."""
    made: list[Phase] = []
    by_case: list[tuple[Phase, ...]] = []
    sanities: dict[object, Phase] = {}
    for number, case in enumerate(spec.cases):
        own: list[Phase] = []
        proof = proof_of(case) if _wants_proof(spec) else ""
        # the case comes last, because the machine is frozen in it
        for experiment, part in _parts(spec, case, proof):
            first = len(made)
            walk = experiments()[experiment].walk and spec.rules == RULES
            to_proof = goes_on_to_proof(spec, case, experiment)
            for role, form, target in part:
                key = (form.name, experiment, case.offset)
                if role is Role.SANITY and key in sanities:
                    own.append(sanities[key])
                    continue
                phase = Phase(
                    index=len(made),
                    role=role,
                    case=number,
                    form=form,
                    target=target,
                    offset=case.offset,
                    experiment=experiment,
                    cpus=case.cpus,
                    rounds=_rounds(spec, role, to_proof=to_proof),
                    cells=spec.cells_of(case, target, experiment),
                    enough=_enough(spec, role, to_proof=to_proof),
                    adaptive=bool(spec.budget) and role is not Role.SANITY and not walk,
                    group=first if walk else len(made),
                    counts_meetings=walk,
                )
                made.append(phase)
                own.append(phase)
                if role is Role.SANITY:
                    sanities[key] = phase
        by_case.append(tuple(own))
    return tuple(made), tuple(by_case)


_Part = list[tuple[Role, Form, MemoryTarget]]


def _parts(spec: KernelSpec, case: Case, proof: str) -> Iterator[tuple[str, _Part]]:
    """Yield the phases of a case in the order they run, by experiment. Those of a walk take turns. Where the verdict
    also rests on another experiment, that one comes first and the power controls are its own."""
    target = resolve_target(case.target)
    ram = resolve_target("ram")
    controls: _Part = []
    if spec.controls:
        # A case on RAM is its own sanity control, unless its form is unlocked.
        if target != ram or not case.lock:
            controls.append((Role.SANITY, case.locked, ram))
        controls += [(Role.POWER, form, target) for form in case.unlocked]
    if not proof:
        yield case.experiment, [*controls, (Role.CASE, case.form, target)]
        return
    yield case.experiment, [part for part in controls if part[0] is Role.SANITY]
    yield proof, [*controls, (Role.PROOF, case.form, target)]
    yield case.experiment, [(Role.CASE, case.form, target)]


def _wants_proof(spec: KernelSpec) -> bool:
    """Return whether cases have phases that can prove them. Without controls nothing can be proven."""
    return spec.rules == RULES and spec.controls


def decisive(spec: KernelSpec, case: int = -1) -> tuple[Phase, ...]:
    """Return the phases whose violations make a case NOT_ATOMIC, by default the kernel's last case: the case and,
    before it, the other phase that its verdict rests on. They are the last of the case's phases."""
    return tuple(phase for phase in phases_of(spec, case) if phase.role in (Role.PROOF, Role.CASE))


def goes_on_to_proof(spec: KernelSpec, case: Case, experiment: str) -> bool:
    """Return whether the phases of a case that run an experiment go on until the proof is reached. An experiment that
    has another one for its proof, such as the token experiment, runs the requested number of rounds."""
    proof = experiment == (proof_of(case) or case.experiment) and experiments()[experiment].walk
    return proof and spec.rules == RULES and bool(spec.proof_seconds or spec.budget)


def _rounds(spec: KernelSpec, role: Role, *, to_proof: bool) -> int:
    """Return the least number of rounds of a phase, 0 for one that goes on until its proof is reached or it is
    stopped."""
    if to_proof:
        return 0
    return spec.rounds if role is Role.CASE else spec.rounds or CONTROL_ROUNDS


def _enough(spec: KernelSpec, role: Role, *, to_proof: bool) -> int:
    if role is Role.POWER:
        return POWER_ENOUGH_IN_SUITE if spec.budget else POWER_ENOUGH
    if spec.budget and role in (Role.PROOF, Role.CASE):
        return CASE_ENOUGH_IN_SUITE
    return {Role.PROOF: PROOF_ENOUGH, Role.CASE: CASE_ENOUGH}.get(role, 0) if to_proof else 0


def layout_of(spec: KernelSpec) -> ResultsLayout:
    """Return the results block of that kernel."""
    witnesses = WITNESSES_IN_SUITE if spec.budget else WITNESSES_PER_KIND
    version = LAYOUT_VERSION if spec.rules == RULES else LAYOUT_WITHOUT_MEETINGS
    return results_layout(cpus=spec.case.cpus, phases=len(phases(spec)), witnesses=witnesses, version=version)


def work_in(spec: KernelSpec, phase: Phase) -> Work:
    return work_of(phase, spec.cases[phase.case].instruction)
