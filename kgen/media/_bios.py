"""What a BIOS boots: the boot sector and the loader (kernel_templates/mbr.asm, loader.asm) with their checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from kgen.errors import MediaError
from kgen.kernel.parameters import DISK_MAGIC
from kgen.kernel.render import render_template
from kgen.media import Payload
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source

SECTOR = 512
#: EAX at the kernel's entry: "KGEN" as a big-endian number. It says that the kernel came from a disk.
ENTRY_MAGIC = DISK_MAGIC

#: Where loader and kernel are read to, and where they must end: below the lowest EBDA seen on real machines.
STAGE_ADDRESS, STAGE_END = 0x10000, 0x80000
BOOT_ADDRESS = 0x7C00
#: How many bytes the boot sector reads, itself included: 2048, the least that a BIOS reads from a CD.
LOADER_SECTORS = 3
LOADED_BYTES = (1 + LOADER_SECTORS) * SECTOR
#: Pieces are padded to this many sectors: two 2048-byte CD sectors, or one 4096-byte disk sector.
PAD_SECTORS = 8
PAD_BYTES = PAD_SECTORS * SECTOR
#: The largest kernel in bytes that can be loaded.
MAX_FLAT = STAGE_END - STAGE_ADDRESS - PAD_BYTES

#: Codes of the loader's own errors; a "disk error" carries the status of INT 13h instead.
ERROR_LOADER, ERROR_SUM, ERROR_A20, ERROR_MEMORY = 0xF0, 0xF1, 0xF2, 0xF3

SIGNATURE_OFFSET = 440
_BPB_END = 0x5A  # of FAT32, the longest
#: Baud at a divisor of 1.
UART_CLOCK = 115200


def checksum(data: bytes) -> int:
    """Return the loader's 32-bit sum: for each little-endian dword, rotate left by one and add.

    ``data`` consists of whole dwords.
    """
    total = 0
    for (dword,) in struct.iter_unpack("<I", data):
        total = ((total << 1 | total >> 31) + dword) & 0xFFFFFFFF
    return total


def padded(flat: bytes) -> bytes:
    """Return the kernel as it is stored: with zeros after it up to a multiple of PAD_BYTES."""
    return flat + bytes(-len(flat) % PAD_BYTES)


def boot_head(
    payload: Payload,
    *,
    partitions: Sequence[bytes] = (),
    start_lba: int = 0,
    kernel_sector: int = PAD_SECTORS,
) -> bytes:
    """Return boot sector and loader: PAD_BYTES that boot the kernel whose ``padded`` bytes are ``kernel_sector``
    sectors after them.

    ``partitions`` are entries of 16 bytes for the table; ``start_lba`` is the place of boot sector and loader on the
    drive, in units of 512 bytes. Both numbers are multiples of PAD_SECTORS where the drive's sectors may be as large,
    of 4 on a CD. A BIOS that boots from a CD must load LOADED_BYTES. Deterministic. Raises MediaError for a memory map
    or a port that the loader cannot serve, SourceError, AsmError.
    """
    check(payload)
    if len(partitions) > 4:
        raise MediaError(f"{len(partitions)} partitions; the table holds 4")
    flat = payload.flat
    values: dict[str, object] = {
        "loader_sectors": LOADER_SECTORS,
        "attempts": 4,
        "serial_port": payload.serial_port,
        "uart_divisor": UART_CLOCK // payload.baud,
        "bpb_end": _BPB_END,
        "start_lba": start_lba,
        "signature_offset": SIGNATURE_OFFSET,
        "partitions": partitions,
        "stage": STAGE_ADDRESS,
        "stage_end": STAGE_END,
        "pad_sectors": PAD_SECTORS,
        "head_sectors": PAD_SECTORS,
        "kernel_sector": kernel_sector,
        "kernel_sectors": len(padded(flat)) // SECTOR,
        "chunk_sectors": 64,
        "a20_tries": 0x4000,
        "flat_bytes": len(flat),
        "zero_bytes": payload.bss_end - payload.load_address - len(flat),
        "load_address": payload.load_address,
        "bss_end": payload.bss_end,
        "entry": payload.entry,
        "eax_magic": ENTRY_MAGIC,
        "error_loader": ERROR_LOADER,
        "error_sum": ERROR_SUM,
        "error_a20": ERROR_A20,
        "error_memory": ERROR_MEMORY,
    }
    # any change of loader or kernel changes the image's id, by which the boot sector recognises its own loader
    image_id = zlib.crc32(flat, zlib.crc32(render_template("mbr.asm", **values, image_id=0).encode()))
    text = render_template("mbr.asm", **values, image_id=image_id)
    assembly = assemble(Source(name="mbr.asm", text=text), origin=BOOT_ADDRESS, page_align=False)
    head = assembly.section(".boot").data
    if len(head) > LOADED_BYTES:
        raise MediaError(f"boot sector and loader have {len(head)} bytes, {len(head) - LOADED_BYTES} too many")
    head += bytes(PAD_BYTES - len(head))
    at = assembly.address("image_sum") - BOOT_ADDRESS
    return head[:at] + struct.pack("<I", checksum(head[SECTOR:] + padded(flat))) + head[at + 4 :]


def check(payload: Payload) -> None:
    """Raise MediaError for a kernel or a port that our loaders do not support."""
    flat, load_address, entry, bss_end = payload.flat, payload.load_address, payload.entry, payload.bss_end
    end = load_address + len(flat)
    if not 0 < len(flat) <= MAX_FLAT:
        raise MediaError(f"the kernel has {len(flat)} bytes; the disk loader takes 1 to {MAX_FLAT}")
    if not 0x100000 <= load_address <= entry < end <= bss_end <= 1 << 32:
        raise MediaError(
            f"load {load_address:#x}, entry {entry:#x}, end {end:#x}, bss end {bss_end:#x} are not in this order "
            "between 1 MiB and 4 GiB"
        )
    if not (8 <= payload.serial_port <= 0xFFF8 and payload.serial_port % 8 == 0):
        raise MediaError(f"serial port {payload.serial_port:#x} is not the address of a 16550")
    baud = payload.baud
    if not (1 <= baud <= UART_CLOCK and UART_CLOCK % baud == 0 and UART_CLOCK // baud <= 0xFFFF):
        raise MediaError(f"{baud} baud is not {UART_CLOCK} divided by a whole number up to 65535")
