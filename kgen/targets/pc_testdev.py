"""QEMU's ISA test device: 64 KiB at 0xff000000 that store what they are given, one emulated access at a time.

Made for kvm-unit-tests (QEMU, hw/misc/pc-testdev.c: "iomem").
"""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="pc-testdev",
    summary="QEMU's ISA test device at 0xff000000",
    address=0xFF000000,
    size=0x10000,
    declared="io",
    requires=frozenset({"pc-testdev"}),
    qemu=("-device", "pc-testdev"),
    quiet=True,
)
