"""The encodings that are not keystone's: branches (which need relaxation) and the forms keystone 0.9.2 gets wrong.

Everything here comes from the opcode maps of the Intel SDM, volume 2, appendix A, and is checked afterwards by the
independent decoder like every other instruction. Pure; ``mode`` is 16, 32 or 64 throughout.
"""

from __future__ import annotations

import functools

from kgen.errors import AsmError

#: Condition code suffixes by their number in the opcode (SDM volume 1, appendix B). The first is the common name.
CONDITIONS: dict[str, int] = {
    suffix: code
    for code, suffixes in enumerate(
        "o no b/c/nae ae/nb/nc e/z ne/nz be/na a/nbe s ns p/pe np/po l/nge ge/nl le/ng g/nle".split()
    )
    for suffix in suffixes.split("/")
}
_JUMPS = {f"j{suffix}": code for suffix, code in CONDITIONS.items()}
_LOOPS = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2}
#: The width in bits of the counter register that JCXZ and its kin test; it is the address size.
_COUNTERS = {"jcxz": 16, "jecxz": 32, "jrcxz": 64}
#: Mnemonics that take a code address.
BRANCHES = frozenset(["jmp", "call", *_JUMPS, *_LOOPS, *_COUNTERS])


def can_grow(mnemonic: str) -> bool:
    """Return whether a branch has both a short (8-bit) and a near form."""
    return mnemonic == "jmp" or mnemonic in _JUMPS


@functools.cache
def branch_size(mnemonic: str, mode: int, near: bool) -> int:
    """Return the length in bytes of a branch to an address."""
    return len(encode_branch(mnemonic, mode, near, 0, 0))


def reaches_short(address: int, target: int) -> bool:
    """Return whether the two-byte form of a branch at ``address`` reaches the target."""
    return -128 <= target - (address + 2) <= 127


def encode_branch(mnemonic: str, mode: int, near: bool, address: int, target: int) -> bytes:
    """Return a branch at run address ``address`` to ``target``. Raises AsmError where it cannot reach.

    Displacements count from the end of the instruction; a near one has 16 bits in 16-bit code, otherwise 32.
    """
    if mnemonic in _LOOPS:
        prefix = bytes([_LOOPS[mnemonic]])
    elif mnemonic in _COUNTERS:
        prefix = _counter_prefix(mnemonic, mode) + b"\xe3"
    elif mnemonic == "call":
        prefix, near = b"\xe8", True
    elif mnemonic == "jmp":
        prefix = b"\xe9" if near else b"\xeb"
    else:
        code = _JUMPS[mnemonic]
        prefix = bytes([0x0F, 0x80 + code]) if near else bytes([0x70 + code])
    can_be_near = can_grow(mnemonic) or mnemonic == "call"
    width = (2 if mode == 16 else 4) if near and can_be_near else 1
    distance = target - (address + len(prefix) + width)
    if mode == 32 and width == 4:
        distance = (distance + (1 << 31)) % (1 << 32) - (1 << 31)
    limit = 1 << (8 * width - 1)
    if not -limit <= distance < limit:
        hint = "" if can_be_near else f"{mnemonic} has an 8-bit displacement only; branch around a jmp"
        raise AsmError(f"branch target is {distance} bytes away, out of reach", hint=hint)
    return prefix + distance.to_bytes(width, "little", signed=True)


def _counter_prefix(mnemonic: str, mode: int) -> bytes:
    width = _COUNTERS[mnemonic]
    if width == mode:
        return b""
    if (mode, width) in ((16, 32), (32, 16), (64, 32)):
        return b"\x67"
    raise AsmError(f"{mnemonic} does not exist in {mode}-bit code")


def _fixed() -> dict[tuple[str, int], bytes]:
    """Operand-free forms by (mnemonic, mode): without a suffix the operand size is the mode's own."""
    table: dict[tuple[str, int], bytes] = {}
    for mode in (16, 32, 64):
        for name, opcode in (("iret", 0xCF), ("pushf", 0x9C), ("popf", 0x9D), ("ret", 0xC3), ("retf", 0xCB)):
            table[name, mode] = bytes([opcode])
    for name, opcode in (("iretd", 0xCF), ("pushfd", 0x9C), ("popfd", 0x9D)):
        table[name, 16] = bytes([0x66, opcode])
        table[name, 32] = bytes([opcode])
    # Keystone knows this one with SSE operands only.
    table["movsd", 16] = b"\x66\xa5"
    table["movsd", 32] = table["movsd", 64] = b"\xa5"
    table["iretd", 64] = b"\xcf"
    table["iretq", 64] = b"\x48\xcf"
    table["pushfq", 64] = b"\x9c"
    table["popfq", 64] = b"\x9d"
    return table


FIXED = _fixed()
#: The prefixes that string instructions take.
REPEATS = {"rep": b"\xf3", "repe": b"\xf3", "repz": b"\xf3", "repne": b"\xf2", "repnz": b"\xf2"}

_PUSH_SEGMENT = {"es": b"\x06", "cs": b"\x0e", "ss": b"\x16", "ds": b"\x1e", "fs": b"\x0f\xa0", "gs": b"\x0f\xa8"}
_POP_SEGMENT = {"es": b"\x07", "ss": b"\x17", "ds": b"\x1f", "fs": b"\x0f\xa1", "gs": b"\x0f\xa9"}


def encode_segment(mnemonic: str, segment: str, mode: int) -> bytes:
    """PUSH or POP of a segment register, at the mode's own operand size. Raises AsmError where there is none."""
    data = (_PUSH_SEGMENT if mnemonic == "push" else _POP_SEGMENT).get(segment, b"")
    if not data or (mode == 64 and len(data) == 1):
        raise AsmError(f"{mnemonic} {segment} does not exist in {mode}-bit code")
    return data


#: The /digit of the 0F 01 group: these differ from INVLPG, which keystone gets right, in nothing else.
DESCRIPTOR_TABLES = {"sgdt": 0, "sidt": 1, "lgdt": 2, "lidt": 3}


def from_invlpg(mnemonic: str, invlpg: bytes) -> bytes:
    """LGDT and its kin with the memory operand of an encoded ``invlpg``: the reg field of ModRM is exchanged."""
    at = invlpg.index(b"\x0f\x01") + 2
    modrm = invlpg[at] & 0b11000111 | DESCRIPTOR_TABLES[mnemonic] << 3
    return invlpg[:at] + bytes([modrm]) + invlpg[at + 1 :]


def encode_far_jump(mnemonic: str, mode: int, selector: int, offset: int) -> bytes:
    """``ljmp SELECTOR, OFFSET`` (EA) at the mode's own offset width; ``ljmp32`` is the 32-bit form in 16-bit code.

    Raises AsmError for a value that does not fit and in 64-bit code, which has no such jump.
    """
    if mode == 64 or (mnemonic == "ljmp32" and mode != 16):
        raise AsmError(f"{mnemonic} does not exist in {mode}-bit code")
    width = 2 if (mnemonic, mode) == ("ljmp", 16) else 4
    for name, value, size in (("selector", selector, 2), ("offset", offset, width)):
        if not 0 <= value < 1 << (8 * size):
            raise AsmError(f"{name} {value:#x} does not fit in {8 * size} bits")
    prefix = b"\x66\xea" if mnemonic == "ljmp32" else b"\xea"
    return prefix + offset.to_bytes(width, "little") + selector.to_bytes(2, "little")


def encode_push(value: int, mode: int) -> bytes:
    """PUSH of a constant at the mode's own operand size; the 8-bit form where sign extension gives the same.

    Keystone makes it a 32-bit push in 16-bit code, and elsewhere takes 0xffff for -1. Raises AsmError in 64-bit code
    for what is not a signed 32-bit constant; the value must fit in ``mode`` bits otherwise.
    """
    signed = (value + (1 << (mode - 1))) % (1 << mode) - (1 << (mode - 1))
    if -128 <= signed <= 127:
        return b"\x6a" + signed.to_bytes(1, "little", signed=True)
    width = 2 if mode == 16 else 4
    if not -(1 << (8 * width - 1)) <= signed < 1 << (8 * width - 1):
        raise AsmError(f"value {value:#x} does not fit in 32 signed bits")
    return b"\x68" + signed.to_bytes(width, "little", signed=True)


def encode_return16(mnemonic: str, value: int) -> bytes:
    """RET or RETF that drops so many bytes, in 16-bit code, where keystone makes it 32-bit."""
    return (b"\xc2" if mnemonic == "ret" else b"\xca") + (value % 0x10000).to_bytes(2, "little")
