"""When a running machine may be stopped for a look, so that looking costs it no more than a given share of its time."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pause:
    """The machine stood still, from ``begin`` to ``end`` in seconds of one clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


@dataclass(frozen=True)
class Pace:
    """At most ``share`` (above 0, below 1) of the time is spent standing still; two looks begin ``interval`` seconds
    apart at least."""

    share: float
    interval: float

    def next_look(self, last: Pause) -> float:
        """Return the earliest moment for the next one, on the clock of ``last``.

        The machine first runs as long as makes the last pause its share of both together. Since that holds for every
        pause by itself, it holds for their sum, however uneven they are: a slow stub gets fewer looks, not a late bill.
        """
        return max(last.begin + self.interval, last.end + last.seconds * (1 - self.share) / self.share)


@dataclass(frozen=True)
class Cost:
    """What looking has cost up to now. ``began`` and ``now`` bound the time that is counted, in seconds of one clock;
    ``paused`` is the sum of the pauses, ``longest`` the longest one, in seconds."""

    began: float
    now: float
    looks: int = 0
    paused: float = 0.0
    longest: float = 0.0

    def after(self, pause: Pause) -> Cost:
        """With one pause more, which has just ended."""
        return Cost(
            self.began, pause.end, self.looks + 1, self.paused + pause.seconds, max(self.longest, pause.seconds)
        )

    def at(self, now: float) -> Cost:
        """Return the same pauses in a longer time."""
        return replace(self, now=now)

    @property
    def elapsed(self) -> float:
        """Seconds since we came."""
        return self.now - self.began

    @property
    def share(self) -> float:
        """The part of the time in which the machine stood still, 0 to 1."""
        return self.paused / self.elapsed if self.elapsed > 0 else 0.0
