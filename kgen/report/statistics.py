"""How sure a rate is: the exact interval of Clopper and Pearson, and the rule of three where nothing was seen.

C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26 (1934), 404-413. The limits are quantiles of beta distributions; the regularised incomplete beta function
is the continued fraction of the NIST Digital Library of Mathematical Functions, 8.17.22, evaluated by Lentz's method.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

#: The verdict's own (kgen.verdict.judge): with no event in N the rate is below 3/N at 95 %.
RULE_OF_THREE = 3.0
#: What lies outside on either side.
_TAIL = 0.025
#: The limits are right to so many parts of themselves.
_PRECISION = 1e-7
#: Terms of the continued fraction; it converges in about the square root of the smaller count.
_TERMS = 10_000
#: So many events, and so many chances without one, and the normal distribution gives the same three digits.
_MANY = 100_000
_NORMAL = 1.959964
_TINY = 1e-300
#: No machine counts further.
_MOST = 1 << 53


@dataclass(frozen=True)
class Rate:
    """The rate of ``events`` among ``chances``."""

    events: int
    chances: int
    #: The limits between which the rate lies at 95 %, as fractions of 1.
    low: float
    high: float

    @property
    def value(self) -> float:
        """What was seen."""
        return self.events / self.chances


@functools.lru_cache(maxsize=4096)
def rate(events: int, chances: int) -> Rate | None:
    """Return the rate with its exact 95 % limits, None where the counts make no sense or there was no chance.

    Two-sided, except where nothing was seen: then the upper limit is 3 by ``chances``, which is what ATOMIC states.
    Both suppose that each chance is independent of the others.
    """
    if not 0 <= events <= chances or not 0 < chances < _MOST:
        return None
    if events == 0:
        return Rate(0, chances, 0.0, min(1.0, RULE_OF_THREE / chances))
    if min(events, chances - events) > _MANY:
        value = events / chances
        half = _NORMAL * math.sqrt(value * (1 - value) / chances)
        return Rate(events, chances, value - half, value + half)
    low = _quantile(_TAIL, events, chances - events + 1)
    high = 1.0 if events == chances else _quantile(1 - _TAIL, events + 1, chances - events)
    return Rate(events, chances, low, high)


def _quantile(part: float, a: int, b: int) -> float:
    """Return where the beta distribution of ``a`` and ``b`` has that part of itself on its left."""
    low, high = 0.0, 1.0
    middle = a / (a + b)
    while high - low > _PRECISION * high:
        if _beta_part(middle, a, b) < part:
            low = middle
        else:
            high = middle
        # between limits of very different size, go by their order of magnitude
        middle = math.sqrt(low * high) if low and high > 4 * low else (low + high) / 2
    return (low + high) / 2


def _beta_part(x: float, a: int, b: int) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for 0 < x < 1."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_part(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return min(1.0, math.exp(min(0.0, front - math.log(a) - math.log(_fraction(x, a, b)))))


def _fraction(x: float, a: int, b: int) -> float:
    """1 + d1/(1 + d2/(1 + ...)), the continued fraction by which the function is divided."""
    value = numerator = 1.0
    denominator = 0.0
    for term in range(1, _TERMS):
        half = term // 2
        if term % 2:
            step = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            step = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        denominator = 1.0 / _not_zero(1.0 + step * denominator)
        numerator = _not_zero(1.0 + step / numerator)
        value *= numerator * denominator
        if abs(numerator * denominator - 1.0) < 1e-13:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


#: What is less probable than this is not put down to chance.
LEVEL = 0.01


#: Terms of a tail that are worth adding, and the part of the sum below which the rest is not.
_SUMMED = 1_000_000


_REST = 1e-12


#: No machine counts further.
_COUNTABLE = 1 << 64


def excess(before: int, chances_before: int, now: int, chances_now: int) -> float:
    """Return the probability of ``now`` events or more in ``chances_now``, were their rate what it was before.

    The conditional test of two Poisson counts (Przyborowski and Wilenski, 1940): of all events seen, the number that
    falls into the second run is binomial, with that run's part of all chances. No rate has to be known or guessed, and
    for events that are not rare it errs towards chance. One-sided; 1.0 where ``now`` is no more than is to be
    expected, or where there was no chance in one of the runs.
    """
    numbers = (before, chances_before, now, chances_now)
    if min(before, now) < 0 or min(chances_before, chances_now) <= 0 or max(numbers) >= _COUNTABLE:
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
    for count in range(now, min(events, now + _SUMMED)):
        factor *= math.exp(math.log((events - count) / (count + 1)) + odds)
        total += factor
        if factor < _REST * total:
            break
    return min(1.0, math.exp(min(0.0, term + math.log(total))))
