"""Guests made by hand for the tests of machine and debugger, and the platforms they run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _places import spec_of

from kgen.errors import PlatformUnavailable
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qemu import Machine
from kgen.registry import discover
from kgen.spec import KernelSpec

#: What the variants of guest.s do after they have said OK.
MODES = {"loop": 0, "triple-fault": 1, "halt": 2, "run-vga": 3, "fault-when-told": 4}

Guest = Callable[[str], Path]


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """Builds a variant of guest.s by name; the GNU tools are used so that these tests need nothing of kgen's own."""
    missing = [tool for tool in ("as", "ld") if shutil.which(tool) is None]
    if missing or sys.platform != "linux":
        pytest.skip(f"GNU binutils for x86 are needed to build the guest ({', '.join(missing) or sys.platform})")
    directory = tmp_path_factory.mktemp("guest")

    def build(name: str) -> Path:
        elf = directory / f"{name}.elf"
        if not elf.exists():
            source, obj = Path(__file__).with_name("guest.s"), elf.with_suffix(".o")
            subprocess.run(["as", "--32", "--defsym", f"MODE={MODES[name]}", source, "-o", obj], check=True)
            subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x100000", obj, "-o", elf], check=True)
        return elf

    return build


@pytest.fixture(scope="session")
def prebuilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The words that run kgen in a process, each kernel of which is built in the first such process alone."""
    return (sys.executable, "-m", "_prebuilt", str(tmp_path_factory.mktemp("kernels")))


@pytest.fixture(scope="session")
def spec() -> KernelSpec:
    """The original question, asked shortly, with its controls."""
    return spec_of(target="vga-text", rounds=1000, controls=True)


@pytest.fixture(params=["qemu-tcg", "qemu-kvm"])
def platform(request: pytest.FixtureRequest) -> Platform:
    """Each QEMU platform that can run here; the others are skipped with their reason."""
    found = discover("kgen.platforms", "PLATFORM", Platform)[request.param]
    reason = found.unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"{found.name}: {reason}")
    return found


@pytest.fixture(scope="session")
def no_lab() -> str:
    """Why there is no lab, "" where there is one: it is made in the user's cache if it is not there."""
    from kgen.lab.build import Tools, build_lab
    from kgen.lab.choice import Choice
    from kgen.run.canary import canary
    from kgen.systems import system_named

    try:
        build_lab(system_named("kvm"), Choice(), Tools(), lambda stage: print(stage.name), canary)
    except PlatformUnavailable as error:
        return error.line
    return ""


@pytest.fixture(scope="session")
def lab(no_lab: str) -> Platform:
    """KVM in the lab; skipped with the reason where there is none."""
    from kgen.platforms import platform_named

    if no_lab:
        pytest.skip(f"kvm-lab: {no_lab}")
    return platform_named("kvm-lab")


@pytest.fixture
def tcg() -> Platform:
    """QEMU's translator, which runs wherever QEMU does."""
    return discover("kgen.platforms", "PLATFORM", Platform)["qemu-tcg"]


def hear(machine: Machine, words: bytes, seconds: float = 30.0) -> bytes:
    """Read the serial port until the words are in it."""
    heard = b""
    until = time.monotonic() + seconds
    while words not in heard:
        assert time.monotonic() < until, f"heard only {heard!r}"
        heard += machine.read_serial(1.0)
    return heard


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def dies(pid: int, seconds: float = 3.0) -> bool:
    """Whether a process ends within that time."""
    until = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


#: Keeps a child python finding kgen as we do.
CHILD_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
