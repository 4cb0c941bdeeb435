"""What the instructions do, in arithmetic: pure functions of operands and flags, from the SDM's Operation sections.

Values are unsigned and fit ``width`` bits. Flags that the SDM leaves undefined are left out of ``defined``.
"""

from __future__ import annotations

from kgen.instructions import AF, CF, OF, PF, SF, STATUS_FLAGS, ZF, Outcome

#: AND, OR, XOR: "the state of the AF flag is undefined".
_LOGICAL = STATUS_FLAGS & ~AF
#: BTS, BTR, BTC: "the ZF flag is unaffected; the OF, SF, AF, and PF flags are undefined".
_BIT_TEST = CF | ZF


def _result_flags(value: int, width: int) -> int:
    """ZF, SF and PF of a result; PF looks at the lowest eight bits (SDM volume 1, 3.4.3.1)."""
    zero = 0 if value else ZF
    sign = SF if value >> (width - 1) & 1 else 0
    even = 0 if (value & 0xFF).bit_count() % 2 else PF
    return zero | sign | even


def _sum(old: int, source: int, carry: int, width: int) -> tuple[int, int]:
    """``old + source + carry`` and all six flags."""
    total = old + source + carry
    value = total % (1 << width)
    flags = _result_flags(value, width)
    flags |= CF if total >> width else 0
    flags |= AF if (old & 15) + (source & 15) + carry > 15 else 0
    flags |= OF if (~(old ^ source) & (old ^ value)) >> (width - 1) & 1 else 0
    return value, flags


def _difference(old: int, source: int, borrow: int, width: int) -> tuple[int, int]:
    """``old - source - borrow`` and all six flags."""
    value = (old - source - borrow) % (1 << width)
    flags = _result_flags(value, width)
    flags |= CF if old < source + borrow else 0
    flags |= AF if (old & 15) < (source & 15) + borrow else 0
    flags |= OF if ((old ^ source) & (old ^ value)) >> (width - 1) & 1 else 0
    return value, flags


def _bit(source: int, width: int) -> int:
    """Return the value of the bit that a bit test names.

    Of a register in memory forms the SDM takes more than the remainder, it goes on to neighbouring operands; nothing
    here does.
    """
    return 1 << source % width


def _tested(old: int, bit: int, flags: int) -> int:
    return (CF if old & bit else 0) | (flags & ZF)


def adc(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """ADC: CF before is added too."""
    return Outcome(*_sum(old, source, flags & CF, width))


def add(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """ADD: the flags before play no part."""
    return Outcome(*_sum(old, source, 0, width))


def and_(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """AND: CF and OF become 0."""
    value = old & source
    return Outcome(value, _result_flags(value, width), _LOGICAL)


def btc(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """BTC: the bit goes to CF, then it is complemented."""
    bit = _bit(source, width)
    return Outcome(old ^ bit, _tested(old, bit, flags), _BIT_TEST)


def btr(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """BTR: the bit goes to CF, then it is 0."""
    bit = _bit(source, width)
    return Outcome(old & ~bit, _tested(old, bit, flags), _BIT_TEST)


def bts(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """BTS: the bit goes to CF, then it is 1."""
    bit = _bit(source, width)
    return Outcome(old | bit, _tested(old, bit, flags), _BIT_TEST)


def cmpxchg(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """CMPXCHG: flags as of CMP accumulator, memory; the accumulator ends with what was in memory either way."""
    _, after = _difference(accumulator, old, 0, width)
    return Outcome(source if accumulator == old else old, after, register=old)


def cmpxchg8b(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """CMPXCHG8B: source is ECX:EBX, accumulator EDX:EAX; of the flags it changes ZF only."""
    equal = accumulator == old
    after = flags & STATUS_FLAGS & ~ZF | (ZF if equal else 0)
    return Outcome(source if equal else old, after, register=old)


def dec(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """DEC: as SUB of 1, but CF stays."""
    value, after = _difference(old, 1, 0, width)
    return Outcome(value, after & ~CF | flags & CF)


def inc(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """INC: as ADD of 1, but CF stays."""
    value, after = _sum(old, 1, 0, width)
    return Outcome(value, after & ~CF | flags & CF)


def mov(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """MOV: no flags."""
    return Outcome(source, flags & STATUS_FLAGS)


def neg(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """NEG: as SUB from 0, so CF is 0 for 0 only."""
    return Outcome(*_difference(0, old, 0, width))


def not_(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """NOT: no flags, unlike all others of its kind."""
    return Outcome(old ^ ((1 << width) - 1), flags & STATUS_FLAGS)


def or_(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """OR: CF and OF become 0."""
    value = old | source
    return Outcome(value, _result_flags(value, width), _LOGICAL)


def sbb(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """SBB: CF before is subtracted too."""
    return Outcome(*_difference(old, source, flags & CF, width))


def sub(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """SUB: the flags before play no part."""
    return Outcome(*_difference(old, source, 0, width))


def xadd(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """XADD: as ADD, and the source register gets the old value."""
    value, after = _sum(old, source, 0, width)
    return Outcome(value, after, register=old)


def xchg(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """XCHG: the source register gets the old value; no flags."""
    return Outcome(source, flags & STATUS_FLAGS, register=old)


def xor(old: int, source: int, flags: int, width: int, accumulator: int = 0) -> Outcome:
    """XOR: CF and OF become 0."""
    value = old ^ source
    return Outcome(value, _result_flags(value, width), _LOGICAL)
