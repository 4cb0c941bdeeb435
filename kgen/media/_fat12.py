"""A FAT12 file system of 1.44 MB: the EFI system partition (Microsoft, FAT file system specification 1.03).

Each file lies in one piece, so that another file system can point to the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from kgen.errors import MediaError

SECTOR = 512
SECTORS = 2880
_TRACK_SECTORS, _HEADS = 18, 2
_FAT_SECTORS, _FATS = 9, 2
_ROOT_ENTRIES = 224
_MEDIA = 0xF0
_ROOT_SECTOR = 1 + _FATS * _FAT_SECTORS
_DATA_SECTOR = _ROOT_SECTOR + _ROOT_ENTRIES * 32 // SECTOR
#: Clusters are of one sector and numbered from 2.
_CLUSTERS = SECTORS - _DATA_SECTOR
_END_OF_CHAIN = 0xFFF
_ARCHIVE, _DIRECTORY, _LABEL = 0x20, 0x10, 0x08
#: 1 January 1980 always, so that the same input makes the same bytes.
_DATE = 1 << 5 | 1
#: INT 18h, which reports to a BIOS that nothing can be booted here; then halt.
_BOOT_CODE = b"\xcd\x18\xf4\xeb\xfd"


@dataclass(frozen=True)
class Volume:
    """A file system."""

    #: All its bytes.
    data: bytes
    #: Where in them the bytes of each file begin.
    offsets: Mapping[str, int]


def fat12(files: Mapping[str, bytes], *, label: str, serial: int, hidden: int, align: int = SECTOR) -> Volume:
    """Return a volume with these files, by path: names of 8 and 3 capital letters, digits and ``_``, separated by
    ``/``.

    Each file begins at a multiple of ``align`` bytes from the volume's start. ``label`` has up to 11 characters,
    ``serial`` 32 bits; ``hidden`` is the number of sectors before the volume on its disk. The order of the files is
    that of their clusters. Deterministic. Raises MediaError when they do not fit.
    """
    fat = [_MEDIA | 0xF00, _END_OF_CHAIN] + [0] * _CLUSTERS
    data = bytearray(_CLUSTERS * SECTOR)
    offsets: dict[str, int] = {}
    folders = sorted({"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)})
    starts: dict[str, int] = {"": 0}
    free = 2

    def place(size: int) -> int:
        """Return the first cluster of a chain in one piece for so many bytes, 0 for none."""
        nonlocal free
        count = -(-size // SECTOR)
        if not count:
            return 0
        if free + count > len(fat):
            raise MediaError(f"the files do not fit into the {SECTORS * SECTOR} bytes of the EFI system partition")
        for cluster in range(free, free + count):
            fat[cluster] = cluster + 1 if cluster < free + count - 1 else _END_OF_CHAIN
        free += count
        return free - count

    for folder in folders:
        starts[folder] = place(SECTOR)
    for path, contents in files.items():
        while contents and _offset(free) % align:
            free += 1
        starts[path] = place(len(contents))
        if contents:
            offsets[path] = _offset(starts[path])
            at = (starts[path] - 2) * SECTOR
            data[at : at + len(contents)] = contents
    root = b""
    for folder in ("", *folders):
        parent = folder.rpartition("/")[0]
        entries = [_entry(_packed(label), _LABEL, 0, 0)] if not folder else []
        if folder:
            entries += [_entry(b".".ljust(11), _DIRECTORY, starts[folder], 0)]
            entries += [_entry(b"..".ljust(11), _DIRECTORY, starts[parent], 0)]
        for path in (*folders, *files):
            if path.rpartition("/")[0] == folder:
                is_folder = path in folders
                size = 0 if is_folder else len(files[path])
                name = _short(path.rpartition("/")[2])
                entries.append(_entry(name, _DIRECTORY if is_folder else _ARCHIVE, starts[path], size))
        table = b"".join(entries)
        if not folder:
            root = table.ljust(_ROOT_ENTRIES * 32, b"\0")
        elif len(table) > SECTOR:
            raise MediaError(f"more than {SECTOR // 32} entries in a directory", where=folder)
        else:
            at = (starts[folder] - 2) * SECTOR
            data[at : at + len(table)] = table
    boot = _boot_sector(_packed(label), serial, hidden)
    return Volume(b"".join([boot, _FATS * _packed_fat(fat), root, data]), offsets)


def _offset(cluster: int) -> int:
    """Return where a cluster is, in bytes from the volume's start."""
    return (_DATA_SECTOR + cluster - 2) * SECTOR


def _boot_sector(label: bytes, serial: int, hidden: int) -> bytes:
    parameters = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s",
        b"\xeb\x3c\x90",
        b"KGEN    ",
        SECTOR,
        1,  # sectors a cluster
        1,  # reserved: this one
        _FATS,
        _ROOT_ENTRIES,
        SECTORS,
        _MEDIA,
        _FAT_SECTORS,
        _TRACK_SECTORS,
        _HEADS,
        hidden,
        0,  # sectors, where 16 bits are too few
        0,  # drive
        0,
        0x29,  # the next three fields are there
        serial,
        label,
        b"FAT12   ",
    )
    return (parameters + _BOOT_CODE).ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _packed_fat(fat: list[int]) -> bytes:
    """Return entries of 12 bits, two in three bytes."""
    pairs = zip(fat[::2], [*fat[1::2], 0], strict=False)
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs).ljust(_FAT_SECTORS * SECTOR, b"\0")


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack("<11sBBBHHHHHHHI", name, attributes, 0, 0, 0, _DATE, _DATE, 0, 0, _DATE, cluster, size)


def _packed(label: str) -> bytes:
    return label.encode("ascii").ljust(11)


def _short(name: str) -> bytes:
    """Return a name such as ``README.TXT`` as the eleven bytes of a directory entry. Raises MediaError for other
    names."""
    stem, _, extension = name.partition(".")
    plain = (stem + extension).replace("_", "")
    if not (1 <= len(stem) <= 8 and len(extension) <= 3 and plain.isascii() and plain.isalnum() and plain.isupper()):
        raise MediaError(f"{name!r} is not a file name of 8 and 3 capital letters")
    return stem.encode().ljust(8) + extension.encode().ljust(3)
