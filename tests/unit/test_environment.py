"""Where a result was obtained: what is read of the host, and asked of the tools without waiting for them."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import pytest

from kgen import __version__
from kgen.host.environment import _cpuinfo, accelerator, environment, first_line, gathering, host, kvm_parameters
from kgen.host.process import ANSWER_BYTES, output

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7B12
microcode\t: 0x1000065
flags\t\t: fpu vme hypervisor lahf_lm

processor\t: 1
model name\t: another
"""


def program(directory: Path, text: str) -> str:
    file = directory / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_cpu_and_microcode() -> None:
    assert _cpuinfo(CPUINFO) == {
        "cpu": "AMD EPYC 7B12",
        "microcode": "0x1000065",
        "vendor": "AuthenticAMD",
        "hypervisor": True,
    }
    assert _cpuinfo(CPUINFO.replace(" hypervisor", ""))["hypervisor"] is False
    assert _cpuinfo("") == {}


def test_the_host() -> None:
    seen = host()
    assert seen["kernel"] == platform.release()
    assert seen["cpus"] == os.cpu_count()


def test_kvms_parameters_are_those_of_the_system() -> None:
    for name, value in kvm_parameters().items():
        module, parameter = name.split(".")
        assert Path(f"/sys/module/{module}/parameters/{parameter}").read_text().strip() == value


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (("qemu", "-accel", "tcg,thread=multi", "-m", "64"), {"accel": "tcg", "thread": "multi"}),
        (("qemu", "-accel", "tcg,tb-size=64,thread=single"), {"accel": "tcg", "thread": "single"}),
        (("qemu", "--accel", "kvm", "-accel", "tcg,thread=multi"), {"accel": "kvm"}),
        (("qemu", "-accel"), {}),
        (("qemu",), {}),
    ],
)
def test_the_accelerator(command: tuple[str, ...], found: dict[str, str]) -> None:
    assert accelerator(command) == found


posix = pytest.mark.skipif(sys.platform == "win32", reason="the programs here are shell scripts")


@posix
def test_versions_are_asked_for_together(tmp_path: Path) -> None:
    """Each program answers only once the other has been started."""
    script = f"touch {tmp_path}/$0.$$; until [ $(ls {tmp_path} | wc -l) -ge 3 ]; do sleep 0.02; done; echo $1 7; echo x"
    both = program(tmp_path, script.replace("$0.", "seen."))
    with gathering(both, both) as gather:
        versions = gather()["versions"]
    assert versions == {
        "kgen": __version__,
        "python": platform.python_version(),
        "emulator": "--version 7",
        "gdb": "--version 7",
    }


@posix
def test_nobody_is_left_when_the_answer_is_not_wanted(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with gathering(program(tmp_path, f"echo $$ > {pidfile}.new; mv {pidfile}.new {pidfile}; exec sleep 60"), ""):
        until = time.monotonic() + 20
        while not pidfile.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        pid = int(pidfile.read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_programs_that_are_not_there_have_no_version() -> None:
    versions = environment("/no/such/qemu", "")["versions"]
    assert versions["emulator"] == ""
    assert "gdb" not in versions
    assert first_line(["/no/such/program"]) == ""


@posix
def test_a_program_that_never_stops_talking_is_no_memory_hog(tmp_path: Path) -> None:
    start = time.monotonic()
    assert output([program(tmp_path, "exec yes")], 60) == ""
    assert time.monotonic() - start < 30
    assert output([program(tmp_path, f"head -c {ANSWER_BYTES // 2} /dev/zero")], 60) == "\0" * (ANSWER_BYTES // 2)


@posix
def test_a_program_that_reads_gets_nothing(tmp_path: Path) -> None:
    assert first_line([program(tmp_path, "cat; echo end")]) == "end"
