"""DWARF 4 for an Assembly: the line table, the functions, and the C types of named variables.

What it buys: ``break NAME``, ``list NAME``, ``step`` and ``print results.cpu[1].count`` work in gdb.
The types are the ctypes classes that also decode the memory, so the two can never disagree.
Numbers are those of the DWARF 4 standard, section 7 (encodings). The output holds no path, no time and no host size:
a ctypes integer is described by its width and sign, whatever C calls it on this machine.
"""

from __future__ import annotations

import ctypes
import re
import struct
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from kgen.errors import LinkError
from kgen.toolchain.assembly import Assembly, Line, Symbol

_VERSION = 4
_ADDRESS_BYTES = 4
_ADDRESS_MAX = 2**32
_LANG_MIPS_ASSEMBLER = 0x8001  # gdb takes a breakpoint on an assembler function literally: it skips no prologue
_PRODUCER = "kgen"

# Attribute forms, section 7.5.4.
_ADDR, _DATA2, _DATA4, _STRING, _DATA1 = 0x01, 0x05, 0x06, 0x08, 0x0B
_SDATA, _UDATA, _REF4, _SEC_OFFSET, _EXPRLOC, _FLAG_PRESENT = 0x0D, 0x0F, 0x13, 0x17, 0x18, 0x19

# Attributes, section 7.5.4.
_AT_NAME, _AT_BYTE_SIZE, _AT_STMT_LIST, _AT_LOW_PC, _AT_HIGH_PC = 0x03, 0x0B, 0x10, 0x11, 0x12
_AT_LANGUAGE, _AT_COMP_DIR, _AT_CONST_VALUE, _AT_LOWER_BOUND, _AT_PRODUCER = 0x13, 0x1B, 0x1C, 0x22, 0x25
_AT_COUNT = 0x37
_AT_MEMBER_LOCATION, _AT_DECL_FILE, _AT_DECL_LINE, _AT_ENCODING = 0x38, 0x3A, 0x3B, 0x3E
_AT_EXTERNAL, _AT_TYPE, _AT_RANGES, _AT_LOCATION = 0x3F, 0x49, 0x55, 0x02

# Base type encodings, section 7.8.
_ATE_BOOLEAN, _ATE_SIGNED, _ATE_SIGNED_CHAR, _ATE_UNSIGNED = 0x02, 0x05, 0x06, 0x07

_OP_ADDR = 0x03

# Line number opcodes, section 7.21, and the parameters of the special ones (section 6.2.5.1).
_LNS_COPY, _LNS_ADVANCE_PC, _LNS_ADVANCE_LINE, _LNS_NEGATE_STMT = 1, 2, 3, 6
_LNE_END_SEQUENCE, _LNE_SET_ADDRESS = 1, 2
_LINE_BASE, _LINE_RANGE, _OPCODE_BASE = -3, 12, 13
_MAX_OPCODE = 255
_STANDARD_OPERANDS = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))

_INTEGER_CODES = "bBhHiIlLqQ"  # ctypes type codes; upper case is unsigned
_DEFINITION = re.compile(r"\s*(?:([A-Za-z_]\w*)\s*:|\.equ\s+([A-Za-z_]\w*)\s*,)")


class _Tag(IntEnum):
    """The entries we write; the value is both the DW_TAG (section 7.5.3) and our abbreviation code."""

    ARRAY_TYPE = 0x01
    ENUMERATION_TYPE = 0x04
    MEMBER = 0x0D
    COMPILE_UNIT = 0x11
    STRUCTURE_TYPE = 0x13
    SUBRANGE_TYPE = 0x21
    BASE_TYPE = 0x24
    ENUMERATOR = 0x28
    SUBPROGRAM = 0x2E
    VARIABLE = 0x34


#: For each entry: whether it has children, and its attributes with their forms.
_ABBREVIATIONS: dict[_Tag, tuple[bool, tuple[tuple[int, int], ...]]] = {
    _Tag.COMPILE_UNIT: (
        True,
        (
            (_AT_PRODUCER, _STRING),
            (_AT_LANGUAGE, _DATA2),
            (_AT_NAME, _STRING),
            (_AT_COMP_DIR, _STRING),
            (_AT_STMT_LIST, _SEC_OFFSET),
            # the base of the ranges; gdb from 16 on wants it to be in one of them
            (_AT_LOW_PC, _ADDR),
            (_AT_RANGES, _SEC_OFFSET),
        ),
    ),
    _Tag.BASE_TYPE: (False, ((_AT_NAME, _STRING), (_AT_BYTE_SIZE, _DATA1), (_AT_ENCODING, _DATA1))),
    _Tag.ENUMERATION_TYPE: (True, ((_AT_NAME, _STRING), (_AT_BYTE_SIZE, _DATA1), (_AT_TYPE, _REF4))),
    _Tag.ENUMERATOR: (False, ((_AT_NAME, _STRING), (_AT_CONST_VALUE, _SDATA))),
    _Tag.ARRAY_TYPE: (True, ((_AT_TYPE, _REF4),)),
    # An assembler has no default lower bound.
    _Tag.SUBRANGE_TYPE: (False, ((_AT_LOWER_BOUND, _DATA1), (_AT_COUNT, _UDATA))),
    _Tag.STRUCTURE_TYPE: (True, ((_AT_NAME, _STRING), (_AT_BYTE_SIZE, _UDATA))),
    _Tag.MEMBER: (False, ((_AT_NAME, _STRING), (_AT_TYPE, _REF4), (_AT_MEMBER_LOCATION, _UDATA))),
    _Tag.SUBPROGRAM: (
        False,
        (
            (_AT_NAME, _STRING),
            (_AT_DECL_FILE, _DATA1),
            (_AT_DECL_LINE, _UDATA),
            (_AT_LOW_PC, _ADDR),
            (_AT_HIGH_PC, _DATA4),
            (_AT_EXTERNAL, _FLAG_PRESENT),
        ),
    ),
    _Tag.VARIABLE: (
        False,
        (
            (_AT_NAME, _STRING),
            (_AT_DECL_FILE, _DATA1),
            (_AT_DECL_LINE, _UDATA),
            (_AT_TYPE, _REF4),
            (_AT_LOCATION, _EXPRLOC),
            (_AT_EXTERNAL, _FLAG_PRESENT),
        ),
    ),
}


def debug_sections(assembly: Assembly, variables: Mapping[str, type]) -> dict[str, bytes]:
    """Return the DWARF sections of one compile unit, by section name.

    ``variables`` gives symbols their types: ctypes integers, c_char, c_bool, arrays and little-endian structures of
    these. A simple type that has an attribute ``enum`` (an ``enum.IntEnum``) is shown with that enum's names.
    Raises LinkError for a name that is no symbol, for a type that is not one of these or that does not fit.
    """
    runs = _runs(assembly)
    ranges = _ranges(runs)
    base = _base(ranges)
    return {
        ".debug_abbrev": _abbrev(),
        ".debug_info": _info(assembly, runs, variables),
        ".debug_line": _line_program(assembly.source.name, runs),
        ".debug_ranges": b"".join(struct.pack("<II", start - base, end - base) for start, end in ranges) + bytes(8),
        ".debug_aranges": _aranges(ranges),
    }


# --- numbers -------------------------------------------------------------------------------------------------------


def _uleb(value: int) -> bytes:
    """Unsigned LEB128, section 7.6."""
    out = bytearray()
    while value >> 7:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sleb(value: int) -> bytes:
    """Signed LEB128, section 7.6."""
    out = bytearray()
    while value not in range(-0x40, 0x40):
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _unit(body: bytes) -> bytes:
    """Return a unit with its 32-bit length in front."""
    return struct.pack("<I", len(body)) + body


# --- lines ---------------------------------------------------------------------------------------------------------


class _Run(list[Line]):
    """Lines whose bytes follow each other without a gap where they execute."""

    @property
    def start(self) -> int:
        return self[0].run_address

    @property
    def end(self) -> int:
        return self[-1].run_address + len(self[-1].data)


def _runs(assembly: Assembly) -> list[_Run]:
    """Split what executable sections hold into runs, in storage order: two ``.phase`` blocks may run at one address.

    Data among the code belongs to it: gdb could not step across alignment padding that has no line.
    """
    executable = {section.name for section in assembly.sections if section.flags == "ax"}
    lines = (line for line in assembly.lines if line.data and (line.is_code or line.section in executable))
    runs: list[_Run] = []
    for line in sorted(lines, key=lambda line: line.address):
        if not runs or runs[-1].end != line.run_address:
            runs.append(_Run())
        runs[-1].append(line)
    return runs


def _ranges(runs: Iterable[_Run]) -> list[tuple[int, int]]:
    """Return the addresses the runs cover, as sorted, disjoint (start, end) pairs."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((run.start, run.end) for run in runs):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _line_program(file_name: str, runs: Iterable[_Run]) -> bytes:
    """.debug_line, section 6.2.4: one file, one sequence a run."""
    program = b"".join(_line_sequence(run) for run in runs)
    # minimum_instruction_length, maximum_operations_per_instruction, default_is_stmt, ...
    tables = struct.pack("<BBBbBB", 1, 1, 1, _LINE_BASE, _LINE_RANGE, _OPCODE_BASE) + _STANDARD_OPERANDS
    tables += b"\0" + _text(file_name) + bytes(3) + b"\0"  # no directories; file 1: directory, time and length 0
    return _unit(struct.pack("<HI", _VERSION, len(tables)) + tables + program)


def _line_sequence(run: _Run) -> bytes:
    """Return one sequence. Only instructions are statements: a breakpoint on a line of data goes to the next
    instruction.
    """
    address, number, statement = run.start, 1, True
    out = bytearray(bytes((0, 1 + _ADDRESS_BYTES, _LNE_SET_ADDRESS)) + struct.pack("<I", address))
    for line in run:
        if line.is_code is not statement:
            out.append(_LNS_NEGATE_STMT)
        out += _line_row(line.run_address - address, line.line - number)
        address, number, statement = line.run_address, line.line, line.is_code
    out += bytes((_LNS_ADVANCE_PC,)) + _uleb(run.end - address)
    return bytes(out + bytes((0, 1, _LNE_END_SEQUENCE)))


def _line_row(address_step: int, line_step: int) -> bytes:
    """Append a row: one special opcode where the steps fit, otherwise standard opcodes."""
    opcode = line_step - _LINE_BASE + _LINE_RANGE * address_step + _OPCODE_BASE
    if 0 <= line_step - _LINE_BASE < _LINE_RANGE and opcode <= _MAX_OPCODE:
        return bytes((opcode,))
    advance = bytes((_LNS_ADVANCE_LINE,)) + _sleb(line_step) + bytes((_LNS_ADVANCE_PC,)) + _uleb(address_step)
    return advance + bytes((_LNS_COPY,))


def _base(ranges: Iterable[tuple[int, int]]) -> int:
    """Return the address that the unit's ranges are relative to (section 2.17.3): that of its first code."""
    return min((start for start, _ in ranges), default=0)


def _aranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """.debug_aranges, section 6.1.2. The tuples start at a multiple of their size, hence four bytes of padding."""
    header = struct.pack("<HIBB", 2, 0, _ADDRESS_BYTES, 0) + bytes(4)
    return _unit(header + b"".join(struct.pack("<II", start, end - start) for start, end in ranges) + bytes(8))


# --- entries -------------------------------------------------------------------------------------------------------


def _abbrev() -> bytes:
    out = bytearray()
    for tag, (children, attributes) in _ABBREVIATIONS.items():
        out += _uleb(tag) + _uleb(tag) + bytes((children,))
        out += b"".join(_uleb(attribute) + _uleb(form) for attribute, form in attributes) + bytes(2)
    return bytes(out + b"\0")


def _encode(form: int, value: str | int | bytes) -> bytes:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return _uleb(len(value)) + value
    if form in (_UDATA, _SDATA):
        return _uleb(value) if form == _UDATA else _sleb(value)
    if form == _FLAG_PRESENT:
        return b""
    return value.to_bytes({_DATA1: 1, _DATA2: 2}.get(form, 4), "little")


class _Entries:
    """The body of .debug_info as it grows. Types are written once, before their first use."""

    def __init__(self) -> None:
        self._body = bytearray(struct.pack("<HIB", _VERSION, 0, _ADDRESS_BYTES))
        self._types: dict[tuple[object, ...], int] = {}

    def finish(self) -> bytes:
        return _unit(bytes(self._body))

    def add(self, tag: _Tag, *values: str | int | bytes) -> int:
        """Write an entry, and return its offset in the unit."""
        offset = 4 + len(self._body)  # the length field comes before the body
        self._body += _uleb(tag)
        for (_, form), value in zip(_ABBREVIATIONS[tag][1], values, strict=True):
            self._body += _encode(form, value)
        return offset

    def close(self) -> None:
        """End the list of children."""
        self._body.append(0)

    def type_of(self, ctype: type, where: str) -> int:
        """Return the offset of the entry that describes a ctypes class."""
        if issubclass(ctype, ctypes.Array):
            return self._array(ctype, where)
        if issubclass(ctype, ctypes.Structure):
            return self._structure(ctype, where)
        return self._simple(ctype, where)

    def _array(self, ctype: type[ctypes.Array[Any]], where: str) -> int:
        described: Any = ctype  # the stubs deny that the class itself has these attributes
        length: int = described._length_
        key = ("array", self.type_of(described._type_, where), length)
        if key not in self._types:
            self._types[key] = self.add(_Tag.ARRAY_TYPE, key[1])
            self.add(_Tag.SUBRANGE_TYPE, 0, length)
            self.close()
        return self._types[key]

    def _structure(self, ctype: type[ctypes.Structure], where: str) -> int:
        if hasattr(ctype, "_swappedbytes_") is (sys.byteorder == "little"):
            raise LinkError(f"{ctype.__name__} is big-endian, the kernel is not", where=where)
        if ("struct", ctype) not in self._types:
            members = [(name, getattr(ctype, name), member) for name, member in _fields(ctype, where)]
            offsets = [self.type_of(member, where) for _, _, member in members]
            self._types["struct", ctype] = self.add(_Tag.STRUCTURE_TYPE, ctype.__name__, ctypes.sizeof(ctype))
            for (name, field, _), offset in zip(members, offsets, strict=True):
                self.add(_Tag.MEMBER, name, offset, field.offset)
            self.close()
        return self._types["struct", ctype]

    def _simple(self, ctype: type, where: str) -> int:
        base = self._base(*_base_type(ctype, where))
        names = getattr(ctype, "enum", None)
        if names is None:
            return base
        if not (isinstance(names, type) and issubclass(names, IntEnum)):
            raise LinkError(f"{ctype.__name__}.enum is not an IntEnum", where=where)
        if ("enum", names, base) not in self._types:
            self._types["enum", names, base] = self.add(
                _Tag.ENUMERATION_TYPE, names.__name__, _base_type(ctype, where)[1], base
            )
            for name, member in names.__members__.items():
                self.add(_Tag.ENUMERATOR, name, int(member))
            self.close()
        return self._types["enum", names, base]

    def _base(self, name: str, size: int, encoding: int) -> int:
        if ("base", name) not in self._types:
            self._types["base", name] = self.add(_Tag.BASE_TYPE, name, size, encoding)
        return self._types["base", name]


def _base_type(ctype: type, where: str) -> tuple[str, int, int]:
    """Name, bytes and encoding of a ctypes integer, c_char or c_bool."""
    code = getattr(ctype, "_type_", None) if issubclass(ctype, ctypes._SimpleCData) else None
    if not isinstance(code, str) or code not in _INTEGER_CODES + "c?":
        raise LinkError(f"the debugger cannot be told about the type {ctype.__name__}", where=where)
    size = ctypes.sizeof(ctype)
    if code == "c":
        return "char", size, _ATE_SIGNED_CHAR
    if code == "?":
        return "bool", size, _ATE_BOOLEAN
    if code.isupper():
        return f"uint{8 * size}_t", size, _ATE_UNSIGNED
    return f"int{8 * size}_t", size, _ATE_SIGNED


def _fields(ctype: type[ctypes.Structure], where: str) -> list[tuple[str, type]]:
    """Field names and types, those of base classes first. Raises LinkError for a bit field."""
    fields: list[tuple[str, type]] = []
    for owner in reversed(ctype.__mro__):
        for field in vars(owner).get("_fields_", ()):
            name, member, *width = field
            if width:
                raise LinkError(f"{ctype.__name__}.{name} is a bit field", where=where)
            fields.append((name, member))
    return fields


def _info(assembly: Assembly, runs: Iterable[_Run], variables: Mapping[str, type]) -> bytes:
    """.debug_info, section 7.5.1: one compile unit, its functions and its typed variables."""
    entries = _Entries()
    first = _base(_ranges(runs))
    entries.add(_Tag.COMPILE_UNIT, _PRODUCER, _LANG_MIPS_ASSEMBLER, assembly.source.name, ".", 0, first, 0)
    declared = _defining_lines(assembly.source.text)
    symbols = {symbol.name: symbol for symbol in assembly.symbols}
    code_ends = {line.run_address: run.end for run in runs for line in run if line.is_code}
    for symbol in assembly.symbols:
        # Labels on data in a code section, and the storage address of a .phase block, are no functions.
        size = min(symbol.size, code_ends.get(symbol.value, 0) - symbol.value)
        if symbol.kind == "func" and size > 0:
            entries.add(_Tag.SUBPROGRAM, symbol.name, 1, declared.get(symbol.name, 0), symbol.value, size, True)
    for name in sorted(variables):
        if name not in symbols:
            raise LinkError("a type was given for a symbol that does not exist", where=name)
        entry = entries.type_of(variables[name], name)
        location = struct.pack("<BI", _OP_ADDR, _holding(symbols[name], variables[name]))
        entries.add(_Tag.VARIABLE, name, 1, declared.get(name, 0), entry, location, True)
    entries.close()
    return entries.finish()


def _holding(symbol: Symbol, ctype: type[ctypes._CDataType]) -> int:
    """Return the symbol's address. What an object reserves must hold the type; an abs symbol reserves nothing."""
    size = ctypes.sizeof(ctype)
    if symbol.kind == "object" and size > symbol.size:
        raise LinkError(f"{ctype.__name__} takes {size} bytes, {symbol.size} are reserved", where=symbol.name)
    if not 0 <= symbol.value <= _ADDRESS_MAX - size:
        raise LinkError(f"{symbol.value:#x} is no 32-bit address", where=symbol.name)
    return symbol.value


def _defining_lines(text: str) -> dict[str, int]:
    """Return the line (1-based) that defines each label and constant, so that ``list NAME`` shows data and constants
    too.
    """
    matches = ((_DEFINITION.match(line), number) for number, line in enumerate(text.split("\n"), start=1))
    return {match[1] or match[2]: number for match, number in matches if match}
