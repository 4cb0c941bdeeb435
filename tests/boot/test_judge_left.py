"""kgen judge on what real machines leave behind: a QEMU that kgen did not start, its serial log and its memory."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import DEADLINE, Run, kgen

from kgen.build import build, write
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qmp import Qmp
from kgen.registry import discover
from kgen.spec import Case, KernelSpec

SPEC = KernelSpec(Case("xchg"), rounds=500)
UNLOCKED = KernelSpec(Case("xchg", lock=False), rounds=500, controls=False)
MEMORY_MIB = 32
#: Under load even unlocked exchanges may never meet in so short a run; then it is made again.
ATTEMPTS = 10


@dataclass(frozen=True)
class Left:
    """What a machine has left in a directory: ``serial.txt``, ``memory.raw``, ``guest.core``, ``guest.kdump``, and
    beside them the files of the build."""

    directory: Path

    def judge(self, temporary: Path, *arguments: str) -> tuple[Run, dict[str, Any]]:
        """The command's run, and its result for machines; an argument that is a file's name is one here."""
        words = [str(self.directory / word) if (self.directory / word).exists() else word for word in arguments]
        file = temporary / "result.json"
        file.unlink(missing_ok=True)
        run = kgen(temporary / "tmp", "judge", *words, "--json", str(file))
        return run, json.loads(file.read_text())


@contextlib.contextmanager
def machine(spec: KernelSpec, directory: Path) -> Iterator[Qmp]:
    """A QEMU as a person starts it, from the disk image, its serial port in a file; it is there until the block ends.

    Its control socket is given once the kernel has come to its end.
    """
    write(build(spec), directory)
    # a short directory: a socket's path is limited
    with tempfile.TemporaryDirectory() as short:
        extra = (
            "-drive",
            f"file={directory / 'kernel.img'},format=raw",
            "-qmp",
            f"unix:{short}/qmp,server=on,wait=off",
        )
        tcg = discover("kgen.platforms", "PLATFORM", Platform)["qemu-tcg"]
        request = LaunchRequest(kernel=None, cpus=spec.case.cpus, memory_mib=MEMORY_MIB, extra=extra)
        command = [
            "file:" + str(directory / "serial.txt") if word == "stdio" else word for word in tcg.command(request)
        ]
        qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            until = time.monotonic() + DEADLINE
            log = directory / "serial.txt"
            while not (log.exists() and b" end state=" in log.read_bytes()):
                assert time.monotonic() < until, log.read_bytes() if log.exists() else "nothing"
                assert qemu.poll() is None
                time.sleep(0.05)
            control = socket.socket(socket.AF_UNIX)
            control.connect(f"{short}/qmp")
            with contextlib.closing(Qmp(control, 10)) as session:
                # its last store comes after its closing line, and then it halts
                while "HLT=1" not in session.execute(
                    "human-monitor-command", {"command-line": "info registers"}, DEADLINE
                ):
                    assert time.monotonic() < until, "the guest does not halt"
                    time.sleep(0.05)
                yield session
        finally:
            qemu.kill()
            qemu.wait()


@pytest.fixture(scope="module", params=["locked", "unlocked"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What two machines leave: one that does what it must, and one whose kernel must find violations."""
    if request.param == "locked":
        directory = tmp_path_factory.mktemp("locked")
        with machine(SPEC, directory) as session:
            dump(session, directory)
        return Left(directory)
    for _ in range(ATTEMPTS):
        directory = tmp_path_factory.mktemp("unlocked")
        with machine(UNLOCKED, directory) as session:
            if b" witness " in (directory / "serial.txt").read_bytes():
                dump(session, directory)
                return Left(directory)
    pytest.skip(f"the CPUs of this machine did not meet once in {ATTEMPTS} runs: it is too busy")


def dump(session: Qmp, directory: Path) -> None:
    """Write the machine's memory down in each form."""
    raw = {"val": 0, "size": MEMORY_MIB << 20, "filename": str(directory / "memory.raw")}
    session.execute("pmemsave", raw, DEADLINE)
    for name, form in (("guest.core", "elf"), ("guest.kdump", "kdump-zlib")):
        wanted = {"paging": False, "protocol": f"file:{directory / name}", "format": form}
        session.execute("dump-guest-memory", wanted, DEADLINE)


def kinds_of(left: Left) -> set[str]:
    """What the locked form comes to on a machine that carries it out, controls being silent at times; the other one."""
    return {"ATOMIC", "INCONCLUSIVE"} if left.directory.name.startswith("locked") else {"NOT_ATOMIC"}


#: What so few rounds may not suffice for: batches, and controls that fail in them.
TOO_LITTLE = re.compile(r"the power control .*|the case had .* live batches, and the proof needs .*", re.DOTALL)


def assert_only_too_little(result: dict[str, Any]) -> None:
    if result["verdict"]["kind"] == "INCONCLUSIVE":
        assert TOO_LITTLE.fullmatch(result["verdict"]["reason"])


def test_the_log_alone(left: Left, tmp_path: Path) -> None:
    run, result = left.judge(tmp_path, "serial.txt")
    assert result["platform"] == "serial-log"
    assert result["verdict"]["kind"] in kinds_of(left), run.stdout
    assert run.process.returncode == result["verdict"]["exit_code"]
    assert result["observation"]["serial"]["complete"]
    assert result["observation"]["serial"]["boot_path"] == "disk"
    assert "path: io (by the guest's own probe of VGA; there is no other source)" in run.stdout
    assert_only_too_little(result)


@pytest.mark.parametrize("name", ["memory.raw", "guest.core"])
def test_its_memory_holds_the_same(left: Left, tmp_path: Path, name: str) -> None:
    _, log = left.judge(tmp_path, "serial.txt")
    run, memory = left.judge(tmp_path, "--memory", name)
    assert memory["platform"] == "memory-dump"
    locked = "ATOMIC" in kinds_of(left)
    assert memory["verdict"]["kind"] == ("INCONCLUSIVE" if locked else "NOT_ATOMIC"), run.stdout
    assert run.process.returncode == memory["verdict"]["exit_code"]
    assert memory["spec"] == log["spec"]
    for key in ("violations", "witnesses", "rounds"):
        assert memory["verdict"][key] == log["verdict"][key]
    serial, block = log["observation"]["serial"], memory["observation"]["memory"]
    for ours, theirs in zip(serial["phases"], block["phases"], strict=True):
        assert ours["counts"] == theirs["counts"]


@pytest.mark.parametrize("name", ["memory.raw", "guest.core"])
def test_both_are_held_against_each_other_and_the_elf(left: Left, tmp_path: Path, name: str) -> None:
    run, result = left.judge(tmp_path, "serial.txt", "--memory", name, "--elf", "kernel.elf")
    assert result["verdict"]["kind"] in kinds_of(left), run.stdout
    assert result["observation"]["problems"] == []
    assert result["observation"]["serial"]["build_id"] == result["observation"]["memory"]["build_id"]
    assert_only_too_little(result)


def test_a_compressed_dump_says_what_to_do(left: Left, tmp_path: Path) -> None:
    run, result = left.judge(tmp_path, "--memory", "guest.kdump")
    assert (run.process.returncode, result["verdict"]["kind"]) == (9, "ERROR")
    assert "guest.kdump: is a compressed kdump file; dump it as ELF" in run.stderr
