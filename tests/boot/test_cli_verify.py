"""kgen verify as a person and as a script use it: outputs, exit codes, Ctrl-C, and what goes wrong while it runs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from _asked import asked, assert_line
from running import DEADLINE, Run, assert_one_line, in_gdb, kgen

from kgen.kernel.protocol import TABLE_HEADER

#: Quick: no controls, memory only.
QUICK = ("verify", "--instr", "xchg", "--target", "ram", "--no-controls", "--rounds", "200")
#: Long enough to be interrupted.
LONG = ("verify", "--instr", "xchg", "--target", "ram", "--no-controls", "--rounds", "4000000000")
#: The command line by whom Ctrl-C is ignored, as in the background of a shell.
DEAF = """
import runpy, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
runpy.run_module("_prebuilt", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    return tmp_path / "tmp"


def test_plain_text_where_there_is_no_terminal(temporary: Path) -> None:
    """No escape, no carriage return, no line of progress; the table as the original prints it."""
    run = kgen(temporary, *QUICK)
    assert (run.process.returncode, run.stderr) == (4, "")
    assert run.stdout.startswith("xchg.32.ram.token on qemu-tcg\n")
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", run.stdout)
    assert f"\n{TABLE_HEADER}\ncounts:\t200\t" in run.stdout
    assert "INCONCLUSIVE: no controls were run" in run.stdout


def test_json_on_standard_output_is_all_there_is_on_it(temporary: Path) -> None:
    run = kgen(temporary, *QUICK, "--json", "-")
    result = json.loads(run.stdout)
    assert result["verdict"]["kind"] == "INCONCLUSIVE"
    assert "INCONCLUSIVE: no controls were run" in run.stderr
    about = result["observation"]["environment"]
    assert about["command"][0].rpartition("/")[2].startswith("qemu-system-")
    assert "-kernel" in about["command"]
    assert (about["accel"], about["thread"]) == ("tcg", "multi")
    assert about["host"]["cpu"]
    assert about["host"]["kernel"] == os.uname().release
    assert about["versions"]["emulator"].startswith("QEMU emulator version")
    assert about["versions"]["gdb"].startswith("GNU gdb")
    assert "kvm" in about
    if "microcode" in Path("/proc/cpuinfo").read_text():
        assert about["host"]["microcode"]


def test_exit_codes_are_what_was_asked_for(temporary: Path) -> None:
    assert asked(temporary, *QUICK, "--exit-codes", "bisect").exit_code == 125
    assert asked(temporary, *QUICK, "--expect", "inconclusive").exit_code == 0
    run = asked(temporary, *QUICK, "--expect", "known")
    assert (run.exit_code, run.stderr) == (4, "kgen: expected ATOMIC, got INCONCLUSIVE\n")


def test_ram_where_vga_should_be(temporary: Path) -> None:
    run = asked(temporary, "verify", "--instr", "xchg", "--rounds", "100", "--", "-vga", "none")
    assert run.exit_code == 5, run.stdout
    assert "\nRAM_BACKED: vga-text is ordinary memory here" in run.stdout


def test_arguments_that_qemu_refuses(temporary: Path) -> None:
    assert_line(asked(temporary, *QUICK, "--", "-nonsense"), 9, "QEMU: ", "-nonsense", "invalid option")
    assert_line(asked(temporary, *QUICK, "--", "-device", "no-such-device"), 9, "QEMU: ", "no-such-device")
    assert_line(asked(temporary, *QUICK, "--exit-codes", "bisect", "--", "-nonsense"), 125, "-nonsense")


def test_a_qemu_that_ends_without_a_word(temporary: Path) -> None:
    run = kgen(temporary, *QUICK, "--qemu", "true")
    assert_one_line(run, 9, "QEMU exited with status 0 without a word; is this a QEMU? check --qemu")


@pytest.mark.parametrize("program", ["true", "cat"])
def test_a_qemu_that_is_none(temporary: Path, program: str) -> None:
    path = shutil.which(program)
    assert path
    file = temporary.parent / "r.json"
    assert_line(asked(temporary, *QUICK, "--qemu", path, "--json", str(file)), 9, "QEMU")
    assert json.loads(file.read_text())["verdict"]["kind"] == "ERROR"


@pytest.mark.parametrize("program", ["true", "cat"])
def test_a_gdb_that_is_none(temporary: Path, program: str) -> None:
    run = asked(temporary, *QUICK, "--gdb", program)
    assert run.exit_code == 9
    if run.stdout:  # it lived long enough for the guest to be seen
        assert "\nERROR: " in run.stdout
    else:
        assert_line(run, 9, "gdb")


def test_no_gdb_in_the_path(temporary: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("qemu-system-i386", "qemu-system-x86_64"):
        if path := shutil.which(name):
            (programs / name).symlink_to(path)
    run = asked(temporary, *QUICK, PATH=str(programs))
    assert_line(run, 9, "'gdb' is not to be found; install it with", "--gdb")


def test_pinning(temporary: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    assert asked(temporary, *QUICK, "--pin", str(cpu)).exit_code == 4
    for wrong in ("8000", f"{cpu},8000"):
        assert_line(asked(temporary, *QUICK, "--pin", wrong), 2, "--pin: this host has no CPU 8000 to pin to")


def test_only_qemu_is_pinned(temporary: Path, prebuilt: Sequence[str]) -> None:
    cpus = os.sched_getaffinity(0)
    with Run((*LONG, "--pin", str(min(cpus))), temporary, program=prebuilt) as run:
        qemu, gdb = run.await_start("qemu-system"), run.await_start("gdb")
        assert os.sched_getaffinity(qemu) == {min(cpus)}
        assert os.sched_getaffinity(gdb) == os.sched_getaffinity(run.process.pid) == cpus
        run.process.terminate()
        run.wait()


@pytest.mark.parametrize("port", ["0x2f8", "0x3e8", "0x2e8", "0x1000"])
def test_another_serial_port(temporary: Path, port: str) -> None:
    """The machine gets what the kernel talks on."""
    run = asked(temporary, *QUICK, "--serial-port", port, "--timeout", "60")
    assert "INCONCLUSIVE: no controls were run" in run.stdout


def test_too_few_cpus_are_all_that_is_said(temporary: Path) -> None:
    """Nothing ran: there is no path to speak of, and no power of controls."""
    run = asked(temporary, "verify", "--instr", "xchg", "--rounds", "100", "--", "-smp", "2")
    assert run.exit_code == 9
    assert "\nERROR: only 2 CPUs started and the case needs 3: give the machine 3 CPUs\n" in run.stdout
    assert "might have been missed" not in run.stdout
    assert "path:" not in run.stdout


def test_names_in_any_case(temporary: Path) -> None:
    run = asked(temporary, "verify", "--instr", "XCHG", "--target", "RAM", *QUICK[5:])
    assert run.stdout.startswith("xchg.32.ram.token on qemu-tcg\n")


def test_monitors_of_ones_own_do_no_harm(temporary: Path, tmp_path: Path) -> None:
    own = ("-qmp", f"unix:{tmp_path}/q,server=on,wait=off", "-monitor", "null", "-serial", "null", "-name", "gdb")
    assert "INCONCLUSIVE: no controls were run" in asked(temporary, *QUICK, "--", *own).stdout


def test_a_ctrl_c_that_is_ignored_stays_ignored(temporary: Path, prebuilt: Sequence[str]) -> None:
    with Run((*LONG[:-2], "--seconds", "2"), temporary, program=(sys.executable, "-c", DEAF, prebuilt[-1])) as run:
        run.await_work("qemu-system")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 4, run.stderr
    assert "Ctrl-C" not in run.stdout


def test_a_directory_with_blanks(tmp_path: Path) -> None:
    assert asked(tmp_path / "a 'b' c", *QUICK).exit_code == 4


def test_too_little_time(temporary: Path) -> None:
    """The debugger reads what there is, and a run that was cut proves nothing."""
    run = asked(temporary, *LONG, "--timeout", "1")
    assert run.exit_code == 4, run.stdout
    assert "INCONCLUSIVE" in run.stdout
    assert "the run did not end within 1 s (--timeout)" in run.stdout


def test_seconds_end_the_case_in_order(temporary: Path) -> None:
    file = temporary.parent / "r.json"
    run = asked(temporary, *LONG[:-2], "--seconds", "0.5", "--json", str(file))
    assert run.exit_code == 4, run.stdout
    result = json.loads(file.read_text())
    assert result["spec"]["rounds"] == 0
    assert result["observation"]["serial"]["complete"]
    assert result["verdict"]["reason"] == "no controls were run"
    assert result["verdict"]["rounds"] > 0


def test_rounds_and_seconds_whichever_is_first(temporary: Path) -> None:
    run = asked(temporary, *QUICK, "--seconds", "60")
    assert "\ncounts:\t200\t" in run.stdout


def test_ctrl_c_parks_the_guest_and_judges(temporary: Path, prebuilt: Sequence[str]) -> None:
    file = temporary.parent / "r.json"
    with Run((*LONG, "--json", str(file)), temporary, program=prebuilt) as run:
        run.await_work("qemu-system")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 4, run.stderr
        run.assert_nothing_left()
    assert "the run was stopped by Ctrl-C" in run.stdout
    result = json.loads(file.read_text())
    assert result["observation"]["serial"]["complete"]
    assert result["observation"]["serial"]["state"] == result["observation"]["memory"]["state"]


def test_a_second_ctrl_c_gives_up(temporary: Path, prebuilt: Sequence[str]) -> None:
    """A guest that does not listen (it is stopped before it starts) keeps us waiting only as long as we like."""
    file = temporary.parent / "r.json"
    with Run((*LONG, "--json", str(file), "--", "-S"), temporary, program=prebuilt) as run:
        run.await_start("gdb")
        time.sleep(0.7)
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.7)
        assert run.process.poll() is None
        run.process.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
        run.assert_nothing_left()
    assert (run.stdout, run.stderr) == ("", "kgen: interrupted\n")
    assert not file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_tidies_up(temporary: Path, prebuilt: Sequence[str], number: signal.Signals) -> None:
    with Run(LONG, temporary, program=prebuilt) as run:
        run.await_work("qemu-system")
        run.process.send_signal(number)
        assert run.wait(20) == 128 + number
        run.assert_nothing_left()
    assert (run.stdout, run.stderr) == ("", f"kgen: ended by {number.name}\n")


# --- on a terminal


@contextmanager
def terminal(temporary: Path, program: Sequence[str], *arguments: str, **changes: str) -> Iterator[tuple[Run, int]]:
    """A kgen on a terminal of its own, and our end of it."""
    ours, theirs = pty.openpty()
    try:
        with Run(arguments, temporary, {"TERM": "xterm", **changes}, program, terminal=theirs) as run:
            yield run, ours
    finally:
        os.close(ours)
        os.close(theirs)


def read_until(end: int, words: str, seconds: float = DEADLINE, times: int = 1) -> str:
    """What comes from a terminal until the words have come so often."""
    heard = b""
    until = time.monotonic() + seconds
    while heard.count(words.encode()) < times:
        ready, _, _ = select.select([end], [], [], max(0.0, until - time.monotonic()))
        assert ready, heard.decode(errors="replace")
        heard += os.read(end, 65536)
    return heard.decode(errors="replace")


def test_a_terminal_sees_it_live_and_keeps_the_tabs(temporary: Path, prebuilt: Sequence[str]) -> None:
    with terminal(temporary, prebuilt, *QUICK) as (run, ours):
        text = read_until(ours, "INCONCLUSIVE: no controls were run", times=2)
        assert run.wait() == 4
    assert "xchg.32.ram.token on qemu-tcg: building" in text
    # A terminal turns \n into \r\n.
    assert f"\r\n{TABLE_HEADER}\r\ncounts:\t200\t" in text


def test_a_dumb_terminal_gets_the_result(temporary: Path, prebuilt: Sequence[str]) -> None:
    with terminal(temporary, prebuilt, *QUICK, TERM="dumb") as (run, ours):
        text = read_until(ours, "INCONCLUSIVE: no controls were run", times=2)
        assert run.wait() == 4
    assert f"\r\n{TABLE_HEADER}\r\ncounts:\t200\t" in text
    assert "\x1b" not in text


def test_without_an_end_on_a_terminal_until_ctrl_c(temporary: Path, prebuilt: Sequence[str]) -> None:
    with terminal(temporary, prebuilt, *LONG[:-1], "0") as (run, ours):
        text = read_until(ours, "rounds, ")
        run.process.send_signal(signal.SIGINT)
        text += read_until(ours, "the run was stopped by Ctrl-C")
        assert run.wait() == 4
        run.assert_nothing_left()
    assert "stopping" in text
    assert "INCONCLUSIVE: no controls were run" in text


# --- --keep


def test_a_kept_machine_can_be_joined_and_ends_with_ctrl_c(temporary: Path, prebuilt: Sequence[str]) -> None:
    """By the command line that is printed, twice; the machine is still where the verdict was read."""
    file = temporary.parent / "r.json"
    with Run((*QUICK, "--keep", "--json", str(file)), temporary, program=prebuilt) as run:
        said = run.read_until("gdb -d")
        assert "INCONCLUSIVE: no controls were run" in said
        assert json.loads(file.read_text())["verdict"]["rounds"] == 200
        for _ in range(2):
            seen = in_gdb(said.splitlines()[-1], "info threads", "p results.cpu[0].puts")
            assert "$1 = 200" in seen.stdout, seen.stdout + seen.stderr
            assert "CPU#2" in seen.stdout
        assert run.process.poll() is None
        run.process.send_signal(signal.SIGINT)
        assert run.wait(20) == 4
        run.assert_nothing_left()
    assert run.stderr == ""


def test_a_kept_machine_that_dies_ends_the_wait(temporary: Path, prebuilt: Sequence[str]) -> None:
    with Run((*QUICK, "--keep"), temporary, program=prebuilt) as run:
        assert run.process.stdout is not None
        while "gdb -d" not in run.process.stdout.readline():
            pass
        os.kill(run.await_start("qemu-system"), signal.SIGKILL)
        assert run.wait(20) == 4
        run.assert_nothing_left()
    assert "the machine is gone: QEMU was killed by SIGKILL" in run.stdout


def test_a_dead_machine_is_not_kept(temporary: Path, prebuilt: Sequence[str]) -> None:
    with Run((*LONG, "--keep"), temporary, program=prebuilt) as run:
        os.kill(run.await_work("qemu-system"), signal.SIGKILL)
        assert run.wait(30) == 10
        run.assert_nothing_left()
    assert "frozen" not in run.stdout
