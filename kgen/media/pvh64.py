"""PVH in a 64-bit ELF: for virtual machine monitors that load no other, such as Firecracker and Cloud Hypervisor.

The CPU begins in 32-bit protected mode all the same, at the address in the note, with the address of the loader's
``hvm_start_info`` in EBX (Xen, docs/misc/pvh.pandoc; xen/include/public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY). Formats:
System V ABI, "Object Files", with its 64-bit data types. All fields are aligned naturally.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint16, c_uint32, c_uint64
from pathlib import Path

from kgen.errors import MediaError
from kgen.media import ImageFormat, Payload, write_sparse

_ELF64_LITTLE = b"\x7fELF\x02\x01\x01"
_EXECUTABLE, _X86_64, _VERSION = 2, 62, 1
_LOAD, _NOTE = 1, 4
_ALL, _READ = 7, 4
_PHYS32_ENTRY = 18
_OWNER = b"Xen\0"
_PAGE = 4096
#: Where the kernel begins in the file: behind the part that a loader of Multiboot searches for the kernel's header of
#: that kind, which makes QEMU refuse a 64-bit file (Multiboot 0.6.96, 3.1).
_BEGIN = 8192


class _Header(ctypes.LittleEndianStructure):
    """Elf64_Ehdr."""

    _fields_ = (
        ("ident", ctypes.c_ubyte * 16),
        ("type", c_uint16),
        ("machine", c_uint16),
        ("version", c_uint32),
        ("entry", c_uint64),
        ("program_headers", c_uint64),
        ("section_headers", c_uint64),
        ("flags", c_uint32),
        ("size", c_uint16),
        ("program_header_size", c_uint16),
        ("program_header_count", c_uint16),
        ("section_header_size", c_uint16),
        ("section_header_count", c_uint16),
        ("section_names", c_uint16),
    )


class _Segment(ctypes.LittleEndianStructure):
    """Elf64_Phdr."""

    _fields_ = (
        ("type", c_uint32),
        ("flags", c_uint32),
        ("offset", c_uint64),
        ("virtual", c_uint64),
        ("physical", c_uint64),
        ("in_file", c_uint64),
        ("in_memory", c_uint64),
        ("alignment", c_uint64),
    )


class _PvhNote(ctypes.LittleEndianStructure):
    """Elf64_Nhdr with the owner's name and what it says. Of 8 bytes: QEMU reads as many, others the first four."""

    _fields_ = (
        ("name_size", c_uint32),
        ("entry_size", c_uint32),
        ("type", c_uint32),
        ("name", ctypes.c_char * 4),
        ("entry", c_uint64),
    )


def executable(payload: Payload) -> bytes:
    """Return the whole file. Deterministic. Raises MediaError for a kernel without an entry point for PVH."""
    if not payload.pvh_entry:
        raise MediaError("the kernel has no entry point for PVH")
    note = _PvhNote(len(_OWNER), ctypes.sizeof(c_uint64), _PHYS32_ENTRY, _OWNER, payload.pvh_entry)
    at = ctypes.sizeof(_Header) + 2 * ctypes.sizeof(_Segment)
    header = _Header(
        ident=(ctypes.c_ubyte * 16)(*_ELF64_LITTLE),
        type=_EXECUTABLE,
        machine=_X86_64,
        version=_VERSION,
        entry=payload.pvh_entry,
        program_headers=ctypes.sizeof(_Header),
        size=ctypes.sizeof(_Header),
        program_header_size=ctypes.sizeof(_Segment),
        program_header_count=2,
    )
    size = payload.bss_end - payload.load_address
    start = payload.load_address
    load = _Segment(_LOAD, _ALL, _BEGIN, start, start, len(payload.flat), max(size, len(payload.flat)), _PAGE)
    told = _Segment(_NOTE, _READ, at, 0, 0, ctypes.sizeof(note), ctypes.sizeof(note), 4)
    head = bytes(header) + bytes(load) + bytes(told) + bytes(note)
    return head.ljust(_BEGIN, b"\0") + payload.flat


def write_executable(payload: Payload, path: Path) -> None:
    """Write the file, whole or not at all. Raises MediaError, OutputError."""
    data = executable(payload)
    write_sparse(path, [(0, data)], len(data))


FORMAT = ImageFormat(
    name="pvh64",
    suffix=".pvh64",
    summary="a 64-bit ELF with a PVH note, for loaders that take no 32-bit one",
    write=write_executable,
)
