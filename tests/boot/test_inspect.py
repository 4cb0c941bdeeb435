"""kgen inspect on machines that the test itself starts with a gdb stub, as a person would."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _asked import asked, assert_line, kernel_of
from _gdb import PoorStub
from _kernel import built, replaced
from click.testing import Result
from running import DEADLINE, Run, assert_one_line, kgen

from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qmp import Qmp
from kgen.machine.rsp import UNKNOWN
from kgen.registry import discover
from kgen.spec import Case, KernelSpec
from kgen.toolchain.elf_reader import read

SPEC = KernelSpec(Case("xchg"), rounds=300)
OTHER = KernelSpec(Case("xchg"), rounds=301)
TCP = "tcp"


@dataclass(frozen=True)
class Stranger:
    """A QEMU that is not kgen's: where its kernel, its stub, its control socket and its serial log are, and the number
    of its process."""

    elf: Path
    gdb: str
    qmp: str
    log: Path
    process: int

    def inspect(self, directory: Path, *arguments: str, elf: Path | None = None, gdb: str = "") -> Result:
        return asked(directory / "tmp", "inspect", str(elf or self.elf), gdb or self.gdb, *arguments)

    def inspect_as_a_process(self, directory: Path, *arguments: str) -> Run:
        return kgen(directory / "tmp", "inspect", str(self.elf), self.gdb, *arguments)

    def session(self) -> Qmp:
        control = socket.socket(socket.AF_UNIX)
        control.connect(self.qmp)
        return Qmp(control, DEADLINE)

    def status(self) -> str:
        with contextlib.closing(self.session()) as session:
            return str(session.execute("query-status", {}, 10)["status"])

    def await_log(self, words: bytes) -> None:
        until = time.monotonic() + DEADLINE
        while words not in self.log.read_bytes():
            assert time.monotonic() < until, self.log.read_bytes()
            time.sleep(0.05)


def listening(address: str) -> socket.socket:
    """A socket that listens at a path, or at a free TCP port of this host if ``address`` is TCP."""
    listener = socket.socket(socket.AF_INET if address == TCP else socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if address == TCP else address)
    listener.listen()
    return listener


@contextlib.contextmanager
def stranger(
    spec: KernelSpec, *arguments: str, tcp: bool = False, elf: bytes = b"", platform: str = "qemu-tcg"
) -> Iterator[Stranger]:
    """Start one. A short directory: a socket's path is limited. QEMU inherits what already listens: nobody else can
    take its port, and nobody is refused while it starts."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kernel = directory / "kernel.elf"
        kernel.write_bytes(elf or kernel_of(spec).elf.data)
        log = directory / "serial.log"
        with (
            log.open("wb") as file,
            listening(TCP if tcp else f"{directory}/gdb") as stub,
            listening(f"{directory}/qmp") as control,
        ):
            descriptors = (stub.fileno(), control.fileno())
            gdb, qmp = (f"socket,fd={descriptor},server=on,wait=off" for descriptor in descriptors)
            channels = (
                "-chardev",
                f"{gdb},id=gdb",
                "-gdb",
                "chardev:gdb",
                "-chardev",
                f"{qmp},id=qmp",
                "-qmp",
                "chardev:qmp",
            )
            chosen = discover("kgen.platforms", "PLATFORM", Platform)[platform]
            command = chosen.command(LaunchRequest(kernel=kernel, extra=(*channels, *arguments)))
            address = ":".join(map(str, stub.getsockname())) if tcp else f"{directory}/gdb"
            qemu = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, pass_fds=descriptors, start_new_session=True
            )
        try:
            machine = Stranger(kernel, address, f"{directory}/qmp", log, qemu.pid)
            machine.status()  # it answers when all of it stands
            yield machine
        finally:
            qemu.kill()
            qemu.wait()


@pytest.fixture(scope="module")
def parked() -> Iterator[Stranger]:
    """A machine whose kernel has come to its end and waits in it."""
    with stranger(SPEC) as machine:
        machine.await_log(b" end ")
        yield machine


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_with_both_channels_and_the_path_it_is_a_verdict(parked: Stranger, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    arguments = ("--serial", str(parked.log), "--qmp", parked.qmp, "--json", str(file))
    run = parked.inspect_as_a_process(tmp_path, *arguments)
    result = json.loads(file.read_text())
    # so few rounds are no proof: the controls are violated too seldom, or the case has too few live batches
    assert result["verdict"]["kind"] == "INCONCLUSIVE", run.stdout
    assert re.search(r" live batch(?:es)?(?:, and the proof needs| .*too seldom to tell) ", result["verdict"]["reason"])
    assert run.process.returncode == result["verdict"]["exit_code"]
    observation = result["observation"]
    assert observation["path"]["kind"] == "io"
    assert observation["serial"]["complete"]
    assert observation["memory"]["complete"]
    assert "the machine was left running (found running)" in run.stdout
    assert parked.status() == "running"


def test_without_the_serial_log_it_is_inconclusive(parked: Stranger, tmp_path: Path) -> None:
    run = parked.inspect(tmp_path, "--qmp", parked.qmp)
    assert run.exit_code == 4
    assert "\nINCONCLUSIVE: there is no serial record to compare with the debugger's" in run.stdout


def test_a_cut_log_is_inconclusive(parked: Stranger, tmp_path: Path) -> None:
    cut = tmp_path / "cut.log"
    data = parked.log.read_bytes()
    for length in (0, len(data) // 2, data.rindex(b" crc=")):
        cut.write_bytes(data[:length])
        run = parked.inspect(tmp_path, "--serial", str(cut))
        assert run.exit_code == 4, run.stdout
        assert "\nINCONCLUSIVE: " in run.stdout


def test_an_altered_log_is_an_error_or_inconclusive(parked: Stranger, tmp_path: Path) -> None:
    altered = tmp_path / "altered.log"
    data = parked.log.read_bytes()
    at = data.index(b"rounds=300", data.index(b" result ")) + len("rounds=")
    altered.write_bytes(data[:at] + b"301" + data[at + 3 :])
    assert parked.inspect(tmp_path, "--serial", str(altered)).exit_code in (4, 9)


@pytest.mark.parametrize(("after", "status"), [("stop", "paused"), ("found", "paused"), ("resume", "running")])
def test_the_machine_is_left_as_asked(parked: Stranger, tmp_path: Path, after: str, status: str) -> None:
    """In this order: running, stopped, found stopped, resumed."""
    run = parked.inspect(tmp_path, "--qmp", parked.qmp, "--after", after)
    assert "the machine was left " + ("running" if status == "running" else "stopped") in run.stdout
    found = parked.status()
    assert found == status or (status == "paused" and found == "debug"), found


def test_without_qmp_it_is_left_stopped_and_said(parked: Stranger, tmp_path: Path) -> None:
    run = parked.inspect(tmp_path)
    assert "the machine was left stopped (no --qmp to ask how it was found)" in run.stdout
    assert parked.status() in ("paused", "debug")
    assert "the machine was left running\n" in parked.inspect(tmp_path, "--after", "resume").stdout
    assert parked.status() == "running"


@pytest.mark.parametrize("after", ["resume", "stop"])
def test_a_stub_that_refuses_memory(parked: Stranger, tmp_path: Path, after: str) -> None:
    """It is said what could not be read, and how the machine was left."""
    how = "running" if after == "resume" else "stopped"
    with PoorStub(parked.gdb, tmp_path / "poor.sock", ("m", "x")) as poor:
        run = parked.inspect(tmp_path, "--after", after, gdb=poor.address)
    assert_line(run, 9, " cannot be read; gdb says: ", f"; the machine was left {how}")
    assert parked.status() == ("running" if after == "resume" else "paused")


def test_a_stub_that_is_lost_while_it_is_read(parked: Stranger, tmp_path: Path) -> None:
    """Nobody can tell any more how the machine was left, and that is said."""
    block = read(parked.elf.read_bytes(), name="").symbols["results"]
    with PoorStub(parked.gdb, tmp_path / "poor.sock", (), last=(f"m{block:x},", f"x{block:x},")) as poor:
        run = parked.inspect(tmp_path, "--after", "resume", gdb=poor.address)
    assert_line(run, 9, f"the target {poor.address} is gone; {UNKNOWN}")
    assert parked.inspect(tmp_path, "--after", "resume").exit_code == 4


def test_the_elf_comes_first(parked: Stranger, tmp_path: Path) -> None:
    run = asked(tmp_path / "tmp", "inspect", parked.gdb, str(parked.elf))
    assert_line(run, 2, f"the ELF comes first, then the stub: kgen inspect {parked.elf} {parked.gdb}")


def test_the_wrong_kernel_is_an_error(parked: Stranger, tmp_path: Path) -> None:
    wrong = tmp_path / "other.elf"
    wrong.write_bytes(kernel_of(OTHER).elf.data)
    run = parked.inspect(tmp_path, "--qmp", parked.qmp, "--after", "resume", elf=wrong)
    assert run.exit_code == 9
    assert "\nERROR: " in run.stdout
    assert parked.status() == "running"


def test_json_is_checked_before_and_pure(parked: Stranger, tmp_path: Path) -> None:
    assert_line(parked.inspect(tmp_path, "--json", f"{__file__}/x"), 2, "cannot be written")
    run = parked.inspect(tmp_path, "--json", "-", "--qmp", parked.qmp)
    assert json.loads(run.stdout)["platform"] == f"stub at {parked.gdb}"
    assert "the machine was left" in run.stderr


def test_a_control_socket_that_is_none(parked: Stranger, tmp_path: Path) -> None:
    run = parked.inspect(tmp_path, "--qmp", str(tmp_path / "no"))
    assert_line(run, 9, f"{tmp_path / 'no'}: no QEMU answers: No such file or directory; check --qmp")


def test_a_machine_that_has_not_begun(tmp_path: Path) -> None:
    """Over TCP, started stopped: there is nothing to read yet, and it stays as it was."""
    with stranger(SPEC, "-S", tcp=True) as machine:
        run = machine.inspect(tmp_path, "--qmp", machine.qmp)
        assert (run.exit_code, run.stderr) == (9, ""), run.stdout
        assert "\nERROR: there is no results block in memory; has the kernel booted?" in run.stdout
        assert "the machine was left stopped (found prelaunch)" in run.stdout
        assert machine.status() != "running"
        assert machine.inspect(tmp_path, "--after", "resume").exit_code == 9
        assert machine.status() == "running"
        machine.await_log(b"kgen:0 boot ")


def test_a_machine_in_the_middle_of_its_work(tmp_path: Path) -> None:
    with stranger(KernelSpec(Case("xchg", target="ram"), rounds=0, controls=False)) as machine:
        machine.await_log(b"counts:\t5\t")
        run = machine.inspect(tmp_path, "--qmp", machine.qmp, "--serial", str(machine.log))
        assert run.exit_code == 4, run.stdout
        before = machine.log.stat().st_size
        until = time.monotonic() + 30
        while machine.log.stat().st_size == before:  # it goes on
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_port_nobody_listens_on(tmp_path: Path, parked: Stranger) -> None:
    port = free_port()
    run = kgen(tmp_path / "tmp", "inspect", str(parked.elf), port)
    assert_one_line(run, 9, f"no stub listens on {port}")
    assert UNKNOWN not in run.stderr


def test_a_stub_that_accepts_and_says_nothing(tmp_path: Path, parked: Stranger) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        run = asked(tmp_path / "tmp", "inspect", str(parked.elf), address, "--timeout", "1")
    assert_line(run, 9, f"{address} accepted the connection but does not answer as a gdb stub; {UNKNOWN}")


def test_a_port_that_talks_of_something_else(tmp_path: Path, parked: Stranger) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(30)

        def chatter() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as line:
                while line.recv(4096):
                    line.sendall(b"+$garbage#db")

        thread = threading.Thread(target=chatter, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        run = asked(tmp_path / "tmp", "inspect", str(parked.elf), address, "--timeout", "5")
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert_line(run, 9, f"{address} does not talk as a gdb stub")


@pytest.mark.soak
def test_a_control_socket_of_another_machine(tmp_path: Path, parked: Stranger) -> None:
    """One that runs, one that is at the same place of the same kernel, one that was never started."""
    with stranger(SPEC) as twin:
        twin.await_log(b" end ")
        assert_other(parked, tmp_path, twin.qmp, "it runs while the debugger holds this one")
        with contextlib.closing(twin.session()) as session:
            session.execute("stop", {}, 10)
        assert_other(parked, tmp_path, twin.qmp, "the results block in its memory is not the one that the debugger")
    with stranger(SPEC, "-S") as sleeper:
        assert_other(parked, tmp_path, sleeper.qmp, "it has not been started, and here a kernel runs")


def assert_other(machine: Stranger, directory: Path, qmp: str, words: str) -> None:
    """The verdict is ERROR, because that control socket is of another machine, which says nothing about the path."""
    file = directory / "other.json"
    run = machine.inspect(directory, "--qmp", qmp, "--serial", str(machine.log), "--json", str(file))
    assert run.exit_code == 9, run.stdout
    assert f"\nERROR: --qmp is of another machine than the stub: {words}" in run.stdout
    assert json.loads(file.read_text())["observation"]["path"]["kind"] == "unknown"


def test_a_kernel_that_this_kgen_would_not_build(tmp_path: Path) -> None:
    """Its code was changed before it was linked: all in it fits, but it is not what its specification says."""
    changed = built(SPEC, replaced("\nentry:\n", "\nentry:\n    nop\n"))
    assert changed.elf.build_id != kernel_of(SPEC).elf.build_id
    with stranger(SPEC, elf=changed.elf.data) as machine:
        machine.await_log(b" end ")
        run = machine.inspect(tmp_path, "--qmp", machine.qmp, "--serial", str(machine.log))
    assert run.exit_code == 9, run.stdout
    assert "\nERROR: the ELF is not what this kgen builds: it was changed after it was built, or built" in run.stdout


def test_a_stub_that_hangs_up(tmp_path: Path, parked: Stranger) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(30)

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        run = asked(tmp_path / "tmp", "inspect", str(parked.elf), address, "--timeout", "5")
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert_line(run, 9, address)


def test_no_gdb(tmp_path: Path, parked: Stranger) -> None:
    assert_line(parked.inspect(tmp_path, "--gdb", "/no/such/gdb"), 2, "--gdb /no/such/gdb: no such file")
