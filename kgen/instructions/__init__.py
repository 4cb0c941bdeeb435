"""The instruction catalogue: one file an instruction, each exposing ``INSTRUCTION = Instruction(...)``.

Everything that others need to know about an instruction is here: its forms and the opcodes that the SDM gives them,
what it does to memory and flags, and how a CPU uses it on a cell. Whether LOCK is legal is said here, never by an
assembler.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kgen import registry


class Source(Enum):
    """Where the operand beside the cell comes from."""

    REGISTER = "reg"
    IMMEDIATE = "imm"
    NONE = "none"


class Use(Enum):
    """What a routine made of an instruction does. Experiments ask for uses, instructions offer them.

    Every routine finds the cell's address in EDI and may change EAX, EDX and flags, nothing else. A value in EAX is 32
    bits wide: cells of 8 and 16 bits are zero-extended, one of 64 bits holds the same value in both halves.

    STEP, LANE and FLIP find their operand in EAX, unless it is an immediate of the form or there is none. What lies
    in EAX above the width is ignored.
    """

    #: Put EAX into the cell and return what was there in EAX, in one step.
    EXCHANGE = "exchange"
    #: Put EDX into the cell if that holds EAX, and return what was there in EAX, in one step.
    ATTEMPT = "attempt"
    #: Make bit 0 of the cell 1, and return in EAX what it was.
    SET = "set"
    #: Make bit 0 of the cell 0, and return in EAX what it was.
    CLEAR = "clear"
    #: Add a constant to the cell.
    STEP = "step"
    #: Change bits of the cell that belong to this CPU.
    LANE = "lane"
    #: Change the cell in such a way that the same change once more restores it.
    FLIP = "flip"
    #: Write EAX into the cell.
    STORE = "store"


#: EAX after a use that found halves of 64 bits which do not belong together: a value that no CPU wrote.
TORN = 0x7FFFFFFF
#: What STEP adds, cut to the width: odd, so that multiples differ, and with no two bytes alike.
STEP = 0x9E3779B1
#: EFLAGS bits (SDM volume 1, 3.4.3).
CF, PF, AF, ZF, SF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
STATUS_FLAGS = CF | PF | AF | ZF | SF | OF

_POINTERS = {8: "byte ptr", 16: "word ptr", 32: "dword ptr", 64: "qword ptr"}
_PARTS = {8: "{}l", 16: "{}x", 32: "e{}x", 64: "e{}x"}


@dataclass(frozen=True)
class Outcome:
    """What one execution leaves."""

    #: The memory operand.
    value: int
    #: EFLAGS bits.
    flags: int
    #: The bits of ``flags`` that have a meaning: the SDM leaves the others undefined.
    defined: int = STATUS_FLAGS
    #: The source register or, where the instruction has one, the accumulator; None where it changes neither.
    register: int | None = None


#: ``(old, source, flags, width, accumulator)``: the memory operand before, the other operand, EFLAGS before, bits, and
#: the accumulator of those that compare with it. Pure.
Semantics = Callable[[int, int, int, int, int], Outcome]


@dataclass(frozen=True)
class Lane:
    """How a CPU uses its bits of a cell."""

    operand: int
    #: What the bits hold at first.
    initial: int
    #: How often the operation may be repeated.
    repeats: int


@dataclass(frozen=True)
class Form:
    """One form of an instruction, and the routines that are made of it."""

    name: str
    mnemonic: str
    #: In bits.
    width: int
    source: Source
    #: Whether every access to the cell is locked.
    lock: bool
    #: The one that accesses the cell.
    statement: str
    #: The bytes of ``statement`` for an operand, from the opcode in the SDM.
    encoding: Callable[[int], bytes] = field(compare=False)
    #: The statements of each use. ``{operand}`` in them is the constant of an immediate form, ``{L}`` a label prefix
    #: unique to each use.
    code: Mapping[Use, tuple[str, ...]] = field(compare=False)

    def routine(self, use: Use, operand: int = 0) -> tuple[str, ...]:
        """Return the statements of a use; labels still begin with ``{L}``.

        Raises KeyError where the form has no such use.
        """
        return tuple(line.replace("{operand}", f"{operand:#x}") for line in self.code[use])


@dataclass(frozen=True)
class StandIn:
    """What is run in place of an instruction without its LOCK where there is no such form: other instructions that do
    the same in two steps."""

    name: str
    #: Of the statement that writes the cell.
    mnemonic: str
    #: Of that statement too, by operand width in bits.
    opcodes: Mapping[int, str]
    register: str
    code: Mapping[Use, tuple[str, ...]]


@dataclass(frozen=True)
class Instruction:
    """A lockable instruction."""

    name: str
    summary: str
    sdm: str
    #: By source and operand width in bits, as the SDM writes them ("81 /0 id"); several, the shortest first, where the
    #: assembler chooses by the operand's size.
    opcodes: Mapping[Source, Mapping[int, tuple[str, ...]]]
    semantics: Semantics
    #: The experiment that tests it best.
    experiment: str
    #: The statements of each use. In them, ``{lock}`` is the prefix, ``{ptr}`` the cell, ``{operand}`` the source,
    #: ``{a}`` to ``{d}`` EAX to EDX at the operand's width, ``{high}`` the mask of its upper half.
    code: Mapping[Use, tuple[str, ...]]
    #: The uses that return the old value.
    returns: frozenset[Use] = frozenset()
    #: The operand of the use STEP, for a width. What a step then adds is ``increment``.
    step: Callable[[int], int] = lambda width: STEP % (1 << width)
    #: The operand of the use FLIP, for a width.
    flip: Callable[[int], int] = lambda width: 0
    #: The operand of the use LANE, for a width and the mask of the CPU's bits.
    lane: Callable[[int, int], Lane] | None = None
    #: The letter of the register operand.
    register: str = "a"
    implicit_lock: bool = False
    #: False for what serves plain stores.
    lockable: bool = True
    #: Take the place of the unlocked form where there is none.
    stand_ins: tuple[StandIn, ...] = ()
    #: What no experiment can observe, "" where nothing escapes.
    unseen: str = ""

    @property
    def widths(self) -> tuple[int, ...]:
        """Operand widths in bits, ascending."""
        return tuple(sorted({width for widths in self.opcodes.values() for width in widths}))

    @property
    def usual_width(self) -> int:
        """The operand width, in bits, of a case that names none."""
        return 32 if 32 in self.widths else self.widths[-1]

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the other operand may come from, the default first."""
        return tuple(self.opcodes)

    def increment(self, width: int) -> int:
        """Return what one STEP adds to a cell, with the operand that ``step`` chooses."""
        return self.semantics(0, self.step(width), CF, width, 0).value

    def form(self, width: int, source: Source, lock: bool) -> Form:
        """Return the form under test. Raises KeyError where the SDM has none."""
        if self.implicit_lock and not lock:
            raise KeyError(f"{self.name} on memory is always locked")
        prefixed = lock and not self.implicit_lock
        return _form(
            name=self._name(width, source) + ("" if lock or not self.lockable else ".nolock"),
            mnemonic=self.name,
            opcodes=self.opcodes[source][width],
            width=width,
            source=source,
            lock=lock and self.lockable,
            prefixed=prefixed and self.lockable,
            register=self.register,
            code=self.code,
            returns=self.returns,
        )

    def unlocked(self, width: int, source: Source) -> tuple[Form, ...]:
        """Return the forms that serve as power controls, the one that stands for ``--no-lock`` first."""
        if not self.stand_ins:
            return (self.form(width, source, lock=False),)
        return tuple(
            _form(
                name=f"{entry.name}.{width}" + (".nolock" if "-" not in entry.name else ""),
                mnemonic=entry.mnemonic,
                opcodes=(entry.opcodes[width],),
                width=width,
                source=source,
                lock=False,
                prefixed=False,
                register=entry.register,
                code=entry.code,
                returns=self.returns,
            )
            for entry in self.stand_ins
        )

    def _name(self, width: int, source: Source) -> str:
        return f"{self.name}.{width}" + (f".{source.value}" if source is not self.sources[0] else "")


def widths(opcode8: str, opcode: str, *shorter: str) -> dict[int, tuple[str, ...]]:
    """Return the usual three: an opcode for 8 bits, one for 16 and 32, and forms of the latter with a shorter
    immediate.
    """
    return {8: (opcode8,), 16: (*shorter, opcode), 32: (*shorter, opcode)}


def wide(opcode: str) -> dict[int, tuple[str, ...]]:
    """Return encodings with one opcode for 16 and 32 bits, and none for 8."""
    return {16: (opcode,), 32: (opcode,)}


def _form(
    *,
    name: str,
    mnemonic: str,
    opcodes: tuple[str, ...],
    width: int,
    source: Source,
    lock: bool,
    prefixed: bool,
    register: str,
    code: Mapping[Use, tuple[str, ...]],
    returns: frozenset[Use],
) -> Form:
    parts = {letter: _PARTS[width].format(letter) for letter in "abcd"}
    pointer = f"{_POINTERS[width]} [edi]"
    operand = {Source.REGISTER: parts["a"], Source.IMMEDIATE: "{operand}", Source.NONE: ""}[source]
    high = f"{(1 << width) - (1 << width // 2):#x}"
    names = parts | {"lock": "lock " if prefixed else "", "ptr": pointer, "operand": operand, "high": high, "L": "{L}"}
    filled: dict[Use, tuple[str, ...]] = {}
    for use, lines in code.items():
        is_value = use in returns and use not in (Use.SET, Use.CLEAR)  # those give one bit, at any width
        extend = (f"movzx eax, {parts['a']}",) if is_value and width < 32 else ()
        filled[use] = tuple(line.format(**names) for line in lines) + extend
    other = {Source.REGISTER: f", {parts[register]}", Source.IMMEDIATE: ", {operand}", Source.NONE: ""}[source]
    return Form(
        name=name,
        mnemonic=mnemonic,
        width=width,
        source=source,
        lock=lock,
        statement=f"{names['lock']}{mnemonic} {pointer}{other}",
        encoding=lambda value: encode(opcodes, width=width, lock=prefixed, register=register, operand=value),
        code=filled,
    )


_NUMBERS = {"a": 0, "c": 1, "d": 2, "b": 3}
_IMMEDIATES = {"ib": 1, "iw": 2, "id": 4}


@functools.cache
def _parts(opcode: str, width: int, register: str) -> tuple[bytes | int, ...]:
    """Return what an opcode column stands for: its bytes, and the size of an operand that follows."""
    parts: list[bytes | int] = []
    for word in opcode.split():
        size = {"iz": 2 if width == 16 else 4}.get(word, _IMMEDIATES.get(word, 0))
        if re.fullmatch(r"[0-9A-Fa-f]{2}", word):
            parts.append(bytes.fromhex(word))
        elif word == "/r":
            parts.append(bytes([_NUMBERS[register] << 3 | 7]))
        elif word.startswith("/"):
            parts.append(bytes([int(word[1:]) << 3 | 7]))
        elif size:
            parts.append(size)
        else:
            raise ValueError(f"not an opcode: {opcode!r}")
    return tuple(parts)


def encode(opcodes: tuple[str, ...], *, width: int, lock: bool, register: str, operand: int) -> bytes:
    """Return the bytes of ``OPCODE [edi]`` in 32-bit code, from the opcode column of the SDM (volume 2, 3.1.1.1).

    ``/r`` and ``/digit`` fill ModRM, whose memory operand is [EDI]; ``ib``, ``iw``, ``id`` append the operand, ``iz``
    at the operand size. Of several opcodes the first whose immediate, sign-extended, holds ``operand`` is taken. Raises
    ValueError where none does.
    """
    signed = operand - (1 << width) if operand >> (width - 1) & 1 else operand
    prefixes = (b"\xf0" if lock else b"") + (b"\x66" if width == 16 else b"")
    for opcode in opcodes:
        data = b""
        fits = True
        for part in _parts(opcode, width, register):
            if isinstance(part, bytes):
                data += part
            else:
                fits = 0 <= operand < 1 << width and -(1 << (part * 8 - 1)) <= signed < 1 << (part * 8 - 1)
                data += operand.to_bytes(8, "little")[:part] if fits else b""
        if fits:
            return prefixes + data
    raise ValueError(f"no opcode of {opcodes} holds {operand:#x}")


@functools.cache
def instructions() -> Mapping[str, Instruction]:
    """Return every instruction of the catalogue by name."""
    return registry.discover("kgen.instructions", "INSTRUCTION", Instruction)
