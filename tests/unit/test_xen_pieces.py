"""What kgen makes of the words of Xen and its tools, as they printed them."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kgen.errors import DebuggerError, SpecError
from kgen.evidence.kvm_trace import TraceEvent, remarks
from kgen.lab import outer, xentrace
from kgen.lab.cache import Lab
from kgen.lab.choice import Choice
from kgen.machine.platform import LaunchRequest
from kgen.machine.xen import registers_of
from kgen.platforms import xen_lab
from kgen.systems import xen

REPLAY = Path(__file__).parents[1] / "replay" / "xen"
CELL = 0xB8000
KHZ = 2_445_404


def record(event: int, *words: int, time: int | None = None) -> bytes:
    head = event | len(words) << 28 | (0 if time is None else 1 << 31)
    return (
        struct.pack("<I", head)
        + (b"" if time is None else struct.pack("<Q", time))
        + struct.pack(f"<{len(words)}I", *words)
    )


def runs(domain: int, cpu: int, ms: int) -> bytes:
    """A virtual CPU that was blocked runs."""
    return record(0x21001 | 2 << 8, domain << 16 | cpu, time=ms * KHZ)


def told(data: bytes) -> list[str]:
    names = {"ask": "?", "read": "r", "write": "w"}
    return [f"{event.cpu}{names[event.kind]}{event.value:x}" for event in xentrace.parse(data, [CELL], KHZ)]


FAULT = record(0x82021, CELL, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0, 4)
READ, WRITE = record(0x82017, CELL, 7), record(0x82217, CELL, 9)


def test_an_access_is_of_the_cpu_that_runs() -> None:
    data = runs(1, 2, 5) + FAULT + runs(0, 0, 6) + runs(1, 0, 7) + FAULT + runs(1, 2, 8) + READ + WRITE
    assert told(data) == ["2?0", "0?0", "2r7", "2w9"]
    events = xentrace.parse(data, [CELL], KHZ)
    assert [round(1000 * event.seconds, 6) for event in events] == [5, 7, 8, 8]


def test_what_the_trace_says_nothing_of_is_left_out() -> None:
    # before the first CPU is known, while dom0 runs, of another address, of a word too few
    assert told(READ + runs(0, 1, 1) + READ + runs(1, 0, 2) + record(0x82017, 0xB8004, 1) + record(0x82017, CELL)) == []


@pytest.mark.parametrize("cut", range(len(READ)))
def test_a_trace_that_ends_early_loses_its_last_record(cut: int) -> None:
    assert told(runs(1, 0, 1) + FAULT + READ[:cut]) == ["0?0"]


def test_a_plain_read_and_a_plain_write_are_no_exchange() -> None:
    other = runs(1, 1, 3) + FAULT + record(0x82217, CELL, 5)
    separate = runs(1, 0, 1) + FAULT + READ + other + runs(1, 0, 4) + FAULT + WRITE
    together = runs(1, 0, 1) + FAULT + READ + other + runs(1, 0, 4) + WRITE
    assert not any(remarks(numbered(xentrace.parse(separate, [CELL], KHZ))))
    assert any(remarks(numbered(xentrace.parse(together, [CELL], KHZ))))


def numbered(events: tuple[TraceEvent, ...]) -> list[TraceEvent]:
    return [replace(event, index=at) for at, event in enumerate(events)]


def test_a_real_trace_shows_both_requests_of_an_exchange_and_what_came_between() -> None:
    events = numbered(xentrace.parse((REPLAY / "xentrace-4.17.bin").read_bytes(), [CELL], KHZ))
    found = [remark for remark in remarks(events) if remark]
    assert "the other half of the exchange begun 6.950 ms before: eab1b02d came between" in found
    # two CPUs read the same value: one of them took what the other had taken
    reads = [(event.cpu, event.value) for event in events if event.kind == "read"]
    assert {(2, 0x5ABE68F4), (1, 0x5ABE68F4)} <= set(reads)


def test_registers_as_xen_hvmctx_prints_them() -> None:
    cpus = registers_of((REPLAY / "hvmctx-4.17.txt").read_text())
    assert [cpu.cpu for cpu in cpus] == [0, 1, 2]
    assert (cpus[0].eip, cpus[0].eax, cpus[0].esp, cpus[0].eflags) == (0x100484, 0x72, 0x120770, 6)


def test_a_domain_whose_cpus_have_halted_has_no_registers() -> None:
    text = (REPLAY / "hvmctx-4.17.txt").read_text()
    assert registers_of(text[: text.index("Entry 1:")]) == ()
    with pytest.raises(DebuggerError, match="has printed no record: Error: can't get"):
        registers_of("Error: can't get record length for dom 1")
    with pytest.raises(DebuggerError, match="the registers of vCPU 0 cannot be read"):
        registers_of(text[: text.index("rip 0x")])


def test_the_domain() -> None:
    text = xen_lab.configuration(LaunchRequest(kernel=None, cpus=5, append="attend=0x1", vga="cirrus"), xen.PORTS)
    lines = text.splitlines()
    assert "vcpus = 5" in lines
    assert 'cmdline = "attend=0x1"' in lines
    assert 'vga = "cirrus"' in lines
    assert 'serial = [ "pipe:/dev/vport0p2" ]' in lines
    third = xen_lab.configuration(LaunchRequest(kernel=None, serial_port=0x3E8), xen.PORTS)
    assert 'serial = [ "null", "null", "pipe:/dev/vport0p2" ]' in third.splitlines()


def test_an_adapter_that_xen_does_not_have() -> None:
    with pytest.raises(SpecError, match="qxl"):
        xen_lab.medium(LaunchRequest(kernel=None, vga="qxl"))


def test_the_ports_of_the_outer_machine(tmp_path: Path) -> None:
    lab = Lab("k", "", "", (), (), {}, machine=("-drive", "{share}"), ports=xen.PORTS, directory=tmp_path)
    words = outer.command(
        lab, "qemu", outer.Lines(console=10, serial=11, gdb=12, control=13, log=14, share=15), restore=False
    )
    assert "isa-serial,iobase=0x3f8,irq=4,index=0,chardev=kgen-0" in words
    assert "virtserialport,nr=1,chardev=kgen-1" in words
    assert "file,path=/dev/fd/14,id=kgen-0" in words
    assert "socket,fd=10,id=kgen-1" in words
    assert "/dev/fd/15" in words
    # the stub's descriptor has no port here
    assert not any("fd=12" in word for word in words)
    assert outer.device(("console", "serial", "gdb", "control"), "gdb") == "/dev/ttyS2"


def test_a_xen_is_unpacked_and_must_be_one(tmp_path: Path) -> None:
    image = tmp_path / "xen"
    image.write_bytes(b"\x7fELF" + bytes(100) + b"\x02\xb0\xad\x1b" + bytes(100))
    packed = tmp_path / "xen.gz"
    packed.write_bytes(gzip.compress(image.read_bytes()))
    assert xen.hypervisor(packed) == xen.hypervisor(image) == image.read_bytes()
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(SpecError, match="cannot be unpacked"):
        xen.hypervisor(packed)
    image.write_bytes(b"\x7fELF" + bytes(9000) + b"\x02\xb0\xad\x1b")
    with pytest.raises(SpecError, match="no Multiboot header"):
        xen.hypervisor(image)


@pytest.mark.parametrize("name", ["a b", "a,b"])
def test_a_place_that_qemu_cannot_load_modules_from(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    with pytest.raises(SpecError, match=r"a blank or a comma in its name; set XDG_CACHE_HOME to another place"):
        xen.SYSTEM.check(Choice(release="bookworm"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "ab"))
    xen.SYSTEM.check(Choice(release="bookworm"))
