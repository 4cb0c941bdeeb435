"""A redirection entry of an I/O APIC, through the chip's window: on any PC, with no VGA and no PCI.

82093AA datasheet, 3.1 and 3.2: the register that the first dword selects is read and written in the window 10h further
on, 32 bits at a time. An entry has two registers, from 10h on. The upper one names the receivers of an interrupt that
the lower one masks, so that it only stores. The entry of the last pin that is masked and has nothing pending is used:
no device is wired to it on most boards. Real chips hold only the top 8 or 16 bits of the register, which is NO_STORAGE.
"""

from __future__ import annotations

from kgen.targets import MemoryTarget

#: Where PCs have their first I/O APIC; some firmware puts it elsewhere and says so in its MADT.
USUAL_BASE = 0xFEC00000
WINDOW = 0x10
VERSION = 0x01
FIRST_ENTRY = 0x10
#: More entries have no place among the 256 registers.
LAST_PIN = (0x100 - FIRST_ENTRY) // 2 - 1
MASKED = 1 << 16
#: Delivery status and remote IRR: an interrupt is on its way.
PENDING = 1 << 12 | 1 << 14

TARGET = MemoryTarget(
    name="ioapic",
    summary="redirection entry of an unused I/O APIC pin",
    address=None,
    size=4,
    page_offset=WINDOW,
    widths=(32,),
    declared="io",
    setup=(
        # "APIC"; the reader leaves the address in EDX, which find_table keeps
        "mov eax, 0x43495041",
        "mov edx, .madt",
        "call find_table",
        "jnc .listed",
        f"mov edx, {USUAL_BASE:#x}",
        ".listed:",
        "mov edi, edx",
        # a version, and the number of the last pin; where there is nothing, all ones or zeros
        f"mov dword ptr [edi], {VERSION:#x}",
        f"mov eax, dword ptr [edi + {WINDOW:#x}]",
        "test al, al",
        "jz .none",
        "mov ecx, eax",
        "shr ecx, 16",
        f"cmp ecx, {LAST_PIN}",
        "ja .none",
        ".pin:",
        f"lea eax, [2 * ecx + {FIRST_ENTRY:#x}]",
        "mov dword ptr [edi], eax",
        f"mov edx, dword ptr [edi + {WINDOW:#x}]",
        f"and edx, {MASKED | PENDING:#x}",
        f"cmp edx, {MASKED:#x}",
        "je .free",
        "dec ecx",
        "jns .pin",
        ".none:",
        "stc",
        "ret",
        ".free:",
        # from here on the window is the cell
        "inc eax",
        "mov dword ptr [edi], eax",
        f"add edi, {WINDOW:#x}",
        "clc",
        "ret",
        # The first I/O APIC of a MADT (ACPI 6.5, 5.2.12.3), at a page of its own, far from the kernel's memory.
        # in: ESI the table, ECX its length; out: EDX, CF set where it lists none
        ".madt:",
        "add ecx, esi",
        "lea edi, [esi + 44]",
        ".entry:",
        "mov eax, ecx",
        "sub eax, edi",
        "jb .absent",
        "cmp eax, 12",
        "jb .absent",
        "movzx ebx, byte ptr [edi + 1]",
        "cmp byte ptr [edi], 1",
        "jne .next",
        "cmp ebx, 12",
        "jb .next",
        "mov edx, dword ptr [edi + 4]",
        "test edx, 0xFFF",
        "jnz .next",
        "cmp edx, 0x01000000",
        "jae .absent",
        ".next:",
        "add edi, ebx",
        "cmp ebx, 2",
        "jae .entry",
        ".absent:",
    ),
)
