"""Exhaustive tests in parts: one of them with every run of the tests, the others in the soak."""

from __future__ import annotations

import pytest

#: A part tries every so many of the places there are, from its first one on.
STRIDE = 10
#: Each part's first place.
FIRST = [0, *(pytest.param(first, marks=pytest.mark.soak) for first in range(1, STRIDE))]
