"""One case of a run: its best record, matched with the plan."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.evidence.observation import Observation
from kgen.evidence.records import FaultRecord, PhaseRecord, Record, Witness
from kgen.experiments import Experiment
from kgen.kernel.plan import Phase, experiment_of, phases_of
from kgen.kernel.results_block import Decode, KernelState, PhaseStatus, Role, ViolationKind
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.verdict import proof
from kgen.wording import plural

#: Statuses of a phase that ended with all CPUs parked and every token accounted for.
ACCOUNTED = frozenset({PhaseStatus.DONE, PhaseStatus.STOPPED, PhaseStatus.LIMIT})


#: A control with such a status counts, even where it ended before its planned number of rounds.
CAME_OUT = frozenset({PhaseStatus.DONE, PhaseStatus.LIMIT})


#: States of a kernel that ended in order.
ENDED = frozenset({KernelState.FINISHED, KernelState.STOPPED})


@dataclass(frozen=True)
class Run:
    """One case and its controls, matched with the plan."""

    spec: KernelSpec
    observation: Observation
    record: Record
    #: The case's index in the kernel.
    number: int
    planned: tuple[Phase, ...]
    found: Mapping[int, PhaseRecord]

    @property
    def case(self) -> Phase:
        return self.planned[-1]

    @property
    def experiment(self) -> Experiment:
        return experiment_of(self.case)

    @property
    def weighed(self) -> Phase:
        """The phase whose live batches are the proof: the case, or the phase that stands in for it."""
        return next((phase for phase in self.planned if phase.role is Role.PROOF), self.case)

    @property
    def stands_in(self) -> bool:
        """Whether ``weighed`` is not the case itself."""
        return self.weighed is not self.case

    @functools.cached_property
    def group(self) -> proof.Group | None:
        """The phases that took turns for the proof, None where the weighed phase was not recorded."""
        together = [
            proof.Weighed(phase, self.found[phase.index])
            for phase in self.planned
            if phase.counts_meetings and phase.experiment == self.weighed.experiment and phase.index in self.found
        ]
        case = next((each for each in together if each.phase is self.weighed), None)
        if case is None:
            return None
        controls = tuple(each for each in together if each.phase.role is Role.POWER)
        return proof.Group(self.spec, case, controls, tuple(together), self.record.khz)

    @property
    def locked(self) -> bool:
        return self.spec.cases[self.number].lock

    @property
    def case_record(self) -> PhaseRecord | None:
        return self.found.get(self.case.index)

    @property
    def is_last(self) -> bool:
        """Whether the machine was frozen in this case."""
        return self.number == len(self.spec.cases) - 1

    @functools.cached_property
    def told(self) -> Phase:
        """The phase whose violations the verdict counts: the case, or the phase that stands in for it where only that
        one has any."""
        only = self.stands_in and not any(self._kinds(self.case).values()) and any(self._kinds(self.weighed).values())
        return self.weighed if only else self.case

    @functools.cached_property
    def witnesses(self) -> tuple[Witness, ...]:
        """The witnesses of ``told``."""
        return tuple(witness for witness in self.record.witnesses if witness.phase == self.told.index)

    @property
    def violations(self) -> dict[str, int]:
        """The violations of ``told``, by kind."""
        return self._kinds(self.told)

    def _kinds(self, phase: Phase) -> dict[str, int]:
        """Return a phase's violations, counted by its witnesses where a log breaks off before its counters."""
        record = self.found.get(phase.index)
        if record and record.total:
            return record.violations
        seen = Counter(witness.kind for witness in self.record.witnesses if witness.phase == phase.index)
        return {kind.name.lower(): seen[kind] for kind in ViolationKind}

    @property
    def stopped_after(self) -> int:
        """Where the machine was stopped in a batch: the rounds up to the last violation, or all operations of a walk.

        0 where no violation was found after the last complete batch.
        """
        memory = self.observation.memory
        own = memory.phase_at(self.told.index) if memory else None
        last = max((witness.round for witness in self.witnesses), default=0)
        if own is None or last <= own.rounds:
            return 0
        return sum(count.puts for count in own.counts) if experiment_of(self.told).walk else last

    @property
    def rounds(self) -> int:
        """How many rounds ``told`` ran. A record counts a batch once the guest has judged all of it."""
        record = self.found.get(self.told.index)
        return max(record.rounds, self.stopped_after) if record else 0

    @property
    def judged(self) -> int:
        """The number of chances of an event: live batches where they are counted and there was no violation."""
        if self.counts_live and not any(self.violations.values()):
            return self.group.case.total if self.group else 0
        record = self.found.get(self.told.index)
        return record.judged if record else 0

    @property
    def counts_live(self) -> bool:
        """Whether the kernel counted live batches."""
        return self.spec.rules != OLD_RULES

    @property
    def chance(self) -> str:
        """What ``judged`` counts."""
        if self.counts_live and not any(self.violations.values()):
            return "live batches"
        return "batches" if experiment_of(self.told).walk else "rounds"

    @property
    def now(self) -> int:
        """The index of the phase that ran last, as far as it is known."""
        return self.record.phase if self.record.phase_index is None else self.record.phase_index

    def of(self, role: Role) -> Iterator[tuple[Phase, PhaseRecord | None]]:
        for phase in self.planned:
            if phase.role is role:
                yield phase, self.found.get(phase.index)

    def closed(self, record: Record) -> bool:
        """Return whether this channel has a complete record of the case, whatever happened in the cases after it."""
        return record.complete or (bool(self.spec.suite) and record.closed > self.number)


def was_run(spec: KernelSpec, observation: Observation, number: int) -> bool:
    """Return whether a case was begun in this boot. Another boot can run a case that was not."""
    record = observation.best
    first = next(phase for phase in phases_of(spec, number) if phase.case == number)
    return record is not None and record.phase >= first.index


@functools.lru_cache(maxsize=16)
def canonical(spec: KernelSpec) -> tuple[str, str]:
    """Return the digest and the text of a request. They are cached: a request may hold hundreds of cases."""
    return spec.digest(), spec.to_text()


def too_few(found: int, wanted: int, said: str) -> str:
    """Return the sentence that CPUs are missing, with the reason that the guest printed (protocol.SENTENCES)."""
    why = said.partition(" CPUs started: ")[2]
    return f"only {plural(found, 'CPU')} started and the case needs {wanted}" + (f": {why}" if why else "")


def place_of(fault: FaultRecord) -> str:
    return f"CPU {fault.cpu}, vector {fault.vector} at {fault.eip:#010x}, error code {fault.error:#x}"


def path(run: Run) -> str:
    """Return what the cells are: "io", "ram", or "unknown".

    QEMU's memory tree decides where there is one, otherwise the guest's probe of VGA. An unclear memory tree is
    "unknown", and so is a probe that found RAM where the memory tree has i/o.
    """
    case = run.case_record
    decode = case.decode if case else Decode.UNKNOWN
    evidence = path_evidence(run)
    if evidence != NOT_ASKED:
        kind = evidence.kind
        return kind if kind == "ram" or (kind == "io" and decode is not Decode.RAM) else "unknown"
    if run.case.target.declared == "ram":
        return "ram"
    return {Decode.IO: "io", Decode.RAM: "ram"}.get(decode, "unknown")


def path_evidence(run: Run) -> PathEvidence:
    """Return what QEMU's memory tree says of the case's cells."""
    return run.observation.path if run.is_last else run.observation.paths.get(run.case.index, NOT_ASKED)


def violated_kinds(violations: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in violations.items() if count)
