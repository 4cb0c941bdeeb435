"""The source address register of QEMU's educational PCI device, which only stores while no DMA runs.

BAR0 takes 4 bytes at a time below 0x80, 4 or 8 from there on (QEMU, docs/specs/edu.txt). The upper half of the register
cannot be had by itself: a plain look at 8 bytes, which is two accesses here, does not see what was written.
"""

from __future__ import annotations

from kgen.targets import MemoryTarget
from kgen.targets._pci import function_bar

SOURCE = 0x80

TARGET = MemoryTarget(
    name="edu",
    summary="DMA source register of QEMU's edu PCI device",
    address=None,
    size=4,
    # the destination register follows at 0x88
    extent=0x0C,
    page_offset=SOURCE,
    widths=(32,),
    declared="io",
    requires=frozenset({"edu"}),
    setup=function_bar(0x1234, 0x11E8, 0, SOURCE),
    qemu=("-device", "edu"),
)
