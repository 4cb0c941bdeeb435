"""Lanes: how a CPU uses bits of a cell that are its own. Masks are unbroken runs of bits.

What a CPU changes in its lane must never reach the next one, whatever that holds: counters stop before they carry.
"""

from __future__ import annotations

from kgen.instructions import Lane

#: A lane that has no end starts anew after so many changes. What has set its bits sets them again: it then changes
#: nothing where it is atomic, and undoes what another CPU has just set where it is not.
REPEATS = 3


def lowest_bit(mask: int) -> int:
    """Return the value of the lowest bit of a mask."""
    return mask & -mask


def bit_number(mask: int) -> int:
    """Return the number of the lowest bit of a mask."""
    return lowest_bit(mask).bit_length() - 1


def counting_up(width: int, mask: int) -> Lane:
    """From 0, never far enough to carry out of the lane."""
    lowest = lowest_bit(mask)
    return Lane(operand=lowest, initial=0, repeats=min(REPEATS, mask // lowest))


def counting_down(width: int, mask: int) -> Lane:
    """From all ones, never far enough to borrow from the next lane."""
    lowest = lowest_bit(mask)
    return Lane(operand=lowest, initial=mask, repeats=min(REPEATS, mask // lowest))
