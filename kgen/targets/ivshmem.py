"""Memory that QEMU shares with other machines, seen as a PCI BAR; it is RAM and no access to it is emulated.

The plain variant has its memory in BAR2 (QEMU, docs/specs/ivshmem-spec.txt).
"""

from __future__ import annotations

from kgen.targets import MemoryTarget
from kgen.targets._pci import function_bar

SIZE_MIB = 1

TARGET = MemoryTarget(
    name="ivshmem",
    summary="shared memory of QEMU's ivshmem PCI device",
    address=None,
    size=SIZE_MIB << 20,
    declared="io",
    requires=frozenset({"ivshmem"}),
    setup=function_bar(0x1AF4, 0x1110, 2),
    qemu=(
        "-object",
        f"memory-backend-ram,id=kgen-ivshmem,size={SIZE_MIB}M,share=on",
        "-device",
        "ivshmem-plain,memdev=kgen-ivshmem",
    ),
)
