"""PE files for UEFI: headers as ctypes structures (Microsoft, PE Format), sections, a relocation table with no entries.

The code is position-independent, so there is nothing to relocate. The table is there because a file without one may be
loaded only at its preferred address.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import LittleEndianStructure, c_char, c_uint8, c_uint16, c_uint32, c_uint64
from dataclasses import dataclass
from enum import IntEnum, IntFlag

#: Sections are at multiples of this in memory, and at multiples of FILE_ALIGN in the file.
PAGE = 4096
FILE_ALIGN = 512
_PE32, _PE32_PLUS = 0x10B, 0x20B
_UEFI_APPLICATION = 10
_RELOCATIONS = 5  # the number of their entry among the data directories
_DIRECTORIES = 16
_NX_COMPATIBLE = 0x100
_RELOC_ABSOLUTE = 0  # a relocation that changes nothing
#: Packed structures have this layout in every Python; from 3.14 on they must say so.
_LAYOUT = "ms"


class Machine(IntEnum):
    """The processor mode that an application is for; the value is its number in the file header."""

    IA32 = 0x14C
    X64 = 0x8664


class Access(IntFlag):
    """What a section is: bits of its characteristics."""

    CODE = 0x20
    DATA = 0x40
    DISCARDABLE = 0x02000000
    EXECUTE = 0x20000000
    READ = 0x40000000
    WRITE = 0x80000000


class _FileHeader(LittleEndianStructure):
    _pack_ = 1
    _layout_ = _LAYOUT
    _fields_ = (
        ("Signature", c_char * 4),
        ("Machine", c_uint16),
        ("NumberOfSections", c_uint16),
        ("TimeDateStamp", c_uint32),
        ("PointerToSymbolTable", c_uint32),
        ("NumberOfSymbols", c_uint32),
        ("SizeOfOptionalHeader", c_uint16),
        ("Characteristics", c_uint16),
    )


class _DataDirectory(LittleEndianStructure):
    _pack_ = 1
    _layout_ = _LAYOUT
    _fields_ = (("VirtualAddress", c_uint32), ("Size", c_uint32))


class _SectionHeader(LittleEndianStructure):
    _pack_ = 1
    _layout_ = _LAYOUT
    _fields_ = (
        ("Name", c_char * 8),
        ("VirtualSize", c_uint32),
        ("VirtualAddress", c_uint32),
        ("SizeOfRawData", c_uint32),
        ("PointerToRawData", c_uint32),
        ("Unused", c_uint8 * 12),
        ("Characteristics", c_uint32),
    )


def _optional_header(wide: bool) -> type[LittleEndianStructure]:
    address = c_uint64 if wide else c_uint32
    fields = (
        ("Magic", c_uint16),
        ("MajorLinkerVersion", c_uint8),
        ("MinorLinkerVersion", c_uint8),
        ("SizeOfCode", c_uint32),
        ("SizeOfInitializedData", c_uint32),
        ("SizeOfUninitializedData", c_uint32),
        ("AddressOfEntryPoint", c_uint32),
        ("BaseOfCode", c_uint32),
        *(() if wide else (("BaseOfData", c_uint32),)),
        ("ImageBase", address),
        ("SectionAlignment", c_uint32),
        ("FileAlignment", c_uint32),
        ("MajorOperatingSystemVersion", c_uint16),
        ("MinorOperatingSystemVersion", c_uint16),
        ("MajorImageVersion", c_uint16),
        ("MinorImageVersion", c_uint16),
        ("MajorSubsystemVersion", c_uint16),
        ("MinorSubsystemVersion", c_uint16),
        ("Win32VersionValue", c_uint32),
        ("SizeOfImage", c_uint32),
        ("SizeOfHeaders", c_uint32),
        ("CheckSum", c_uint32),
        ("Subsystem", c_uint16),
        ("DllCharacteristics", c_uint16),
        ("SizeOfStackReserve", address),
        ("SizeOfStackCommit", address),
        ("SizeOfHeapReserve", address),
        ("SizeOfHeapCommit", address),
        ("LoaderFlags", c_uint32),
        ("NumberOfRvaAndSizes", c_uint32),
        ("DataDirectory", _DataDirectory * _DIRECTORIES),
    )
    return type("OptionalHeader", (LittleEndianStructure,), {"_pack_": 1, "_layout_": _LAYOUT, "_fields_": fields})


@dataclass(frozen=True)
class PeSection:
    """A section of the file."""

    #: At most 8 letters.
    name: str
    #: Where it is loaded: a multiple of PAGE, counted from the start of the loaded file.
    address: int
    data: bytes
    access: Access


def image_end(sections: Sequence[PeSection]) -> int:
    """Return the address of the first page after the sections."""
    return max(_up(section.address + len(section.data), PAGE) for section in sections)


def link(machine: Machine, sections: Sequence[PeSection], entry: int) -> bytes:
    """Return a UEFI application that starts at ``entry``.

    ``sections`` are in the order of their addresses and do not overlap. Deterministic.
    """
    wide = machine is Machine.X64
    # a block for page 0 with two entries without effect: 8 bytes of header, 2 for each entry
    relocations = (
        PAGE.to_bytes(4, "little") + (12).to_bytes(4, "little") + (_RELOC_ABSOLUTE << 12).to_bytes(4, "little")
    )
    reloc = PeSection(".reloc", image_end(sections), relocations, Access.DATA | Access.READ | Access.DISCARDABLE)
    everything = (*sections, reloc)
    optional_class = _optional_header(wide)
    header_bytes = _DOS_BYTES + ctypes.sizeof(_FileHeader) + ctypes.sizeof(optional_class)
    header_bytes = _up(header_bytes + len(everything) * ctypes.sizeof(_SectionHeader), FILE_ALIGN)
    code = [section for section in sections if section.access & Access.CODE]
    data = [section for section in everything if section.access & Access.DATA]
    directories = (_DataDirectory * _DIRECTORIES)()
    directories[_RELOCATIONS] = _DataDirectory(reloc.address, len(reloc.data))
    optional = optional_class(
        Magic=_PE32_PLUS if wide else _PE32,
        SizeOfCode=sum(_up(len(section.data), FILE_ALIGN) for section in code),
        SizeOfInitializedData=sum(_up(len(section.data), FILE_ALIGN) for section in data),
        AddressOfEntryPoint=entry,
        BaseOfCode=code[0].address,
        SectionAlignment=PAGE,
        FileAlignment=FILE_ALIGN,
        SizeOfImage=image_end(everything),
        SizeOfHeaders=header_bytes,
        Subsystem=_UEFI_APPLICATION,
        DllCharacteristics=_NX_COMPATIBLE,
        NumberOfRvaAndSizes=_DIRECTORIES,
        DataDirectory=directories,
    )
    file_header = _FileHeader(
        Signature=b"PE\0\0",
        Machine=machine,
        NumberOfSections=len(everything),
        SizeOfOptionalHeader=ctypes.sizeof(optional),
        # executable, no line numbers, no symbols; and for 32-bit machines, or beyond 2 GiB
        Characteristics=0x000E | (0x0020 if wide else 0x0100),
    )
    headers, bodies, at = [], [], header_bytes
    for section in everything:
        body = section.data + bytes(-len(section.data) % FILE_ALIGN)
        headers.append(
            _SectionHeader(
                Name=section.name.encode(),
                VirtualSize=len(section.data),
                VirtualAddress=section.address,
                SizeOfRawData=len(body),
                PointerToRawData=at,
                Characteristics=section.access,
            )
        )
        bodies.append(body)
        at += len(body)
    head = b"".join([_dos_header(), bytes(file_header), bytes(optional), *map(bytes, headers)])
    return b"".join([head + bytes(header_bytes - len(head)), *bodies])


_DOS_BYTES = 64


def _dos_header() -> bytes:
    """Return the MS-DOS header, of which only the signature and the place of the PE header are used."""
    return b"MZ" + bytes(_DOS_BYTES - 6) + _DOS_BYTES.to_bytes(4, "little")


def _up(value: int, unit: int) -> int:
    return value + -value % unit
