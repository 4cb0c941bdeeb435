"""How often a violation was seen, with the limits between which the rate lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kgen.report.compare.comparison import events_of
from kgen.report.results.model import Result
from kgen.report.statistics import Rate, rate

_ANY = "any"
#: The unit in which a chance holds one token, which is lost only once. Other units may hold any number of updates.
_ONE_EACH = "rounds"
_LOST = "lost"


@dataclass(frozen=True)
class RateRow:
    """The rate of one kind of violation, or of all kinds."""

    kind: str
    #: How many violations there were.
    count: int
    #: The rate of ``unit``s with a violation, None where they were not counted.
    rate: Rate | None
    #: Whether they may be fewer.
    at_most: bool
    #: Rounds or batches.
    unit: str

    @property
    def seen(self) -> str:
        """The observed rate."""
        if self.rate is None:
            return "not known"
        sign = "at most " if self.at_most else ""
        return f"{sign}{percent(self.rate.value)}"

    @property
    def limits(self) -> str:
        """The limits in words."""
        if self.rate is None:
            return "not known"
        if not self.rate.events or self.at_most:
            return f"below {percent(self.rate.high)}"
        return f"{percent(self.rate.low)} to {percent(self.rate.high)}"


def rate_rows(result: Result) -> tuple[RateRow, ...]:
    """Return a row for any violation and one for each kind, () where nothing was judged."""
    verdict = result.verdict
    events, judged = _events(result), verdict.judged
    if judged <= 0:
        return ()
    total = sum(verdict.violations.values())
    unit = verdict.chance
    rows = [RateRow(_ANY, total, _rate(events, judged), False, unit)]
    token = unit == _ONE_EACH
    for kind, count in verdict.violations.items():
        most = None if events is None else min(count, events)
        exact = not count or (token and (kind == _LOST or total == events))
        rows.append(RateRow(kind, count, _rate(most, judged), not exact, unit))
    return tuple(rows)


def overall(result: Result) -> Rate | None:
    """Return the rate of rounds, batches or live batches that showed any violation."""
    return _rate(_events(result), result.verdict.judged)


def _events(result: Result) -> int | None:
    """Return how many rounds or batches showed a violation, None where that is unknown. A run that was stopped at its
    first violation ended because of that violation, and does not count the batch in which it ended."""
    events = events_of(result)
    return None if result.observation.scene or (not events and any(result.verdict.violations.values())) else events


def _rate(events: int | None, judged: int) -> Rate | None:
    return None if events is None else rate(events, judged)


def percent(value: float) -> str:
    """Return a fraction of 1 to two digits: ``12 %``, ``0.034 %``, ``0.00012 %``."""
    if value in (0.0, 1.0):
        return f"{100 * value:.0f} %"
    number = f"{100 * value:.2g}"
    return f"{100 * value:.1e} %" if "e" in number and value < 1e-6 else f"{float(number):g} %"


def level(rates: Sequence[Rate | None]) -> int:
    """Return the level of the heat map's colour: 1 to 4 by the order of magnitude of the greatest rate, 1 where none is
    known."""
    found = max((each.value for each in rates if each is not None), default=0.0)
    return 1 + sum(found >= limit for limit in LEVELS)


#: Where the heat map becomes darker.
LEVELS = (0.001, 0.01, 0.1)
