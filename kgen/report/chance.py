"""How probable it is that two runs differ by chance: the exact test of two counts."""

from __future__ import annotations

import math

#: What is less probable than this is not put down to chance.
LEVEL = 0.01
#: Terms of a tail that are worth adding, and the part of the sum below which the rest is not.
_TERMS = 1_000_000
_REST = 1e-12
#: No machine counts further.
_MOST = 1 << 64


def excess(before: int, chances_before: int, now: int, chances_now: int) -> float:
    """The probability of ``now`` events or more in ``chances_now``, were their rate what it was before.

    The conditional test of two Poisson counts (Przyborowski and Wilenski, 1940): of all events seen, the number that
    falls into the second run is binomial, with that run's part of all chances. No rate has to be known or guessed, and
    for events that are not rare it errs towards chance. One-sided; 1.0 where ``now`` is no more than is to be
    expected, or where there was no chance in one of the runs.
    """
    numbers = (before, chances_before, now, chances_now)
    if min(before, now) < 0 or min(chances_before, chances_now) <= 0 or max(numbers) >= _MOST:
        return 1.0
    events, part = before + now, chances_now / (chances_before + chances_now)
    if not 0.0 < part < 1.0 or now <= events * part:
        return 1.0
    odds = math.log(part) - math.log1p(-part)
    term = (
        math.lgamma(events + 1)
        - math.lgamma(now + 1)
        - math.lgamma(before + 1)
        + now * math.log(part)
        + before * math.log1p(-part)
    )
    total, factor = 1.0, 1.0
    for count in range(now, min(events, now + _TERMS)):
        factor *= math.exp(math.log((events - count) / (count + 1)) + odds)
        total += factor
        if factor < _REST * total:
            break
    return min(1.0, math.exp(min(0.0, term + math.log(total))))
