"""What kgen watch costs the guest, counted in the guest's own rounds."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kgen.machine.platform import LaunchRequest, Platform
from kgen.registry import discover

#: The part of its rounds that a guest may lose, and how many pairs of runs decide.
MOST = 0.05
PAIRS = 7


def _watched() -> ModuleType:
    """The benchmark's own measurement."""
    path = Path(__file__).parents[1] / "benchmarks" / "watched.py"
    spec = importlib.util.spec_from_file_location("watched", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["watched"] = module  # its dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["qemu-tcg", "qemu-kvm"])
def test_being_watched_costs_less_than_a_twentieth(name: str) -> None:
    platform = discover("kgen.platforms", "PLATFORM", Platform)[name]
    if reason := platform.unavailable(LaunchRequest(kernel=None)):
        pytest.skip(f"{name}: {reason}")
    module = _watched()
    found = module.pairs(platform, PAIRS)
    assert statistics.median(1 - pair.watched / pair.alone for pair in found) < MOST, found
    # What it says itself: the pauses by the clock, of which the last one's run is cut off by the end.
    assert max(pair.paused for pair in found) < MOST, found
