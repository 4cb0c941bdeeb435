"""The rule for ATOMIC, in whole numbers: how many live batches prove that a machine is sound.

In a live batch two operations of different CPUs on one cell overlapped in time, neither CPU was descheduled in them,
and a split would have shown. Suppose that the machine has the defect and a batch of one style is violated with
probability q. Then L such batches are without violation with probability (1 - q)^(L / d). The design effect d says how
much less L batches in a row are worth than independent ones (Kish, Survey Sampling, 1965). The kernel stops by the same
rule in the same whole numbers (kernel_templates/live.asm), so images, kits and PCs behave alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: The least number of live batches of the case in each style for a proof.
LEAST = 100
#: Counts of a control stop at this many live batches, and at this many violated ones, of a style.
MOST = 1 << 20
MOST_VIOLATED = 255
#: The least L * q / d for a proof: (1 - q)^(L / d) is then below e^-14, less than one in a million.
NEEDED = 14
#: The least number of violated live batches of a pair of instructions that shows that accesses meet, where single
#: instructions are never violated.
PAIR_LEAST = 5


@dataclass(frozen=True)
class Live:
    """The counts of one style in one phase."""

    #: batches whose operations drew tickets
    batches: int = 0
    #: those of them in which operations met
    live: int = 0
    #: live ones that were violated
    violated: int = 0
    #: pairs of live batches in a row of which just one was violated
    switches: int = 0
    #: batches without tickets
    blind: int = 0
    #: those of them that were violated
    blind_violated: int = 0
    #: all batches with tickets that were violated, live or not
    struck: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no batch was violated, live or not, with tickets or without."""
        return not (self.violated or self.struck or self.blind_violated)


def least(violated: int) -> int:
    """Return a lower limit at 95 % on the expected number of violated batches, where ``violated`` were seen.

    For every number it is below the exact limit of Poisson's distribution (a test compares them), which is below the
    binomial one.
    """
    return max(0, violated - math.isqrt(3 * violated) - 1)


def design(control: Live) -> int:
    """Return 16 times the design effect of a control's violated live batches, at least 16.

    For a chain of two states it is (1 + r) / (1 - r), where r is the correlation of neighbours, and
    1 - r = switches * live / (2 * violated * (live - violated))."""
    violated, live = control.violated, control.live
    ratio, rest = divmod(64 * violated * (live - violated), max(1, control.switches) * max(1, live))
    return max(16, ratio + bool(rest) - 16)


def needed(control: Live) -> int | None:
    """Return how many live batches of the case a control requires by its rate of violation, None for too low a rate."""
    expected = least(control.violated)
    if not expected:
        return None
    effect = design(control)
    # q = expected / live, at most a half
    by_rate = -(-NEEDED * effect * control.live // (16 * expected))
    return max(LEAST, by_rate, -(-2 * NEEDED * effect // 16))


def missing(case: Live, controls: Iterable[Live]) -> int | None:
    """Return how many live batches of one style the case still needs by all controls that count, 0 where the proof is
    reached, None where a control still has too few violations."""
    wanted = [needed(control) for control in controls]
    if not wanted or None in wanted:
        return None
    return max(0, max(number for number in wanted if number is not None) - case.live)
