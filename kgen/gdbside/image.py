"""A kernel's ELF, read with the standard library alone: what gdb has loaded, and what memory must contain."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kgen.errors import LinkError, SpecError
from kgen.kernel.results_block import BUILD_ID_BYTES
from kgen.spec import KernelSpec
from kgen.toolchain.assembly import Section, SectionFlags

#: Elf32_Ehdr from e_phoff on, Elf32_Shdr and Elf32_Sym, as the System V ABI lays them out.
_HEADER = struct.Struct("<16s2H5I6H")
_SECTION = struct.Struct("<10I")
_SYMBOL = struct.Struct("<3I2BH")
_NOBITS, _SYMTAB = 8, 2
_WRITE, _ALLOC, _CODE = 1, 2, 4
_GLOBAL, _FUNCTION = 1, 2
_SPEC = ".kgen.spec"
_CALL, _RETURN = 0xE8, 0xC3
#: Symbols that every kernel of kgen has.
_NEEDED = ("results", "build_id", "stacks", "record", "violation", "tokens", "takes", "olds")
_HINT = "load the kernel.elf that the machine runs: 'file PATH'"


@dataclass(frozen=True)
class Image:
    """A kernel as its file has it."""

    path: str
    spec: KernelSpec
    build_id: bytes
    #: Addresses by global name.
    symbols: Mapping[str, int]
    #: The functions among the symbols, ordered by address: begin, end, name.
    routines: tuple[tuple[int, int, str], ...]
    #: Those that occupy memory.
    sections: tuple[Section, ...]

    def routine(self, address: int) -> tuple[str, int]:
        """Return the routine that contains an address, and the offset in bytes; ("", 0) where it is none of the
        kernel's."""
        for begin, end, name in self.routines:
            if begin <= address < end:
                return name, address - begin
        return "", 0

    def code_of(self, name: str) -> tuple[int, bytes]:
        """Return the address of a routine, and its bytes. Raises LinkError."""
        for begin, end, found in self.routines:
            section = next((part for part in self.sections if part.address <= begin < part.address + part.size), None)
            if found == name and section is not None:
                return begin, section.data[begin - section.address : end - section.address]
        raise LinkError(f"has no routine {name}", where=self.path, hint=_HINT)

    def place_of_violation(self) -> tuple[int, int]:
        """Return the place at which CPU 0 has just recorded a witness: the address of the last instruction of
        ``record``, and the address in ``violation`` to which it returns. Raises LinkError."""
        record, code = self.code_of("record")
        start, caller = self.code_of("violation")
        backs = [
            start + at + 5
            for at in range(len(caller) - 4)
            if caller[at] == _CALL
            and (start + at + 5 + int.from_bytes(caller[at + 1 : at + 5], "little")) & 0xFFFFFFFF == record
        ]
        if len(backs) != 1 or code[-1:] != bytes([_RETURN]):
            raise LinkError("has no place where a violation is recorded", where=self.path, hint=_HINT)
        return record + len(code) - 1, backs[0]


def load(path: str) -> Image:
    """Read a kernel's file. Raises LinkError for any other file."""
    try:
        data = Path(path).read_bytes()
        return _parse(data, path)
    except OSError as error:
        raise LinkError(f"cannot be read: {error.strerror or error}", where=path, hint=_HINT) from error
    except (struct.error, IndexError, ValueError, KeyError, StopIteration) as error:
        raise LinkError("is not a kernel that kgen built", where=path, hint=_HINT) from error
    except SpecError as error:
        raise LinkError(f"was built by another version of kgen: {error.message}", where=path) from error


def _parse(data: bytes, path: str) -> Image:
    header = _HEADER.unpack_from(data)
    if not data.startswith(b"\x7fELF\x01\x01"):
        raise ValueError("not a 32-bit ELF")
    offset, size, count, names = header[6], header[11], header[12], header[13]
    headers = [_SECTION.unpack_from(data, offset + size * number) for number in range(count)]
    texts = data[headers[names][4] :]
    by_name = {_text(texts, each[0]): each for each in headers}
    spec = KernelSpec.from_json(_bytes(data, by_name[_SPEC]).decode())
    symbols: dict[str, int] = {}
    functions: list[tuple[int, int, str]] = []
    for name, value, length, is_function in _symbols(data, headers):
        symbols[name] = value
        if is_function and length:
            functions.append((value, value + length, name))
    if any(name not in symbols for name in _NEEDED):
        raise ValueError("a symbol is missing")
    sections = tuple(_memory(data, name, each) for name, each in by_name.items() if each[2] & _ALLOC and each[5])
    holder = next(part for part in sections if part.address <= symbols["build_id"] < part.address + part.size)
    at = symbols["build_id"] - holder.address
    return Image(
        path=path,
        spec=spec,
        build_id=holder.data[at : at + BUILD_ID_BYTES],
        symbols=MappingProxyType(symbols),
        routines=tuple(sorted(functions)),
        sections=tuple(sorted(sections, key=lambda part: part.address)),
    )


def _symbols(data: bytes, headers: list[tuple[int, ...]]) -> Iterator[tuple[str, int, int, bool]]:
    """Yield the global symbols: name, value, size, and whether it is a function."""
    table = next(each for each in headers if each[1] == _SYMTAB)
    texts = _bytes(data, headers[table[6]])
    for entry in _SYMBOL.iter_unpack(_bytes(data, table)):
        name, value, length, info = entry[0], entry[1], entry[2], entry[3]
        if info >> 4 == _GLOBAL:
            yield _text(texts, name), value, length, info & 15 == _FUNCTION


def _memory(data: bytes, name: str, header: tuple[int, ...]) -> Section:
    flags: SectionFlags = "a"
    if header[2] & _CODE:
        flags = "ax"
    elif header[1] == _NOBITS:
        flags = "awn"
    elif header[2] & _WRITE:
        flags = "aw"
    stored = b"" if flags == "awn" else _bytes(data, header)
    return Section(name, header[3], header[5], stored, header[8], flags)


def _bytes(data: bytes, header: tuple[int, ...]) -> bytes:
    return data[header[4] : header[4] + header[5]]


def _text(texts: bytes, at: int) -> str:
    return texts[at : texts.index(b"\0", at)].decode()
