"""gdb reads and steers the frozen machine, and whatever dies on the way is named before the deadline."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import Guest, hear, is_alive

from kgen.errors import DebuggerError
from kgen.machine.gdb import GdbSession
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qemu import Machine, launch

SOON = 2.0
BLOCK = b"".join((index * 0x10001).to_bytes(4, "little") for index in range(4096))


def booted(platform: Platform, elf: Path, **more: str) -> Machine:
    """A machine whose guest has begun to count."""
    machine = launch(platform, LaunchRequest(kernel=elf, **more))
    try:
        hear(machine, b"OK")
    except BaseException:
        machine.close()
        raise
    return machine


def runs(machine: Machine) -> None:
    """Wait until QEMU has read gdb's order to run."""
    until = time.monotonic() + 10
    while machine.query_status() != "running":
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("qemu", ["qemu-system-i386", "qemu-system-x86_64"])
def test_registers_memory_and_run_control(platform: Platform, guest: Guest, qemu: str) -> None:
    elf = guest("loop")
    with GdbSession.start() as gdb, booted(platform, elf, qemu=qemu) as machine:
        gdb.connect(machine.gdb_address, elf=elf)
        assert gdb.connected
        assert not gdb.running
        assert machine.query_status() in ("paused", "debug")

        cpus = gdb.threads()
        assert [cpu.cpu for cpu in cpus] == [0, 1, 2]
        assert cpus[0].target.startswith("Thread 1.1 CPU#0")
        # It counts and polls, or is still sending what we have heard.
        assert gdb.symbol_address("_start") < cpus[0].eip < gdb.symbol_address("put") + 32
        assert gdb.symbol_address("block") < cpus[0].esp <= gdb.symbol_address("stack")
        assert cpus[0].edx in (0x3F8, 0x3FD)  # the serial port's data and line status registers
        assert cpus[1].esp == cpus[2].esp == 0  # never started

        block = gdb.symbol_address("block")
        assert gdb.read_memory(block, len(BLOCK)) == BLOCK
        assert gdb.read_memory(block + 1, 5) == BLOCK[1:6]
        gdb.write_u32(block, 0xDEADBEEF)
        gdb.write_memory(block + 4, bytes(range(256)) * 10)
        assert gdb.read_memory(block, 8) == b"\xef\xbe\xad\xde\x00\x01\x02\x03"
        assert gdb.read_memory(block + 4, 2560) == bytes(range(256)) * 10

        counter = gdb.symbol_address("counter")
        first = gdb.read_memory(counter, 4)
        assert gdb.read_memory(counter, 4) == first
        gdb.resume()
        assert gdb.running
        with pytest.raises(DebuggerError, match="interrupt it first"):
            gdb.read_memory(counter, 4)
        time.sleep(0.05)
        assert gdb.interrupt().signal == "SIGINT"
        assert gdb.interrupt().signal == "SIGINT"  # is stopped already
        assert gdb.read_memory(counter, 4) != first


def test_breakpoints_of_the_kinds_that_the_platform_names(platform: Platform, guest: Guest) -> None:
    elf = guest("loop")
    with GdbSession.start() as gdb, booted(platform, elf) as machine:
        gdb.connect(machine.gdb_address, elf=elf)
        for hardware in [True] if platform.breakpoints == "hardware" else [True, False]:
            gdb.insert_breakpoint("*&again", hardware=hardware)
            for _ in range(3):
                gdb.resume()
                stop = gdb.wait_stopped(10)
                assert (stop.reason, stop.fatal) == ("breakpoint-hit", None)
                assert gdb.threads()[0].eip == gdb.symbol_address("again")
            gdb.delete_breakpoints()
        gdb.resume()
        with pytest.raises(DebuggerError, match=r"still runs after 0\.3 s"):
            gdb.wait_stopped(0.3)


def test_leaving_stopped_and_leaving_running(platform: Platform, guest: Guest) -> None:
    elf = guest("loop")
    with GdbSession.start() as gdb, booted(platform, elf, qemu="qemu-system-x86_64") as machine:
        for running_before in (False, True):
            gdb.connect(machine.gdb_address, elf=elf)
            if running_before:
                gdb.resume()
            gdb.disconnect()
            assert machine.query_status() in ("paused", "debug")
        gdb.connect(machine.gdb_address, elf=elf)
        gdb.detach()
        assert machine.query_status() == "running"
        with pytest.raises(DebuggerError, match="is gone"):
            gdb.threads()
        # The symbols stay.
        assert gdb.symbol_address("again") > 0x100000


def test_closing_gdb_leaves_the_machine_as_it_is(tcg: Platform, guest: Guest) -> None:
    elf = guest("loop")
    with booted(tcg, elf) as machine:
        for resumed, status in ((False, ("paused", "debug")), (True, ("running",))):
            with GdbSession.start() as gdb:
                gdb.connect(machine.gdb_address, elf=elf)
                if resumed:
                    gdb.resume()
                    runs(machine)
            assert not is_alive(gdb.pid)
            gdb.close()
            assert machine.query_status() in status
            with pytest.raises(DebuggerError):
                gdb.threads()


@pytest.mark.parametrize(("qemu", "name"), [("qemu-system-i386", "i386"), ("qemu-system-x86_64", "i386:x86-64")])
def test_what_another_gdb_must_be_told(tcg: Platform, guest: Guest, qemu: str, name: str) -> None:
    """Without the ELF, as where a machine is frozen: the stub itself says what it is."""
    with GdbSession.start() as gdb, booted(tcg, guest("loop"), qemu=qemu) as machine:
        gdb.connect(machine.gdb_address)
        assert gdb.architecture() == name


def test_console(tcg: Platform, guest: Guest) -> None:
    elf = guest("loop")
    with GdbSession.start() as gdb, booted(tcg, elf) as machine:
        assert gdb.console("show pagination") == "State of pagination is off.\n"
        assert gdb.console('echo a "quoted" \\\\ word\\n') == 'a "quoted" \\ word\n'
        gdb.connect(machine.gdb_address, elf=elf)
        assert "again" in gdb.console("info symbol again")
        with pytest.raises(DebuggerError, match="frobnicate"):
            gdb.console("frobnicate")
        with pytest.raises(DebuggerError, match="one line"):
            gdb.console("echo a\necho b")
        with pytest.raises(DebuggerError, match="knows no symbol 'nowhere'"):
            gdb.symbol_address("nowhere")
        with pytest.raises(DebuggerError, match="no symbol's name"):
            gdb.symbol_address("a;b")
        with pytest.raises(DebuggerError, match="already connected"):
            gdb.connect(machine.gdb_address)


def test_the_guest_dies_under_the_debugger(platform: Platform, guest: Guest) -> None:
    elf = guest("fault-when-told")
    with GdbSession.start() as gdb, launch(platform, LaunchRequest(kernel=elf)) as machine:
        gdb.connect(machine.gdb_address, elf=elf)
        gdb.resume()
        machine.send_serial(b"x")
        stop = gdb.wait_stopped(30)
        assert stop.signal in ("SIGQUIT", "SIGABRT")
        assert stop.fatal
        with pytest.raises(DebuggerError, match="cannot go on"):
            gdb.resume()
        assert len(gdb.threads()) == 3  # the wreck can be looked at
        assert machine.crashed()


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        port = closed.getsockname()[1]
        for address in (f"127.0.0.1:{port}", str(tmp_path / "none")):
            with GdbSession.start() as gdb:
                began = time.monotonic()
                with pytest.raises(DebuggerError, match=f"no stub listens on {address}"):
                    gdb.connect(address, timeout=20)
                assert time.monotonic() - began < SOON


def test_no_such_host() -> None:
    with GdbSession.start() as gdb, pytest.raises(DebuggerError, match=r"no host of that name: nowhere\.invalid:1"):
        gdb.connect("nowhere.invalid:1")


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_listener_that_is_no_stub(greeting: bytes) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(1)
        mute.settimeout(10)
        host, port = mute.getsockname()

        def answer() -> None:
            connection, _ = mute.accept()
            connection.sendall(greeting)
            kept.append(connection)

        kept: list[socket.socket] = []
        listener = threading.Thread(target=answer)
        listener.start()
        with GdbSession.start() as gdb:
            began = time.monotonic()
            with pytest.raises(
                DebuggerError, match=f"{host}:{port} accepted the connection but does not answer as a gdb stub"
            ):
                gdb.connect(f"{host}:{port}", timeout=2)
            assert time.monotonic() - began < 2 + SOON
        listener.join()
        kept[0].close()


def test_a_listener_that_hangs_up() -> None:
    with socket.socket() as rude:
        rude.bind(("127.0.0.1", 0))
        rude.listen(1)
        rude.settimeout(10)
        host, port = rude.getsockname()

        def hang_up() -> None:
            rude.accept()[0].close()

        listener = threading.Thread(target=hang_up)
        listener.start()
        with GdbSession.start() as gdb, pytest.raises(DebuggerError, match="accepted the connection and hung up"):
            gdb.connect(f"{host}:{port}", timeout=5)
        listener.join()


def test_a_gdb_that_is_not_there_or_no_gdb(tmp_path: Path) -> None:
    with pytest.raises(DebuggerError, match="'no-such-gdb' is not to be found; install it with 'apt install gdb'"):
        GdbSession.start("no-such-gdb")
    script = tmp_path / "gdb"
    script.write_text("#!/bin/sh\necho cannot start >&2\nexit 3\n")
    with pytest.raises(DebuggerError, match="cannot be run"):
        GdbSession.start(str(script))
    script.chmod(0o755)
    with (
        pytest.raises(DebuggerError, match="gdb exited with status 3; cannot start"),
        GdbSession.start(str(script)) as gdb,
    ):
        gdb.connect("nowhere")
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    with GdbSession.start(str(script), deadline=0.5) as gdb:
        began = time.monotonic()
        with pytest.raises(DebuggerError, match="did not answer"):
            gdb.connect("nowhere", timeout=20)
        assert time.monotonic() - began < 0.5 + SOON
    assert not is_alive(gdb.pid)


def work(gdb: GdbSession, machine: Machine, elf: Path) -> None:
    """Look at the machine again and again until something dies, at most 30 s."""
    until = time.monotonic() + 30
    gdb.connect(machine.gdb_address, elf=elf, timeout=20)
    while time.monotonic() < until:
        gdb.threads()
        gdb.read_memory(gdb.symbol_address("block"), 4096)
        gdb.resume()
        gdb.interrupt()


#: A machine can die before, while or after gdb connects; gdb 13 crashes then, gdb 16 and 18 exit.
COMPLAINTS = {"gdb": "gdb was killed by SIGKILL", "qemu": "is gone|no stub listens|hung up|gdb crashed|gdb exited"}


@pytest.mark.parametrize("milliseconds", [0, 5, 40, 90, 250])
@pytest.mark.parametrize("victim", ["gdb", "qemu"])
def test_killed_at_any_moment(platform: Platform, guest: Guest, victim: str, milliseconds: int) -> None:
    elf = guest("loop")
    with booted(platform, elf) as machine, GdbSession.start() as gdb:
        pid = gdb.pid if victim == "gdb" else machine.pid
        killer = threading.Timer(milliseconds / 1000, os.kill, (pid, signal.SIGKILL))
        killer.start()
        began = time.monotonic()
        with pytest.raises(DebuggerError, match=COMPLAINTS[victim]):
            work(gdb, machine, elf)
        assert time.monotonic() - began < milliseconds / 1000 + SOON
        killer.join()
        began = time.monotonic()
        with pytest.raises(DebuggerError):
            gdb.threads()
        assert time.monotonic() - began < 0.2
        assert (machine.crashed(broken=victim == "qemu") is None) == (victim == "gdb")
    assert not is_alive(gdb.pid)
    assert not is_alive(machine.pid)


@pytest.mark.parametrize("victim", ["gdb", "qemu"])
def test_killed_while_we_wait_for_a_stop(tcg: Platform, guest: Guest, victim: str) -> None:
    elf = guest("loop")
    with GdbSession.start() as gdb, booted(tcg, elf) as machine:
        gdb.connect(machine.gdb_address, elf=elf)
        gdb.resume()
        threading.Timer(0.2, os.kill, (gdb.pid if victim == "gdb" else machine.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        with pytest.raises(DebuggerError, match="killed by SIGKILL" if victim == "gdb" else "is gone"):
            gdb.wait_stopped(30)
        assert time.monotonic() - began < 0.2 + SOON


def test_a_stub_that_falls_silent_costs_one_deadline(
    tcg: Platform, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    elf = guest("loop")
    with GdbSession.start() as gdb, booted(tcg, elf) as machine:
        gdb.connect(machine.gdb_address, elf=elf)
        os.kill(machine.pid, signal.SIGSTOP)
        monkeypatch.setattr("kgen.machine.gdb.COMMAND_SECONDS", 0.5)
        began = time.monotonic()
        with pytest.raises(DebuggerError, match="did not answer"):
            gdb.read_memory(0x100000, 4)
        assert time.monotonic() - began < 0.5 + SOON
        os.kill(machine.pid, signal.SIGCONT)
