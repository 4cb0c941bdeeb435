"""Ordinary write-back memory: the sanity control's target."""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="ram",
    summary="ordinary memory inside the kernel",
    address=None,
    symbol="ram_cells",
    size=4096,
    extent=4 * 4096,
    declared="ram",
    quiet=True,
)
