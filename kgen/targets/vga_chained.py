"""VGA memory in graphics mode: 320x200, a byte a pixel, from 0xa0000 (mode 13h).

The trap: with its planes chained the adapter is plain memory, and an emulator may map it as RAM. QEMU does. Then this
target, which claims to be a device's, says nothing about memory-mapped I/O.
"""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="vga-chained",
    summary="VGA memory at 0xa0000, planes chained",
    address=0xA0000,
    # the visible page
    size=320 * 200,
    # what the mode decodes
    extent=0x10000,
    declared="io",
    requires=frozenset({"vga"}),
    setup=("mov esi, vga_chained", "call vga_mode", "mov edi, 0xA0000", "clc"),
    # Moving the decode away would prove nothing: the RAM that an emulator maps goes with it.
    vga=0,
)
