"""VMDK, monolithicSparse: one file with its descriptor inside (VMware, Virtual Disk Format 5.0, hosted sparse extents).

    sector 0       sparse extent header
    1-20           descriptor, a text
    21             redundant grain directory, 22-25 its grain table
    26             grain directory, 27-30 its grain table
    128            the grains in use, 64 KiB each, in the order of the disk

A grain table has 512 entries, so this disk's 272 grains need one.
"""

from __future__ import annotations

import struct

from kgen.errors import MediaError
from kgen.media._container import Disk, Stored, container
from kgen.media.img import CYLINDERS, DISK_BYTES, DISK_SECTORS, HEADS, SECTOR, TRACK_SECTORS

GRAIN_SECTORS = 128
_TABLE_ENTRIES = 512
_TABLE_SECTORS = _TABLE_ENTRIES * 4 // SECTOR
_GRAINS = DISK_SECTORS // GRAIN_SECTORS

#: Where things are, in sectors.
_DESCRIPTOR, _DESCRIPTOR_SECTORS = 1, 20
_REDUNDANT = _DESCRIPTOR + _DESCRIPTOR_SECTORS
_DIRECTORY = _REDUNDANT + 1 + _TABLE_SECTORS
_DATA = GRAIN_SECTORS

_VERSION = 1
_FLAGS = 1 | 2  # the line end test below is valid; the redundant grain table is used
_LINE_END_TEST = b"\n \r\n"  # a transfer in text mode would change these bytes


def descriptor(disk: Disk, file_name: str) -> bytes:
    """Return the embedded descriptor. Raises MediaError for a file name that cannot be written in it."""
    # Without its top bit: all ones would mean "no parent", all ones but the last is VMware's id of a fresh disk.
    content_id = int.from_bytes(disk.digest("vmdk")[:4], "little") & 0x7FFFFFFF
    if '"' in file_name or not file_name.isprintable():
        raise MediaError("a VMDK holds its own name, and this one cannot be written in it", where=repr(file_name))
    text = f"""\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={content_id:08x}
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW {DISK_SECTORS} SPARSE "{file_name}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{CYLINDERS}"
ddb.geometry.heads = "{HEADS}"
ddb.geometry.sectors = "{TRACK_SECTORS}"
ddb.adapterType = "ide"
ddb.uuid.image="{disk.uuid("vmdk")}"
ddb.uuid.modification="{disk.uuid("vmdk modification")}"
ddb.uuid.parent="00000000-0000-0000-0000-000000000000"
ddb.uuid.parentmodification="00000000-0000-0000-0000-000000000000"
"""
    return text.encode()


def _header() -> bytes:
    """Return the SparseExtentHeader: 512 bytes, packed."""
    return struct.pack(
        "<4sIIQQQQIQQQB4sH433x",
        b"KDMV",
        _VERSION,
        _FLAGS,
        DISK_SECTORS,
        GRAIN_SECTORS,
        _DESCRIPTOR,
        _DESCRIPTOR_SECTORS,
        _TABLE_ENTRIES,
        _REDUNDANT,
        _DIRECTORY,
        _DATA,  # how many sectors the metadata take
        0,  # shut down cleanly
        _LINE_END_TEST,
        0,  # no compression
    )


def _directory(at: int, table: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """Return a grain directory in sector ``at`` and, after it, its one table."""
    return (at * SECTOR, struct.pack("<I", at + 1)), ((at + 1) * SECTOR, table)


def contain(disk: Disk, file_name: str) -> Stored:
    """Return the disk as a sparse VMDK that is to be called ``file_name``."""
    packed = disk.packed(GRAIN_SECTORS * SECTOR, _DATA * SECTOR)
    place = {grain: _DATA + k * GRAIN_SECTORS for k, grain in enumerate(packed.blocks)}
    table = struct.pack(f"<{_TABLE_ENTRIES}I", *(place.get(grain, 0) for grain in range(_TABLE_ENTRIES)))
    extents = (
        (0, _header()),
        (_DESCRIPTOR * SECTOR, descriptor(disk, file_name)),
        *_directory(_REDUNDANT, table),
        *_directory(_DIRECTORY, table),
        *packed.extents,
    )
    return Stored(extents, packed.end)


# One grain table is enough, and the last grain is complete.
assert _GRAINS <= _TABLE_ENTRIES
assert DISK_BYTES == _GRAINS * GRAIN_SECTORS * SECTOR

FORMAT = container("vmdk", ".vmdk", "sparse VMDK in one file: VMware, VirtualBox", contain)
