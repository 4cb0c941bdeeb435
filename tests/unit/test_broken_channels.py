"""A QEMU that dies closes its channels before it can be reaped: the machine's end is named, whichever channel broke.

In QEMU's place is a program that closes one of its channels, or all, and ends a moment later.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kgen.errors import DebuggerError, GuestCrash, MachineError
from kgen.host.process import END_SECONDS, spawn
from kgen.interleave.stepper import ends_named
from kgen.machine.bochs import Talk
from kgen.machine.gdb import GdbSession
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qemu import Machine, launch
from kgen.machine.qemu_engine import QemuEngine
from kgen.machine.rsp import Ended, Stub
from kgen.platforms import platform_named

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="machines are run on Linux only")

#: How long it lives on after its channels have broken, in seconds: far longer than it takes to notice that they have.
DYING = 0.7
SOON = 2.0
#: Answers QEMU's control socket until it is asked for "break" and some of its channels; then it hangs these up, and is
#: killed a moment later if that is wanted.
QEMU = """
import json, os, signal, socket, sys, time
names = ("serial", "control", "gdb")
ends = {name: socket.socket(fileno=int(fd)) for name, fd in zip(names, sys.argv[1:4])}
def say(**what):
    ends["control"].sendall(json.dumps(what).encode() + b"\\r\\n")
if sys.argv[4] == "mute":
    time.sleep(0.1)
    for end in ends.values():
        end.close()
    time.sleep(float(sys.argv[5]))
    os.kill(os.getpid(), signal.SIGKILL)
say(QMP={"version": {"qemu": {"major": 8, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []})
said = ""
while data := ends["control"].recv(4096):
    said += data.decode()
    try:
        command, said = json.loads(said), ""
    except ValueError:
        continue
    if command["execute"] == "refuse":
        say(error={"class": "GenericError", "desc": "no"}, id=command.get("id"))
        continue
    say(**{"return": {"status": "running"}, "id": command.get("id")})
    if command["execute"] == "break":
        time.sleep(0.1)  # the answer is read before
        for name in command["arguments"]["channels"]:
            ends[name].close()
        seconds = command["arguments"]["seconds"]
        if seconds is not None:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        if "control" in command["arguments"]["channels"]:
            time.sleep(60)
"""
DIED = r"^QEMU was killed by SIGKILL$"


def dying(how: str = "answers") -> Platform:
    """A platform whose QEMU is the program above."""

    def command(request: LaunchRequest) -> tuple[str, ...]:
        ends = request.channels
        assert ends is not None
        return (sys.executable, "-c", QEMU, str(ends.serial), str(ends.qmp), str(ends.gdb), how, str(DYING))

    return replace(platform_named("qemu-tcg"), command=command, unavailable=lambda _: None)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with launch(dying(), LaunchRequest(kernel=None)) as started:
        yield started


def break_off(machine: Machine, *channels: str, seconds: float | None = DYING) -> None:
    """Let the program hang up, and wait until it has."""
    machine.qmp("break", channels=list(channels), seconds=seconds)
    time.sleep(0.3)


ALL = ("serial", "control", "gdb")
USES: dict[str, Callable[[Machine], object]] = {
    "read": lambda machine: machine.read_serial(5),
    "send": lambda machine: [machine.send_serial(b"x") for _ in range(2)],
    "ask": lambda machine: machine.qmp("query-status"),
}


@pytest.mark.parametrize(
    ("channels", "use"),
    [(ALL, "read"), (ALL, "send"), (ALL, "ask"), (("serial",), "read"), (("serial",), "send"), (("control",), "ask")],
)
def test_a_broken_channel_is_the_machines_end(machine: Machine, channels: tuple[str, ...], use: str) -> None:
    break_off(machine, *channels)
    began = time.monotonic()
    with pytest.raises(GuestCrash) as caught:
        USES[use](machine)
    assert "QEMU was killed by SIGKILL" in caught.value.line
    assert time.monotonic() - began < END_SECONDS + SOON


@pytest.mark.parametrize("channels", [("serial",), ("control",), ALL])
def test_the_end_is_known_when_it_is_asked_for(machine: Machine, channels: tuple[str, ...]) -> None:
    break_off(machine, *channels)
    with contextlib.suppress(GuestCrash):
        machine.read_serial(0)  # it is by reading that the end of the serial line is seen
    assert "QEMU was killed by SIGKILL" in (machine.crashed() or "")


class Debugger:
    """In the place of a gdb session: it is connected until it is not."""

    connected = False

    def __init__(self, fails: bool = False) -> None:
        self._fails = fails

    def connect(self, address: str, *, timeout: float) -> None:
        if self._fails:
            raise DebuggerError(f"no stub listens on {address}")
        self.connected = True


@pytest.mark.parametrize("when", ["connecting", "connected"])
def test_the_debuggers_connection_breaks_first(machine: Machine, when: str) -> None:
    session: Any = Debugger(fails=when == "connecting")
    engine = QemuEngine(machine, session, 1.0, dict, contextlib.ExitStack())
    assert engine.crashed() is None
    if when == "connected":
        engine.freeze()
        assert engine.crashed() is None
    break_off(machine, "gdb")
    if when == "connecting":
        with pytest.raises(DebuggerError):
            engine.freeze()
    session.connected = False
    assert "QEMU was killed by SIGKILL" in (engine.crashed() or "")


def test_a_machine_that_lives_is_waited_for_once(machine: Machine) -> None:
    break_off(machine, "gdb", seconds=None)
    began = time.monotonic()
    assert machine.crashed(broken=True) is None
    waited = time.monotonic() - began
    assert END_SECONDS <= waited < END_SECONDS + SOON
    for _ in range(20):
        assert machine.crashed(broken=True) is None
    assert time.monotonic() - began - waited < END_SECONDS
    # another channel that breaks is another question
    break_off(machine, "control")
    assert "QEMU was killed by SIGKILL" in (machine.crashed(broken=True) or "")


def test_a_refused_command_is_no_end(machine: Machine) -> None:
    began = time.monotonic()
    with pytest.raises(MachineError, match="QEMU refused refuse: no"):
        machine.qmp("refuse")
    assert machine.crashed() is None
    assert time.monotonic() - began < END_SECONDS


def test_a_qemu_that_dies_before_it_speaks() -> None:
    with pytest.raises(MachineError, match="QEMU was killed by SIGKILL without a word"):
        launch(dying("mute"), LaunchRequest(kernel=None))


def test_the_stub_hangs_up_on_the_stepper(machine: Machine) -> None:
    break_off(machine, "gdb")
    with pytest.raises(GuestCrash, match=DIED) as caught, ends_named(machine):
        Stub(machine.gdb_address)
    assert not isinstance(caught.value, Ended)


def test_bochs_closes_its_output_before_it_ends() -> None:
    script = f"import os, signal, time; os.close(1); os.close(2); time.sleep({DYING}); os.kill(os.getpid(), 9)"
    child = spawn([sys.executable, "-c", script], pipes=True)
    try:
        talk = Talk(child)
        with pytest.raises(DebuggerError, match="Bochs was killed by SIGKILL"):
            talk.await_prompt(10)
        assert talk.gone == "Bochs was killed by SIGKILL"
    finally:
        child.kill()


def test_a_gdb_that_exits_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "gdb"
    # gdb 16, when its target goes: a zero byte on its error output, then the end
    script.write_text("#!/bin/sh\nread line\necho '1^done'\nread line\nprintf '\\000\\n' >&2\nexit 1\n")
    script.chmod(0o755)
    with GdbSession.start(str(script)) as gdb:
        with pytest.raises(DebuggerError) as caught:
            gdb.connect("nowhere")
        assert caught.value.line == "gdb exited with status 1"
