"""Numbers as a row of small bars."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
#: For terminals that cannot show the bars.
PLAIN = "_.:-=+*#"


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """The last ``width`` values, a character each: the lowest bar is 0 and nothing else, the highest the most."""
    shown = [max(0.0, value) for value in values[-width:]] if width > 0 else []
    most = max(shown, default=0.0)
    return "".join(bars[_height(value, most, len(bars))] if most > 0 else bars[0] for value in shown)


def _height(value: float, most: float, bars: int) -> int:
    return max(1, round(value / most * (bars - 1))) if value > 0 else 0
