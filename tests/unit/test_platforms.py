"""The QEMU command lines, and the reasons why a platform cannot run."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import pytest

from kgen.errors import SpecError
from kgen.platforms import Channels, LaunchRequest, _qemu, qemu_kvm, qemu_tcg

PLATFORMS = [qemu_tcg.PLATFORM, qemu_kvm.PLATFORM]
REQUEST = LaunchRequest(kernel=Path("kernel.elf"), bios="default", qemu="no-such-qemu")


def after(command: tuple[str, ...], option: str) -> list[str]:
    """Every value an option is given."""
    return [value for name, value in itertools.pairwise(command) if name == option]


def test_accelerators() -> None:
    assert after(qemu_tcg.PLATFORM.command(REQUEST), "-accel") == ["tcg,thread=multi"]
    single = LaunchRequest(kernel=None, thread="single")
    assert after(qemu_tcg.PLATFORM.command(single), "-accel") == ["tcg,thread=single"]
    kvm = qemu_kvm.PLATFORM.command(REQUEST)
    assert after(kvm, "-accel") == ["kvm"]
    assert after(kvm, "-cpu")[0].startswith("host")


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_a_triple_fault_can_be_looked_at(platform: qemu_tcg.Platform) -> None:
    command = platform.command(REQUEST)
    assert {"-no-reboot", "-no-shutdown", "-nodefaults", "-no-user-config"} <= set(command)
    assert after(command, "-display") == ["none"]


def test_what_is_asked_for() -> None:
    request = LaunchRequest(
        kernel=Path("a kernel,with.elf"),
        cpus=7,
        memory_mib=99,
        qemu="no-such-qemu",
        extra=("-cpu", "max"),
        append="rounds=3 x",
        vga="none",
        bios="other.rom",
        devices=("pc-testdev", "edu"),
        channels=Channels(serial=10, qmp=11, gdb=12),
    )
    command = qemu_kvm.PLATFORM.command(request)
    assert command[0] == "no-such-qemu"
    assert command[-2:] == ("-cpu", "max")
    assert after(command, "-kernel") == ["a kernel,with.elf"]
    assert after(command, "-append") == ["rounds=3 x"]
    assert after(command, "-smp") == ["7"]
    assert after(command, "-m") == ["99"]
    assert after(command, "-vga") == ["none"]
    assert after(command, "-bios") == ["other.rom"]
    assert after(command, "-device") == ["pc-testdev", "edu"]
    assert {value.rpartition("fd=")[2] for value in after(command, "-chardev")} == {"10", "11", "12,server=on,wait=off"}


def test_a_command_to_run_by_hand_has_no_inherited_descriptor() -> None:
    command = qemu_tcg.PLATFORM.command(REQUEST)
    assert after(command, "-serial") == ["stdio"]
    assert not any("fd=" in part for part in command)


def test_the_serial_port_is_the_kernels() -> None:
    channels = Channels(serial=10, qmp=11, gdb=12)
    for given in (channels, None):
        command = qemu_tcg.PLATFORM.command(LaunchRequest(kernel=None, channels=given, serial_port=0x2F8))
        assert after(command, "-device") == ["isa-serial,iobase=0x2f8,chardev=kgen-serial"]
        assert "-serial" not in command
    assert after(qemu_tcg.PLATFORM.command(LaunchRequest(kernel=None, channels=channels)), "-serial") == [
        "chardev:kgen-serial"
    ]


@pytest.mark.parametrize("ships", [True, False])
def test_qboot_where_qemu_ships_it(tmp_path: Path, ships: bool) -> None:
    if ships:
        (tmp_path / "qboot.rom").write_bytes(b"")
    qemu = tmp_path / "qemu"
    qemu.write_text(f'#!/bin/sh\n[ "$*" = "-L help" ] && echo {tmp_path}\n')
    qemu.chmod(0o755)
    command = qemu_tcg.PLATFORM.command(LaunchRequest(kernel=Path("k"), qemu=str(qemu)))
    assert after(command, "-bios") == (["qboot.rom"] if ships else [])
    # qboot boots no disk.
    assert "-bios" not in qemu_tcg.PLATFORM.command(LaunchRequest(kernel=None, qemu=str(qemu)))


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_no_qemu(platform: qemu_tcg.Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'no-such-qemu' is not to be found; install it with 'apt install" in (platform.unavailable(REQUEST) or "")
    monkeypatch.setenv("PATH", "")
    reason = platform.unavailable(LaunchRequest(kernel=None)) or ""
    assert all(binary in reason for binary in _qemu.BINARIES)


@pytest.mark.skipif(sys.platform != "linux", reason="KVM is part of Linux")
def test_no_kvm(tmp_path: Path) -> None:
    assert "there is no " in (qemu_kvm._no_kvm(str(tmp_path / "kvm")) or "")
    assert "makes no virtual machine" in (qemu_kvm._no_kvm("/dev/null") or "")
    closed = tmp_path / "closed"
    closed.write_bytes(b"")
    closed.chmod(0)
    if os.geteuid() != 0:
        assert "add yourself to the group kvm" in (qemu_kvm._no_kvm(str(closed)) or "")
    assert "cannot be opened" in (qemu_kvm._no_kvm(str(tmp_path)) or "")


def test_the_users_own_accelerator_settings_replace_ours() -> None:
    request = LaunchRequest(kernel=None, extra=("-accel", "tcg,thread=single"))
    command = qemu_tcg.PLATFORM.command(request)
    assert command.count("-accel") == 1
    assert "tcg,thread=single" in command


@pytest.mark.parametrize("extra", [("-accel", "kvm"), ("--accel", "hvf,x=y"), ("-enable-kvm",)])
def test_another_accelerator_is_refused(extra: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="--platform"):
        qemu_tcg.PLATFORM.command(LaunchRequest(kernel=None, extra=extra))
