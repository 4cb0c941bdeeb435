"""Memory targets: where the cells live. One file a target, each exposing ``TARGET = MemoryTarget(...)``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kgen import registry


@dataclass(frozen=True)
class MemoryTarget:
    """A place for cells."""

    name: str
    summary: str
    #: The physical address of the first cell. None where the kernel finds it when it runs: at its own ``symbol``, or by
    #: ``setup``.
    address: int | None
    #: How many bytes may hold cells.
    size: int
    #: What the target claims to be.
    declared: Literal["io", "ram"]
    #: The capabilities that a platform must provide.
    requires: frozenset[str] = frozenset()
    #: Not 0 where VGA memory decodes: the value of graphics controller register 6 that moves it away. By this the guest
    #: proves what is there.
    vga: int = 0
    symbol: str = ""
    #: Assembly that makes the place ready before each phase. It leaves the address in EDI and clears CF, or sets CF
    #: where the machine has no such place. It may change every register but ESP, and call the kernel's ``pci_find``,
    #: ``pci_bar`` and ``vga_mode``.
    setup: tuple[str, ...] = ()
    #: The arguments with which QEMU has the place.
    qemu: tuple[str, ...] = ()
    #: How far cells may reach in cases with an offset, in bytes; 0: no further than ``size``.
    extent: int = 0
    #: The distance in bytes of the first cell from a page boundary, where it does not follow from the address.
    page_offset: int = 0
    #: The operand widths in bits that the place takes, by its data sheet.
    widths: tuple[int, ...] = (8, 16, 32, 64)
    #: Whether the place is, or may be, the memory of the display adapter at an address of its own: the kernel then does
    #: not draw.
    video: bool = False
    #: Whether a debugger may read the cells while the kernel works: no read changes anything there.
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.address is not None:
            object.__setattr__(self, "page_offset", self.address % 4096)

    @property
    def sought(self) -> str:
        """Where the kernel looks for it, in words, "" where its place is known: ``pci_find`` searches bus 0 alone."""
        return "on PCI bus 0, the only one that is searched" if "call pci_find" in self.setup else ""

    @property
    def reach(self) -> int:
        """How many bytes from the first cell on there are at the most."""
        return max(self.size, self.extent)


@functools.cache
def targets() -> Mapping[str, MemoryTarget]:
    """Return every named target."""
    return registry.discover("kgen.targets", "TARGET", MemoryTarget)
