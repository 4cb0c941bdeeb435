"""The image boots by UEFI, from a disk and from a CD, and hands the kernel what the firmware knew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from booting import ESCAPES, machine, verdict_of
from test_disk_boot import Booted

from kgen.build import Kernel, build, write
from kgen.host.process import spawn
from kgen.kernel.results_block import BootPath, Decode, Handover
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import VerdictKind

LEAVING = "kgen: leaving UEFI, output continues on the serial port and the screen\r\n"


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return build(KernelSpec(Case("xchg", cpus=4), rounds=300, controls=False))


@pytest.fixture(scope="module")
def image(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uefi")
    write(kernel, folder, ("img",))
    return folder / "kernel.img"


@pytest.mark.soak
@pytest.mark.parametrize("drive", ["ide", "cd"])
def test_boots_by_uefi(drive: str, kernel: Kernel, image: Path, tmp_path: Path) -> None:
    monitor = tmp_path / "mon"
    command = [*machine("ovmf", drive, image, tmp_path), "-serial", "stdio"]
    child = spawn([*command, "-monitor", f"unix:{monitor},server=on,wait=off"], pipes=True)
    try:
        qemu = Booted(child, monitor)
        qemu.expect(r"kgen:\d+ end [^\n]*\n", seconds=110)
        heard = qemu.text.encode("latin-1")
        record, verdict = verdict_of(kernel.spec, heard)
        assert LEAVING.encode() in ESCAPES.sub(b"", heard)
        assert record.boot_path is BootPath.UEFI
        assert record.cpus_found == 4
        # the firmware left the adapter in a graphics mode
        assert record.phases[-1].decode is Decode.IO
        assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason  # no controls
        assert verdict.violations == {"lost": 0, "duplicate": 0, "torn": 0, "stale": 0}
        words = memory(qemu, kernel.assembly.address("handover"), 5)
        found = dict(zip((name for name, _ in Handover._fields_), words, strict=True))
        assert found["framebuffer"] >= 0x80000000
        assert found["width"] * 4 <= found["pitch"]
        assert found["height"] >= 480
        assert memory(qemu, found["rsdp"], 2) == [int.from_bytes(b"RSD ", "little"), int.from_bytes(b"PTR ", "little")]
    finally:
        child.stop()


def memory(qemu: Booted, address: int, count: int) -> list[int]:
    """So many dwords of physical memory."""
    answer = qemu.ask(f"xp /{count}wx {address:#x}")
    return [int(word, 16) for word in re.findall(r" 0x([0-9a-f]{8})\b", answer)]
