"""Twenty random moments for each tool."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from killing import kill_at_random


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["qemu-system", "gdb"])
def test_a_tool_is_killed_at_twenty_random_moments(tmp_path: Path, victim: str) -> None:
    ends = kill_at_random(tmp_path / "tmp", victim, times=20, seed=random.SystemRandom().getrandbits(32))
    print(f"exit codes: {ends}")
