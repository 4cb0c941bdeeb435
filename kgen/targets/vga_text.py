"""VGA text memory, where the defect was first seen (80x25 cells of two bytes from 0xb8000)."""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="vga-text",
    summary="legacy VGA text memory at 0xb8000",
    address=0xB8000,
    # The visible page: addresses after it may decode to nothing on later adapters.
    size=80 * 25 * 2,
    # what text mode decodes
    extent=0x8000,
    declared="io",
    requires=frozenset({"vga"}),
    setup=("mov esi, vga_text", "call vga_mode", "mov edi, 0xB8000", "clc"),
    vga=0x05,
    quiet=True,
)
