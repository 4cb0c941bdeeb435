"""Children are heard without being able to block, ended for certain, and their end is put into words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kgen.host.process import HEAD_BYTES, TAIL_BYTES, foreground, output, spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="machines are run on POSIX systems")


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def test_a_child_nobody_listens_to_does_not_block() -> None:
    child = spawn(
        shell("echo first >&2; i=0; while [ $i -lt 4000 ]; do echo a line of chatter $i; i=$((i+1)); done >&2")
    )
    try:
        assert child.wait(20) is not None  # 100 kB into a pipe that holds 64
        lines = child.stderr_lines()
        assert lines[0] == "first"
        assert sum(map(len, lines)) <= HEAD_BYTES + TAIL_BYTES
    finally:
        child.stop()


def test_beginning_and_end_of_a_long_talk_are_kept() -> None:
    child = spawn(shell("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done >&2; echo last >&2"))
    try:
        child.wait(20)
        lines = child.stderr_lines()
        assert (lines[0], lines[-1]) == ("line 0", "last")
        assert len(lines) < 3000
    finally:
        child.stop()


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("exit 0", 0, "exited with status 0"),
        ("exit 7", 7, "exited with status 7"),
        ("kill -SEGV $$", -signal.SIGSEGV, "was killed by SIGSEGV"),
    ],
)
def test_the_end_in_words(script: str, status: int, words: str) -> None:
    child = spawn(shell(script))
    assert child.wait(10) == status
    assert child.epitaph() == words
    assert child.stop() == status
    assert child.stop() == status


def test_ending_one_that_refuses() -> None:
    child = spawn(shell("trap '' TERM; echo ready >&2; while :; do sleep 0.05; done"))
    while not child.stderr_lines():
        time.sleep(0.01)
    assert child.wait(0.05) is None
    assert child.epitaph() == "is still running"
    asked: list[int] = []
    began = time.monotonic()
    assert child.stop(lambda: asked.append(1), grace=0.2) == -signal.SIGKILL
    assert asked == [1]
    assert 0.35 < time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_pipes_session_and_environment() -> None:
    child = spawn(shell('read word; echo "$word $KGEN_TEST"'), pipes=True, env={"KGEN_TEST": "there"})
    assert child.stdin is not None
    assert child.stdout is not None
    assert os.getsid(child.pid) == child.pid
    child.stdin.write(b"hello\n")
    assert child.wait(10) == 0
    assert child.stdout.read() == b"hello there\n"
    child.stop()


def test_a_program_that_is_not_there() -> None:
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(FileNotFoundError):
        spawn(("no-such-program",))
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


def test_output_of_short_programs() -> None:
    assert output(shell("echo words; echo noise >&2"), 10) == "words\n"
    assert output(("no-such-program",), 10) == ""
    began = time.monotonic()
    assert output(("sleep", "60"), 0.2) == ""
    assert time.monotonic() - began < 30


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.strip().startswith("Z")


def wrapped(directory: Path) -> tuple[tuple[str, ...], Callable[[], int]]:
    """A script that runs a program which hears no SIGTERM, without exec; and that program's process id."""
    file = directory / "pid"
    inner = f"trap '' TERM; echo $$ > {file}.new; mv {file}.new {file}; while :; do sleep 0.05; done"

    def pid() -> int:
        until(file.exists)
        return int(file.read_text())

    return shell(f'/bin/sh -c "{inner.replace("$$", chr(92) + "$$")}"; exit 3'), pid


@pytest.mark.parametrize("guarded", [False, True])
def test_what_a_script_has_started_ends_with_it(tmp_path: Path, guarded: bool) -> None:
    command, inner = wrapped(tmp_path)
    child = spawn(command, guarded=guarded)
    pid = inner()
    assert child.stop(grace=0.1) in (-signal.SIGTERM, -signal.SIGKILL)
    assert not lives(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_script_that_is_killed_takes_along_what_it_has_started(tmp_path: Path, number: signal.Signals) -> None:
    command, inner = wrapped(tmp_path)
    child = spawn(command, guarded=True)
    pid = inner()
    os.kill(child.pid, number)
    assert child.wait(10) == -number
    assert not lives(pid)
    assert child.stop() == -number


def test_asking_is_enough_for_a_script_too(tmp_path: Path) -> None:
    command, inner = wrapped(tmp_path)
    child = spawn(command, guarded=True)
    assert child.stop(lambda: os.kill(inner(), signal.SIGKILL), grace=10) in (3, 137)


KILLED = """
import sys, time
from kgen.host.process import spawn
print(spawn(sys.argv[1:], guarded=True).pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_when_we_are_killed_a_script_and_all_it_has_started_are_too(tmp_path: Path) -> None:
    command, inner = wrapped(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    with parent:
        assert parent.stdout is not None
        script, pid = int(parent.stdout.readline()), inner()
        parent.kill()
    until(lambda: not lives(script))
    until(lambda: not lives(pid))


SIGNALLED = """
import os, signal, sys
from kgen.host.process import spawn
class Ended(SystemExit): pass
def end(*_): raise Ended
signal.signal(signal.SIGTERM, end)
# as late as can be: another hook of Python's runs after this one, and what is raised there is forgotten
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
try:
    spawn(["sleep", "60"], guarded=True)
except Ended:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("ended, and no child is left")
"""


def test_a_signal_while_a_child_is_made_is_not_forgotten() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ended, and no child is left\n", "")


def test_a_child_has_the_signals_that_we_had() -> None:
    child = spawn(shell("kill -TERM $$; sleep 60"))
    assert child.wait(10) == -signal.SIGTERM
    child.stop()


def test_the_watchdog_has_a_name_and_goes_with_its_child() -> None:
    child = spawn(("sleep", "60"), guarded=True)
    watchdog = child._watchdog
    assert watchdog is not None
    said = subprocess.run(["ps", "-o", "args=", "-p", str(watchdog.pid)], capture_output=True, text=True, check=True)
    assert f"kgen-watchdog {child.pid}" in said.stdout
    child.stop()
    assert watchdog.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
@pytest.mark.parametrize("offline", [True, False])
def test_a_thread_that_would_use_the_network_ends(offline: bool) -> None:
    """Only that thread: the program goes on, and sockets that stay on this host are left to it."""
    program = """
import os, socket, sys, threading
def reach(family):
    socket.socket(family)
    os.write(1, b"has a socket\\n")
threads = [threading.Thread(target=reach, args=(family,), daemon=True) for family in (socket.AF_INET, socket.AF_INET6)]
for thread in threads:
    thread.start()
    thread.join(1)
socket.socket(socket.AF_UNIX).close()
os.write(1, b"goes on\\n")
sys.stdin.read(1)
"""
    child = spawn((sys.executable, "-c", program), pipes=True, offline=offline)
    try:
        assert child.stdout is not None
        heard = b""
        while b"goes on" not in heard and (data := os.read(child.stdout.fileno(), 4096)):
            heard += data
        assert heard.splitlines() == ([] if offline else [b"has a socket"] * 2) + [b"goes on"]
        # one that was joined may take a moment to be gone
        until(lambda: len(os.listdir(f"/proc/{child.pid}/task")) == 1)
        assert child.poll() is None
    finally:
        child.kill()


def test_what_runs_in_the_foreground_has_its_status_told() -> None:
    looks: list[None] = []

    def look() -> None:
        looks.append(None)
        time.sleep(0.01)

    assert foreground(["sh", "-c", "sleep 0.1; exit 3"], look) == 3
    assert looks
    assert foreground(["sh", "-c", "kill -9 $$"], look) == -9
    with pytest.raises(FileNotFoundError):
        foreground(["kgen-no-such-program"], look)


def test_what_runs_in_the_foreground_does_not_outlive_an_error(tmp_path: Path) -> None:
    """And Ctrl-C is ours again afterwards."""
    before = signal.getsignal(signal.SIGINT)
    file = tmp_path / "pid"

    def fail() -> None:
        if file.exists() and file.read_text().strip():
            raise RuntimeError
        time.sleep(0.01)

    with pytest.raises(RuntimeError):
        foreground(["sh", "-c", f"echo $$ > {file}; exec sleep 60"], fail)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
