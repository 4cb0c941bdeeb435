"""Raw disk image that boots from a disk, a USB stick or a CD, by BIOS or UEFI. All other formats store its bytes.

==========  ========  ==========================================================================================
offset      LBA 512   what
==========  ========  ==========================================================================================
0           0         boot sector and loader (kernel_templates/mbr.asm, loader.asm), with the partition table
0x8000      64        ISO 9660: descriptors, boot catalog, directories
0xF000      120       boot sector and loader again, where a BIOS finds them that boots from a CD
0x10000     128       the kernel's flat bytes
0xFF000     2040      EFI system partition, FAT12: BOOTX64.EFI and BOOTIA32.EFI, each with the kernel in it
==========  ========  ==========================================================================================

The file is 17 MiB: a whole number of MiB and of cylinders (512 cylinders x 4 heads x 17 sectors), so no hypervisor or
BIOS has to round it.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import MediaError
from kgen.media import ImageFormat, Payload, write_sparse
from kgen.media._bios import ENTRY_MAGIC, LOADED_BYTES, MAX_FLAT, PAD_SECTORS, SECTOR, boot_head, checksum, padded
from kgen.media._fat12 import SECTORS as ESP_SECTORS
from kgen.media._fat12 import fat12
from kgen.media._iso9660 import BLOCK, FIRST_BLOCK, BootEntry, Extent, iso9660
from kgen.media._pe import Machine
from kgen.media.efi import FILE_NAMES, application

__all__ = ["ENTRY_MAGIC", "MAX_FLAT", "SECTOR", "checksum"]

CYLINDERS, HEADS, TRACK_SECTORS = 512, 4, 17
DISK_SECTORS = CYLINDERS * HEADS * TRACK_SECTORS
DISK_BYTES = DISK_SECTORS * SECTOR

#: Offsets in bytes. The second copy of the loader is in the last block before the kernel.
KERNEL_OFFSET = 0x10000
CD_BOOT_OFFSET = KERNEL_OFFSET - 2 * BLOCK
#: The first sector of a cylinder that is a multiple of eight after the largest kernel: the BIOS's own partition then
#: ends with a cylinder.
ESP_SECTOR = 30 * HEADS * TRACK_SECTORS
ESP_OFFSET = ESP_SECTOR * SECTOR

BIOS_KIND, ESP_KIND = 0x7F, 0xEF


@dataclass(frozen=True)
class Partition:
    """A primary partition."""

    #: The LBA of its first sector.
    first: int
    #: How many sectors of 512 bytes.
    count: int
    #: The type byte.
    kind: int = BIOS_KIND  # reserved for individual or local use: no system mounts or repairs it
    active: bool = True

    def entry(self) -> bytes:
        """Return the 16 bytes in the partition table. Raises MediaError when it does not lie within the disk."""
        last = self.first + self.count - 1
        if not 1 <= self.first <= last < DISK_SECTORS:
            raise MediaError(f"partition {self.first}-{last} is not within sectors 1-{DISK_SECTORS - 1}")
        head = bytes([0x80 if self.active else 0]) + chs(self.first) + bytes([self.kind]) + chs(last)
        return head + struct.pack("<II", self.first, self.count)


#: First the BIOS's partition, from after the boot sector to the end of a cylinder: some BIOSes derive the geometry from
#: the first entry or the active one. Then the EFI system partition.
PARTITIONS = (
    Partition(1, ESP_SECTOR - 1),
    Partition(ESP_SECTOR, ESP_SECTORS, kind=ESP_KIND, active=False),
)


def chs(lba: int) -> bytes:
    """Return a sector number as the three bytes head, sector and cylinder of a partition entry (in this disk's
    geometry).
    """
    track, sector = divmod(lba, TRACK_SECTORS)
    cylinder, head = divmod(track, HEADS)
    return bytes([head, (sector + 1) | (cylinder >> 8) << 6, cylinder & 0xFF])


def bios_disk(payload: Payload, *, start_lba: int = 0, partitions: Sequence[Partition] = PARTITIONS) -> bytes:
    """Return boot sector, loader and kernel in one piece, all that a BIOS needs: a multiple of 4096 bytes, for the
    place ``start_lba`` sectors from the drive's start. Raises MediaError."""
    entries = [partition.entry() for partition in partitions]
    return boot_head(payload, partitions=entries, start_lba=start_lba) + padded(payload.flat)


@functools.lru_cache(maxsize=2)
def extents(payload: Payload) -> tuple[tuple[int, bytes], ...]:
    """Return the contents of a disk of DISK_BYTES that boots the kernel: (offset, data) in order, zeros between.

    Every image format stores these. Deterministic. Raises MediaError.
    """
    head = boot_head(
        payload,
        partitions=[partition.entry() for partition in PARTITIONS],
        kernel_sector=KERNEL_OFFSET // SECTOR,
    )
    kernel = padded(payload.flat)
    readme = (
        f"This disk boots {payload.title}, a kernel made by kgen; it reports on the serial port and the screen.\r\n"
    )
    boot_files = {f"EFI/BOOT/{FILE_NAMES[machine]}": application(payload, machine) for machine in reversed(Machine)}
    files = {"README.TXT": readme.encode("ascii", "replace"), **boot_files}
    esp = fat12(files, label="KGEN", serial=zlib.crc32(payload.flat), hidden=ESP_SECTOR, align=BLOCK)
    listed = {path: Extent((ESP_OFFSET + esp.offsets[path]) // BLOCK, len(data)) for path, data in files.items()}
    listed["KERNEL.BIN"] = Extent(KERNEL_OFFSET // BLOCK, len(payload.flat))
    listed["ESP.IMG"] = Extent(ESP_OFFSET // BLOCK, len(esp.data))
    boot = (
        BootEntry(CD_BOOT_OFFSET // BLOCK, LOADED_BYTES // SECTOR),
        BootEntry(ESP_OFFSET // BLOCK, ESP_SECTORS, efi=True),
    )
    iso = iso9660(listed, boot, label="KGEN", blocks=DISK_BYTES // BLOCK, end=CD_BOOT_OFFSET // BLOCK)
    return (
        (0, head),
        (FIRST_BLOCK * BLOCK, iso),
        (CD_BOOT_OFFSET, head),
        (KERNEL_OFFSET, kernel),
        (ESP_OFFSET, esp.data.rstrip(b"\0")),
    )


def write_disk(payload: Payload, path: Path) -> None:
    """Write a raw disk image of DISK_BYTES, as a sparse file. Raises MediaError or OutputError."""
    write_sparse(path, extents(payload), DISK_BYTES)


FORMAT = ImageFormat(
    name="img",
    suffix=".img",
    summary="raw disk, USB stick or CD image, 17 MiB, boots by BIOS and UEFI",
    write=write_disk,
)

assert KERNEL_OFFSET + MAX_FLAT <= ESP_OFFSET
assert ESP_SECTOR % PAD_SECTORS == 0
