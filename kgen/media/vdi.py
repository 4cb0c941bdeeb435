"""VDI 1.1, dynamic: VirtualBox's own format (the structures of its VDICore.h).

Header, block map, then 1 MiB blocks in the order of the disk; the map holds each disk block's number in the file.
"""

from __future__ import annotations

import ctypes
import struct

from kgen.media._container import MIB, PAGE, Disk, Stored, container, octets
from kgen.media.img import CYLINDERS, DISK_BYTES, HEADS, SECTOR, TRACK_SECTORS

BLOCK = MIB
_SIGNATURE = 0xBEDA107F
_VERSION = 0x00010001
_DYNAMIC = 1
_FREE = 0xFFFFFFFF  # reads as zeros in an image without a parent
_BLOCKS = DISK_BYTES // BLOCK
#: File offsets: the map in the sector after the header, the data in the page after the map.
_MAP, _DATA = SECTOR, PAGE


class _Geometry(ctypes.LittleEndianStructure):
    _fields_ = (
        ("cylinders", ctypes.c_uint32),
        ("heads", ctypes.c_uint32),
        ("track_sectors", ctypes.c_uint32),
        ("sector_bytes", ctypes.c_uint32),
    )


class _Header(ctypes.LittleEndianStructure):
    """VDIPREHEADER and VDIHEADER1PLUS, which counts its own size without the former's 72 bytes."""

    _fields_ = (
        ("file_info", ctypes.c_ubyte * 64),
        ("signature", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("header_bytes", ctypes.c_uint32),
        ("image_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("comment", ctypes.c_ubyte * 256),
        ("map_offset", ctypes.c_uint32),
        ("data_offset", ctypes.c_uint32),
        ("legacy_geometry", _Geometry),
        ("reserved", ctypes.c_uint32),
        ("disk_bytes", ctypes.c_uint64),
        ("block_bytes", ctypes.c_uint32),
        ("block_extra_bytes", ctypes.c_uint32),
        ("blocks", ctypes.c_uint32),
        ("blocks_allocated", ctypes.c_uint32),
        ("uuid_create", ctypes.c_ubyte * 16),
        ("uuid_modify", ctypes.c_ubyte * 16),
        ("uuid_linkage", ctypes.c_ubyte * 16),
        ("uuid_parent_modify", ctypes.c_ubyte * 16),
        ("bios_geometry", _Geometry),
    )


def contain(disk: Disk, file_name: str) -> Stored:
    """Return the disk as a dynamic VDI."""
    packed = disk.packed(BLOCK, _DATA)
    place = {block: k for k, block in enumerate(packed.blocks)}
    geometry = _Geometry(CYLINDERS, HEADS, TRACK_SECTORS, SECTOR)
    header = _Header(
        file_info=octets(b"<<< kgen disk image >>>\n", 64),
        signature=_SIGNATURE,
        version=_VERSION,
        header_bytes=ctypes.sizeof(_Header) - _Header.header_bytes.offset,
        image_type=_DYNAMIC,
        map_offset=_MAP,
        data_offset=_DATA,
        legacy_geometry=geometry,
        disk_bytes=DISK_BYTES,
        block_bytes=BLOCK,
        blocks=_BLOCKS,
        blocks_allocated=len(place),
        # VirtualBox keeps an RTUUID with its first three numbers in little-endian order, as Windows does.
        uuid_create=octets(disk.uuid("vdi").bytes_le, 16),
        uuid_modify=octets(disk.uuid("vdi modification").bytes_le, 16),
        bios_geometry=geometry,
    )
    block_map = struct.pack(f"<{_BLOCKS}I", *(place.get(block, _FREE) for block in range(_BLOCKS)))
    return Stored(((0, bytes(header)), (_MAP, block_map), *packed.extents), packed.end)


FORMAT = container("vdi", ".vdi", "dynamic VDI: VirtualBox", contain)
