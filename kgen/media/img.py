"""Raw disk image with kgen's own boot sector (kernel_templates/mbr.asm and loader.asm).

Layout: sector 0 the boot sector, then the loader, then at once the kernel's flat bytes. The file is 17 MiB, which is
a whole number of MiB as well as of cylinders (512 cylinders x 4 heads x 17 sectors), so that no hypervisor or BIOS
has to round it.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kgen.asm import assemble
from kgen.data import data_dir
from kgen.errors import MediaError, SourceError
from kgen.media import ImageFormat, Payload, write_sparse
from kgen.source import DISK_MAGIC
from kgen.units import Assembly, Source

if TYPE_CHECKING:
    import jinja2

SECTOR = 512
CYLINDERS, HEADS, TRACK_SECTORS = 512, 4, 17
DISK_SECTORS = CYLINDERS * HEADS * TRACK_SECTORS
DISK_BYTES = DISK_SECTORS * SECTOR

#: EAX at the kernel's entry: "KGEN" as a big-endian number, tells that it came from a disk.
ENTRY_MAGIC = DISK_MAGIC

#: Where the image is read to and where it must end: below the smallest EBDA seen on real machines.
STAGE_ADDRESS, STAGE_END = 0x10000, 0x80000
BOOT_ADDRESS = 0x7C00
#: What the boot sector reads: with itself 2048 bytes, which is also what a BIOS reads from a CD at least.
LOADER_SECTORS = 3
#: Images are padded to this many sectors: two 2048-byte CD sectors, or one 4096-byte disk sector.
PAD_SECTORS = 8
#: The largest kernel in bytes that can be loaded.
MAX_FLAT = STAGE_END - STAGE_ADDRESS - (1 + LOADER_SECTORS) * SECTOR

#: Codes of the loader's own errors; a "disk error" carries the status of INT 13h instead.
ERROR_LOADER, ERROR_SUM, ERROR_A20 = 0xF0, 0xF1, 0xF2

_SIGNATURE_OFFSET = 440
_BPB_END = 0x5A  # of FAT32, the longest
_UART_CLOCK = 115200


@dataclass(frozen=True)
class Partition:
    """A primary partition: ``count`` sectors of 512 bytes from LBA ``first``; ``kind`` is the type byte."""

    first: int
    count: int
    kind: int = 0x7F  # reserved for individual or local use: no system mounts or repairs it
    active: bool = True

    def entry(self) -> bytes:
        """The 16 bytes in the partition table. Raises MediaError when it does not lie within the disk."""
        last = self.first + self.count - 1
        if not 1 <= self.first <= last < DISK_SECTORS:
            raise MediaError(f"partition {self.first}-{last} is not within sectors 1-{DISK_SECTORS - 1}")
        head = bytes([0x80 if self.active else 0]) + chs(self.first) + bytes([self.kind]) + chs(last)
        return head + struct.pack("<II", self.first, self.count)


#: Everything but the boot sector, as a BIOS wants it that derives the geometry from the table.
WHOLE_DISK = (Partition(1, DISK_SECTORS - 1),)


def chs(lba: int) -> bytes:
    """A sector number as the three bytes head, sector and cylinder of a partition entry (in this disk's geometry)."""
    track, sector = divmod(lba, TRACK_SECTORS)
    cylinder, head = divmod(track, HEADS)
    return bytes([head, (sector + 1) | (cylinder >> 8) << 6, cylinder & 0xFF])


def checksum(data: bytes) -> int:
    """The loader's 32-bit sum: for each little-endian dword, rotate left by one and add. ``data``: whole dwords."""
    total = 0
    for (dword,) in struct.iter_unpack("<I", data):
        total = ((total << 1 | total >> 31) + dword) & 0xFFFFFFFF
    return total


def build_disk(
    flat: bytes,
    *,
    load_address: int,
    entry: int,
    bss_end: int,
    serial_port: int = 0x3F8,
    baud: int = 115200,
    partitions: Sequence[Partition] = WHOLE_DISK,
    start_lba: int = 0,
) -> bytes:
    """The leading bytes of a disk that boots ``flat``; the rest of the disk is zeros.

    Arguments are as in Payload; ``start_lba`` is where on the drive, in units of 512 bytes, these bytes will be (on a
    CD a multiple of 4; the BIOS must then load at least 2048 bytes). Deterministic; the length is a multiple of
    4096 bytes. Raises MediaError for a memory map or a port that the loader cannot serve.
    """
    _check(flat, load_address, entry, bss_end, serial_port, baud)
    if len(partitions) > 4:
        raise MediaError(f"{len(partitions)} partitions; the table holds 4")
    values: dict[str, object] = {
        "loader_sectors": LOADER_SECTORS,
        "attempts": 4,
        "serial_port": serial_port,
        "uart_divisor": _UART_CLOCK // baud,
        "bpb_end": _BPB_END,
        "start_lba": start_lba,
        "signature_offset": _SIGNATURE_OFFSET,
        "partitions": tuple(partition.entry() for partition in partitions),
        "stage": STAGE_ADDRESS,
        "stage_end": STAGE_END,
        "pad_sectors": PAD_SECTORS,
        "chunk_sectors": 64,
        "a20_tries": 0x4000,
        "flat_bytes": len(flat),
        "zero_bytes": bss_end - load_address - len(flat),
        "load_address": load_address,
        "bss_end": bss_end,
        "entry": entry,
        "eax_magic": ENTRY_MAGIC,
        "error_loader": ERROR_LOADER,
        "error_sum": ERROR_SUM,
        "error_a20": ERROR_A20,
    }
    image_id = zlib.crc32(flat, zlib.crc32(_render(values | {"image_id": 0}).encode()))
    text = _render(values | {"image_id": image_id})
    return seal(assemble(Source(name="mbr.asm", text=text), origin=BOOT_ADDRESS, page_align=False), flat)


def seal(assembly: Assembly, flat: bytes) -> bytes:
    """Boot sector and loader, the kernel behind them, padding, and the checksum over all but the boot sector."""
    image = assembly.section(".boot").data + flat
    image += bytes(-len(image) % (PAD_SECTORS * SECTOR))
    offset = assembly.address("image_sum") - BOOT_ADDRESS
    return image[:offset] + struct.pack("<I", checksum(image[SECTOR:])) + image[offset + 4 :]


def extents(payload: Payload) -> tuple[tuple[int, bytes], ...]:
    """What the disk of DISK_BYTES holds that boots the kernel: (offset, data) in order, zeros between. Every image
    format stores these. Raises MediaError."""
    return ((0, disk_of(payload)),)


def write_disk(payload: Payload, path: Path) -> None:
    """Write a raw disk image of DISK_BYTES, as a sparse file. Raises MediaError or OutputError."""
    write_sparse(path, extents(payload), DISK_BYTES)


def disk_of(payload: Payload, *, start_lba: int = 0) -> bytes:
    """``build_disk`` for a Payload."""
    return build_disk(
        payload.flat,
        load_address=payload.load_address,
        entry=payload.entry,
        bss_end=payload.bss_end,
        serial_port=payload.serial_port,
        baud=payload.baud,
        start_lba=start_lba,
    )


FORMAT = ImageFormat(name="img", suffix=".img", summary="raw disk image, 17 MiB, BIOS boot", write=write_disk)


def _check(flat: bytes, load_address: int, entry: int, bss_end: int, serial_port: int, baud: int) -> None:
    """Refuse what the loader cannot serve."""
    end = load_address + len(flat)
    if not 0 < len(flat) <= MAX_FLAT:
        raise MediaError(f"the kernel has {len(flat)} bytes; the disk loader takes 1 to {MAX_FLAT}")
    if not 0x100000 <= load_address <= entry < end <= bss_end <= 1 << 32:
        raise MediaError(
            f"load {load_address:#x}, entry {entry:#x}, end {end:#x}, bss end {bss_end:#x} are not in this order "
            "between 1 MiB and 4 GiB"
        )
    if not (8 <= serial_port <= 0xFFF8 and serial_port % 8 == 0):
        raise MediaError(f"serial port {serial_port:#x} is not the address of a 16550")
    if not (1 <= baud <= _UART_CLOCK and _UART_CLOCK % baud == 0 and _UART_CLOCK // baud <= 0xFFFF):
        raise MediaError(f"{baud} baud is not {_UART_CLOCK} divided by a whole number up to 65535")


@functools.cache
def _template() -> jinja2.Template:
    """The boot sector's template, compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("kernel_templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("mbr.asm")


def _render(values: Mapping[str, object]) -> str:
    import jinja2

    try:
        return _template().render(values)
    except jinja2.TemplateError as error:
        raise SourceError(str(error), where="mbr.asm") from error
