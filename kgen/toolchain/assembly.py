"""The values that travel between the assembler and the linker: frozen, typed, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Section permissions as ELF names them: "ax" code, "a" read-only data, "aw" data, "awn" zero-filled (nobits).
SectionFlags = Literal["ax", "a", "aw", "awn"]
SymbolKind = Literal["func", "object", "abs"]


@dataclass(frozen=True)
class Source:
    """A rendered translation unit."""

    #: The file name in error messages and in the line table.
    name: str
    #: One statement a line.
    text: str


@dataclass(frozen=True)
class Section:
    """A run of bytes at one physical address."""

    name: str
    address: int
    #: In bytes, also where ``data`` is empty.
    size: int
    #: Empty for nobits sections.
    data: bytes
    align: int
    flags: SectionFlags


@dataclass(frozen=True)
class Symbol:
    """A global label or constant."""

    name: str
    #: A label's run address.
    value: int
    #: In bytes, up to the next global label.
    size: int
    section: str
    kind: SymbolKind


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes that one source line emitted."""

    #: From 1.
    line: int
    #: Where the bytes are stored.
    address: int
    #: Where they execute. It differs from ``address`` inside ``.phase`` only.
    run_address: int
    data: bytes
    section: str
    #: True for instructions, false for data.
    is_code: bool


@dataclass(frozen=True)
class Assembly:
    """What the assembler made of one Source."""

    source: Source
    #: In order of their addresses.
    sections: tuple[Section, ...]
    #: In order of their names.
    symbols: tuple[Symbol, ...]
    #: In order of the source.
    lines: tuple[Line, ...]

    def address(self, name: str) -> int:
        """Return the run address of a symbol. Raises KeyError."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol.value
        raise KeyError(name)

    def code_of(self, name: str) -> tuple[Line, ...]:
        """Return the instructions of a routine in source order, () where there is no such symbol."""
        return tuple(
            line
            for symbol in self.symbols
            if symbol.name == name
            for line in self.lines
            if line.is_code and symbol.value <= line.run_address < symbol.value + symbol.size
        )

    def section(self, name: str) -> Section:
        """Return the section of that name. Raises KeyError."""
        for section in self.sections:
            if section.name == name:
                return section
        raise KeyError(name)
