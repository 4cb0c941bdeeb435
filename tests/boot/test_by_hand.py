"""The commands that README and docs show for machines started by hand, run as they stand there.

Three things are changed: the kernel has few rounds, QEMU gets no window, and port 1234 is one that is free.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _kernel import needs
from booting import DEADLINE, END
from running import environment
from shown import GDB_PROMPT, REPOSITORY, shown, words
from test_inspect import free_port

from kgen.build import build, write
from kgen.kernel.protocol import TABLE_HEADER
from kgen.spec import Case, KernelSpec

PORT = "127.0.0.1:1234"
QEMU = tuple(command for command in shown() if command.startswith("qemu-system-"))
ON_STDOUT = tuple(command for command in QEMU if "-serial stdio" in command)
#: Quick ones; firmware that takes its time, and what is like one of these, is for the soak.
QUICK = ("-kernel kernel.elf -smp 3", "-drive file=kernel.img,format=raw -m 256M -smp 4")


def _marks(command: str) -> list[pytest.MarkDecorator]:
    return [] if command.endswith(QUICK) else [pytest.mark.soak]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that the commands are run in, at its place below a checkout."""
    root = tmp_path_factory.mktemp("by-hand")
    (root / "gdb_scripts").symlink_to(REPOSITORY / "gdb_scripts")
    directory = root / "build" / "xchg.32.vga-text.token"
    directory.mkdir(parents=True)
    kernel = build(KernelSpec(Case("xchg"), rounds=40, controls=False))
    write(kernel, directory, ("img", "iso"))
    return directory


@contextmanager
def started(command: str, folder: Path, port: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run QEMU by a command of the documents, and end it."""
    arguments = [word.replace(PORT, port) for word in words(command) if word != "&"]
    if "-display" not in arguments:
        arguments += ["-display", "none"]
    machine = subprocess.Popen(
        arguments, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield machine
    finally:
        machine.kill()
        machine.communicate()


def _printed(machine: subprocess.Popen[bytes]) -> bytes:
    """Return what the kernel prints up to its closing line, which must come."""
    assert machine.stdout is not None
    until = time.monotonic() + DEADLINE
    log = b""
    while not END.search(log):
        ready, _, _ = select.select([machine.stdout], [], [], max(0.0, until - time.monotonic()))
        assert ready, log
        data = machine.stdout.read1()  # type: ignore[attr-defined]
        assert data, f"QEMU ended after {log!r}"
        log += data
    return log


@pytest.mark.parametrize("command", [pytest.param(each, marks=_marks(each)) for each in ON_STDOUT])
def test_the_image_and_the_kernel_run(command: str, folder: Path) -> None:
    arguments = words(command)
    if "kvm" in arguments:
        needs("qemu-kvm")
    firmware = next((word for word in arguments if word.startswith("/usr/share")), None)
    if firmware and not Path(firmware).is_file():
        pytest.skip(f"{firmware} is not installed")
    with started(command, folder) as machine:
        log = _printed(machine).decode("latin-1")
    assert TABLE_HEADER in log
    assert " end state=3 " in log


def test_some_run_in_every_test_run() -> None:
    assert len([command for command in ON_STDOUT if not _marks(command)]) == len(QUICK)


def test_gdb_from_the_first_instruction(folder: Path) -> None:
    (qemu,) = (command for command in QEMU if " -S " in command)
    (gdb,) = (command for command in shown() if command.startswith("gdb -q"))
    asked = [command.removeprefix(GDB_PROMPT) for command in shown() if command.startswith(GDB_PROMPT)]
    assert (asked[0], asked[-1]) == ("break exchange_xchg_32", "disconnect")
    port = free_port()
    with started(qemu, folder, port):
        _await_listener(port)
        done = _ran([*(word.replace(PORT, port) for word in words(gdb)), "-batch", "-nx", *_each("-ex", asked)], folder)
    assert done.returncode == 0, done.stderr
    for part in ("Breakpoint 1 at ", "hit Breakpoint 1, exchange_xchg_32 () at kernel.s:", "\n$1 = WORKING\n"):
        assert part in done.stdout, f"{done.stdout}\n{done.stderr}"


def test_kgen_inspects_a_machine_of_the_user(folder: Path) -> None:
    (qemu,) = (command for command in QEMU if "-qmp" in command)
    (inspect,) = (command for command in shown() if command.startswith("kgen inspect") and "--qmp" in command)
    port = free_port()
    log = folder / "serial.log"
    log.unlink(missing_ok=True)
    with started(qemu, folder, port):
        until = time.monotonic() + DEADLINE
        while not (log.exists() and END.search(log.read_bytes())):
            assert time.monotonic() < until
            time.sleep(0.05)
        done = _ran([sys.executable, "-m", *(word.replace(PORT, port) for word in words(inspect))], folder)
    # no controls were run: they are what the shown command's minute is for
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith(f"xchg.32.vga-text.token on stub at {port}\n")
    assert "\nINCONCLUSIVE: no controls were run" in done.stdout
    assert done.stdout.endswith("the machine was left running (found running)\n")


def _ran(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def _each(option: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _await_listener(port: str) -> None:
    """Wait until QEMU listens, without a connection, which its stub would take for the debugger's."""
    number = f":{int(port.rpartition(':')[2]):04X} "
    until = time.monotonic() + DEADLINE
    while not any(number in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines()):
        assert time.monotonic() < until
        time.sleep(0.02)
