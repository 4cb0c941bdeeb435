"""Read ELF files: kernels that kgen linked, and memory dumps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from kgen.errors import LinkError
from kgen.toolchain.assembly import Section, SectionFlags
from kgen.toolchain.linker import (
    BUILD_ID_BYTES,
    BUILD_ID_SECTION,
    BUILD_ID_SYMBOL,
    IDENT,
    SECTION_FLAGS,
    SHF_ALLOC,
    SPEC_SECTION,
    digest,
)

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import Section as ElfSection
    from elftools.elf.sections import SymbolTableSection


@dataclass(frozen=True)
class LoadedElf:
    """What read() found in a file that link() wrote."""

    spec_json: str
    build_id: bytes
    entry: int
    symbols: Mapping[str, int]
    #: Those that occupy guest memory.
    sections: tuple[Section, ...]


def recompute_build_id(data: bytes) -> bytes:
    """Return the build id (20 bytes) that a kernel file should carry, computed from the rest of its bytes.

    Raises LinkError when the file is not one that link() wrote.
    """
    with _explained("the file"):
        return _recompute(data, _build_id_offsets(_open(data, "the file")))


def read(data: bytes, *, name: str = "the file") -> LoadedElf:
    """Read a kernel file back, and check that it is whole and unaltered. ``name`` is what errors call it.

    Raises LinkError, and nothing else, for anything but the exact bytes that link() wrote.
    """
    with _explained(name):
        elf = _open(data, name)
        offsets = _build_id_offsets(elf)
        build_id = _recompute(data, offsets)
        if any(data[offset : offset + BUILD_ID_BYTES] != build_id for offset in offsets):
            raise LinkError(
                f"{name} was altered after it was built: its build id does not match", hint="build the kernel again"
            )
        symbols = {
            symbol.name: int(symbol["st_value"])
            for symbol in _symbol_table(elf).iter_symbols()
            if symbol["st_info"]["bind"] == "STB_GLOBAL"
        }
        # Empty sections are written last; this is the order that link() insists on.
        sections = tuple(sorted(_memory_sections(elf), key=lambda section: (section.address, section.size)))
        spec_json = _section(elf, SPEC_SECTION).data().decode()
        entry = int(elf.header["e_entry"])
    return LoadedElf(spec_json, build_id, entry, MappingProxyType(symbols), sections)


def core_segments(file: BinaryIO) -> tuple[tuple[int, int, int], ...]:
    """Return the memory in an ELF core file: physical address, offset in the file, and bytes there, of each PT_LOAD.

    Raises LinkError for anything but a core file.
    """
    from elftools.elf.elffile import ELFFile

    with _explained("the file"):
        file.seek(0)
        elf = ELFFile(file)
        if elf.header["e_type"] != "ET_CORE":
            raise LinkError("the file is no ELF core file")
        return tuple(
            (int(part["p_paddr"]), int(part["p_offset"]), int(part["p_filesz"]))
            for part in elf.iter_segments()
            if part["p_type"] == "PT_LOAD" and part["p_filesz"]
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever the ELF reader raises on a damaged file into one LinkError."""
    try:
        yield
    except LinkError:
        raise
    except Exception as error:  # pyelftools raises a dozen types on damaged input, documented nowhere
        raise LinkError(f"{name} is not a kernel built by kgen, or is damaged: it cannot be read as ELF") from error


def _open(data: bytes, name: str) -> ELFFile:
    """Return the file as pyelftools sees it. Raises LinkError when it is no ELF, not i386, or not of our making."""
    from elftools.elf.elffile import ELFFile

    foreign = f"{name} is not a kernel built by kgen"
    if not data.startswith(IDENT[:4]):
        raise LinkError(f"{foreign}: it is not an ELF file")
    elf = ELFFile(BytesIO(data))
    if (elf.header["e_ident"]["EI_CLASS"], elf.header["e_machine"]) != ("ELFCLASS32", "EM_386"):
        raise LinkError(f"{foreign}: it is not a 32-bit x86 file")
    if elf.get_section_by_name(SPEC_SECTION) is None:
        raise LinkError(f"{foreign}: it has no {SPEC_SECTION} section")
    return elf


def _section(elf: ELFFile, name: str) -> ElfSection:
    """Return the section of that name. Raises LookupError, for _explained() to explain."""
    section = elf.get_section_by_name(name)
    if section is None:
        raise LookupError(name)
    return section


def _symbol_table(elf: ELFFile) -> SymbolTableSection:
    """Return the global symbol table. Raises LookupError, for _explained() to explain."""
    from elftools.elf.sections import SymbolTableSection

    table = _section(elf, ".symtab")
    if not isinstance(table, SymbolTableSection):
        raise LookupError(table.name)
    return table


def _build_id_offsets(elf: ELFFile) -> list[int]:
    """Return where in the file the build id is: in the note and, if the guest wants to know it, in a loaded section."""
    note = _section(elf, BUILD_ID_SECTION)
    offsets = [int(note["sh_offset"] + note["sh_size"]) - BUILD_ID_BYTES]
    for symbol in _symbol_table(elf).get_symbol_by_name(BUILD_ID_SYMBOL) or ():
        if symbol["st_shndx"] != "SHN_ABS":
            section = elf.get_section(symbol["st_shndx"])
            offsets.append(int(section["sh_offset"] + symbol["st_value"] - section["sh_addr"]))
    return offsets


def _recompute(data: bytes, offsets: Iterable[int]) -> bytes:
    """Return the digest of the file with every copy of the build id zeroed."""
    blank = bytearray(data)
    for offset in offsets:
        blank[offset : offset + BUILD_ID_BYTES] = bytes(BUILD_ID_BYTES)
    return digest(bytes(blank))


def _memory_sections(elf: ELFFile) -> Iterator[Section]:
    """Yield the sections that occupy guest memory, as link() got them."""
    flags: dict[tuple[int, bool], SectionFlags] = {
        (value, name == "awn"): name for name, value in SECTION_FLAGS.items()
    }
    for section in elf.iter_sections():
        if section["sh_flags"] & SHF_ALLOC:
            nobits = section["sh_type"] == "SHT_NOBITS"
            yield Section(
                name=section.name,
                address=section["sh_addr"],
                size=section["sh_size"],
                data=b"" if nobits else section.data(),
                align=section["sh_addralign"],
                flags=flags[section["sh_flags"], nobits],
            )
