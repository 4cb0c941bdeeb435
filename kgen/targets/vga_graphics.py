"""VGA memory in graphics mode: 640x480 in four planes from 0xa0000 (mode 12h).

One write goes to all planes, a read returns the first one's (IBM VGA Technical Reference: write mode 0, read mode 0,
bit mask and map mask all ones): the adapter works on each byte, yet it stores what it is given.
"""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="vga-graphics",
    summary="VGA memory at 0xa0000, four planes",
    address=0xA0000,
    # the visible page
    size=640 * 480 // 8,
    # what the mode decodes
    extent=0x10000,
    declared="io",
    requires=frozenset({"vga"}),
    setup=("mov esi, vga_planar", "call vga_mode", "mov edi, 0xA0000", "clc"),
    # as in graphics mode, but the 32 KiB at 0xb8000
    vga=0x0D,
)
