"""Memory targets: where the cells live. One file a target, each exposing ``TARGET = MemoryTarget(...)``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kgen import registry


@dataclass(frozen=True)
class MemoryTarget:
    """A place for cells.

    ``address`` is the physical address of the first cell, or None where the kernel finds it when it runs: at its own
    ``symbol``, or by ``setup``. ``declared`` says what the target claims to be; ``size`` is the number of bytes that
    may hold cells, ``extent`` how far they may reach in cases with an offset (0: no further). ``page_offset`` is the
    first cell's distance in bytes from a page boundary, where that is not plain from the address. ``widths`` are the
    operand widths in bits that the place takes, by its data sheet.

    ``setup`` is assembly that makes the place ready before each phase: it leaves the address in EDI and CF clear, or
    CF set where the machine has no such place; it may change every register but ESP, and call ``pci_find``,
    ``pci_bar`` and ``vga_mode`` of the kernel. ``requires`` names the capabilities a platform must provide and
    ``qemu`` the arguments that make QEMU have the place. ``vga`` is not 0 where VGA memory decodes: the value of
    graphics controller register 6 that moves it away, by which the guest proves what is there. ``video`` says that the
    place is, or may be, the memory of the display adapter at an address of its own: the kernel then does not draw.
    ``quiet`` says that a debugger may read the cells while the kernel works: no read changes anything there.
    """

    name: str
    summary: str
    address: int | None
    size: int
    declared: Literal["io", "ram"]
    requires: frozenset[str] = frozenset()
    vga: int = 0
    symbol: str = ""
    setup: tuple[str, ...] = ()
    qemu: tuple[str, ...] = ()
    extent: int = 0
    page_offset: int = 0
    widths: tuple[int, ...] = (8, 16, 32, 64)
    video: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.address is not None:
            object.__setattr__(self, "page_offset", self.address % 4096)

    @property
    def reach(self) -> int:
        """How many bytes from the first cell on there are at the most."""
        return max(self.size, self.extent)


@functools.cache
def targets() -> Mapping[str, MemoryTarget]:
    """Return every named target."""
    return registry.discover("kgen.targets", "TARGET", MemoryTarget)
