"""QEMU's control socket, with a few lines in QEMU's place: it works inside a running loop, and signals may come."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest
from running import environment

#: Answers every command, as QEMU does, until it is hung up on.
SERVER = """
import contextlib, json, socket, threading

def serve(end):
    def say(**what):
        end.sendall(json.dumps(what).encode() + b"\\n")
    with end, contextlib.suppress(OSError):
        say(QMP={"version": {"qemu": {"major": 8, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []})
        said = ""
        while data := end.recv(4096):
            said += data.decode()
            # one command at a time is on its way, and no line end comes with it
            with contextlib.suppress(ValueError):
                command, said = json.loads(said), ""
                say(**{"return": {"status": "running"}, "id": command.get("id")})

def served():
    ours, theirs = socket.socketpair()
    threading.Thread(target=serve, args=(theirs,), daemon=True).start()
    return ours
"""

INTERRUPTED = (
    SERVER
    + """
import random, signal, sys
from kgen.errors import MachineError
from kgen.host import signals
from kgen.machine.qmp import Qmp

class Ended(SystemExit):
    pass

def end(number, frame):
    raise Ended

signals.ENDING = (signal.SIGALRM,)
signal.signal(signal.SIGALRM, end)
moments = random.Random(int(sys.argv[1]))
ended = 0
for _ in range(150):
    session = None
    try:
        session = Qmp(served(), 5.0)
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-5, 4e-3))
        while True:
            session.execute("query-status", {}, 5.0)
            session.wait(0.0005)
    except Ended:
        ended += 1
    # as a machine is closed: the signal must not come up again
    with contextlib.suppress(MachineError):
        session.execute("quit", {}, 1.0)
    session.close()
print(ended)
"""
)


def _python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.skipif(os.name != "posix", reason="timers that signal are a POSIX matter")
def test_a_signal_at_any_moment_is_raised_once_and_leaves_nothing_to_be_told() -> None:
    seed = str(time.time_ns())
    done = _python(INTERRUPTED, seed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "150\n", ""), seed


def test_it_works_inside_a_running_loop() -> None:
    from kgen.machine.qmp import Qmp

    names: dict[str, object] = {}
    exec(SERVER, names)

    async def status() -> object:
        qmp = Qmp(names["served"](), 5.0)  # type: ignore[operator]
        try:
            qmp.wait(0.01)
            return qmp.execute("query-status", {}, 5.0)
        finally:
            qmp.close()

    assert asyncio.run(status()) == {"status": "running"}


def test_events_are_kept_until_they_are_waited_for_or_forgotten_and_nowhere_else() -> None:
    from kgen.machine.qmp import Qmp

    names: dict[str, object] = {}
    stop = """if command["execute"] == "query-status":
                    say(event="STOP", timestamp={"seconds": 1, "microseconds": 0})
                """
    exec(SERVER.replace('say(**{"return"', stop + 'say(**{"return"'), names)
    qmp = Qmp(names["served"](), 5.0)  # type: ignore[operator]
    try:
        qmp.wait(0.01)
        known = len(qmp.events)
        for _ in range(3):
            qmp.execute("query-status", {}, 5.0)
        qmp.wait(5.0)
        assert [event["event"] for event in qmp.events[known:]] == ["STOP"] * 3
        qmp.execute("query-status", {}, 5.0)
        qmp.forget()
        qmp.wait(0.01)
        assert len(qmp.events) == known + 3
        assert qmp._client.events.history == ()
    finally:
        qmp.close()
