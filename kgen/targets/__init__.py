"""Memory targets: where the cells live. One file a target, each exposing ``TARGET = MemoryTarget(...)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MemoryTarget:
    """A place for cells.

    ``address`` is the physical address of the first cell, or None where the kernel provides the memory itself.
    ``declared`` says what the target claims to be; ``size`` is the number of bytes that may hold cells.
    ``requires`` names the capabilities a platform must provide. ``vga`` tells that the guest can prove by itself
    that VGA memory decodes there, by moving VGA's memory map away and back.
    """

    name: str
    summary: str
    address: int | None
    size: int
    declared: Literal["io", "ram"]
    requires: frozenset[str] = frozenset()
    vga: bool = False
