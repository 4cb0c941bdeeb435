"""The linear framebuffer of the VGA adapter: a prefetchable memory BAR, RAM under most hypervisors.

The adapter is the first function of class 03h, subclass 00h (PCI Local Bus Specification 3.0, appendix D). Its first
BAR may be I/O ports (VMware) or registers (Intel); memory that may be read ahead of time has bit 3 set (6.2.5.1).
"""

from __future__ import annotations

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="framebuffer",
    summary="linear framebuffer of the VGA adapter, found by PCI",
    address=None,
    # enough for any number of cells, and less than any adapter has
    size=0x10000,
    extent=0x100000,
    declared="io",
    video=True,
    requires=frozenset({"vga"}),
    setup=(
        "mov esi, 8",
        "mov ebx, 0xFFFF0000",
        "mov edi, 0x3000000",
        "call pci_find",
        "jc .absent",
        "mov ebx, eax",
        "xor ebp, ebp",
        ".bar:",
        "lea eax, [ebx + 4 * ebp + 0x10]",
        "call pci_read",
        "mov ecx, ebp",
        "inc ebp",
        # I/O ports
        "test eax, 1",
        "jnz .next",
        # 64 bits: the upper half is where the next BAR would be
        "test eax, 4",
        "jz .narrow",
        "inc ebp",
        ".narrow:",
        "test eax, 8",
        "jz .next",
        "mov eax, ebx",
        "call pci_bar",
        "jnc .absent",
        ".next:",
        "cmp ebp, 6",
        "jb .bar",
        # QXL does not mark its own: the first BAR, if it is memory
        "mov eax, ebx",
        "xor ecx, ecx",
        "call pci_bar",
        ".absent:",
    ),
)
