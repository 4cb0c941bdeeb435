"""VirtualBox: its own interpreter and recompiler, driven by VBoxManage. Without it, and without the root that 'kgen lab
build virtualbox' makes, every test is skipped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from _kernel import DEADLINE, built, memory_of, needs, replaced, run, spec_of
from running import Run, assert_one_line, kgen, marked
from test_kernel_faults import CONSUMER, before_the_call

from kgen.build import build
from kgen.errors import DebuggerError
from kgen.kernel.results_block import BootPath, KernelState
from kgen.machine import virtualbox
from kgen.machine.engine import Engine
from kgen.machine.platform import LaunchRequest
from kgen.media import formats
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

RUN = ("verify", "--instr", "xchg", "--platform", "virtualbox")
#: Without an end.
ENDLESS = (*RUN, "--no-controls", "--rounds", "4000000000")


@pytest.fixture(autouse=True)
def _there_is_a_virtualbox() -> None:
    needs("virtualbox")


def test_the_case_through_both_channels() -> None:
    """In one boot: record and memory agree, VirtualBox names the range and what carried the guest out, and its
    interpreter tears the exchange."""
    spec = spec_of(target="vga-text", rounds=5000, controls=True)
    seen = observe(build(spec), needs("virtualbox"), Options(timeout=DEADLINE, gdb="no-such-gdb"))
    verdict = judge(spec, seen)
    record = memory_of(seen)
    assert (seen.problems, seen.crash, seen.cut) == ((), "", "")
    assert (record.state, record.boot_path) == (KernelState.FINISHED, BootPath.DISK)
    assert seen.differences == ()
    assert (seen.path.kind, seen.path.region) == ("io", "VGA - VGA Video Buffer")
    assert [entry["cpu"] for entry in seen.registers] == [0, 1, 2]
    about = seen.environment["virtualbox"]
    assert about["engine"] in seen.environment["versions"]["emulator"]
    if about["engine"].startswith("IEM"):
        assert verdict.kind is VerdictKind.NOT_ATOMIC


def test_the_interpreter_is_the_one_that_was_asked_for() -> None:
    spec = spec_of(target="ram", rounds=200)
    seen = observe(build(spec), needs("virtualbox"), Options(timeout=DEADLINE, engine="iem-interpreter", vga="vmsvga"))
    assert (seen.problems, seen.crash, seen.cut) == ((), "", "")
    assert seen.environment["virtualbox"]["engine"] == "IEM, interpreter"
    assert (seen.path.kind, judge(spec, seen).violations) == ("ram", {"lost": 0, "duplicate": 0, "torn": 0, "stale": 0})


def test_a_machine_that_was_looked_at_runs_on(tmp_path: Path) -> None:
    """Each look reads a core of its own."""
    kernel = build(spec_of(target="ram", rounds=4_000_000_000))
    image = tmp_path / "kernel.vdi"
    formats()["vdi"].write(kernel.payload, image)
    request = LaunchRequest(kernel=None, image=image)
    looks: list[bytes] = []
    with virtualbox.start(needs("virtualbox"), request, gdb="", pinned=contextlib.nullcontext()) as machine:
        await_rows(machine)
        for _ in range(2):
            stopped = machine.freeze()
            looks += [stopped.read_memory(kernel.elf.symbols["results"], 4096) for _ in range(2)]
            with pytest.raises(DebuggerError, match="does not have the 4 bytes at 0xb8000"):
                stopped.read_memory(0xB8000, 4)
            machine.thaw()
            await_rows(machine)
    assert looks[0] == looks[1]
    assert looks[2] == looks[3]
    assert looks[0] != looks[2]


def await_rows(machine: Engine) -> None:
    """Return once the guest has printed a few more rows of its table."""
    said = b""
    until = time.monotonic() + DEADLINE
    while said.count(b"\t") < 12:
        assert time.monotonic() < until, said
        said += machine.read_serial(1)


def test_without_an_adapter_there_is_no_storage(tmp_path: Path) -> None:
    mine = kgen(tmp_path / "tmp", *RUN, "--rounds", "200", "--vga", "none")
    assert mine.process.returncode == VerdictKind.NO_STORAGE.value, mine.stdout + mine.stderr
    assert "\npath: hole" in mine.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--stop-on-violation",), "no breakpoint hits on virtualbox"),
        (("--keep",), "virtualbox has no stub"),
        (("--vga", "std"), "unknown graphics adapter 'std'"),
        (("--engine", "hm"), "unknown engine 'hm'"),
        (("--boot", "usb"), "--boot: virtualbox offers no choice of it"),
        (("--qemu", "true"), "--qemu is for QEMU"),
    ],
)
def test_what_it_does_not_offer_is_refused(tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    assert_one_line(kgen(tmp_path / "tmp", *RUN, *words), 2, line)


def test_words_of_the_users_own_that_virtualbox_refuses(tmp_path: Path) -> None:
    mine = kgen(tmp_path / "tmp", *RUN, "--", "--no-such-option")
    assert_one_line(mine, 9, "VBoxManage modifyvm: ", "--no-such-option")


def test_a_triple_fault() -> None:
    """VirtualBox stops the guest, and says why."""
    seen, verdict = run(
        built(
            spec_of(),
            replaced("debug_exit_port:\n", "no_idt:\n    .skip 8\ndebug_exit_port:\n"),
            before_the_call(CONSUMER, "lidt [no_idt]\n    ud2"),
        ),
        "virtualbox",
    )
    assert verdict.kind is VerdictKind.CRASH
    assert "triple fault" in verdict.reason
    assert "case:xchg.32@ram" in seen.log


def test_ctrl_c_parks_the_guest(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    with Run((*ENDLESS, "--json", str(result)), tmp_path / "tmp") as mine:
        machine(mine)
        time.sleep(3)
        mine.process.send_signal(signal.SIGINT)
        mine.wait()
        mine.assert_nothing_left()
    seen = json.loads(result.read_text())["observation"]
    assert "stopped by Ctrl-C" in seen["cut"], seen["cut"]
    assert seen["memory"]["state"] == "stopped"


def test_a_machine_that_is_killed_is_a_crash(tmp_path: Path) -> None:
    with Run(ENDLESS, tmp_path / "tmp") as mine:
        pid = machine(mine)
        time.sleep(3)
        os.kill(pid, signal.SIGKILL)
        assert mine.wait() == VerdictKind.CRASH.value, mine.stdout
        mine.assert_nothing_left()
    assert "\nCRASH: VirtualBox's machine ended with status -9" in mine.stdout


def machine(mine: Run) -> int:
    """The process that is the machine, as soon as it is there."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        for pid in marked(mine.mark):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"--startvm" in words and words[0].endswith((b"python3", b"VBoxHeadless")):
                    return pid
        time.sleep(0.02)
    raise AssertionError("no machine was started")


def test_kgen_is_killed_at_random_moments(tmp_path: Path) -> None:
    """The full count is in tests/soak."""
    kill_kgen(tmp_path / "tmp", times=2, seed=random.SystemRandom().getrandbits(32))


def kill_kgen(temporary: Path, times: int, seed: int) -> None:
    """Kill kgen that many times, each at a random moment: no process is left, and the next run removes the files."""
    print(f"seed {seed}")
    moments = random.Random(seed)
    for number in range(times):
        before = set(temporary.glob("*"))
        with Run(ENDLESS, temporary) as mine:
            time.sleep(moments.uniform(0.3, 8))
            mine.process.send_signal(signal.SIGKILL if number % 2 == 0 else signal.SIGTERM)
            mine.process.wait(DEADLINE)
            mine.assert_nothing_left(files=False)
            # one that is ended before it looked leaves what others left
            assert number % 2 == 0 or set(temporary.glob("*")) <= before
    assert not list(Path("/tmp").glob(".vbox-kgen-*-ipc"))
    # it removes what the killed ones left
    kgen(temporary, *RUN, "--target", "ram", "--no-controls", "--rounds", "100")
