"""VGA text memory, where the defect was first seen (80x25 cells of two bytes from 0xb8000)."""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="vga-text",
    summary="VGA text memory at 0xb8000",
    address=0xB8000,
    # The visible page: what lies behind it may decode to nothing on later adapters.
    size=80 * 25 * 2,
    declared="io",
    requires=frozenset({"vga"}),
    vga=True,
)
