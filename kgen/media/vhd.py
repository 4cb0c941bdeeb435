"""VHD, fixed: the raw disk, then a footer (Microsoft, Virtual Hard Disk Image Format Specification 1.0).

Fixed, because every reader of VHD supports this kind, and for a program that does not know the format the data are a
raw disk. Most of the file is holes. By the specification's rule the geometry of 34816 sectors is exactly 512 x 4 x 17,
so readers that use the geometry and readers that use the current size see the same disk.
"""

from __future__ import annotations

import ctypes

from kgen.media._container import Disk, Stored, container, octets
from kgen.media.img import CYLINDERS, DISK_BYTES, HEADS, TRACK_SECTORS

_FEATURE_RESERVED = 2  # "must always be set"
_VERSION = 0x00010000
_NO_DATA_OFFSET = 0xFFFFFFFFFFFFFFFF
_FIXED = 2


class _Footer(ctypes.BigEndianStructure):
    """The last 512 bytes, "Hard Disk Footer Format"."""

    _fields_ = (
        ("cookie", ctypes.c_ubyte * 8),
        ("features", ctypes.c_uint32),
        ("format_version", ctypes.c_uint32),
        ("data_offset", ctypes.c_uint64),
        ("time_stamp", ctypes.c_uint32),  # seconds since 2000-01-01; ours is always that day
        ("creator_application", ctypes.c_ubyte * 4),
        ("creator_version", ctypes.c_uint32),
        ("creator_host_os", ctypes.c_ubyte * 4),
        ("original_size", ctypes.c_uint64),
        ("current_size", ctypes.c_uint64),
        ("cylinders", ctypes.c_uint16),
        ("heads", ctypes.c_uint8),
        ("track_sectors", ctypes.c_uint8),
        ("disk_type", ctypes.c_uint32),
        #: The ones' complement of the sum of the other bytes.
        ("checksum", ctypes.c_uint32),
        ("unique_id", ctypes.c_ubyte * 16),
        ("saved_state", ctypes.c_uint8),
        ("reserved", ctypes.c_ubyte * 427),
    )


def footer(disk: Disk) -> bytes:
    """Return the footer: the 512 bytes after the data."""
    made = _Footer(
        cookie=octets(b"conectix", 8),
        features=_FEATURE_RESERVED,
        format_version=_VERSION,
        data_offset=_NO_DATA_OFFSET,
        creator_application=octets(b"kgen", 4),
        creator_version=_VERSION,
        creator_host_os=octets(b"Wi2k", 4),  # the spec knows two systems: Windows and Macintosh
        original_size=DISK_BYTES,
        current_size=DISK_BYTES,
        cylinders=CYLINDERS,
        heads=HEADS,
        track_sectors=TRACK_SECTORS,
        disk_type=_FIXED,
        unique_id=octets(disk.uuid("vhd").bytes, 16),
    )
    made.checksum = ~sum(bytes(made)) & 0xFFFFFFFF
    return bytes(made)


def contain(disk: Disk, file_name: str) -> Stored:
    """Return the disk as a fixed VHD."""
    data = disk.packed(DISK_BYTES, 0).extents
    end = footer(disk)
    return Stored((*data, (DISK_BYTES, end)), DISK_BYTES + len(end))


FORMAT = container("vhd", ".vhd", "fixed VHD: Hyper-V, Virtual PC, VirtualBox, XenServer", contain)
