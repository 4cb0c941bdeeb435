"""ISO 9660 with two El Torito boot entries (ECMA-119, 4th edition; El Torito 1.0): descriptors, directories, catalog.

What the files hold is not copied: the caller says where on the disk it lies.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kgen.errors import MediaError

BLOCK = 2048
#: The block of the first descriptor. The blocks before it are the system area, which the standard leaves free.
FIRST_BLOCK = 16
_BIOS, _EFI = 0x00, 0xEF
_BOOTABLE, _NO_EMULATION = 0x88, 0
#: 1 January 1980, in the standard's two notations.
_SHORT_DATE = bytes([80, 1, 1, 0, 0, 0, 0])
_LONG_DATE = b"1980010100000000\0"
_NO_DATE = b"0" * 16 + b"\0"
_DIRECTORY = 2


@dataclass(frozen=True)
class Extent:
    """Where the bytes of a file are."""

    #: The number of the first block of 2048 bytes.
    block: int
    #: In bytes.
    size: int


@dataclass(frozen=True)
class BootEntry:
    """What firmware starts."""

    #: The number of the first block of 2048 bytes.
    block: int
    #: How many sectors of 512 bytes.
    sectors: int
    #: For UEFI, not for a BIOS.
    efi: bool = False


def iso9660(files: Mapping[str, Extent], boot: Sequence[BootEntry], *, label: str, blocks: int, end: int) -> bytes:
    """Return the blocks from FIRST_BLOCK on: descriptors, boot catalog, path tables, directories.

    ``files`` maps paths, as ``EFI/BOOT/BOOTX64.EFI``, to what they hold; ``boot`` has the default entry first.
    ``label`` has up to 32 capital letters, digits and ``_``; ``blocks`` is the size of the whole volume.
    Deterministic. Raises MediaError when the result would reach block ``end``.
    """
    folders = ["", *sorted({"/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)})]
    # the path table is sorted by parents, then by names: level by level
    folders.sort(key=lambda folder: (folder.count("/") if folder else -1, folder))
    catalog = FIRST_BLOCK + 3
    little, big = catalog + 1, catalog + 2
    places = {folder: Extent(catalog + 3 + at, BLOCK) for at, folder in enumerate(folders)}
    if catalog + 3 + len(folders) > end:
        raise MediaError(f"the directories reach beyond block {end}")
    root = _record(b"\0", places[""], _DIRECTORY)
    table = _path_table(folders, places, "<")
    primary = struct.pack(
        "<B5sBB32s32s8x8s32xHHHHHH8sIIII34s128s128s128s128s37s37s37s17s17s17s17sBx",
        1,
        b"CD001",
        1,
        0,
        b" " * 32,
        label.encode("ascii").ljust(32),
        _both32(blocks),
        *(1, 0x100, 1, 0x100),  # one volume, the first
        *(BLOCK, BLOCK >> 8 | (BLOCK & 0xFF) << 8),
        _both32(len(table)),
        little,
        0,
        int.from_bytes(big.to_bytes(4, "big"), "little"),
        0,
        root,
        *(b" " * 128, b" " * 128, b" " * 128, b"KGEN".ljust(128)),
        *(b" " * 37,) * 3,
        *(_LONG_DATE, _LONG_DATE, _NO_DATE, _LONG_DATE),
        1,
    )
    record = b"\0CD001\1" + b"EL TORITO SPECIFICATION".ljust(64, b"\0") + struct.pack("<I", catalog)
    terminator = b"\xffCD001\1"
    pieces = [primary, record, terminator, _catalog(boot), table, _path_table(folders, places, ">")]
    for folder in folders:
        parent = folder.rpartition("/")[0]
        entries = [_record(b"\0", places[folder], _DIRECTORY), _record(b"\1", places[parent], _DIRECTORY)]
        inside = {path: (places[path], _DIRECTORY) for path in folders if path and path.rpartition("/")[0] == folder}
        inside |= {path: (extent, 0) for path, extent in files.items() if path.rpartition("/")[0] == folder}
        for path, (extent, flags) in sorted(inside.items()):
            name = path.rpartition("/")[2]
            entries.append(_record((name if flags else f"{name};1").encode("ascii"), extent, flags))
        pieces.append(b"".join(entries))
    for piece in pieces:
        if len(piece) > BLOCK:
            raise MediaError("too many files for a directory of one block")
    return b"".join(piece.ljust(BLOCK, b"\0") for piece in pieces)


def _catalog(boot: Sequence[BootEntry]) -> bytes:
    """Return the boot catalog: validation, the default entry, and a section with the others."""
    default, *others = boot
    head = struct.pack("<BBH24sHBB", 1, _platform(default), 0, b"kgen", 0, 0x55, 0xAA)
    total = -sum(word for (word,) in struct.iter_unpack("<H", head)) & 0xFFFF
    head = head[:28] + struct.pack("<H", total) + head[30:]
    entries = [head, _boot_entry(default)]
    for at, entry in enumerate(others):
        last = at == len(others) - 1
        entries.append(struct.pack("<BBH28s", 0x91 if last else 0x90, _platform(entry), 1, b""))
        entries.append(_boot_entry(entry))
    return b"".join(entries)


def _platform(entry: BootEntry) -> int:
    return _EFI if entry.efi else _BIOS


def _boot_entry(entry: BootEntry) -> bytes:
    # load segment 0 stands for 7C0
    return struct.pack("<BBHBBHI20x", _BOOTABLE, _NO_EMULATION, 0, 0, 0, entry.sectors, entry.block)


def _both32(value: int) -> bytes:
    return value.to_bytes(4, "little") + value.to_bytes(4, "big")


def _record(name: bytes, extent: Extent, flags: int) -> bytes:
    """Return a directory record (ECMA-119, 9.1)."""
    size = 33 + len(name) + (len(name) + 1) % 2
    head = struct.pack(
        "<BB8s8s7sBBB4sB",
        size,
        0,
        _both32(extent.block),
        _both32(extent.size),
        _SHORT_DATE,
        flags,
        0,
        0,
        b"\1\0\0\1",
        len(name),
    )
    return (head + name).ljust(size, b"\0")


def _path_table(folders: Sequence[str], places: Mapping[str, Extent], order: str) -> bytes:
    """Return the path table: one record for each directory (ECMA-119, 9.4), with its parent's number in the table."""
    records = []
    for folder in folders:
        name = folder.rpartition("/")[2].encode("ascii") or b"\0"
        parent = folders.index(folder.rpartition("/")[0]) + 1
        records.append(struct.pack(f"{order}BBIH", len(name), 0, places[folder].block, parent) + name)
        records.append(bytes(len(name) % 2))
    return b"".join(records)
