"""VirtualBox at length: ten runs, five beside a busy host, twenty kills."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from load import load
from running import kgen

sys.path.append(str(Path(__file__).parent.parent / "boot"))
from _kernel import needs
from test_virtualbox import RUN, kill_kgen

from kgen.verdict.model import VerdictKind


@pytest.fixture(autouse=True)
def _there_is_a_virtualbox() -> None:
    needs("virtualbox")


@pytest.mark.parametrize("engine", ["iem", "iem-interpreter"])
def test_every_run_finds_the_defect(tmp_path: Path, engine: str) -> None:
    for _ in range(10):
        run = kgen(tmp_path / "tmp", *RUN, "--engine", engine, "--expect", "known", seconds=600)
        assert run.process.returncode == 0, run.stdout + run.stderr
        assert "\nNOT_ATOMIC: " in run.stdout


def test_a_busy_host_changes_no_verdict(tmp_path: Path) -> None:
    with load(2):
        for _ in range(5):
            run = kgen(tmp_path / "tmp", *RUN, seconds=600)
            assert run.process.returncode == VerdictKind.NOT_ATOMIC.value, run.stdout + run.stderr


def test_kgen_is_killed_twenty_times(tmp_path: Path) -> None:
    kill_kgen(tmp_path / "tmp", times=20, seed=random.SystemRandom().getrandbits(32))
