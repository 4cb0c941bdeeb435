"""What a file is, by its first bytes, where something else is wanted: an image or a dump in place of a log."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from kgen.kernel.results_block import MAGIC

#: How files begin that hold memory, but not as it is, or anything at all, but packed.
PACKED: Mapping[bytes, str] = {
    b"KDUMP   ": "is a compressed kdump file; dump it as ELF",
    # QEMU writes its kdump files in the form that makedumpfile uses for pipes
    b"makedumpfile": "is a compressed kdump file; dump it as ELF",
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
    b"\xfd7zXZ": "is compressed by xz; unpack it",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"QFI\xfb": "is a qcow2 disk; dump the memory with dump-guest-memory",
    b"LibvirtQemudSave": "is a saved domain; use 'virsh dump --memory-only --format elf'",
    b"QEVM": "is a migration stream; dump the memory with dump-guest-memory",
    b"\x7fVirtualBox SavedState": "is a saved state; use 'VBoxManage debugvm NAME dumpvmcore'",
}

BOOT_IT = "; boot it, and give what comes out of the serial port"
USE_MEMORY = "; give it with --memory"
#: Images, by their magic and where it stands, in bytes.
_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "a qcow2 disk"),
    (0, b"KDMV", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"conectix", "a VHD disk"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"MZ", "a UEFI application"),
    # kgen's own is both
    (0x8001, b"CD001", "an image of a disk or CD"),
    (510, b"\x55\xaa", "an image of a disk or CD"),
)
#: In an ELF's header: where its type stands, and the type of a core file (System V ABI, "ELF Header").
_E_TYPE, _ET_CORE = 16, 4
#: Bytes that are looked at to tell text from all else, and the part of them that a log may have of others.
_HEAD = 1 << 16
_TEXT = re.compile(rb"[\t\n\r\x1b\x20-\x7e]")
_LEAST_TEXT = 0.3
#: What makes it a log, whatever else is there; in UTF-16 as well.
_OURS = tuple(word.encode(coding) for word in ("kgen", "counts:") for coding in ("ascii", "utf-16-le", "utf-16-be"))


def not_a_log(data: bytes) -> str:
    """Return what a file is that was given as a serial log, and what to do with it; "" where it may be a log.

    A line's noise is no reason to refuse one: what begins as no known kind of file is refused only if it holds a
    results block, or hardly any text and no word of ours.
    """
    if data.startswith(b"\x7fELF"):
        kind = struct.unpack_from("<H", data, _E_TYPE)[0] if len(data) >= _E_TYPE + 2 else 0
        return f"is an ELF core{USE_MEMORY}" if kind == _ET_CORE else f"is an ELF, not a log{BOOT_IT}"
    image = next((what for at, magic, what in _IMAGES if data[at : at + len(magic)] == magic), "")
    if image:
        return f"is {image}, not a log{BOOT_IT}"
    packed = next((text for start, text in PACKED.items() if data.startswith(start)), "")
    if packed:
        return packed
    if MAGIC in data:
        return f"holds a kernel's memory, it is no log{USE_MEMORY}"
    # zeros may be half of UTF-16, or an idle line
    head = data[:_HEAD].replace(b"\0", b"")
    ours = any(word in data for word in _OURS)
    if not ours and len(_TEXT.findall(head)) < _LEAST_TEXT * len(head):
        return "is hardly any text; is it a serial log, taken at the speed of the port?"
    return ""
