"""The keeper: it runs commands, and no process that one of them started outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import MARK, marked

from kgen.host import keeper

#: For a process to end, in seconds.
DEADLINE = 30.0
#: Puts a process into a session of its own, whose parent then ends.
DAEMON = "setsid sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 & echo started"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an adopter of orphans")

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A keeper with a mark, by which what it starts is found."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", keeper.__file__, *getattr(request, "param", ())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: str(os.getpid()) + request.node.name},
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(DEADLINE)


@pytest.fixture
def ask(process: subprocess.Popen[str]) -> Ask:
    def carry_out(**request: object) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    return carry_out


def left(request: pytest.FixtureRequest) -> dict[int, str]:
    """What is left of the keeper and its descendants, after a moment."""
    until = time.monotonic() + DEADLINE
    while (found := marked(str(os.getpid()) + request.node.name)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def test_a_command_is_run_to_its_end(ask: Ask) -> None:
    assert ask(run=["sh", "-c", "echo out; echo err >&2; exit 3"], seconds=30) == {"status": 3, "text": "out\nerr\n"}
    assert ask(run=["cat"], seconds=30) == {"status": 0, "text": ""}
    missing = ask(run=["no-such-program"], seconds=30)
    assert missing["status"] == 127
    assert "No such file" in missing["text"]


def test_a_command_that_takes_too_long_is_ended(ask: Ask) -> None:
    assert ask(run=["sh", "-c", "echo begun; exec sleep 1000"], seconds=0.3) == {"status": None, "text": "begun\n"}
    assert ask(run=["echo", "next"], seconds=30)["text"] == "next\n"


def test_a_daemon_that_holds_the_output_does_not_hold_the_answer(ask: Ask) -> None:
    began = time.monotonic()
    assert ask(run=["sh", "-c", "sleep 1000 & echo started"], seconds=DEADLINE)["text"] == "started\n"
    assert time.monotonic() - began < DEADLINE


def test_one_that_goes_on_is_watched(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "out"
    pid = ask(start=["sh", "-c", "echo here; read x; sleep 1000"], output=str(file))["pid"]
    until = time.monotonic() + DEADLINE
    while not file.read_text() and time.monotonic() < until:
        time.sleep(0.01)
    assert file.read_text() == "here\n"
    assert ask(ended=pid) == {"status": None}
    os.kill(pid, signal.SIGKILL)
    while (status := ask(ended=pid)["status"]) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert status == -signal.SIGKILL


def test_the_end_of_its_input_ends_all(
    process: subprocess.Popen[str], ask: Ask, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert ask(run=["sh", "-c", DAEMON], seconds=30)["text"] == "started\n"
    ask(start=["sleep", "1000"], output=os.devnull)
    assert len(marked(str(os.getpid()) + request.node.name)) >= 3
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    assert left(request) == {}


def test_the_end_of_its_input_ends_a_command_too(
    process: subprocess.Popen[str], request: pytest.FixtureRequest
) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"run": ["sh", "-c", f"{DAEMON}; sleep 1000"], "seconds": 1000}) + "\n")
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    assert left(request) == {}


#: Starts a keeper that has a daemon, and says so; the keeper's death signal is that of kgen.host.process.
PARENT = """
import json, sys
from kgen.host.process import spawn
child = spawn([sys.executable, "-I", "-S", sys.argv[1], sys.argv[2]], pipes=True)
child.stdin.write(json.dumps({"run": ["sh", "-c", sys.argv[3]], "seconds": 30}).encode() + b"\\n")
print(child.stdout.readline().decode(), end="", flush=True)
sys.stdin.read()
"""


def test_a_parent_that_is_killed_leaves_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    directory = tmp_path / "socket"
    directory.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, keeper.__file__, str(directory), DAEMON],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            MARK: str(os.getpid()) + request.node.name,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
    )
    assert parent.stdout is not None
    assert "started" in parent.stdout.readline()
    parent.kill()
    parent.communicate()
    assert left(request) == {}
    assert not directory.exists()


def test_descendants() -> None:
    assert sorted(keeper.descendants(10, {10: 1, 11: 10, 12: 11, 13: 1, 14: 13, 15: 12})) == [11, 12, 15]
    assert keeper.parents()[os.getpid()] == os.getppid()
