"""The alphabet of result codes: numbers as characters that a person can copy from a photograph.

A code is a row of symbols of five bits, written in Crockford's base 32 (digits and letters without I, L, O and U) in
groups of five; the last seven symbols are the CRC-32 of those before them. docs/screen.md describes the layout.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Sequence

from kgen.errors import ProtocolError
from kgen.experiments import experiments
from kgen.instructions import instructions
from kgen.spec.case import MIN_CPUS, Case
from kgen.spec.kernel_spec import OLD_RULES, RULES, KernelSpec
from kgen.targets import targets

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Characters that people may write in place of similar ones.
_ALIKE = str.maketrans({"O": "0", "I": "1", "L": "1", "-": "", " ": "", "\t": "", "\r": "", "\n": ""})
GROUP = 5
#: The first symbol of a code, and that of kernels that counted no live batches.
CODE_VERSION = 2
OLD_CODE_VERSION = 1
#: Bits of the second symbol.
CONTROLS, ADDRESS, OFFSET, CPUS, SUITE = 1, 2, 4, 8, 16
#: A symbol holds a phase's status times this, plus the result of its probe.
DECODES = 3
#: The symbol after a status: a bit for each kind of violation that was seen, then this bit.
AS_PLANNED = 16
#: The symbol of the kernel's state also holds the number of digits that are kept of counts of live batches, times this.
STATES = 8
#: The numbers of digits that are tried. The first with which the code has at most MOST_SHOWN symbols is used. The last
#: one leaves the counts out and is used only where a violation decides the verdict.
DIGITS = (3, 2, 1, 0)
#: With this number of digits only the kinds of the controls' violations are kept, not their numbers.
BARE = 1
MOST_SHOWN = 80
#: Bits of the first symbol of the case's counters: which numbers follow.
IDLE, PUTS, REST, FOREIGN, LEFT = 1, 2, 4, 8, 16
#: The highest order of magnitude of a number in a code.
HIGHEST = 31
#: The most symbols that the kernel can make. A code that long is useless to a person.
MOST_SYMBOLS = 1024
#: How many symbols the case's name, an address of 32 bits, and the checksum have.
NAME_SYMBOLS = 5
WORD_SYMBOLS = 7
#: Stands for the target in the name of a case at a bare address.
_BARE = "0x"
#: The largest width of a number, in bits.
_WIDEST = 64


def fixed(value: int, symbols: int) -> tuple[int, ...]:
    """Return a number in this many symbols, the least significant five bits first."""
    return tuple(value >> 5 * place & 31 for place in range(symbols))


def number(value: int) -> tuple[int, ...]:
    """Return a number in as many symbols as it needs: four bits each, the least significant first. 16 is added where
    more follow."""
    made = [value & 15]
    while value := value >> 4:
        made[-1] |= 16
        made.append(value & 15)
    return tuple(made)


def short(value: int, digits: int, *, up: bool) -> tuple[int, ...]:
    """Return a number in at most ``digits`` + 1 symbols, rounded up or down. A number of at most ``digits`` hexadecimal
    digits is returned as by ``number``. Of any other, return ``digits`` digits below a leading 1, with 16 added to
    each, and how many bits are missing."""
    limit = 1 << 4 * digits
    if value < limit:
        return number(value)
    lost = 0
    while value >= 2 * limit:
        value = value + up >> 1
        lost += 1
    return (*(16 | value >> 4 * place & 15 for place in range(digits)), lost)


def order(value: int) -> int:
    """Return the symbol of a number's order of magnitude: how many bits it has, at most HIGHEST."""
    return min(value.bit_length(), HIGHEST)


def checksum(symbols: Iterable[int]) -> tuple[int, ...]:
    """Return the CRC-32 of symbols, each taken as a byte, as symbols."""
    return fixed(zlib.crc32(bytes(symbols)), WORD_SYMBOLS)


def to_text(symbols: Sequence[int]) -> str:
    """Return symbols and their checksum as text, in groups."""
    letters = "".join(ALPHABET[symbol] for symbol in (*symbols, *checksum(symbols)))
    return "-".join(letters[at : at + GROUP] for at in range(0, len(letters), GROUP))


def from_text(text: str) -> tuple[int, ...]:
    """Return the symbols of a code without its checksum, however it was copied: upper or lower case, with or without
    hyphens and blanks, O for 0, I and L for 1. Raises ProtocolError for an invalid character and for a wrong
    checksum."""
    letters = text.upper().translate(_ALIKE)
    strange = next((letter for letter in letters if letter not in ALPHABET), "")
    if strange:
        raise ProtocolError(f"{strange!r} stands in no result code", hint="it is made of digits and letters without U")
    symbols = tuple(ALPHABET.index(letter) for letter in letters)
    told = symbols[:-WORD_SYMBOLS]
    if not told:
        raise ProtocolError("the result code is cut off", hint="copy all its groups")
    if checksum(told) != symbols[-WORD_SYMBOLS:]:
        raise ProtocolError(
            "the result code was not copied as it was printed", hint="a character is wrong, missing, or out of order"
        )
    return told


class Reader:
    """Reads symbols in order. Every method raises ProtocolError at their end."""

    def __init__(self, symbols: Sequence[int]) -> None:
        self._symbols = symbols
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Whether all symbols were read."""
        return self._at == len(self._symbols)

    def symbol(self) -> int:
        """Return the next symbol."""
        if self.is_over:
            raise ProtocolError("the result code ends too early")
        self._at += 1
        return self._symbols[self._at - 1]

    def fixed(self, symbols: int) -> int:
        """Return the inverse of ``fixed``."""
        return sum(self.symbol() << 5 * place for place in range(symbols))

    def number(self) -> int:
        """Return the inverse of ``number``. Raises ProtocolError for a number of more than 64 bits."""
        value = shift = 0
        while True:
            symbol = self.symbol()
            value |= (symbol & 15) << shift
            shift += 4
            if not symbol & 16:
                return value
            if shift >= _WIDEST:
                raise ProtocolError("the result code holds a number of more than 64 bits")

    def short(self, digits: int) -> int:
        """Return the inverse of ``short``."""
        value = 0
        for place in range(digits):
            symbol = self.symbol()
            value |= (symbol & 15) << 4 * place
            if not symbol & 16:
                return value
        return (value | 1 << 4 * digits) << self.symbol()

    def order(self) -> int:
        """Return the smallest number of an order of magnitude."""
        bits = self.symbol()
        return 1 << bits - 1 if bits else 0


def _name(instruction: str, width: int, target: str, experiment: str, source: str, lock: bool) -> int:
    """Return the symbols for the case's names: 25 bits of their CRC-32. A test checks that no two cases share them."""
    words = (instruction, str(width), target, experiment, source, "lock" if lock else "nolock")
    return zlib.crc32(".".join(words).encode()) & ((1 << 5 * NAME_SYMBOLS) - 1)


def names() -> Iterator[tuple[int, tuple[str, int, str, str, str, bool]]]:
    """Yield every case that the registries can name, whether or not its parts fit each other, with its symbols."""
    for entry in instructions().values():
        for width in entry.widths:
            for target in (*targets(), _BARE):
                for experiment in experiments():
                    for source in entry.sources:
                        for lock in (True, False):
                            parts = (entry.name, width, target, experiment, source.value, lock)
                            yield _name(*parts), parts


@functools.cache
def _known() -> dict[int, tuple[tuple[str, int, str, str, str, bool], ...]]:
    """Return the cases by their symbols."""
    found: dict[int, tuple[tuple[str, int, str, str, str, bool], ...]] = {}
    for name, parts in names():
        found[name] = (*found.get(name, ()), parts)
    return found


def heading(spec: KernelSpec, case: Case) -> tuple[int, ...]:
    """Return a code's symbols for the request, which are known before the kernel runs."""
    bare = case.target not in targets()
    flags = CONTROLS * spec.controls | ADDRESS * bare | OFFSET * bool(case.offset)
    flags |= CPUS * (case.cpus != MIN_CPUS) | SUITE * bool(spec.suite)
    target = _BARE if bare else case.target
    old = spec.rules == OLD_RULES
    made = [OLD_CODE_VERSION if old else CODE_VERSION, flags]
    made += fixed(_name(case.instruction, case.width, target, case.experiment, case.source, case.lock), NAME_SYMBOLS)
    made += fixed(int(case.target, 16), WORD_SYMBOLS) if bare else ()
    made += number(case.offset) if case.offset else ()
    made += number(case.cpus) if case.cpus != MIN_CPUS else ()
    made += number(spec.rounds)
    made += () if old else number(spec.proof_seconds)
    return tuple(made)


def read_heading(reader: Reader) -> KernelSpec:
    """Return the request of a code: a kernel of one case, with a suite's budget where the case was of a suite.

    Fields that do not affect the verdict have their defaults. Raises ProtocolError, and SpecError for an invalid
    request.
    """
    version = reader.symbol()
    if version not in (CODE_VERSION, OLD_CODE_VERSION):
        raise ProtocolError(f"the result code is of version {version}", hint="another version of kgen wrote it")
    flags = reader.symbol()
    hashed = reader.fixed(NAME_SYMBOLS)
    found = _known().get(hashed, ())
    if len(found) != 1:
        raise ProtocolError("the result code is of a case that this kgen does not know")
    instruction, width, target, experiment, source, lock = found[0]
    if (target == _BARE) != bool(flags & ADDRESS):
        raise ProtocolError("the result code contradicts itself about its target")
    if flags & ADDRESS:
        target = f"{reader.fixed(WORD_SYMBOLS):#x}"
    offset = reader.number() if flags & OFFSET else 0
    cpus = reader.number() if flags & CPUS else MIN_CPUS
    case = Case(instruction, width, lock, target, experiment, cpus, source, offset)
    old = version == OLD_CODE_VERSION
    return KernelSpec(
        case,
        rounds=reader.number(),
        controls=bool(flags & CONTROLS),
        suite="code" if flags & SUITE else "",
        budget=int(bool(flags & SUITE)),
        proof_seconds=0 if old else reader.number(),
        rules=OLD_RULES if old else RULES,
    )
