"""What VirtualBox prints, as 7.2.22 printed it, and what is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kgen.errors import DebuggerError
from kgen.machine.virtualbox_words import (
    SERIAL_PORTS,
    complaint,
    death_of,
    engine_of,
    facts_of,
    path_of,
    registers_of,
    settings,
    version_of,
)
from kgen.platforms import platform_named

HEAD = "00:00:00.045939 VirtualBox VM 7.2.22_Debian r175245 linux.amd64 (Oct 22 2026 07:33:03) release log\n"
RECOMPILER = f"""{HEAD}00:00:00.046049 Process ID: 63
00:00:00.066483 Using execution engine 5
00:00:00.132744   TripleFaultReset <integer> = 0x0000000000000000 (0)
00:00:00.132951 HM: HMR3Init: Falling back on IEM: Driverless mode
00:00:00.340919 EMR3Init: fIemExecutesAll=true fGuruOnTripleFault=true
00:00:00.341283 IEM: TargetCpu=CURRENT, Microarch=AMD_Unknown aidxTargetCpuEflFlavour={{2,0}}
00:00:00.420277 Changing the VM state from 'CREATED' to 'POWERING_ON'
00:00:00.420618 Changing the VM state from 'POWERING_ON' to 'RUNNING'
"""
INTERPRETER = RECOMPILER.replace("engine 5", "engine 4")
#: What carries the guest out, from the log of a machine in the lab.
HARDWARE = (Path(__file__).parents[1] / "replay" / "virtualbox" / "hm-amdv-7.2.22.log").read_text()
PHYS = """\
RAM ranges (pVM=00007ffa571a6000)
GC Phys Range                     pbR3            \n\
0000000000000000-000000000009ffff 00007ffa57084000 Conventional RAM
00000000000a0000-00000000000bffff 0000000000000000 VGA - VGA Video Buffer
00000000000c0000-00000000000c8fff 00007ffa57ee5000 VGA BIOS
00000000000e1000-00000000000e1fff 00007ffa66c65000 DMI tables
0000000000100000-00000000001fffff 00007ffa56f84000 Extended RAM, 1-2MB
0000000000200000-0000000003ffffff 00007ffa44200000 Extended RAM, >2MB
00000000e0000000-00000000e0ffffff 00007ffa3b000000 VRam
00000000fec00000-00000000fec00fff 0000000000000000 I/O APIC
00000000fed00000-00000000fed00fff 0000000000000000 HPET Memory
"""
MMIO = """\
MMIO registrations: 4 (46 allocated)
 ## Ctx    Size Mapping   PCI    Description
  0 R3     0000000000001000  00000000fee00000-00000000fee00fff        APIC
  1 R3     0000000000001000  00000000fec00000-00000000fec00fff        I/O APIC
  2 R3     0000000000001000  00000000fed00000-00000000fed00fff        HPET Memory
  3 R3     0000000000020000  00000000000a0000-00000000000bffff        VGA - VGA Video Buffer
"""
TEXT = "VGA Sequencer (3C5): SR index 3C4:03\n SR00:03 SR01:00 SR02:03 SR03:00 SR04:02 SR05:00 SR06:00 SR07:00\n"


def answers(**changes: str) -> Callable[[str], str]:
    """What ``debugvm info`` answers; nothing else may be asked."""
    said: Mapping[str, str] = {"phys": PHYS, "mmio": MMIO, "vgasr": TEXT} | changes
    return lambda what: said[what]


@pytest.mark.parametrize(
    ("log", "engine"),
    [
        (RECOMPILER, "IEM, recompiler"),
        (INTERPRETER, "IEM, interpreter"),
        (RECOMPILER.replace("Using execution engine 5", "Using execution engine 1"), "IEM"),
        (HARDWARE, "HM, AMD-V"),
        (HARDWARE.replace("HMR3Init: AMD-V", "HMR3Init: VT-x"), "HM, VT-x"),
        # it wanted another engine than the one that ran
        (HARDWARE.replace("AMD-V w/ nested paging", "Attempting fall back to NEM: VT-x is not available"), ""),
        (HEAD, ""),
        ("", ""),
    ],
)
def test_the_engine_is_the_one_that_ran(log: str, engine: str) -> None:
    assert engine_of(log) == engine


def test_the_engine_decides_what_is_known() -> None:
    platform = platform_named("virtualbox")
    assert platform.known_on({"virtualbox": {"engine": engine_of(RECOMPILER)}}) == "NOT_ATOMIC"
    assert platform.known_on({"virtualbox": {"engine": engine_of(HARDWARE)}}) == "ATOMIC"
    assert platform.known_on({}) == platform.known


def test_version_and_facts() -> None:
    assert version_of(RECOMPILER) == "VirtualBox 7.2.22_Debian r175245"
    assert version_of("") == ""
    assert facts_of(RECOMPILER) == (
        "Using execution engine 5",
        "HM: HMR3Init: Falling back on IEM: Driverless mode",
        "EMR3Init: fIemExecutesAll=true fGuruOnTripleFault=true",
    )
    assert version_of(HARDWARE) == version_of(RECOMPILER)
    assert [line for line in facts_of(HARDWARE) if not line.startswith("SUP: ")] == [
        "Using execution engine 1",
        "HM: HMR3Init: AMD-V w/ nested paging",
        "EMR3Init: fIemExecutesAll=false fGuruOnTripleFault=true",
        "HM: Enabled SVM",
        "HM:   Enabled nested paging",
    ]
    assert death_of(HARDWARE) == ""


@pytest.mark.parametrize(
    ("more", "death"),
    [
        ("", ""),
        ("00:00:27.66 Changing the VM state from 'RUNNING' to 'SUSPENDING'\n", ""),
        (
            "00:00:27.66 Changing the VM state from 'RUNNING' to 'FATAL_ERROR'\n",
            "VirtualBox stopped the guest: FATAL_ERROR",
        ),
        (
            "00:00:27.664424 Changing the VM state from 'RUNNING' to 'GURU_MEDITATION'\n"
            "00:00:27.7 !!         VCPU1: Guru Meditation 1155 (VINF_EM_TRIPLE_FAULT)\n",
            "the guest died of a triple fault; VirtualBox says: Guru Meditation, VINF_EM_TRIPLE_FAULT",
        ),
        (
            "00:00:27.664424 Changing the VM state from 'RUNNING' to 'GURU_MEDITATION'\n"
            "00:00:27.7 !!         VCPU0: Guru Meditation -5402 (VERR_IEM_INSTR_NOT_IMPLEMENTED)\n",
            "VirtualBox stopped the guest: GURU_MEDITATION, VERR_IEM_INSTR_NOT_IMPLEMENTED",
        ),
        ("00:00:27.66 Changing the VM state from 'POWERING_OFF' to 'OFF'\n", "VirtualBox stopped the guest: OFF"),
    ],
)
def test_how_a_guest_died(more: str, death: str) -> None:
    assert death_of(RECOMPILER + more) == death


@pytest.mark.parametrize(
    ("address", "length", "kind", "region"),
    [
        (0xB8000, 512, "io", "VGA - VGA Video Buffer"),
        (0xFED00108, 4, "io", "HPET Memory"),
        (0x110000, 4096, "ram", "Extended RAM, 1-2MB"),
        (0x1FF000, 0x2000, "ram", "Extended RAM, 1-2MB, Extended RAM, >2MB"),
        (0xE0000000, 4, "unknown", "VRam"),
        (0xC0000, 4, "rom", "VGA BIOS"),
        (0xE1000, 4, "unknown", "DMI tables"),
        (0x4000000, 4, "hole", ""),
        # half of it is RAM
        (0x9FFFE, 4, "unknown", "Conventional RAM, VGA - VGA Video Buffer"),
        # half of it is nothing
        (0x3FFFFFE, 4, "unknown", "Extended RAM, >2MB"),
    ],
)
def test_what_backs_an_address(address: int, length: int, kind: str, region: str) -> None:
    found = path_of(answers(), address, length)
    assert (found.kind, found.region) == (kind, region)


@pytest.mark.parametrize(
    "changes",
    [
        {"phys": ""},
        {"phys": PHYS.replace("VGA - VGA Video Buffer", "")},
        {"phys": PHYS + "something else\n"},
        {"mmio": ""},
        {"mmio": MMIO.replace("000bffff", "000b7fff")},
        # chained planes, which may be mapped as RAM; an answer without the register
        {"vgasr": TEXT.replace("SR04:02", "SR04:0A")},
        {"vgasr": ""},
    ],
)
def test_what_is_not_understood_is_unknown(changes: Mapping[str, str]) -> None:
    assert path_of(answers(**changes), 0xB8000, 512).kind == "unknown"


def test_with_the_driver_ram_need_not_be_mapped() -> None:
    """Its place is 0 then, as that of a device; VirtualBox still calls it RAM."""
    phys = re.sub(r"[0-9a-f]{16}( (?:Conventional|Extended) RAM)", r"0000000000000000\1", PHYS)
    assert phys != PHYS
    assert path_of(answers(phys=phys), 0x110000, 4).kind == "ram"
    assert path_of(answers(phys=phys), 0x9FFFE, 4).kind == "unknown"
    assert path_of(answers(phys=phys), 0xB8000, 4).kind == "io"


def test_the_line_names_the_ring_that_carries_accesses_out() -> None:
    line = path_of(answers(mmio=MMIO.replace("3 R3  ", "3 R3+0")), 0xB8000, 4).line
    assert line.startswith("3 R3+0 0000000000020000 ")


def test_registers() -> None:
    text = "".join(
        f"{name} = 0x{number:08x}\n"
        for number, name in enumerate(("eip", "esp", "ebp", "eflags", "eax", "ebx", "ecx", "edx", "esi", "edi"), 1)
    )
    found = registers_of(2, text)
    assert (found.cpu, found.thread, found.eip, found.eflags, found.edi) == (2, 3, 1, 4, 10)
    with pytest.raises(DebuggerError, match="registers of CPU 0"):
        registers_of(0, text.replace("esi", "rsi"))


def test_a_complaint_is_the_first_error() -> None:
    text = "VBoxManage: error: Could not find 'x'\nVBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND\n"
    assert complaint(text) == "Could not find 'x'"
    assert complaint("a\nb\n") == "b"
    assert complaint("") == "no reason given"


@pytest.mark.parametrize("port", SERIAL_PORTS)
def test_the_serial_port_is_the_kernels(port: int) -> None:
    words = settings(
        "x", cpus=5, memory=64, vga="vmsvga", port=port, serial=("client", "/mnt/serial"), engine="recompiler"
    )
    number = list(SERIAL_PORTS).index(port) + 1
    at = words.index(f"--uart{number}")
    assert words[at : at + 3] == (f"--uart{number}", f"{port:#x}", SERIAL_PORTS[port])
    assert words[words.index(f"--uartmode{number}") + 1 :][:2] == ("client", "/mnt/serial")
    assert words[-2:] == ("--vm-execution-engine", "recompiler")
    assert "--vm-execution-engine" not in settings(
        "x", cpus=3, memory=64, vga="none", port=port, serial=("s",), engine=""
    )
