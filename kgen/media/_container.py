"""What the disk containers share: the raw disk cut into pages, its blocks packed one after the other, identifiers.

Every container stores the same disk, that of ``kgen.media.img.extents``. Blocks that hold nothing but zeros are not
stored where the format can say so; inside a stored block, pages of zeros become holes of the file.
"""

from __future__ import annotations

import ctypes
import hashlib
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import MediaError
from kgen.media import ImageFormat, Payload, write_sparse
from kgen.media.img import DISK_BYTES, extents

#: Bytes at an offset, of a disk or of a file.
Extent = tuple[int, bytes]

#: In bytes; divides the disk and every format's block.
PAGE = 4096
MIB = 1 << 20

#: What our UUIDs are derived in (RFC 9562, version 5).
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "kgen disk image")


@dataclass(frozen=True)
class Stored:
    """A file of exactly ``size`` bytes: ``extents`` in order, zeros between and after them."""

    extents: tuple[Extent, ...]
    size: int


@dataclass(frozen=True)
class Packed:
    """Blocks of a disk as a file holds them."""

    #: Numbers of disk blocks, in order. The k-th of them lies k blocks after the first.
    blocks: tuple[int, ...]
    #: The bytes of the blocks in the file.
    extents: tuple[Extent, ...]
    #: The offset after the last block.
    end: int


@dataclass(frozen=True)
class Disk:
    """The raw disk of DISK_BYTES."""

    #: Number and bytes of each page that is not all zeros, in order.
    pages: tuple[tuple[int, bytes], ...]

    def packed(self, block_bytes: int, start: int) -> Packed:
        """Return the blocks of ``block_bytes``, a multiple of PAGE, that are not all zeros, from file offset ``start``
        on.
        """
        blocks = tuple(sorted({number * PAGE // block_bytes for number, _ in self.pages}))
        place = {block: start + k * block_bytes for k, block in enumerate(blocks)}
        found = []
        for number, data in self.pages:
            block, within = divmod(number * PAGE, block_bytes)
            found.append((place[block] + within, data))
        return Packed(blocks, tuple(found), start + len(blocks) * block_bytes)

    def digest(self, purpose: str) -> bytes:
        """Return a digest of 32 bytes of the disk's content, a different one for each ``purpose``."""
        digest = hashlib.sha256(purpose.encode() + b"\0")
        for number, data in self.pages:
            digest.update(number.to_bytes(8, "little") + data)
        return digest.digest()

    def uuid(self, purpose: str) -> uuid.UUID:
        """Return a UUID derived from ``digest``: the same disk always has the same one."""
        return uuid.uuid5(_NAMESPACE, self.digest(purpose).hex())


def disk_from(parts: Iterable[Extent]) -> Disk:
    """Return the disk that holds these (offset, bytes), zeros elsewhere. Raises MediaError for what lies outside."""
    held: dict[int, bytearray] = {}
    for offset, data in parts:
        if offset < 0 or offset + len(data) > DISK_BYTES:
            raise MediaError(f"{len(data)} bytes at offset {offset} are not within the disk of {DISK_BYTES}")
        at = 0
        while at < len(data):
            number, within = divmod(offset + at, PAGE)
            piece = data[at : at + PAGE - within]
            held.setdefault(number, bytearray(PAGE))[within : within + len(piece)] = piece
            at += len(piece)
    return Disk(tuple((number, bytes(page)) for number, page in sorted(held.items()) if page.count(0) != PAGE))


@dataclass(frozen=True)
class DiskContainer(ImageFormat):
    """A format that stores the raw disk."""

    #: What the file holds, for the disk and the last part of the file's path, which some formats repeat inside. It is
    #: pure and raises MediaError.
    contain: Callable[[Disk, str], Stored]


def container(name: str, suffix: str, summary: str, contain: Callable[[Disk, str], Stored]) -> DiskContainer:
    """Return the format that writes what ``contain`` makes of a kernel's disk; other arguments as in ImageFormat."""

    def write(payload: Payload, path: Path) -> None:
        stored = contain(disk_from(extents(payload)), path.name)
        write_sparse(path, stored.extents, stored.size)

    return DiskContainer(name=name, suffix=suffix, summary=summary, write=write, contain=contain)


def octets(data: bytes, size: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Return a field of ``size`` bytes of a ctypes structure, filled up with zeros. (A c_char array would end at a
    zero.)
    """
    if len(data) > size:
        raise ValueError(f"{len(data)} bytes do not fit into {size}")
    return (ctypes.c_ubyte * size)(*data)
