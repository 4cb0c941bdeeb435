"""The pytest plugin and kgen.api on real machines: a suite is run once, results are written, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from running import DEADLINE, Run, environment

from kgen import api
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platform_named

PYTEST = (sys.executable, "-m", "pytest", "-p", "kgen.pytest_plugin", "-p", "no:cacheprovider")
PYTEST += ("-p", "no:hypothesispytest", "-ra")
CONFORMANCE = ("--pyargs", "kgen.conformance")


def _pytest(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYTEST, *words],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.soak
def test_the_cases_that_are_left_run_once_in_one_boot(tmp_path: Path) -> None:
    options = ("--kgen-platform", "qemu-tcg", "--kgen-rounds", "500", "--kgen-budget", "60s", "--kgen-json", "tcg.json")
    done = _pytest(tmp_path, *CONFORMANCE, *options, "--kgen-expect", "known", "-k", "xadd or framebuffer")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    (run,) = api.load(tmp_path / "tcg.json")
    cases = ["xadd.32.vga-text.counter", "xchg.32.framebuffer.chain"]
    assert [result.case for result in run.results] == cases
    assert [result.kind.name for result in run.results] == ["ATOMIC", "RAM_BACKED"]
    assert len({id(result.observation) for result in run.results}) == 1


@pytest.mark.soak
def test_on_kvm_each_case_fails_with_its_evidence(tmp_path: Path) -> None:
    reason = platform_named("qemu-kvm").unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"qemu-kvm: {reason}")
    options = ("--kgen-platform", "qemu-kvm", "--kgen-only", "xchg.8", "--kgen-rounds", "500")
    done = _pytest(tmp_path, *CONFORMANCE, *options)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert re.search(r"^NOT_ATOMIC: .* lost", done.stdout, re.MULTILINE)
    assert "witnesses (" in done.stdout
    assert re.search(r"^FAILED .*xchg\.8\.pc-testdev\.chain. - Failed: NOT_ATOMIC", done.stdout, re.MULTILINE)


def test_a_platform_that_is_not_there_is_a_skip_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text('[[case]]\ninstr = ["xchg", "xadd"]\ntarget = "edu"\n')
    options = ("--kgen-platform", "bochs", "--kgen-suite", "two.toml", "--kgen-json", "none.json")
    done = _pytest(tmp_path, *CONFORMANCE, *options)
    assert done.returncode == 0, done.stdout
    assert "2 skipped" in done.stdout
    assert "SKIP: bochs: the platform has no edu device" in done.stdout
    runs = api.load(tmp_path / "none.json")
    assert [result.kind.name for result in runs[0].results] == ["SKIP", "SKIP"]
    told = api.report(*runs)
    assert "SKIP: 2 SKIP" in told
    assert not api.compare(runs[0], runs[0]).failed


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="children are counted in /proc")
def test_ctrl_c_ends_pytest_and_the_machine(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "def test_long(kgen_verify):\n    open('begun', 'w').close()\n    kgen_verify('xchg', seconds=60)\n"
    )
    words = [*PYTEST, "test_mine.py", "--kgen-platform", "qemu-tcg"]
    child = subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        until = time.monotonic() + DEADLINE
        while not _machines_below(child.pid):
            assert child.poll() is None, child.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.05)
        machines = _machines_below(child.pid)
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=DEADLINE)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == pytest.ExitCode.INTERRUPTED, output
    assert not [pid for pid in machines if Path(f"/proc/{pid}/exe").exists()]


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_pytest_when_the_machine_and_its_files_are_gone(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "test_mine.py").write_text("def test_long(kgen_verify):\n    kgen_verify('xchg', seconds=60)\n")
    words = ("--rootdir", str(tmp_path), str(tmp_path / "test_mine.py"), "--kgen-platform", "qemu-tcg")
    with Run(words, tmp_path / "tmp", program=PYTEST) as run:
        run.await_start("gdb")
        run.process.send_signal(number)
        assert run.wait(30) == -number, run.stdout
        run.assert_nothing_left()


def _machines_below(pid: int) -> list[int]:
    """The QEMUs that a process has started, or what it has started."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            program = os.readlink(f"/proc/{child}/exe")
            found += [int(child)] if "qemu" in program else _machines_below(int(child))
        except OSError:  # it has ended
            continue
    return found


def test_any_thread_may_ask() -> None:
    runs: list[api.Run] = []
    thread = threading.Thread(target=lambda: runs.append(api.verify("xchg", rounds=300, extra=["-vga", "none"])))
    thread.start()
    thread.join(DEADLINE)
    runs[0].require("RAM_BACKED")


def test_it_may_be_asked_inside_a_running_loop() -> None:
    async def ask() -> api.Run:
        return api.verify("xchg", rounds=300, extra=["-vga", "none"])

    asyncio.run(ask()).require("RAM_BACKED")
