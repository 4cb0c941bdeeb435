"""The values that travel between the assembler and the linker: frozen, typed, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Section permissions as ELF names them: "ax" code, "a" read-only data, "aw" data, "awn" zero-filled (nobits).
SectionFlags = Literal["ax", "a", "aw", "awn"]
SymbolKind = Literal["func", "object", "abs"]


@dataclass(frozen=True)
class Source:
    """A rendered translation unit.

    ``name`` is the file name that error messages and the line table use; ``text`` holds one statement a line.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """A run of bytes at one physical address. ``data`` is empty for nobits sections, ``size`` never is."""

    name: str
    address: int
    size: int
    data: bytes
    align: int
    flags: SectionFlags


@dataclass(frozen=True)
class Symbol:
    """A global label or constant. ``value`` is its run address; ``size`` in bytes reaches to the next global label."""

    name: str
    value: int
    size: int
    section: str
    kind: SymbolKind


@dataclass(frozen=True)
class Line:
    """Bytes that one source line (1-based) emitted. ``address`` is where they are stored,
    ``run_address`` where they execute; the two differ inside ``.phase`` only. ``is_code`` tells instructions from
    data."""

    line: int
    address: int
    run_address: int
    data: bytes
    section: str
    is_code: bool


@dataclass(frozen=True)
class Assembly:
    """What the assembler made of one Source: sections in address order, symbols by name, lines in source order."""

    source: Source
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
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
