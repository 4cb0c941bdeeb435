"""Recognise by its first bytes a file of the wrong kind, such as an image or a dump in place of a log."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from kgen.kernel.results_block import MAGIC

#: First bytes of files that are compressed, or that hold memory in a form that cannot be read here.
PACKED: Mapping[bytes, str] = {
    b"KDUMP   ": "is a compressed kdump file; dump it as ELF",
    # QEMU writes kdump files in the form that makedumpfile uses for pipes
    b"makedumpfile": "is a compressed kdump file; dump it as ELF",
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
    b"\xfd7zXZ": "is compressed by xz; unpack it",
    b"PK\x03\x04": "is a zip archive; unpack it",
    **{b"BZh%d1AY&SY" % level: "is compressed by bzip2; unpack it" for level in range(1, 10)},
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it",
    b"Rar!\x1a\x07": "is a RAR archive; unpack it",
    b"\x04\x22\x4d\x18": "is compressed by lz4; unpack it",
    b"\x02\x21\x4c\x18": "is compressed by lz4; unpack it",
    b"\x89LZO\x00\r\n\x1a\n": "is compressed by lzop; unpack it",
    b"LZIP\x01": "is compressed by lzip; unpack it",
    b"\x5d\x00\x00\x80\x00\xff\xff\xff\xff": "is compressed by lzma; unpack it",
    b"\x1f\x9d": "is compressed by compress; unpack it",
    b"MSCF\x00\x00\x00\x00": "is a cabinet archive; unpack it",
    b"\xff\x06\x00\x00sNaPpY": "is compressed by snappy; unpack it",
    b"MDMP\x93\xa7": "is a minidump, without the machine's memory; make a full dump",
    b"QFI\xfb": "is a qcow2 disk; dump the memory with dump-guest-memory",
    b"LibvirtQemudSave": "is a saved domain; use 'virsh dump --memory-only --format elf'",
    b"QEVM": "is a migration stream; dump the memory with dump-guest-memory",
    b"\x89PNG\r\n\x1a\n": "is a picture; read the result code off it, and give that with --code",
    b"\xff\xd8\xff": "is a picture; read the result code off it, and give that with --code",
    b"GIF8": "is a picture; read the result code off it, and give that with --code",
    b"\x7fVirtualBox SavedState": "is a saved state; use 'VBoxManage debugvm NAME dumpvmcore'",
}

BOOT_IT = "; boot it, and give what comes out of the serial port"
USE_MEMORY = "; give it with --memory"
#: Images, by their magic and its offset in bytes.
_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "a qcow2 disk"),
    (0, b"KDMV", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"conectix", "a VHD disk"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"MZ", "a UEFI application"),
    # kgen's own image is both
    (0x8001, b"CD001", "an image of a disk or CD"),
    (510, b"\x55\xaa", "an image of a disk or CD"),
)
#: In an ELF header: the offset of the type, and the type of a core file (System V ABI, "ELF Header").
_E_TYPE, _ET_CORE = 16, 4
#: How many bytes are examined to distinguish text from binary data, and the part of them that may not be text in a log.
_HEAD = 1 << 16
_TEXT = re.compile(rb"[\t\n\r\x1b\x20-\x7e]")
_LEAST_TEXT = 0.3
#: Words that make a file a log, whatever else it holds; in UTF-16 as well.
_OURS = tuple(word.encode(coding) for word in ("kgen", "counts:") for coding in ("ascii", "utf-16-le", "utf-16-be"))
#: A row of this many characters of base64 is taken for base64.
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{60,76}\r?\n){3,}")
_HEX_DUMP = re.compile(rb"(?m)^(?:0x)?[0-9a-f]{4,16}[: ]+(?:[0-9a-f]{2,4} +){8,16}")
_UUENCODED = re.compile(rb"(?m)^begin [0-7]{3} [^\r\n]+\r?\nM")
_MASKS = re.compile(r"kgen:[0-9]+ [^\n]*(?:\*\*\*|\[MASKED\]|\[REDACTED\])")
_ENDS = re.compile(r"kgen:[0-9]+ [a-z]+ [^\n]*(?:\.\.\.|\u00e2\u0080\u00a6)(?:\n|$)")


def not_a_log(data: bytes) -> str:
    """Return what a file given as a serial log is and what to do with it, "" where it may be a log.

    Noise on the line is no reason to refuse a log. A file that does not begin as a known kind is refused only if it
    holds a results block, or hardly any text and none of the guest's words.
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


def encoded(data: bytes) -> str:
    """Return the encoding of a log that cannot be read line by line and what to do about it, "" for no known
    encoding."""
    for pattern, name, program in (
        (_BASE64, "encoded in base64, as mails are", "base64 -d"),
        (_UUENCODED, "uuencoded", "uudecode"),
        (_HEX_DUMP, "a hexadecimal dump", "xxd -r"),
    ):
        if pattern.search(data):
            return f"is {name}; decode it with {program}, and give what comes out"
    return ""


def spoiled(text: str) -> str:
    """Return how a tool has damaged lines of a log beyond repair and what to do about it, "" for no known damage."""
    if _MASKS.search(text):
        return "the CI system has masked parts of lines; keep the log as a file (an artefact) and give that"
    if _ENDS.search(text):
        return "lines were cut off and end in dots; capture the serial port to a file and give that"
    return ""
