"""kgen watch on machines that the test itself starts with a gdb stub, as a person would."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _asked import kernel_of
from click.testing import CliRunner, Result
from running import DEADLINE, Run
from test_inspect import Stranger, free_port, stranger

from kgen.cli import main
from kgen.host.process import output
from kgen.machine.platform import Platform
from kgen.machine.rsp import UNKNOWN, Stub
from kgen.spec import Case, KernelSpec

pytestmark = pytest.mark.boot

ENDLESS = KernelSpec(Case("xchg"), rounds=0, controls=False)
OTHER = KernelSpec(Case("xchg"), rounds=2, controls=False)
SHOW_CURSOR = "\x1b[?25h"
BOLD = re.compile(r"\x1b\[[0-9;]*m")
#: From 8.1 on QEMU's stub does not report a stop to a debugger that attaches, and no one can know how the machine was.
_VERSION = re.search(r"version (\d+)\.(\d+)", output(["qemu-system-x86_64", "--version"], DEADLINE))
IS_SILENT = _VERSION is not None and (int(_VERSION[1]), int(_VERSION[2])) >= (8, 1)
GUESS = "it is assumed to have been running: neither its stub nor a --qmp reports that"
FOUND_RUNNING = GUESS if IS_SILENT else "found running"
LEFT_RUNNING = f"the machine was left running ({FOUND_RUNNING})"


@pytest.fixture(scope="module")
def working() -> Iterator[Stranger]:
    """A machine whose kernel works until it is killed, on one CPU of this host: it shall not take what others need."""
    with stranger(ENDLESS) as machine:
        one = {min(os.sched_getaffinity(0))}
        for thread in Path(f"/proc/{machine.process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), one)
        machine.await_log(b"counts:")
        yield machine


def watch(machine: Stranger, *arguments: str, address: str = "", elf: Path | None = None) -> Result:
    """In this process: starting another takes longer than most of what is tested here."""
    return CliRunner().invoke(main, ["watch", address or machine.gdb, str(elf or machine.elf), *arguments])


def assert_line(result: Result, code: int, *parts: str) -> None:
    """It failed with that code and one clear line that has these parts, and said nothing else."""
    assert result.exit_code == code, result.output
    assert re.fullmatch(r"kgen: error: [^\n]+\n", result.output), result.output
    for part in parts:
        assert part in result.output


def seen_rounds(text: str) -> list[int]:
    return [int(count) for count in re.findall(r" (\d+) rounds", text)]


def test_counters_grow_and_the_machine_is_left_running(working: Stranger) -> None:
    result = watch(working, "--for", "2", "--interval", "0.1", "--cost", "5%")
    assert result.exit_code == 0, result.output
    rounds = seen_rounds(result.output)
    assert len(rounds) > 1
    assert rounds == sorted(rounds)
    assert re.findall(r"cost [0-9.]+ %", result.output)
    assert f"\ntime is up; {LEFT_RUNNING}\n" in result.output
    assert working.status() == "running"
    # the last one proves that it runs on, however slow this host is
    until = time.monotonic() + DEADLINE
    while seen_rounds(watch(working, "--once").output)[0] == rounds[0]:
        assert time.monotonic() < until


def test_violations_are_counted_where_they_happen(platform: Platform) -> None:
    with stranger(ENDLESS, platform=platform.name) as machine:
        machine.await_log(b"counts:")
        until = time.monotonic() + DEADLINE
        while True:
            result = watch(machine, "--for", "0.5")
            assert result.exit_code == 0, result.output
            assert LEFT_RUNNING in result.output
            counts = [int(count) for count in re.findall(r"violations (\d+)", result.output)]
            assert counts == sorted(counts)
            if platform.name == "qemu-tcg":
                assert not any(counts)
                break
            if counts[-1]:
                break
            assert time.monotonic() < until
        assert machine.status() == "running"


def test_one_look(working: Stranger) -> None:
    result = watch(working, "--once", "--qmp", working.qmp)
    assert len(seen_rounds(result.output)) == 1
    assert "\nonly one look was requested; the machine was left running (found running)\n" in result.output
    assert working.status() == "running"


def test_what_was_stopped_stays_so_unless_it_shall_run(working: Stranger, tmp_path: Path) -> None:
    """Told by the stub alone, or by the control socket; after a gdb, which changes how the stub names its threads."""
    if IS_SILENT:
        working.inspect(tmp_path, "--after", "stop")
        assert LEFT_RUNNING in watch(working, "--once").output
        assert working.status() == "running"
    working.inspect(tmp_path, "--after", "stop")
    told_by_the_stub = () if IS_SILENT else (((), "found stopped"),)
    for arguments, found in (*told_by_the_stub, (("--qmp", working.qmp), "found paused")):
        result = watch(working, *arguments)
        assert result.exit_code == 0, result.output
        assert f"the machine stands still; the machine was left stopped ({found})" in result.output
        assert working.status() == "paused"
    result = watch(working, "--continue", "--once")
    assert f"the machine was left running ({GUESS if IS_SILENT else 'found stopped'})" in result.output
    assert working.status() == "running"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_machine_running(working: Stranger, tmp_path: Path, number: signal.Signals) -> None:
    with Run(("watch", working.gdb, str(working.elf)), tmp_path / "tmp") as run:
        run.read_until(" rounds")
        run.process.send_signal(number)
        assert run.wait() == (0 if number is signal.SIGINT else 128 + number)
        run.assert_nothing_left()
    assert ("stopped by Ctrl-C" in run.stdout) == (number is signal.SIGINT)
    assert working.status() == "running"


def test_a_reader_that_leaves_early_is_no_reason_to_leave_it_stopped(working: Stranger, tmp_path: Path) -> None:
    with Run(("watch", working.gdb, str(working.elf), "--interval", "0.1"), tmp_path / "tmp") as run:
        run.read_until(" rounds")
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.process.wait(DEADLINE)
    assert working.status() == "running"


def test_the_screen(working: Stranger, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        changes = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        arguments = ("watch", working.gdb, str(working.elf), "--interval", "0.2")
        with Run(arguments, tmp_path / "tmp", changes, terminal=theirs) as run:
            text, until = "", time.monotonic() + DEADLINE
            while text.count("violations") < 3:  # drawn again and again
                assert select.select([ours], [], [], max(0.0, until - time.monotonic()))[0], text
                text += os.read(ours, 65536).decode(errors="replace")
            run.process.send_signal(signal.SIGINT)
            # a long line is wrapped, and each part is bold
            while LEFT_RUNNING not in " ".join(BOLD.sub("", text).split()) or SHOW_CURSOR not in text:
                assert select.select([ours], [], [], max(0.0, until - time.monotonic()))[0], text
                text += os.read(ours, 65536).decode(errors="replace")
            assert run.wait() == 0
    finally:
        os.close(ours)
        os.close(theirs)
    for words in ("xchg.32.vga-text.token", "CPU 2", "cells", "(allowed: 2 %)", "for a verdict use kgen verify"):
        assert words in text
    assert working.status() == "running"


def test_a_machine_that_somebody_else_stops_is_his(working: Stranger, tmp_path: Path) -> None:
    with Run(("watch", working.gdb, str(working.elf)), tmp_path / "tmp") as run:
        run.read_until(" rounds")
        with contextlib.closing(working.session()) as control:
            control.execute("stop", {}, 10)
        assert run.wait() == 0, run.stderr
        told = f"another debugger stopped the machine; the machine was left stopped ({FOUND_RUNNING})"
        assert told in run.stdout
        assert working.status() == "paused"
        with contextlib.closing(working.session()) as control:
            control.execute("cont", {}, 10)


def test_an_elf_of_another_build_is_one_line(working: Stranger, tmp_path: Path) -> None:
    other = tmp_path / "other.elf"
    other.write_bytes(kernel_of(OTHER).elf.data)
    assert_line(watch(working, elf=other), 9, "the guest runs build", "the ELF is build", "give the ELF")
    assert working.status() == "running"


def test_no_elf_and_no_stub_are_one_line(working: Stranger) -> None:
    assert_line(watch(working, elf=Path(__file__)), 2, "test_watch.py", "is not a kernel built by kgen")
    assert_line(watch(working, address=free_port()), 9, "no stub answers")
    assert_line(watch(working, address="nowhere"), 2, "neither HOST:PORT nor a socket")


def test_a_stub_that_says_nothing_is_one_line(working: Stranger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert_line(
            watch(working, "--timeout", "1", address=address),
            9,
            "the stub did not answer within 1 s; is another debugger",
        )


def test_a_machine_that_another_debugger_holds_runs_on_when_that_one_leaves(working: Stranger) -> None:
    """QEMU takes us in after the other has left, when we are long gone, and stops the machine for us."""
    with Stub(working.gdb) as other:
        other.go()
        assert_line(
            watch(working, "--timeout", "1"), 9, "is another debugger connected?", "it is requested to let the machine"
        )
        other.leave()
    assert LEFT_RUNNING in watch(working, "--once").output  # taken in after our first connection


def test_an_emulator_that_is_held_up_lets_the_machine_run_when_it_comes_to_itself(
    working: Stranger, tmp_path: Path
) -> None:
    with Run(("watch", working.gdb, str(working.elf), "--timeout", "1"), tmp_path / "tmp") as run:
        run.read_until(" rounds")
        os.kill(working.process, signal.SIGSTOP)
        try:
            assert run.wait() == 9
        finally:
            os.kill(working.process, signal.SIGCONT)
    assert UNKNOWN in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert LEFT_RUNNING in watch(working, "--once").output


def test_a_stub_that_hangs_up_before_a_look_is_one_line(working: Stranger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def hang_up() -> None:
            for answers in ((), (b"PacketSize=1000", b"m1", b"l", b"", b"")):
                with server.accept()[0] as connection:
                    for answer in answers:
                        connection.recv(4096)
                        connection.sendall(b"$%s#%02x" % (answer, sum(answer) & 0xFF))

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        for _ in range(2):
            assert_line(watch(working, "--once", address=address), 10, f"{address}: the emulator hung up")
        thread.join(5)
        assert not thread.is_alive()


def test_by_tcp_to_the_end_of_the_run() -> None:
    with stranger(KernelSpec(Case("xchg"), rounds=50), "-S", tcp=True) as machine:
        assert_line(watch(machine), 9, "there is no results block", "has the kernel booted?")
        assert machine.status() == "prelaunch"
        result = watch(machine, "--continue", "--interval", "0.1", "--cost", "5%")
        assert result.exit_code == 0, result.output
        assert "the run is over; the machine was left running (found stopped: prelaunch)" in result.output
        assert "6 of 6 case:xchg.32@vga-text DONE  50 of 50 rounds" in result.output


def test_by_tcp_to_the_end_of_the_machine(tmp_path: Path) -> None:
    with (
        stranger(ENDLESS, tcp=True) as machine,
        Run(("watch", machine.gdb, str(machine.elf)), tmp_path / "tmp") as run,
    ):
        run.read_until(" rounds")
        with contextlib.closing(machine.session()) as control:
            control.execute("quit", {}, 10)
        assert run.wait() == 0, run.stderr
        assert "the machine ended; the machine is gone" in run.stdout


def test_a_guest_that_dies(tmp_path: Path) -> None:
    with stranger(ENDLESS, "-no-reboot", "-no-shutdown") as machine:
        with Run(("watch", machine.gdb, str(machine.elf)), tmp_path / "tmp") as run:
            run.read_until(" rounds")
            with contextlib.closing(machine.session()) as control:
                control.execute("system_reset", {}, 10)
            assert run.wait() == 10
            told = f"the guest shut down or triple-faulted; the machine was left stopped ({FOUND_RUNNING})"
            assert run.stderr == f"kgen: error: {machine.gdb}: {told}\n"
        assert machine.status() == "shutdown"
        assert "left stopped (found stopped: shutdown, and only a reset could let it run)" in watch(machine).output
