"""gdb or QEMU killed at random moments of a run: what both the quick tests and the soak tests do."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from running import DEADLINE, Run

#: A whole main job, made short: controls, case, both channels.
JOB = ("verify", "--instr", "xchg", "--rounds", "300", "--timeout", "60")
#: Exit codes of a run whose tools were killed.
ERROR, CRASH = 9, 10
#: Of a run that had everything it needs before the kill: so few rounds are no proof, so it is INCONCLUSIVE.
JUDGED = (4,)


def lifetime(temporary: Path, victim: str, job: Sequence[str] = JOB) -> float:
    """How long the victim lives in a run that is left alone, in seconds."""
    with Run(job, temporary) as run:
        pid = run.await_start(victim)
        born = time.monotonic()
        while run.started(victim) == pid:
            time.sleep(0.02)
        lived = time.monotonic() - born
        run.wait()
        run.assert_nothing_left()
    return lived


def kill_at_random(temporary: Path, victim: str, times: int, seed: int, job: Sequence[str] = JOB) -> dict[int, int]:
    """Kill the victim that many times, each at a random moment of its life in a new run; how often which exit code.

    A kill that comes when all is read and judged already changes nothing and does not count.
    """
    print(f"seed {seed}: killing {victim} {times} times")
    moments = random.Random(seed)
    whole = lifetime(temporary, victim, job)
    ends: dict[int, int] = {}
    for _ in range(4 * times):
        code = _kill_after(temporary, victim, moments.uniform(0, whole), job)
        if code is not None:
            ends[code] = ends.get(code, 0) + 1
        if sum(ends.values()) == times:
            return ends
    raise AssertionError(f"most kills came too late: {ends}")


def _kill_after(temporary: Path, victim: str, delay: float, job: Sequence[str]) -> int | None:
    """The exit code of a run whose victim is killed after that time in seconds, None where it came too late."""
    with Run(job, temporary) as run:
        pid = run.await_start(victim)
        time.sleep(delay)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            run.wait()
            run.assert_nothing_left()
            return None
        code = run.wait(DEADLINE)
        run.assert_nothing_left()
    if code in JUDGED:
        assert "\nATOMIC: " in run.stdout or "\nINCONCLUSIVE: " in run.stdout
        return None
    assert code in (ERROR, CRASH), f"after {delay:.3f} s: {code}\n{run.stdout}\n{run.stderr}"
    assert "Traceback" not in run.stderr
    assert ("\nERROR: " in run.stdout or "\nCRASH: " in run.stdout) != run.stderr.startswith("kgen: error: ")
    assert run.stderr.count("\n") <= 1, run.stderr
    return code
