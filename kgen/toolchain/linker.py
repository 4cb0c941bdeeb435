"""ELF32 out of an Assembly, and back: link(), read(), and the flat bytes that a boot sector loads.

The file is laid out for boot loaders: headers and notes first, and the first section within the first 4 KiB, because
a Multiboot header must lie in the first 8 KiB of the file. Numbers are those of the System V ABI ("ELF", chapters 4
and 5) and of its Intel386 supplement.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import c_uint8, c_uint16, c_uint32
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from kgen.errors import LinkError
from kgen.toolchain import dwarf
from kgen.toolchain.assembly import Assembly, Section, SectionFlags, Symbol, SymbolKind

if TYPE_CHECKING:
    pass

_ADDRESS_END = 2**32
_FIRST_SECTION_BELOW = 4096

#: Alignment of loaded bytes in the file. Boot loaders copy segments, they never map them, so file offsets need not
#: follow the page alignment of the addresses; that keeps the file small and the Multiboot header near its start.
_FILE_ALIGN = 16
#: A gap this wide between two sections starts a new segment, instead of zeros in the file.
_SEGMENT_GAP = 4096

_ET_EXEC, _EM_386, _EV_CURRENT = 2, 3, 1
IDENT = b"\x7fELF" + bytes((1, 1, _EV_CURRENT)) + bytes(9)  # 32-bit, little-endian
_PT_LOAD, _PT_NOTE = 1, 4
_PF_X, _PF_W, _PF_R = 1, 2, 4
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOTE, _SHT_NOBITS = 1, 2, 3, 7, 8
_SHF_WRITE, SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_SHN_ABS = 0xFFF1
_STB_GLOBAL, _STT_FILE = 1, 4
_SYMBOL_TYPES: dict[SymbolKind, int] = {"func": 2, "object": 1, "abs": 0}

_NT_GNU_BUILD_ID = 3
_XEN_ELFNOTE_PHYS32_ENTRY = 18  # xen/include/public/elfnote.h: the PVH entry point

BUILD_ID_BYTES = 20  # SHA-1
BUILD_ID_SECTION = ".note.gnu.build-id"
BUILD_ID_SYMBOL = "build_id"
_PVH_SYMBOL = "pvh_entry"
SPEC_SECTION = ".kgen.spec"
_SOURCE_SECTION = ".kgen.source"

_SEGMENT_FLAGS: dict[SectionFlags, int] = {
    "ax": _PF_R | _PF_X,
    "a": _PF_R,
    "aw": _PF_R | _PF_W,
    "awn": _PF_R | _PF_W,
}
SECTION_FLAGS: dict[SectionFlags, int] = {
    "ax": SHF_ALLOC | _SHF_EXECINSTR,
    "a": SHF_ALLOC,
    "aw": SHF_ALLOC | _SHF_WRITE,
    "awn": SHF_ALLOC | _SHF_WRITE,
}


def _words(names: str) -> tuple[tuple[str, type[c_uint32]], ...]:
    """Fields of four bytes each."""
    return tuple((name, c_uint32) for name in names.split())


class _Header(ctypes.LittleEndianStructure):
    """Elf32_Ehdr."""

    _fields_ = (
        ("e_ident", c_uint8 * 16),
        ("e_type", c_uint16),
        ("e_machine", c_uint16),
        ("e_version", c_uint32),
        ("e_entry", c_uint32),
        ("e_phoff", c_uint32),
        ("e_shoff", c_uint32),
        ("e_flags", c_uint32),
        ("e_ehsize", c_uint16),
        ("e_phentsize", c_uint16),
        ("e_phnum", c_uint16),
        ("e_shentsize", c_uint16),
        ("e_shnum", c_uint16),
        ("e_shstrndx", c_uint16),
    )


class _ProgramHeader(ctypes.LittleEndianStructure):
    """Elf32_Phdr."""

    _fields_ = _words("p_type p_offset p_vaddr p_paddr p_filesz p_memsz p_flags p_align")


class _SectionHeader(ctypes.LittleEndianStructure):
    """Elf32_Shdr."""

    _fields_ = _words("sh_name sh_type sh_flags sh_addr sh_offset sh_size sh_link sh_info sh_addralign sh_entsize")


class _SymbolEntry(ctypes.LittleEndianStructure):
    """Elf32_Sym."""

    _fields_ = (
        ("st_name", c_uint32),
        ("st_value", c_uint32),
        ("st_size", c_uint32),
        ("st_info", c_uint8),
        ("st_other", c_uint8),
        ("st_shndx", c_uint16),
    )


@dataclass(frozen=True)
class Elf:
    """A linked kernel."""

    data: bytes = field(repr=False)
    build_id: bytes
    entry: int
    symbols: Mapping[str, int]
    #: The assembly's, with the build id patched in.
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class FlatImage:
    """The kernel as one run of bytes."""

    data: bytes = field(repr=False)
    #: Where to copy ``data`` to.
    load_address: int
    #: From here up to ``bss_end``, memory must be zeroed.
    data_end: int
    bss_end: int


def link(
    assembly: Assembly,
    *,
    entry: str,
    variables: Mapping[str, type] = MappingProxyType({}),
    spec_json: str = "{}",
) -> Elf:
    """Make the kernel file: ELF32, i386, statically placed, with symbols and DWARF.

    ``entry`` names the start symbol. A symbol ``pvh_entry`` becomes the PVH entry note; a symbol ``build_id`` names 20
    reserved bytes that receive the build id, so that a running guest can say which kernel it is. ``variables`` gives
    symbols their C types (see dwarf.py). The build id is the SHA-1 of the whole file with the id's own bytes zeroed;
    the file contains a digest of the source text, so the id covers that too. An abs symbol of more than 32 bits
    is left out of the symbol table, which has no room for it.
    Raises LinkError when the assembly cannot be laid out.
    """
    _check_layout(assembly)
    labels = {symbol.name: symbol for symbol in assembly.symbols if symbol.kind != "abs"}
    if entry not in labels:
        raise LinkError("the entry point is not a label of this kernel", where=entry)
    entry_address = labels[entry].value
    tables = {
        **dwarf.debug_sections(assembly, variables),
        SPEC_SECTION: spec_json.encode(),
        _SOURCE_SECTION: hashlib.sha256(assembly.source.text.encode()).hexdigest().encode(),
    }

    def build(build_id: bytes) -> tuple[bytes, tuple[Section, ...]]:
        sections = _with_build_id(assembly.sections, labels.get(BUILD_ID_SYMBOL), build_id)
        notes = {BUILD_ID_SECTION: _note(b"GNU\0", _NT_GNU_BUILD_ID, build_id)}
        if _PVH_SYMBOL in labels:
            address = struct.pack("<I", labels[_PVH_SYMBOL].value)
            notes[".note.Xen"] = _note(b"Xen\0", _XEN_ELFNOTE_PHYS32_ENTRY, address)
        return _file(sections, assembly, entry_address, notes, tables), sections

    build_id = digest(build(bytes(BUILD_ID_BYTES))[0])
    data, sections = build(build_id)
    symbols = MappingProxyType({symbol.name: symbol.value % _ADDRESS_END for symbol in _elf_symbols(assembly)})
    return Elf(data=data, build_id=build_id, entry=entry_address, symbols=symbols, sections=sections)


def flat_image(sections: Iterable[Section]) -> FlatImage:
    """Return the bytes from the lowest address to the end of the last section that has data; gaps become zeros.

    Takes the sections of an Elf or a LoadedElf (an Assembly's lack the build id). Raises LinkError without any data.
    """
    ordered = sorted((section for section in sections if section.size), key=lambda section: section.address)
    if not any(section.data for section in ordered):
        raise LinkError("there is nothing to load: no section has data")
    start = ordered[0].address
    data = bytearray()
    for section in ordered:
        if section.data:
            data += bytes(section.address - start - len(data)) + section.data
    bss_end = max(section.address + section.size for section in ordered)
    return FlatImage(data=bytes(data), load_address=start, data_end=start + len(data), bss_end=bss_end)


# --- checks --------------------------------------------------------------------------------------------------------


def _check_layout(assembly: Assembly) -> None:
    """Raise LinkError unless the sections are ordered, disjoint and below 4 GiB, and the symbols refer to them."""
    end = 0
    for section in assembly.sections:
        if section.address < end:
            raise LinkError(f"overlaps the section before it at {section.address:#x}", where=section.name)
        if section.address % max(section.align, 1):
            raise LinkError(f"{section.address:#x} is not aligned to {section.align}", where=section.name)
        stored = 0 if section.flags == "awn" else section.size
        if len(section.data) != stored:
            raise LinkError(f"has {len(section.data)} bytes of data, not {stored}", where=section.name)
        end = section.address + section.size
        if end > _ADDRESS_END:
            raise LinkError(f"ends at {end:#x}, beyond 4 GiB", where=section.name)
    names = {section.name for section in assembly.sections}
    for symbol in assembly.symbols:
        if symbol.kind == "abs":
            continue
        if symbol.section not in names:
            raise LinkError(f"lies in a section that does not exist: {symbol.section!r}", where=symbol.name)
        if not 0 <= symbol.value <= _ADDRESS_END - max(symbol.size, 1):
            raise LinkError(f"{symbol.value:#x} is no 32-bit address", where=symbol.name)
    for line in assembly.lines:
        if not 0 <= line.run_address <= _ADDRESS_END - len(line.data):
            where = f"{assembly.source.name}:{line.line}"
            raise LinkError(f"runs at {line.run_address:#x}, which is no 32-bit address", where=where)


def _with_build_id(sections: Sequence[Section], symbol: Symbol | None, build_id: bytes) -> tuple[Section, ...]:
    """Return the sections with the build id stored at the symbol, if there is one."""
    if symbol is None:
        return tuple(sections)
    for index, section in enumerate(sections):
        start = symbol.value - section.address
        if symbol.section == section.name and 0 <= start <= len(section.data) - BUILD_ID_BYTES:
            data = section.data[:start] + build_id + section.data[start + BUILD_ID_BYTES :]
            return (*sections[:index], replace(section, data=data), *sections[index + 1 :])
    raise LinkError(f"needs {BUILD_ID_BYTES} bytes in a section that has data", where=symbol.name)


# --- the file ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Segment:
    """Sections that one PT_LOAD covers: same permissions, data before zero-filled, no wide gap."""

    sections: tuple[Section, ...]

    @property
    def address(self) -> int:
        return self.sections[0].address

    @property
    def flags(self) -> int:
        return _SEGMENT_FLAGS[self.sections[0].flags]

    @property
    def end(self) -> int:
        return self.sections[-1].address + self.sections[-1].size

    def takes(self, section: Section) -> bool:
        """Return whether a further section can be loaded by the same program header."""
        data_after_bss = bool(section.data) and not self.sections[-1].data
        near = section.address - self.end < _SEGMENT_GAP
        return _SEGMENT_FLAGS[section.flags] == self.flags and near and not data_after_bss


def _segments(sections: Iterable[Section]) -> list[_Segment]:
    """Return one segment for each run of sections, in address order; empty sections are in none."""
    segments: list[_Segment] = []
    for section in sections:
        if section.size == 0:
            continue
        if segments and segments[-1].takes(section):
            segments[-1] = _Segment((*segments[-1].sections, section))
        else:
            segments.append(_Segment((section,)))
    return segments


def _note(name: bytes, kind: int, desc: bytes) -> bytes:
    """Return an ELF note; name and desc are multiples of four bytes here."""
    return struct.pack("<III", len(name), len(desc), kind) + name + desc


class _Names:
    """A string table as it grows."""

    def __init__(self) -> None:
        self.data = bytearray(1)

    def add(self, name: str) -> int:
        """Return the offset of a name in the table."""
        offset = len(self.data)
        self.data += name.encode() + b"\0"
        return offset


class _Writer:
    """The file as it grows, with the section headers of what is in it."""

    def __init__(self, reserved: int) -> None:
        self.data = bytearray(reserved)
        self.names = _Names()
        self.headers = [_SectionHeader()]
        self.indices: dict[str, int] = {}

    def pad(self, align: int, remainder: int = 0) -> None:
        """Grow until the size leaves ``remainder`` when divided by ``align``."""
        self.data += bytes((remainder - len(self.data)) % align)

    def section(self, name: str, kind: int, data: bytes | bytearray, **fields: int) -> None:
        """Append bytes, and the section header that names them. ``fields`` are further fields of that header."""
        header = _SectionHeader(sh_name=self.names.add(name), sh_type=kind, sh_offset=len(self.data))
        for member, value in {"sh_addralign": 1, "sh_size": len(data), **fields}.items():
            setattr(header, member, value)
        self.indices[name] = len(self.headers)
        self.headers.append(header)
        self.data += data

    def memory(self, section: Section) -> None:
        """Append a section that occupies guest memory."""
        self.section(
            section.name,
            _SHT_NOBITS if section.flags == "awn" else _SHT_PROGBITS,
            section.data,
            sh_flags=SECTION_FLAGS[section.flags],
            sh_addr=section.address,
            sh_size=section.size,
            sh_addralign=max(section.align, 1),
        )

    def segment(self, segment: _Segment) -> _ProgramHeader:
        """Append the sections of a segment, spaced as in memory, and return its program header."""
        self.pad(_FILE_ALIGN, segment.address % _FILE_ALIGN)
        start = len(self.data)
        for section in segment.sections:
            if section.data:
                self.data += bytes(section.address - segment.address - (len(self.data) - start))
            self.memory(section)
        return _ProgramHeader(
            p_type=_PT_LOAD,
            p_offset=start,
            p_vaddr=segment.address,
            p_paddr=segment.address,
            p_filesz=len(self.data) - start,
            p_memsz=segment.end - segment.address,
            p_flags=segment.flags,
            p_align=_FILE_ALIGN,
        )


def _file(
    sections: Sequence[Section],
    assembly: Assembly,
    entry: int,
    notes: Mapping[str, bytes],
    tables: Mapping[str, bytes],
) -> bytes:
    """Return the whole file: header, program headers, notes, loaded sections, tables, section headers."""
    segments = _segments(sections)
    header_bytes = ctypes.sizeof(_Header) + (len(segments) + 1) * ctypes.sizeof(_ProgramHeader)
    writer = _Writer(header_bytes)
    for name, note in notes.items():
        writer.section(name, _SHT_NOTE, note, sh_addralign=4)
    # The notes are not loaded: loaders read them from the file. Hence no address, and no size in memory.
    note_header = _ProgramHeader(
        p_type=_PT_NOTE, p_offset=header_bytes, p_filesz=len(writer.data) - header_bytes, p_flags=_PF_R, p_align=4
    )
    program_headers = [*(writer.segment(segment) for segment in segments), note_header]
    if segments and program_headers[0].p_offset >= _FIRST_SECTION_BELOW:
        raise LinkError(f"{len(segments)} segments push the first section beyond 4 KiB; order sections by permission")
    for section in sections:
        if section.size == 0:
            writer.memory(section)
    for name, table in tables.items():
        writer.section(name, _SHT_PROGBITS, table)
    _add_symbols(writer, assembly)
    names_offset = writer.names.add(".shstrtab")
    writer.indices[".shstrtab"] = len(writer.headers)
    writer.headers.append(
        _SectionHeader(
            sh_name=names_offset,
            sh_type=_SHT_STRTAB,
            sh_offset=len(writer.data),
            sh_size=len(writer.names.data),
            sh_addralign=1,
        )
    )
    writer.data += writer.names.data
    writer.pad(4)
    header = _Header(
        e_ident=(c_uint8 * len(IDENT))(*IDENT),
        e_type=_ET_EXEC,
        e_machine=_EM_386,
        e_version=_EV_CURRENT,
        e_entry=entry,
        e_phoff=ctypes.sizeof(_Header),
        e_shoff=len(writer.data),
        e_ehsize=ctypes.sizeof(_Header),
        e_phentsize=ctypes.sizeof(_ProgramHeader),
        e_phnum=len(program_headers),
        e_shentsize=ctypes.sizeof(_SectionHeader),
        e_shnum=len(writer.headers),
        e_shstrndx=writer.indices[".shstrtab"],
    )
    writer.data[:header_bytes] = bytes(header) + b"".join(map(bytes, program_headers))
    return bytes(writer.data) + b"".join(map(bytes, writer.headers))


def _elf_symbols(assembly: Assembly) -> Iterator[Symbol]:
    """Return the symbols that an ELF32 symbol table can hold: negative constants wrap, wider ones are left out."""
    return (symbol for symbol in assembly.symbols if -_ADDRESS_END // 2 <= symbol.value < _ADDRESS_END)


def _add_symbols(writer: _Writer, assembly: Assembly) -> None:
    """Append .symtab and .strtab: the file name as the one local symbol, then the globals."""
    names = _Names()
    table = bytes(_SymbolEntry())
    table += bytes(_SymbolEntry(st_name=names.add(assembly.source.name), st_info=_STT_FILE, st_shndx=_SHN_ABS))
    locals_count = len(table) // ctypes.sizeof(_SymbolEntry)
    ranges = {section.name: (section.address, section.address + section.size) for section in assembly.sections}
    code = {line.run_address for line in assembly.lines if line.is_code}
    for symbol in _elf_symbols(assembly):
        start, end = ranges.get(symbol.section, (_ADDRESS_END, 0))
        # A label may well stand at the end of its section. A .phase label runs elsewhere than it is stored: it is
        # absolute, but not if it is a function, for gdb 13.1 crashes at a breakpoint on an absolute function.
        placed = symbol.kind != "abs" and (start <= symbol.value <= end or symbol.value in code)
        entry = _SymbolEntry(
            st_name=names.add(symbol.name),
            st_value=symbol.value % _ADDRESS_END,
            st_size=symbol.size,
            st_info=_STB_GLOBAL << 4 | _SYMBOL_TYPES[symbol.kind],
            st_shndx=writer.indices[symbol.section] if placed else _SHN_ABS,
        )
        table += bytes(entry)
    writer.pad(4)
    writer.section(
        ".symtab",
        _SHT_SYMTAB,
        table,
        sh_link=len(writer.headers) + 1,
        sh_info=locals_count,
        sh_addralign=4,
        sh_entsize=ctypes.sizeof(_SymbolEntry),
    )
    writer.section(".strtab", _SHT_STRTAB, names.data)


# --- reading back --------------------------------------------------------------------------------------------------


def digest(data: bytes) -> bytes:
    """Return the build id of a file whose build id bytes are zero. SHA-1 because build ids are; it guards no secret."""
    return hashlib.sha1(data, usedforsecurity=False).digest()
