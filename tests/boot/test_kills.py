"""Whoever is killed, at whatever moment: nobody is left, and the verdict says so. The full count is in tests/soak."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from _asked import asked
from killing import CRASH, JOB, JUDGED, kill_at_random
from running import Run, kgen

ENDLESS = ("verify", "--instr", "xchg", "--target", "ram", "--no-controls", "--rounds", "4000000000")


@pytest.mark.soak
@pytest.mark.parametrize("victim", ["qemu-system", "gdb"])
def test_a_tool_is_killed_at_random_moments(tmp_path: Path, victim: str) -> None:
    kill_at_random(tmp_path / "tmp", victim, times=2, seed=random.SystemRandom().getrandbits(32))


@pytest.mark.parametrize("victim", ["qemu-system", "gdb"])
def test_a_kill_in_the_middle_is_noticed_at_once(tmp_path: Path, prebuilt: Sequence[str], victim: str) -> None:
    """Not when the run, which has no end, would be over."""
    with Run(ENDLESS, tmp_path / "tmp", program=prebuilt) as run:
        pid = run.await_start(victim)
        run.await_work("qemu-system")
        os.kill(pid, signal.SIGKILL)
        code = run.wait(30)
        run.assert_nothing_left()
    if victim == "gdb":
        assert (code, "\nERROR: gdb was killed by SIGKILL" in run.stdout) == (9, True), run.stdout
    else:
        assert (code, "\nCRASH: QEMU was killed by SIGKILL" in run.stdout) == (CRASH, True), run.stdout


@pytest.mark.soak
def test_a_tool_that_is_stopped_does_not_stop_us(tmp_path: Path) -> None:
    """A gdb that hangs costs its deadline, no more."""
    with Run((*JOB, "--timeout", "3"), tmp_path / "tmp") as run:
        os.kill(run.await_start("gdb"), signal.SIGSTOP)
        assert run.wait(90) == 9
        run.assert_nothing_left()
    assert "\nERROR: gdb did not answer" in run.stdout


#: The command line with standard input as its controlling terminal.
ON_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("_prebuilt", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", ["verify", "gdb"])
def test_a_terminal_that_is_closed_ends_us_as_its_signal_does(
    tmp_path: Path, prebuilt: Sequence[str], command: str
) -> None:
    master, slave = os.openpty()
    program = (sys.executable, "-c", ON_TERMINAL, prebuilt[-1])
    with Run((command, *ENDLESS[1:]), tmp_path / "tmp", {"TERM": "xterm"}, program, terminal=slave) as run:
        os.close(slave)
        run.await_start("gdb")
        time.sleep(0.5)
        os.close(master)
        assert run.wait(30) == 128 + signal.SIGHUP
        run.assert_nothing_left()


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_kgen_is_killed_at_a_random_moment(tmp_path: Path, number: signal.Signals) -> None:
    """SIGKILL cannot tidy up its files, but takes its children along; SIGTERM leaves nothing at all."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(3):
        with Run(JOB, tmp_path / "tmp") as run:
            # not before Python has come to kgen's own code
            run.await_start("qemu-system")
            time.sleep(moments.uniform(0, 1.5))
            run.process.send_signal(number)
            code = run.wait(30)
            run.assert_nothing_left(files=number is signal.SIGTERM)
        # Once everything is tidied up Python has no handler any more; a shell shows -15 as 143 too.
        ended = (-signal.SIGKILL,) if number is signal.SIGKILL else (128 + signal.SIGTERM, -signal.SIGTERM)
        assert code in (*ended, *JUDGED)
        assert "Traceback" not in run.stderr


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    """A script that runs QEMU and waits for it, as people write them."""
    script = tmp_path / "wrap.sh"
    script.write_text('#!/bin/sh\nqemu-system-i386 "$@"\nstatus=$?\nexit $status\n')
    script.chmod(0o755)
    return script


def test_a_script_around_qemu_is_as_good_as_qemu(tmp_path: Path, wrapper: Path) -> None:
    run = asked(tmp_path / "tmp", *JOB, "--qemu", str(wrapper))
    assert run.exit_code in JUDGED, run.stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("victim", ["kgen", "wrap.sh"])
def test_killing_us_or_a_script_around_qemu_leaves_no_qemu(
    tmp_path: Path, wrapper: Path, prebuilt: Sequence[str], victim: str, number: signal.Signals
) -> None:
    with Run((*ENDLESS, "--qemu", str(wrapper)), tmp_path / "tmp", program=prebuilt) as run:
        run.await_work("qemu-system")
        script = run.await_start("wrap.sh")
        os.kill(run.process.pid if victim == "kgen" else script, number)
        code = run.wait(20)
        killed = (victim, number) == ("kgen", signal.SIGKILL)
        run.assert_nothing_left(files=not killed)
    if victim == "kgen":
        assert code == (-number if killed else 128 + number)
    else:
        assert (code, f"\nCRASH: QEMU was killed by {number.name}" in run.stdout) == (CRASH, True), run.stdout


@pytest.mark.soak
def test_a_script_that_gives_qemu_away_and_ends_is_a_crash(tmp_path: Path, wrapper: Path) -> None:
    """Nobody but us then knows of that QEMU, and it is asked to end."""
    wrapper.write_text('#!/bin/sh\nsetsid qemu-system-i386 "$@" <&0 &\nsleep 2\n')
    run = kgen(tmp_path / "tmp", *ENDLESS, "--qemu", str(wrapper))
    assert run.process.returncode == CRASH, run.stdout
    assert "\nCRASH: QEMU exited with status 0" in run.stdout


def test_what_a_killed_run_leaves_the_next_one_removes(tmp_path: Path, prebuilt: Sequence[str]) -> None:
    with Run(ENDLESS, tmp_path / "tmp", program=prebuilt) as run:
        run.await_start("gdb")
        run.process.kill()
        run.wait(20)
        run.assert_nothing_left(files=False)
    assert len(list((tmp_path / "tmp").iterdir())) == 2
    asked(tmp_path / "tmp", *ENDLESS[:-1], "200")  # sees to it that nothing is left
