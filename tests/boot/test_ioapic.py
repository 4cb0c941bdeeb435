"""The I/O APIC as a target: where firmware says it is, on machines without VGA and PCI, and where KVM emulates it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from _kernel import built, decided, needs, replaced, run
from _places import check_place, spec_of
from test_madt import BASE, Memory, local, madt, root, table

from kgen.targets.ioapic import USUAL_BASE
from kgen.verdict.model import VerdictKind

#: Where no machine of these tests has anything.
NOTHING = USUAL_BASE + 0x80000


def ioapic(address: int, size: int = 12) -> bytes:
    """An I/O APIC's entry of a MADT."""
    return struct.pack("<BBBBII", 1, size, 0, 0, address, 0)[:size]


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ((local(0), local(1), ioapic(USUAL_BASE), ioapic(NOTHING)), True),
        ((local(0), ioapic(NOTHING), ioapic(USUAL_BASE)), False),
        # one in the kernel's memory, and one that is on no page of its own
        ((ioapic(0x200000), ioapic(NOTHING + 0x10), ioapic(USUAL_BASE)), True),
        # none, one that is cut off, and an entry that has no end
        ((local(0), local(1)), True),
        ((local(0), ioapic(NOTHING, 8)), True),
        ((bytes(2), ioapic(NOTHING)), True),
    ],
    ids=["first", "elsewhere", "impossible", "none", "short", "endless"],
)
def test_where_the_firmware_says(entries: tuple[bytes, ...], found: bool, tmp_path: Path) -> None:
    """The address in the MADT is used, the usual one where there is none, and what is not there is reported."""
    memory = Memory()
    pointer = memory.put(root(memory.put(table(b"RSDT", struct.pack("<I", memory.put(madt(entries))))), 0, 0))
    told = f"mov dword ptr [acpi_rsdp], {pointer:#x}\n    mov eax, 0x43495041"
    spec = spec_of(target="ioapic", rounds=5)
    kernel = built(spec, replaced("mov eax, 0x43495041", told, routine="setup_ioapic"))
    tables = tmp_path / "tables"
    tables.write_bytes(memory.image())
    loader = f"loader,file={tables},addr={BASE:#x},force-raw=on"
    seen, verdict = run(kernel, "qemu-tcg", "-m", "64", "-device", loader)
    if found:
        assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
        assert check_place(spec, seen) == USUAL_BASE + 0x10
    else:
        assert (verdict.kind, verdict.reason) == (VerdictKind.SKIP, "the machine has no ioapic")


@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
def test_kvm_without_vga(machine: str) -> None:
    """KVM's own I/O APIC loses or doubles tokens, and so does the one that QEMU emulates for KVM on microvm."""
    spec = spec_of("ioapic", rounds=500)
    kernel, platform = built(spec), needs("qemu-kvm")
    for _ in range(10):
        seen, verdict = run(kernel, platform, "-machine", machine, "-vga", "none")
        if decided(seen, verdict):
            break
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    check_place(spec, seen)
