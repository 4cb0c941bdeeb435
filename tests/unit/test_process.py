"""Children are heard without being able to block, ended for certain, and their end is put into words."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from kgen.process import HEAD_BYTES, TAIL_BYTES, output, spawn

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
