"""The comparator of the HPET's first timer, halted: a register that real chipsets have.

IA-PC HPET Specification 1.0a, 2.3: a main counter period of 0 or above 0x05F5E100 femtoseconds is no HPET's; while the
timer is neither periodic nor in 32-bit mode its comparator reads as it was written.
"""

from __future__ import annotations

from kgen.targets import MemoryTarget

BASE = 0xFED00000
COMPARATOR = BASE + 0x108
MOST_FEMTOSECONDS = 0x05F5E100

TARGET = MemoryTarget(
    name="hpet",
    summary="comparator of the HPET's timer 0",
    address=COMPARATOR,
    size=4,
    # one cell of 64 bits, or one of 32
    extent=8,
    widths=(32, 64),
    declared="io",
    requires=frozenset({"hpet"}),
    setup=(
        f"mov eax, dword ptr [{BASE + 4:#x}]",
        "dec eax",
        f"cmp eax, {MOST_FEMTOSECONDS:#x}",
        "cmc",
        "jc .absent",
        # the counter stands still, nothing is routed (bits 0 and 1)
        f"mov eax, dword ptr [{BASE + 0x10:#x}]",
        "and eax, 0xFFFFFFFC",
        f"mov dword ptr [{BASE + 0x10:#x}], eax",
        # no interrupts, not periodic, no accumulator, all 64 bits, no FSB messages (bits 1 to 3, 6, 8 and 14)
        f"mov eax, dword ptr [{BASE + 0x100:#x}]",
        "and eax, 0xFFFFBEB1",
        f"mov dword ptr [{BASE + 0x100:#x}], eax",
        f"mov edi, {COMPARATOR:#x}",
        "clc",
        ".absent:",
    ),
)
