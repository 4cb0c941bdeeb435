"""The QEMU command lines, and the reasons why a platform cannot run."""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kgen.errors import SpecError
from kgen.machine.platform import Channels, LaunchRequest
from kgen.platforms import _qemu, _variant, qemu_kvm, qemu_tcg

PLATFORMS = [qemu_tcg.PLATFORM, qemu_kvm.PLATFORM]
REQUEST = LaunchRequest(kernel=Path("kernel.elf"), firmware="seabios", qemu="no-such-qemu")


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


def test_what_is_asked_for(tmp_path: Path) -> None:
    rom = tmp_path / "other.rom"
    rom.write_bytes(b"")
    request = LaunchRequest(
        kernel=Path("a kernel,with.elf"),
        cpus=7,
        memory_mib=99,
        qemu="no-such-qemu",
        extra=("-cpu", "max"),
        append="rounds=3 x",
        vga="none",
        firmware=str(rom),
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
    assert after(command, "-bios") == [str(rom)]
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
    qemu = fake_qemu(tmp_path, *["qboot.rom"] * ships)
    command = qemu_tcg.PLATFORM.command(LaunchRequest(kernel=Path("k"), qemu=qemu))
    assert after(command, "-bios") == (["qboot.rom"] if ships else [])
    # qboot boots no disk.
    assert "-bios" not in qemu_tcg.PLATFORM.command(LaunchRequest(kernel=None, qemu=qemu))


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


def fake_qemu(folder: Path, *firmware: str) -> str:
    """A program that says that its firmware is in ``folder``, where these files then are."""
    for name in firmware:
        (folder / name).write_bytes(b"")
    qemu = folder / "qemu"
    qemu.write_text(f'#!/bin/sh\n[ "$*" = "-L help" ] && echo {folder}\n')
    qemu.chmod(0o755)
    return str(qemu)


def test_a_chosen_machine_is_the_commands() -> None:
    request = replace(REQUEST, machine="q35,hpet=off", vga="qxl", cpu="EPYC")
    for platform in PLATFORMS:
        command = platform.command(request)
        assert after(command, "-machine") == ["q35,hpet=off"]
        assert after(command, "-vga") == ["qxl"]
        # one model, in the place of the platform's own
        assert after(command, "-cpu") == ["EPYC"]
        assert platform.medium(request) == ""
    assert "-cpu" not in qemu_tcg.PLATFORM.command(REQUEST)


@pytest.mark.parametrize(
    ("machine", "boot", "devices"),
    [
        ("pc", "ide", ["ide-hd"]),
        ("q35", "ide", ["piix3-ide", "ide-hd,bus=kgen-ide.0"]),
        ("pc-i440fx-6.2", "ahci", ["ich9-ahci", "ide-hd,bus=kgen-ahci.0"]),
        ("pc-q35-6.2", "ahci", ["ide-hd"]),
        ("pc", "nvme", ["nvme"]),
        ("pc", "usb", ["qemu-xhci", "usb-storage"]),
        ("q35", "virtio", ["virtio-blk-pci"]),
        ("q35", "cdrom", ["ide-cd"]),
    ],
)
def test_a_boot_medium_takes_the_kernels_place(machine: str, boot: str, devices: list[str]) -> None:
    request = replace(REQUEST, machine=machine, boot=boot, image=Path("a,b/kernel.img"), firmware=None)
    assert qemu_tcg.PLATFORM.medium(request) == ("iso" if boot == "cdrom" else "img")
    command = qemu_tcg.PLATFORM.command(request)
    assert "-kernel" not in command
    assert "-bios" not in command
    (drive,) = after(command, "-drive")
    assert ",file=a,,b/kernel.img" in drive
    assert ("readonly=on" in drive) == (boot == "cdrom")
    given = after(command, "-device")
    assert [one.startswith(start) for one, start in zip(given, devices, strict=True)] == [True] * len(devices)
    assert given[-1].endswith(",drive=kgen-boot,bootindex=0")


def test_ovmf_is_looked_for_with_qemus_firmware(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, "edk2-x86_64-code.fd", "edk2-i386-vars.fd")
    request = LaunchRequest(kernel=Path("k"), qemu=qemu, firmware="ovmf", image=Path("k.img"))
    assert qemu_tcg.PLATFORM.unavailable(request) is None
    # a stick, where nobody says otherwise
    assert qemu_tcg.PLATFORM.medium(request) == "img"
    command = qemu_tcg.PLATFORM.command(request)
    code, variables, disk = after(command, "-drive")
    assert code.startswith("if=pflash,unit=0,format=raw,readonly=on,file=")
    # nothing that the firmware writes is kept
    assert variables.startswith("if=pflash,unit=1,format=raw,snapshot=on,file=")
    assert "id=kgen-boot" in disk
    assert after(command, "-m") == ["256"]
    assert "usb-storage,drive=kgen-boot,bootindex=0" in after(command, "-device")


def volume(size: int, end: bytes) -> bytes:
    """A firmware volume at the begin of so many bytes, and what is at their end."""
    return (bytes(40) + b"_FVH").ljust(size - len(end), b"\xff") + end


@pytest.mark.parametrize(
    ("data", "is_half"),
    [
        (volume(3653632, b"\xe9" * 16), True),  # OVMF_CODE_4M.fd
        (volume(1966080, b"\xe9" * 16), True),  # OVMF_CODE.fd
        (volume(540672, b""), True),  # OVMF_VARS_4M.fd
        (volume(131072, b""), True),  # OVMF_VARS.fd
        (volume(2097152, b"\xe9" * 16), False),  # OVMF.fd
        (bytes(3653632), False),
        (b"\xff" * 131072, False),
        (b"", False),
    ],
)
def test_half_a_uefi_points_to_ovmf(tmp_path: Path, data: bytes, is_half: bool) -> None:
    file = tmp_path / "firmware"
    file.write_bytes(data)
    request = replace(REQUEST, firmware=str(file))
    if is_half:
        with pytest.raises(
            SpecError, match="code and variables, and does not start alone; give --firmware ovmf"
        ) as told:
            qemu_tcg.PLATFORM.medium(request)
        assert told.value.where == f"--firmware {file}"
    else:
        assert qemu_tcg.PLATFORM.medium(request) == ""


def test_what_is_installed_of_ovmf_is_recognised() -> None:
    found = _variant._ovmf("no-such-qemu")
    if found is None:
        pytest.skip("OVMF is not installed")
    assert [_variant._is_half(part) for part in found] == [True, True]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_variant, "_OVMF_PLACES", ())
    request = LaunchRequest(kernel=None, qemu=fake_qemu(tmp_path))
    for firmware, words in (("ovmf", "OVMF is not to be found; install it with"), ("qboot", "ships no qboot.rom")):
        assert words in (qemu_tcg.PLATFORM.unavailable(replace(request, firmware=firmware)) or "")
    assert "isapc takes one CPU" in (qemu_tcg.PLATFORM.unavailable(replace(request, machine="isapc")) or "")
    assert qemu_tcg.PLATFORM.unavailable(replace(request, machine="isapc", cpus=1)) is None


def test_ovmf_needs_the_64_bit_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "qemu-system-i386" not in (qemu_tcg.PLATFORM.unavailable(LaunchRequest(kernel=None, firmware="ovmf")) or "")


def test_a_board_without_pci_has_adapters_of_its_own() -> None:
    for vga, devices in (("std", ["isa-vga"]), ("cirrus", ["isa-cirrus-vga"]), ("none", [])):
        command = qemu_tcg.PLATFORM.command(replace(REQUEST, machine="microvm", vga=vga))
        assert after(command, "-device") == devices
        assert "-vga" not in command
