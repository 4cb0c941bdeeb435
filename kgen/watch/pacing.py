"""When a running machine may be stopped for a look: the pauses take no more than a given share of its time."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pause:
    """A time in which the machine stood still."""

    #: In seconds of the same clock as ``end``.
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


@dataclass(frozen=True)
class Pace:
    """How often to look."""

    #: The part of the time that the machine may stand still: above 0, below 1.
    share: float
    #: The least time in seconds between the starts of two looks.
    interval: float

    def next_look(self, last: Pause) -> float:
        """Return the earliest moment for the next one, on the clock of ``last``.

        The machine first runs until the last pause is no more than its share of pause and run together. Since that
        holds for every pause by itself, it holds for their sum, however uneven they are: with a slow stub there are
        fewer looks.
        """
        return max(last.begin + self.interval, last.end + last.seconds * (1 - self.share) / self.share)


@dataclass(frozen=True)
class Cost:
    """What the looks have cost up to now."""

    #: The time that is counted is from here to ``now``, in seconds of one clock.
    began: float
    now: float
    looks: int = 0
    #: The sum of the pauses, in seconds.
    paused: float = 0.0
    #: The longest pause, in seconds.
    longest: float = 0.0

    def after(self, pause: Pause) -> Cost:
        """Return the cost with one pause more, which has just ended."""
        return Cost(
            self.began, pause.end, self.looks + 1, self.paused + pause.seconds, max(self.longest, pause.seconds)
        )

    def at(self, now: float) -> Cost:
        """Return the same pauses in a longer time."""
        return replace(self, now=now)

    @property
    def elapsed(self) -> float:
        """Seconds since kgen connected."""
        return self.now - self.began

    @property
    def share(self) -> float:
        """The part of the time in which the machine stood still, 0 to 1."""
        return self.paused / self.elapsed if self.elapsed > 0 else 0.0
