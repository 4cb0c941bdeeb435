"""VHDX, dynamic ([MS-VHDX]): Hyper-V's current format.

In the file, in MiB: 0 the header section (2.2), 1 an empty log (2.3), 2 the metadata region (2.6), 3 the BAT (2.5),
from 4 on the payload blocks in use, 1 MiB each, in the order of the disk.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import uuid
from collections.abc import Sequence

from kgen.media._container import MIB, Disk, Extent, Stored, container, octets
from kgen.media.img import DISK_BYTES, SECTOR

BLOCK = MIB
_KIB64 = 64 << 10
_HEADERS = (1 * _KIB64, 2 * _KIB64)
_REGION_TABLES = (3 * _KIB64, 4 * _KIB64)
_LOG, _METADATA, _BAT, _DATA = (number * MIB for number in range(1, 5))
_VERSION = 1
_PHYSICAL_SECTOR = 4096
_BLOCKS = DISK_BYTES // BLOCK

#: States of payload blocks (2.5.1.1). Not PAYLOAD_BLOCK_NOT_PRESENT for zeros: its contents are undefined.
_ZERO, _FULLY_PRESENT = 2, 6

#: Regions (2.2.3.2) and metadata items (2.6.2).
_BAT_REGION = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VIRTUAL_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_VIRTUAL_DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_LOGICAL_SECTOR_SIZE = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PHYSICAL_SECTOR_SIZE = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")

_REQUIRED_REGION = 1
_IS_VIRTUAL_DISK, _IS_REQUIRED = 2, 4

_Guid = ctypes.c_ubyte * 16


class _Header(ctypes.LittleEndianStructure):
    """2.2.2; a log GUID of zeros says that there is nothing in the log."""

    _fields_ = (
        ("signature", ctypes.c_ubyte * 4),
        ("checksum", ctypes.c_uint32),
        ("sequence_number", ctypes.c_uint64),
        ("file_write_guid", _Guid),
        ("data_write_guid", _Guid),
        ("log_guid", _Guid),
        ("log_version", ctypes.c_uint16),
        ("version", ctypes.c_uint16),
        ("log_length", ctypes.c_uint32),
        ("log_offset", ctypes.c_uint64),
        ("reserved", ctypes.c_ubyte * 4016),
    )


class _RegionTable(ctypes.LittleEndianStructure):
    """2.2.3.1; the entries follow, and zeros up to 64 KiB."""

    _fields_ = (
        ("signature", ctypes.c_ubyte * 4),
        ("checksum", ctypes.c_uint32),
        ("entry_count", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class _RegionEntry(ctypes.LittleEndianStructure):
    """2.2.3.2"""

    _fields_ = (
        ("guid", _Guid),
        ("file_offset", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("required", ctypes.c_uint32),
    )


class _MetadataTable(ctypes.LittleEndianStructure):
    """2.6.1.1; the entries follow."""

    _fields_ = (
        ("signature", ctypes.c_ubyte * 8),
        ("reserved", ctypes.c_uint16),
        ("entry_count", ctypes.c_uint16),
        ("reserved2", ctypes.c_uint32 * 5),
    )


class _MetadataEntry(ctypes.LittleEndianStructure):
    """2.6.1.2; the offset counts from the start of the region."""

    _fields_ = (
        ("item_id", _Guid),
        ("offset", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """CRC-32C (Castagnoli) of each byte; the polynomial is 1EDC6F41h, here with its bits reversed."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """Return the checksum of headers and region tables (2.2.2, 2.2.3.1)."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _guid(value: uuid.UUID) -> ctypes.Array[ctypes.c_ubyte]:
    return octets(value.bytes_le, 16)


def _sealed(data: bytes) -> bytes:
    """Return the same with its checksum, the second dword, which counts as zero."""
    return data[:4] + struct.pack("<I", crc32c(data)) + data[8:]


def _header(disk: Disk, sequence_number: int) -> bytes:
    header = _Header(
        signature=octets(b"head", 4),
        sequence_number=sequence_number,
        file_write_guid=_guid(disk.uuid("vhdx file")),
        data_write_guid=_guid(disk.uuid("vhdx data")),
        version=_VERSION,
        log_length=MIB,
        log_offset=_LOG,
    )
    return _sealed(bytes(header))


def _region_table() -> bytes:
    regions = ((_BAT_REGION, _BAT), (_METADATA_REGION, _METADATA))
    entries = [_RegionEntry(_guid(guid), offset, MIB, _REQUIRED_REGION) for guid, offset in regions]
    table = bytes(_RegionTable(signature=octets(b"regi", 4), entry_count=len(entries)))
    return _sealed((table + b"".join(map(bytes, entries))).ljust(_KIB64, b"\0"))


def _metadata(disk: Disk) -> Sequence[Extent]:
    """Return the metadata table and, from 64 KiB on in its region, its items."""
    items = (
        (_FILE_PARAMETERS, struct.pack("<II", BLOCK, 0), _IS_REQUIRED),
        (_VIRTUAL_DISK_SIZE, struct.pack("<Q", DISK_BYTES), _IS_REQUIRED | _IS_VIRTUAL_DISK),
        (_VIRTUAL_DISK_ID, disk.uuid("vhdx disk").bytes_le, _IS_REQUIRED | _IS_VIRTUAL_DISK),
        (_LOGICAL_SECTOR_SIZE, struct.pack("<I", SECTOR), _IS_REQUIRED | _IS_VIRTUAL_DISK),
        (_PHYSICAL_SECTOR_SIZE, struct.pack("<I", _PHYSICAL_SECTOR), _IS_REQUIRED | _IS_VIRTUAL_DISK),
    )
    table = bytes(_MetadataTable(signature=octets(b"metadata", 8), entry_count=len(items)))
    values = b""
    for item, value, flags in items:
        table += bytes(_MetadataEntry(_guid(item), _KIB64 + len(values), len(value), flags))
        values += value
    return ((_METADATA, table), (_METADATA + _KIB64, values))


def contain(disk: Disk, file_name: str) -> Stored:
    """Return the disk as a dynamic VHDX."""
    packed = disk.packed(BLOCK, _DATA)
    # An entry is the state and, from bit 20 on, the offset in MiB. There is no bitmap entry among so few.
    place = {block: _DATA + k * BLOCK | _FULLY_PRESENT for k, block in enumerate(packed.blocks)}
    bat = struct.pack(f"<{_BLOCKS}Q", *(place.get(block, _ZERO) for block in range(_BLOCKS)))
    regions = _region_table()
    extents = (
        (0, b"vhdxfile" + "kgen".encode("utf-16-le")),
        # The one with the greater number is the current one.
        *((offset, _header(disk, number)) for number, offset in enumerate(_HEADERS, 1)),
        *((offset, regions) for offset in _REGION_TABLES),
        *_metadata(disk),
        (_BAT, bat),
        *packed.extents,
    )
    return Stored(extents, packed.end)


FORMAT = container("vhdx", ".vhdx", "dynamic VHDX: Hyper-V (Windows Server 2012 and newer)", contain)
