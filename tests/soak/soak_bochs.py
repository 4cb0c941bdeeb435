"""Bochs at length: killed at any moment, asked to stop, full of CPUs, with a whole suite; and the same each time."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from killing import kill_at_random
from running import Run

from kgen.build import build
from kgen.errors import PlatformUnavailable
from kgen.evidence.observation import Observation
from kgen.kernel.results_block import KernelState
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platforms
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.run.suite import judge_cases, observe_suite
from kgen.spec import Case, KernelSpec
from kgen.spec.suites import load
from kgen.verdict.model import VerdictKind

#: The main job on Bochs, made short.
JOB = ("verify", "--instr", "xchg", "--platform", "bochs", "--rounds", "20000", "--timeout", "60")


@pytest.fixture(autouse=True)
def _there_is_a_bochs() -> None:
    reason = platforms()["bochs"].unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"bochs: {reason}")


def run(case: Case, rounds: int, *extra: str) -> Observation:
    """One run with controls; ``extra`` are lines of Bochs's configuration."""
    return observe(build(KernelSpec(case, rounds=rounds)), platforms()["bochs"], Options(extra=extra, timeout=90))


@pytest.mark.timeout(1800)
def test_bochs_is_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"exit codes: {kill_at_random(tmp_path / 'tmp', 'bochs', times=20, seed=seed, job=JOB)}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_us(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C lets the guest park and print its record, by a word that the debugger writes."""
    endless = ("verify", "--instr", "xchg", "--platform", "bochs", "--no-controls", "--rounds", "4000000000")
    for _ in range(10):
        with Run(endless, tmp_path / "tmp") as mine:
            mine.await_start("bochs")
            time.sleep(random.SystemRandom().uniform(1, 2))
            mine.process.send_signal(number)
            code = mine.wait(60)
            mine.assert_nothing_left()
        if number is signal.SIGINT:
            assert code == VerdictKind.INCONCLUSIVE.value, mine.stdout + mine.stderr
            assert "no controls were run" in mine.stdout
        else:
            assert code in (128 + number, -number)


@pytest.mark.parametrize("extra", [(), ("cpu: model=corei7_haswell_4770",), ("cpuid: apic=x2apic",)])
def test_the_same_each_time(extra: tuple[str, ...]) -> None:
    logs = {run(Case("xchg"), 5000, *extra).log for _ in range(3)}
    assert len(logs) == 1
    assert " end state=3 " in logs.pop()


@pytest.mark.parametrize("cpus", [4, 15])
def test_many_cpus(cpus: int) -> None:
    seen = run(Case("xchg", cpus=cpus), 300)
    assert seen.memory is not None
    assert (seen.memory.state, seen.memory.cpus_found) == (KernelState.FINISHED, cpus)
    assert len(seen.registers) == cpus


def test_more_cpus_than_it_has_timers_for() -> None:
    with pytest.raises(PlatformUnavailable, match="this Bochs has not the timers for 200 CPUs"):
        run(Case("xchg", cpus=200), 10)


@pytest.mark.timeout(600)
def test_nothing_of_a_suite_is_violated() -> None:
    """Every instruction, whole: only a machine that tears them apart, or a fault in an experiment, shows anything."""
    _, cases = load("full")
    wanted = tuple(case for case in cases if case.target in ("vga-text", "ram") and not case.offset)
    spec = KernelSpec(wanted[0], more=wanted[1:], suite="whole", budget=120)
    boots = observe_suite(spec, platforms()["bochs"], Options(timeout=500))
    assert len(boots) == 1
    for case, _, verdict in judge_cases(boots):
        assert verdict.kind in (VerdictKind.INCONCLUSIVE, VerdictKind.ATOMIC), f"{case.id}: {verdict.reason}"
