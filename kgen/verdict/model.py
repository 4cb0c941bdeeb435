"""Verdicts, their exit codes, and the numbers that they state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from kgen.evidence.records import Witness

#: A power control must fail this often before a case without violations counts.
POWER_MINIMUM = 5

#: The reason why a clean run of an older kernel is no proof.
OLD_PROOF = (
    "its own rules said ATOMIC; but this kernel is of a version that did not count whether operations met, and rounds "
    "of one batch are not independent chances: run it again with this version"
)
#: The advice for such a kernel, whatever its result.
OLD_KERNEL = (
    "this kernel counted no live batches, so no run of it proves anything: make it, or its image or kit, again with "
    "this version"
)


class VerdictKind(Enum):
    """The nine verdicts. The value is the exit code of a single case."""

    ATOMIC = 0
    NOT_ATOMIC = 3
    INCONCLUSIVE = 4
    RAM_BACKED = 5
    UNSUPPORTED = 6
    NO_STORAGE = 7
    SKIP = 8
    ERROR = 9
    CRASH = 10


@dataclass(frozen=True)
class ControlResult:
    """The result of one control."""

    label: str
    role: str
    #: How many rounds it ran, in its own experiment's unit, ``unit``.
    rounds: int
    #: By kind.
    violations: Mapping[str, int]
    #: Whether it behaved as a control must.
    enough: bool
    #: Whether it ran to its end.
    ended: bool = True
    #: How often a power control failed in live batches, in words; "" where none are counted.
    power: str = ""
    unit: str = "rounds"


@dataclass(frozen=True)
class Verdict:
    """A verdict with its numbers."""

    kind: VerdictKind
    reason: str
    #: N in the experiment's unit.
    rounds: int = 0
    #: The case's, by kind.
    violations: Mapping[str, int] = field(default_factory=dict)
    #: The number of chances of an event.
    judged: int = 0
    #: The unit of ``judged``: live batches for a verdict without violations, otherwise rounds of tokens or batches.
    chance: str = "live batches"
    #: The upper limit on the rate of violated live batches at 95 % (the rule of three: 3 by ``judged``), for ATOMIC
    #: only.
    bound: float | None = None
    controls: tuple[ControlResult, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    #: Facts that did not decide.
    notes: tuple[str, ...] = ()
    #: What the hypervisor itself logged as the reason of a violation, "" where it logged none.
    cause: str = ""

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return self.kind.value


def bisect_code(kind: VerdictKind) -> int:
    """Return the exit code for ``git bisect run``: 0 good, 1 bad, 125 cannot tell."""
    return {VerdictKind.ATOMIC: 0, VerdictKind.NOT_ATOMIC: 1}.get(kind, 125)


#: Verdicts by severity, the worst first.
SEVERITY = (
    VerdictKind.ERROR,
    VerdictKind.CRASH,
    VerdictKind.NOT_ATOMIC,
    VerdictKind.INCONCLUSIVE,
    VerdictKind.UNSUPPORTED,
    VerdictKind.NO_STORAGE,
    VerdictKind.RAM_BACKED,
    VerdictKind.SKIP,
    VerdictKind.ATOMIC,
)


def worst(kinds: Sequence[VerdictKind]) -> VerdictKind:
    """Return the worst of these verdicts: that of a suite."""
    return min(kinds, key=SEVERITY.index)
