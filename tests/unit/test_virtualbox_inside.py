"""Platform and system virtualbox-lab without a lab: what is asked of VBoxManage there, and what its answers mean."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import pytest

if sys.platform != "linux":
    pytest.skip("the lab is for Linux", allow_module_level=True)

from kgen.errors import DebuggerError, MachineError, SpecError
from kgen.lab import cache, outer
from kgen.lab.cache import Lab
from kgen.lab.choice import Choice
from kgen.lab.console import Console
from kgen.lab.system import check, title
from kgen.machine.platform import SHARE_BYTES, Channels, LaunchRequest
from kgen.machine.virtualbox_engine import CHUNK
from kgen.machine.virtualbox_words import complete
from kgen.platforms import platform_named, virtualbox_lab
from kgen.platforms._lab import Place
from kgen.systems import system_named
from kgen.systems import virtualbox_lab as system

REQUEST = LaunchRequest(kernel=None)
PLATFORM = platform_named("virtualbox-lab")
SYSTEM = system_named("virtualbox-lab")
LAB = Lab("k", "7.2.13", "VirtualBox 7.2.22", (), (), {"linux": "x"}, system="virtualbox-lab", ports=system.PORTS)


@dataclass
class Inside:
    """The lab's side of the dialogue: answers the next commands."""

    line: socket.socket
    share: IO[bytes]
    #: For each command the status and what is printed.
    answers: list[tuple[int, str]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def serve(self) -> None:
        for text in self.line.makefile("rb"):
            word, mark, command = (*text.decode().rstrip("\n").split(" ", 2), "", "")[:3]
            self.heard.append(command)
            status, said = self.answers.pop(0)
            lines = "".join(f"kgen-lab: out {mark} {each}\n" for each in said.splitlines())
            self.line.sendall(f"{lines}kgen-lab: done {mark} {status}\n".encode())
            assert word == "do"

    def say(self, text: str) -> None:
        self.line.sendall(f"kgen-lab: {text}\n".encode())


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[tuple[virtualbox_lab._Supervisor, Inside]]:
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "share").open("w+b") as share:
        share.truncate(SHARE_BYTES)
        channels = Channels(serial=-1, qmp=-1, gdb=-1, console=-1, share=share.fileno())
        console = Console(ours, lambda seconds: "")
        there = virtualbox_lab._Supervisor(console, LAB, replace(REQUEST, channels=channels))
        other = Inside(theirs, share)
        thread = threading.Thread(target=other.serve, daemon=True)
        thread.start()
        yield there, other
        there.close()
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_command_of_vboxmanage(inside: tuple[virtualbox_lab._Supervisor, Inside]) -> None:
    there, other = inside
    other.answers += [(0, "a = 1\nb = 2"), (1, "VBoxManage: error: Could not find 'x'\nVBoxManage: error: Details: y")]
    assert there.manage("debugvm", "kgen", "info", "two words", seconds=10) == "a = 1\nb = 2\n"
    with pytest.raises(MachineError, match=r"VBoxManage debugvm: Could not find 'x'$"):
        there.manage("debugvm", "x", seconds=10)
    assert other.heard[0] == "VBoxManage -q debugvm kgen info 'two words'"
    assert there.commands[1] == ["VBoxManage", "-q", "debugvm", "x"]


def test_how_a_machine_ends(inside: tuple[virtualbox_lab._Supervisor, Inside]) -> None:
    there, other = inside
    other.answers += [(0, "")] * 3
    other.say("log 00:00:01.1 Changing the VM state from 'POWERING_ON' to 'RUNNING'")
    there.manage("x", seconds=10)
    assert there.poll() == ""
    # its reason comes a moment later
    other.say("log 00:00:02.1 Changing the VM state from 'RUNNING' to 'GURU_MEDITATION'")
    there.manage("x", seconds=10)
    assert there.poll() == ""
    other.say("log 00:00:02.2 !!         VCPU1: Guru Meditation 1155 (VINF_EM_TRIPLE_FAULT)")
    there.manage("x", seconds=10)
    assert "triple fault" in there.poll()


def test_a_reason_that_never_comes(
    inside: tuple[virtualbox_lab._Supervisor, Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, other = inside
    other.answers += [(0, "")]
    other.say("log 00:00:02.1 Changing the VM state from 'RUNNING' to 'GURU_MEDITATION'")
    there.manage("x", seconds=10)
    assert there.poll() == ""
    monkeypatch.setattr(virtualbox_lab, "WHY_SECONDS", -1.0)
    assert there.poll() == "VirtualBox stopped the guest: GURU_MEDITATION"


def test_the_process_of_a_machine_ends(inside: tuple[virtualbox_lab._Supervisor, Inside]) -> None:
    there, other = inside
    other.answers += [(0, "")]
    other.say("said VBoxHeadless: error: no memory")
    other.say("ended 1")
    there.manage("x", seconds=10)
    assert there.poll() == "VirtualBox's machine ended with status 1: VBoxHeadless: error: no memory"


def test_a_part_of_a_file_comes_on_the_shared_disk(inside: tuple[virtualbox_lab._Supervisor, Inside]) -> None:
    there, other = inside
    data = os.urandom(2 * CHUNK + 100)
    for first, count, length in ((0, 1, CHUNK), (1, 2, CHUNK + 100), (5, 1, 0)):
        part = data[first * CHUNK :][: count * CHUNK]
        os.pwrite(other.share.fileno(), part, 0)
        other.answers.append((0, str(len(data))))
        assert there.fetch_part("/tmp/core1", CHUNK, first, count) == part
        assert len(part) == length
        assert f"bs={CHUNK} skip={first} count={count} " in other.heard[-1]
    other.answers.append((1, "sh: can't open /tmp/core2"))
    with pytest.raises(DebuggerError, match="can't open"):
        there.fetch_part("/tmp/core2", CHUNK, 0, 1)


def test_the_outer_machine_has_the_control_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VirtualBox has none."""
    monkeypatch.setattr(cache, "load", lambda directory: replace(LAB, directory=tmp_path))
    channels = Channels(serial=11, qmp=12, gdb=13, console=14, share=15)
    words = Place("virtualbox-lab", "virtualbox-lab").command(replace(REQUEST, lab=tmp_path, channels=channels))
    at = words.index("-qmp")
    assert words[at - 1] == "socket,id=kgen-outer,fd=12"
    assert sum("fd=12" in word for word in words) == 1
    assert "socket,fd=11,id=kgen-1" in words
    assert outer.device(LAB.ports, "serial") == "/dev/ttyS1"


def test_ring_3_is_a_setting_of_the_device() -> None:
    words = complete("x", cpus=3, memory=64, vga="vboxvga", port=0x3F8, serial=("/dev/ttyS1",), engine="", disk="d")
    assert [each[0] for each in words] == ["modifyvm", "storageattach"]
    more = complete(
        "x",
        cpus=3,
        memory=64,
        vga="vboxvga",
        port=0x3F8,
        serial=("/dev/ttyS1",),
        engine="",
        disk="d",
        ring3=True,
        extra=("--cpus", "4"),
    )
    assert more[0] == (*words[0], "--cpus", "4")
    assert more[2] == ("setextradata", "x", "VBoxInternal/Devices/vga/0/R0Enabled", "0")


@pytest.mark.parametrize("name", ["virtualbox", "virtualbox-lab"])
def test_what_is_known_depends_on_the_ring(name: str) -> None:
    platform = platform_named(name)
    for engine, ring3, known in (
        ("HM, AMD-V", False, "ATOMIC"),
        ("HM, AMD-V", True, "NOT_ATOMIC"),
        ("IEM, recompiler", False, "NOT_ATOMIC"),
    ):
        assert platform.known_on({"virtualbox": {"engine": engine, "ring3": ring3}}) == known


def test_choices() -> None:
    assert PLATFORM.medium(replace(REQUEST, vga="vmsvga", ring3=True)) == "vdi"
    with pytest.raises(SpecError, match="unknown graphics adapter 'cirrus'"):
        PLATFORM.medium(replace(REQUEST, vga="cirrus"))


def test_the_release_that_has_it_is_the_default() -> None:
    check(SYSTEM, Choice())
    assert title(SYSTEM, Choice()) == "virtualbox-lab-sid"
    with pytest.raises(SpecError, match="offers no choice of it"):
        check(SYSTEM, Choice(linux="6.12"))


def test_without_a_lab_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text("")
    qemu.chmod(0o755)
    reason = PLATFORM.unavailable(replace(REQUEST, qemu=str(qemu)))
    assert reason == "the lab has not been built; run 'kgen lab build virtualbox-lab', which says what it downloads"
