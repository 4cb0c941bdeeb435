"""How many examples a property is tried with: few in `make test`, where they are the same in every run, more in `make
soak`, which draws others."""

from __future__ import annotations

from hypothesis import settings

#: In `make test`.
DRAWS = 50


def draws(most: int) -> int:
    """Return the examples that a property takes in this run, of the ``most`` that it has in the soak."""
    return min(most, DRAWS) if settings.default.derandomize else most
