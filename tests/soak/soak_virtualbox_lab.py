"""VirtualBox's lab at length: it is built from its packages, proves its finding, fails in ring 3, and is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from load import load
from running import Run, kgen

sys.path.append(str(Path(__file__).parent.parent / "boot"))
from test_virtualbox_lab import RUN

from kgen.verdict.model import VerdictKind
from kgen.verdict.proof import UNINTERRUPTED

SLOW = 1800


@pytest.fixture(scope="module", autouse=True)
def _the_lab(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the lab anew, with the newest packages: its driver is compiled."""
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get")
    run = kgen(tmp_path_factory.mktemp("build"), "lab", "build", "virtualbox-lab", "--rebuild", seconds=SLOW)
    if run.process.returncode == 8:
        pytest.skip(run.stderr.strip().splitlines()[-1])
    assert run.process.returncode == 0, run.stdout + run.stderr
    print(run.stdout)


@pytest.mark.timeout(3 * SLOW)
def test_every_run_has_the_finding(tmp_path: Path) -> None:
    for _ in range(5):
        run = kgen(tmp_path / "tmp", *RUN, "--proof-seconds", "300", seconds=SLOW)
        assert run.process.returncode == 0, run.stdout + run.stderr
        assert UNINTERRUPTED in run.stdout
        run.assert_nothing_left()


@pytest.mark.timeout(3 * SLOW)
@pytest.mark.parametrize("loops", [0, 2])
def test_every_run_in_ring_3_fails(tmp_path: Path, loops: int) -> None:
    with load(loops):
        for _ in range(5):
            run = kgen(tmp_path / "tmp", *RUN, "--ring3", "--expect", "known", seconds=SLOW)
            assert run.process.returncode == 0, run.stdout + run.stderr
            assert "\nNOT_ATOMIC: " in run.stdout


@pytest.mark.timeout(3 * SLOW)
def test_a_busy_host_makes_no_violation(tmp_path: Path) -> None:
    with load(2):
        for _ in range(5):
            run = kgen(tmp_path / "tmp", *RUN, seconds=SLOW)
            assert run.process.returncode in (0, VerdictKind.INCONCLUSIVE.value), run.stdout + run.stderr


@pytest.mark.timeout(SLOW)
def test_kgen_is_killed_at_random_moments(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for number in range(10):
        with Run(RUN, tmp_path / "tmp") as run:
            run.await_start("qemu")
            time.sleep(moments.uniform(0, 40))
            os.kill(run.process.pid, signal.SIGKILL if number % 2 else signal.SIGTERM)
            run.wait()
            run.assert_nothing_left(files=number % 2 == 0)


@pytest.mark.timeout(SLOW)
def test_a_build_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """While packages are unpacked, while the driver is compiled, while the lab boots."""
    for seconds in (15, 45, 90):
        with Run(("lab", "build", "virtualbox-lab", "--rebuild"), tmp_path / "tmp") as run:
            time.sleep(seconds)
            os.kill(run.process.pid, signal.SIGTERM)
            run.wait()
            run.assert_nothing_left()
