"""The kernel's reader of ACPI's tables against a second one in Python: good tables, and hundreds of spoilt ones.

The kernel is changed to read a list of root pointers from memory, one after the other, and to print what it made of
each. None of them may send it out of bounds, into an endless loop or to another answer than the rules give.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from _kernel import built, console, replaced, spec_of

from kgen.kernel.parameters import ACPI_TABLE_BYTES, APIC_IDS

#: Where the tables lie, and memory that holds nothing, in place of the BIOS's own.
BASE, EMPTY = 0x2000000, 0x3000000
SPOILT = 600

LOOP = f"""
    xor ebx, ebx
.table:
    cmp ebx, dword ptr [{BASE:#x}]
    jae .tables_end
    mov eax, dword ptr [{BASE + 4:#x} + 4 * ebx]
    mov dword ptr [acpi_rsdp], eax
    push ebx
    call find_madt
    mov eax, dword ptr [madt_cpus]
    call put_hex
    mov eax, dword ptr [madt_top]
    call put_hex
    xor ebx, ebx
    mov esi, ids_listed
.sum:
    rol ebx, 1
    add ebx, dword ptr [esi]
    add esi, 4
    cmp esi, ids_listed + APIC_IDS / 8
    jb .sum
    mov eax, ebx
    call put_hex
    call put_newline
    pop ebx
    inc ebx
    jmp .table
.tables_end:
    mov eax, KernelState.FINISHED
    jmp finish
"""

Answer = tuple[int, int, int]


@dataclass
class Memory:
    """Tables in the guest's memory, and the root pointers to them."""

    data: bytearray = field(default_factory=bytearray)
    roots: list[int] = field(default_factory=list)

    def put(self, table: bytes) -> int:
        """Where the table then lies."""
        address = BASE + 0x4000 + len(self.data)
        self.data += table + bytes(-len(table) % 16)
        return address

    def read(self, address: int, size: int) -> bytes:
        """What a reader finds there; zeros where there is none of ours."""
        start, end = (min(max(at - BASE - 0x4000, 0), len(self.data)) for at in (address, address + size))
        before = min(max(BASE + 0x4000 - address, 0), size)
        return (bytes(before) + self.data[start:end]).ljust(size, b"\0")

    def image(self) -> bytes:
        """All of it, from BASE on."""
        return struct.pack(f"<I{len(self.roots)}I", len(self.roots), *self.roots).ljust(0x4000, b"\0") + self.data


def summed(data: bytes, at: int = 9, size: int | None = None) -> bytes:
    """The bytes with that one changed so that the first ``size`` add up to 0."""
    size = len(data) if size is None else size
    rest = sum(data[:size]) - data[at]
    return data[:at] + bytes([-rest & 255]) + data[at + 1 :]


def table(signature: bytes, body: bytes, length: int | None = None) -> bytes:
    size = 36 + len(body)
    return summed(struct.pack("<4sIBB30s", signature, size if length is None else length, 3, 0, b"KGEN")[:36] + body)


def root(rsdt: int, xsdt: int, revision: int) -> bytes:
    head = summed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"KGEN  ", revision, rsdt), 8)
    return summed(head + struct.pack("<IQ4x", 36, xsdt), 32) if revision >= 2 else head


def local(apic: int, flags: int = 1) -> bytes:
    """A CPU's entry in the way that its id asks for."""
    if apic < 255:
        return struct.pack("<BBBBI", 0, 8, 0, apic, flags)
    return struct.pack("<BBHIII", 9, 16, 0, apic, flags, 0)


def madt(entries: Iterable[bytes]) -> bytes:
    return table(b"APIC", struct.pack("<II", 0xFEE00000, 1) + b"".join(entries))


def expected(memory: Memory, address: int) -> Answer | None:
    """What a reader must make of this root pointer: CPUs, greatest id, sum of the bits; None: nothing."""
    head = memory.read(address, 36)
    if head[:8] != b"RSD PTR " or sum(head[:20]) & 255:
        return None
    rsdt, size, xsdt = (struct.unpack_from(form, head, at)[0] for form, at in (("<I", 16), ("<I", 20), ("<Q", 24)))
    ways = [(rsdt, b"RSDT", 4)]
    if head[15] >= 2:
        if not 36 <= size <= 4096 or sum(memory.read(address, size)) & 255:
            return None
        ways.insert(0, (xsdt, b"XSDT", 8))
    for where, signature, width in ways:
        listed = good(memory, where, signature)
        for at in range(36, len(listed) - width + 1, width):
            found = cpus_of(good(memory, int.from_bytes(listed[at : at + width], "little"), b"APIC"))
            if found:
                bits = sum(1 << apic for apic in found)
                total = 0
                for word in range(APIC_IDS // 32):
                    total = (total << 1 | total >> 31) + (bits >> 32 * word & 0xFFFFFFFF) & 0xFFFFFFFF
                return len(found), max(found), total
    return None


def good(memory: Memory, address: int, signature: bytes) -> bytes:
    """The table there, b"" where it is none."""
    head = memory.read(address, 8)
    size = int.from_bytes(head[4:8], "little")
    if address >> 32 or head[:4] != signature or not 36 <= size <= ACPI_TABLE_BYTES or address + size > 1 << 32:
        return b""
    data = memory.read(address, size)
    return data if sum(data) & 255 == 0 else b""


def cpus_of(data: bytes) -> set[int]:
    """The ids of the enabled CPUs; none at all where an entry is not whole."""
    found: set[int] = set()
    at = 44
    if len(data) < at:
        return found
    while at < len(data):
        size = data[at + 1] if at + 1 < len(data) else 0
        entry = data[at : at + size]
        least = {0: 8, 9: 16}.get(data[at], 2)
        if len(entry) < size or size < least:
            return set()
        apic = entry[3] if data[at] == 0 else int.from_bytes(entry[4:8], "little") if data[at] == 9 else APIC_IDS
        enabled = least > 2 and entry[4 if least == 8 else 8] & 1
        if enabled and apic < APIC_IDS and not (data[at] == 0 and apic == 255):
            found.add(apic)
        at += size
    return found


def spoilt(memory: Memory, chance: random.Random) -> int:
    """A root pointer to tables that are good but for what chance changes."""
    count = chance.randrange(1, 40)
    entries = [local(chance.choice([chance.randrange(255), chance.randrange(6000)])) for _ in range(count)]
    entries += [local(chance.randrange(300), chance.choice([0, 2])), bytes([chance.randrange(1, 8), 4, 1, 2])]
    chance.shuffle(entries)
    chosen = chance.randrange(12)
    if chosen == 0:
        entries.insert(chance.randrange(count), bytes([chance.choice([0, 1, 9]), chance.choice([0, 1, 3, 7, 15])]))
    elif chosen == 1:
        entries[-1] = entries[-1][:-1] if chance.random() < 0.5 else bytes([0, 255, 0, 0])
    made = madt(entries)
    if chosen == 2:
        made = summed(made[:4] + struct.pack("<I", chance.choice([0, 35, 36, 40, 43, 44, 1 << 20, 1 << 31])) + made[8:])
    elif chosen == 3:
        made = bytes(byte ^ (chance.random() < 0.02) for byte in made)
    where = memory.put(made)
    wrong = [where + 4, 0, 0xFFFFFFFF, 0xFFFFFFF0, EMPTY, 0x100000000 + where]
    pointers = [chance.choice(wrong) if chance.random() < 0.3 else memory.put(table(b"FACP", bytes(80))), where]
    if chosen == 4:
        pointers[-1] = chance.choice(wrong)
    rsdt = memory.put(table(b"RSDT", b"".join(struct.pack("<I", pointer & 0xFFFFFFFF) for pointer in pointers)))
    xsdt = memory.put(table(b"XSDT", b"".join(struct.pack("<Q", pointer) for pointer in pointers)))
    if chosen == 5:
        rsdt, xsdt = chance.choice([(rsdt, 0), (0, xsdt), (rsdt, 0x500000000), (xsdt, rsdt), (0xFFFFFFFC, 0xFFFFFFF8)])
    pointer = bytearray(root(rsdt, xsdt, chance.choice([0, 1, 2, 6])))
    if chosen == 6:
        pointer[chance.randrange(len(pointer))] ^= 1 << chance.randrange(8)
    return memory.put(bytes(pointer))


def test_every_table_is_read_as_it_is_or_not_at_all(tmp_path: Path) -> None:
    memory = Memory()
    few = memory.put(madt(map(local, [0, 1, 4, 254])))
    many = memory.put(madt(map(local, [*range(255), 255, 256, 4095, 4096, 0xFFFFFFFF])))
    longest = memory.put(madt(local(number % 3000) for number in range(ACPI_TABLE_BYTES // 16 - 3)))
    memory.roots += [
        memory.put(root(memory.put(table(b"RSDT", struct.pack("<I", few))), 0, 0)),
        memory.put(root(0, memory.put(table(b"XSDT", struct.pack("<QQ", 1 << 32 | few, many))), 2)),
        memory.put(root(memory.put(table(b"RSDT", struct.pack("<I", longest))), 0, 0)),
        0, 0x10, 0xFFFFFFFF, 0xFFFFFFF8, EMPTY,
    ]  # fmt: skip
    chance = random.Random(5)
    memory.roots += [spoilt(memory, chance) for _ in range(SPOILT)]
    answers = [expected(memory, address) for address in memory.roots]
    assert [answer[:2] if answer else None for answer in answers[:3]] == [(4, 254), (258, 4095), (3000, 2999)]
    readable = sum(answer is not None for answer in answers[8:])
    assert SPOILT // 4 < readable < SPOILT * 3 // 4, "the spoilt ones must be of both kinds"

    kernel = built(
        spec_of(),
        replaced("    call apic_init\n", LOOP),
        replaced("    mov esi, 0xE0000\n", f"    mov esi, {EMPTY:#x}\n"),
    )
    elf, tables = tmp_path / "kernel.elf", tmp_path / "tables"
    elf.write_bytes(kernel.elf.data)
    tables.write_bytes(memory.image())
    arguments = ("-m", "64", "-kernel", elf, "-device", f"loader,file={tables},addr={BASE:#x},force-raw=on")
    with console(*arguments, "-serial", "stdio", "-nic", "none") as qemu:
        heard = qemu.read(lambda data: b" end state=" in data or b" fault " in data)
    lines = [line.decode() for line in re.findall(rb"^([0-9a-f]{24})\r$", heard, re.MULTILINE)]
    assert len(lines) == len(answers), heard[-200:]
    for number, (line, answer) in enumerate(zip(lines, answers, strict=True)):
        cpus, top, bits = (int(line[at : at + 8], 16) for at in (0, 8, 16))
        assert ((cpus, top, bits) if cpus else None) == answer, f"root {number} at {memory.roots[number]:#x}"
