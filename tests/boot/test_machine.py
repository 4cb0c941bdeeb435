"""A machine is heard, asked and ended, and its death is noticed at once; no process is left in any case."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHILD_ENVIRONMENT, Guest, dies, hear, is_alive

from kgen.errors import GuestCrash, MachineError, PlatformUnavailable
from kgen.evidence.mtree import attest
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qemu import Machine, launch

#: "A fraction of a second", with room for a loaded machine.
SOON = 2.0


def listen(machine: Machine, into: bytearray | None = None) -> None:
    """Read until the machine dies, at most 30 s."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        data = machine.read_serial(30)
        if into is not None:
            into += data


def talk(machine: Machine) -> None:
    """Send and read until the machine dies, at most 30 s."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        machine.send_serial(b"x")
        machine.read_serial(0.01)


def test_it_boots_speaks_listens_and_ends(platform: Platform, guest: Guest) -> None:
    with launch(platform, LaunchRequest(kernel=guest("loop"))) as machine:
        assert hear(machine, b"OK") == b"OK"
        machine.send_serial(b"ping")
        assert hear(machine, b"ping") == b"ping"
        assert machine.query_status() == "running"
        assert machine.crashed() is None
        assert machine.qmp("query-target")["arch"] == "i386"
        assert os.getsid(machine.pid) == machine.pid  # Ctrl-C on our terminal is ours alone
        pid, address = machine.pid, Path(machine.gdb_address)
        assert address.is_socket()
        assert address.parent.stat().st_mode & 0o777 == 0o700
    assert not is_alive(pid)
    assert not address.parent.exists()
    machine.close()
    with pytest.raises(MachineError, match="closed"):
        machine.read_serial(0)


def test_a_long_talk_arrives_whole(tcg: Platform, guest: Guest) -> None:
    words = b"".join(b"%04d " % number for number in range(1000)) + b"END"
    with launch(tcg, LaunchRequest(kernel=guest("loop"))) as machine:
        hear(machine, b"OK")
        machine.send_serial(words)
        assert hear(machine, b"END") == words


@pytest.mark.parametrize("firmware", ["auto", "seabios"])
def test_both_firmwares_boot(tcg: Platform, guest: Guest, firmware: str) -> None:
    with launch(tcg, LaunchRequest(kernel=guest("loop"), firmware=firmware)) as machine:
        hear(machine, b"OK")
        assert ("-bios" in machine.command) == (firmware == "auto")


def test_silence_is_no_crash(platform: Platform, guest: Guest) -> None:
    with launch(platform, LaunchRequest(kernel=guest("halt"))) as machine:
        hear(machine, b"OK")
        began = time.monotonic()
        assert machine.read_serial(0.3) == b""
        assert 0.25 < time.monotonic() - began < 0.3 + SOON
        assert machine.crashed() is None


def test_a_triple_fault_is_noticed_after_the_last_words(platform: Platform, guest: Guest) -> None:
    with launch(platform, LaunchRequest(kernel=guest("fault-when-told"))) as machine:
        machine.send_serial(b"x")
        began = time.monotonic()
        heard = bytearray()
        with pytest.raises(GuestCrash, match=r"triple fault|internal error"):
            listen(machine, heard)
        assert heard == b"OK"
        assert time.monotonic() - began < SOON
        assert machine.crashed()
        assert machine.query_status() in ("shutdown", "internal-error")
        assert machine.events[0]["event"] in ("SHUTDOWN", "STOP")


def test_a_fault_before_anyone_looked_is_noticed(tcg: Platform, guest: Guest) -> None:
    with launch(tcg, LaunchRequest(kernel=guest("triple-fault"))) as machine:
        time.sleep(0.5)
        assert "triple fault" in (machine.crashed() or "")
        assert hear(machine, b"OK") == b"OK"


def test_an_internal_error_of_kvm_is_noticed(platform: Platform, guest: Guest) -> None:
    if platform.name != "qemu-kvm":
        pytest.skip("only an accelerator has internal errors; TCG triple-faults here")
    # KVM cannot fetch instructions from emulated memory.
    machine = launch(platform, LaunchRequest(kernel=guest("run-vga")))
    with machine, pytest.raises(GuestCrash, match=r"internal error.*KVM internal error"):
        listen(machine)


@pytest.mark.parametrize("milliseconds", [0, 7, 30, 80, 200])
def test_qemu_killed_at_any_moment(platform: Platform, guest: Guest, milliseconds: int) -> None:
    with launch(platform, LaunchRequest(kernel=guest("loop"))) as machine:
        killer = threading.Timer(milliseconds / 1000, os.kill, (machine.pid, signal.SIGKILL))
        killer.start()
        began = time.monotonic()
        with pytest.raises(GuestCrash, match="QEMU was killed by SIGKILL"):
            talk(machine)
        assert time.monotonic() - began < milliseconds / 1000 + SOON
        killer.join()
        assert not is_alive(machine.pid)
        with pytest.raises(GuestCrash, match="SIGKILL"):
            machine.query_status()


def test_a_waiting_reader_is_woken_by_the_end(tcg: Platform, guest: Guest) -> None:
    with launch(tcg, LaunchRequest(kernel=guest("halt"))) as machine:
        hear(machine, b"OK")
        threading.Timer(0.2, os.kill, (machine.pid, signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(GuestCrash, match=r"QEMU exited with status 0.*terminating on signal 15"):
            machine.read_serial(30)
        assert time.monotonic() - began < 0.2 + SOON
        assert machine.eof


@pytest.mark.soak
def test_a_qemu_that_hears_nothing_is_ended_all_the_same(tcg: Platform, guest: Guest) -> None:
    machine = launch(tcg, LaunchRequest(kernel=guest("loop")))
    os.kill(machine.pid, signal.SIGSTOP)
    began = time.monotonic()
    machine.close()
    assert time.monotonic() - began < 6
    assert not is_alive(machine.pid)


@pytest.fixture
def own_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short place of our own for what machines leave behind."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_qemu_says_itself_what_it_dislikes(platform: Platform, guest: Guest, own_temporary_directory: Path) -> None:
    for extra in (("-no-such-option",), ("-device", "no-such-device"), ("-m", "lots")):
        with pytest.raises(MachineError) as caught:
            launch(platform, LaunchRequest(kernel=guest("loop"), extra=extra))
        assert extra[-1] in caught.value.line
        assert "warning" not in caught.value.line
    with pytest.raises(MachineError, match=r"missing\.elf"):
        launch(platform, LaunchRequest(kernel=Path("missing.elf")))
    assert not list(own_temporary_directory.iterdir())


def test_the_users_own_arguments_come_last_and_win(tcg: Platform, guest: Guest) -> None:
    request = LaunchRequest(kernel=guest("loop"), extra=("-name", "mine", "-m", "32"))
    with launch(tcg, request) as machine:
        assert machine.command[-4:] == request.extra
        assert machine.qmp("query-name") == {"name": "mine"}
        assert machine.qmp("query-memory-size-summary")["base-memory"] == 32 << 20


def test_a_program_that_is_no_qemu(tcg: Platform, guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(PlatformUnavailable, match="apt install"):
        launch(tcg, LaunchRequest(kernel=guest("loop"), qemu="no-such-qemu"))
    with pytest.raises(MachineError, match="exited with status 1 without a word"):
        launch(tcg, LaunchRequest(kernel=guest("loop"), qemu="false"))
    mute = tmp_path / "qemu"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(MachineError, match=r"within 0\.5 s"):
        launch(tcg, LaunchRequest(kernel=guest("loop"), qemu=str(mute), firmware="seabios"), deadline=0.5)
    assert time.monotonic() - began < 0.5 + 0.5 + SOON


def test_a_command_qemu_refuses(tcg: Platform, guest: Guest) -> None:
    with launch(tcg, LaunchRequest(kernel=guest("loop"))) as machine:
        with pytest.raises(MachineError, match="no-such-command"):
            machine.qmp("no-such-command")
        assert machine.query_status() == "running"


@pytest.mark.parametrize(("vga", "kind"), [("std", "io"), ("none", "ram")])
def test_the_path_of_text_memory(platform: Platform, guest: Guest, vga: str, kind: str) -> None:
    with launch(platform, LaunchRequest(kernel=guest("loop"), vga=vga)) as machine:
        hear(machine, b"OK")
        assert attest(machine.hmp("info mtree -f"), 0xB8000, 4000, cpus=3).kind == kind


def test_a_long_temporary_directory_is_avoided(
    tcg: Platform, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with launch(tcg, LaunchRequest(kernel=guest("loop"))) as machine:
        assert len(machine.gdb_address) < 104
    assert not list(deep.iterdir())


PARENT = """
import sys, time
from pathlib import Path
from kgen.machine.gdb import GdbSession
from kgen.machine.qemu import Machine, launch
from kgen.machine.platform import LaunchRequest
from kgen.platforms.qemu_tcg import PLATFORM
gdb = GdbSession.start()
machine = launch(PLATFORM, LaunchRequest(kernel=Path(sys.argv[1])))
gdb.connect(machine.gdb_address)
gdb.resume()
print(machine.pid, gdb.pid, Path(machine.gdb_address).parent, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_qemu_and_gdb_die_with_us(guest: Guest, number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(guest("loop"))], stdout=subprocess.PIPE, text=True, env=CHILD_ENVIRONMENT
    )
    with parent:
        assert parent.stdout is not None
        qemu, gdb, directory = parent.stdout.readline().split()
        assert is_alive(int(qemu))
        assert is_alive(int(gdb))
        parent.send_signal(number)
        assert parent.wait(5) == -number
    assert dies(int(qemu))
    assert dies(int(gdb))
    # Nobody was left to take it away; the next kgen would.
    shutil.rmtree(directory)
