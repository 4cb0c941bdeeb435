"""Xen's core files (``xl dump-core``): an ELF without program headers, whose pages are in a section of their own.

``.xen_pages`` holds pages in any order. ``.xen_pfn`` has the number of each, for a guest whose memory Xen maps (HVM).
``.xen_p2m`` has pairs of that number and the machine's own, for a guest that knows the latter (PV). Xen's
docs/misc/dump-core-format.txt describes both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from kgen.errors import ProtocolError

_PAGES, _NUMBERS, _PAIRS = ".xen_pages", ".xen_pfn", ".xen_p2m"
#: Offsets in the header of a 64-bit ELF: of the section headers' offset, and of their size, count and names' section.
_E_SHOFF, _E_SHENTSIZE = 0x28, 0x3A
_HEADER = 0x40
_SECTION = struct.Struct("<IIQQQQIIQQ")
#: The most sections that are read, more than any core has; and the longest table of names, in bytes.
_MAX_SECTIONS = 4096
_MAX_NAMES = 1 << 16
#: How many page numbers are read at a time.
_STEP = 1 << 16
#: The number of an absent page.
_NO_PAGE = (1 << 64) - 1
_PAGE_SIZES = (4096, 16384, 65536)
_HINT = "dump it again, or use pmemsave (kgen kit xen says how)"


def pages(file: BinaryIO, size: int) -> tuple[tuple[int, int, int], ...] | None:
    """Return the parts of memory in a Xen core as address, offset in the file and length, None for any other file.

    Raises ProtocolError for a Xen core whose list of pages cannot be read.
    """
    found = _sections(file, size)
    if _PAGES not in found:
        return None
    start, length, page = found[_PAGES]
    name = _NUMBERS if _NUMBERS in found else _PAIRS
    if name not in found or page not in _PAGE_SIZES:
        raise ProtocolError("is a core file of Xen's without the list of its pages", hint=_HINT)
    width = 1 if name == _NUMBERS else 2
    listed = found[name][1] // (8 * width)
    if listed * page > length or start + length > size:
        raise ProtocolError("is a core file of Xen's that was cut off", hint=_HINT)
    runs = sorted(_runs(_numbers(file, found[name], width), start, page))
    if any(one[0] + one[2] > two[0] for one, two in pairwise(runs)):
        # one of the two is another page: what is read there may be of another place
        raise ProtocolError("is a core file of Xen's that has a page twice: its list of pages is damaged", hint=_HINT)
    return tuple(runs)


def _sections(file: BinaryIO, size: int) -> dict[str, tuple[int, int, int]]:
    """Return the sections of a 64-bit little-endian ELF by name: offset, length, size of an entry. {} for any other
    file."""
    file.seek(0)
    head = file.read(_HEADER)
    if len(head) < _HEADER or head[:6] != b"\x7fELF\x02\x01":
        return {}
    (offset,) = struct.unpack_from("<Q", head, _E_SHOFF)
    each, count, names = struct.unpack_from("<3H", head, _E_SHENTSIZE)
    if each != _SECTION.size or not 0 < count <= _MAX_SECTIONS or names >= count or offset + each * count > size:
        return {}
    file.seek(offset)
    data = file.read(each * count)
    if len(data) < each * count:
        return {}
    table = list(_SECTION.iter_unpack(data))
    _, _, _, _, at, length, *_ = table[names]
    file.seek(min(at, size))
    text = file.read(min(length, _MAX_NAMES))
    found: dict[str, tuple[int, int, int]] = {}
    for name, _, _, _, at, length, _, _, _, entry in table:
        label = text[name : text.find(b"\0", name)].decode("latin-1")
        found.setdefault(label, (at, length, entry))
    return found


def _numbers(file: BinaryIO, section: tuple[int, int, int], width: int) -> Iterator[int]:
    """Yield the number of each page."""
    at, length, _ = section
    left = length // (8 * width) * width
    file.seek(at)
    while left > 0:
        data = file.read(8 * min(left, _STEP * width))
        data = data[: len(data) // (8 * width) * 8 * width]
        if not data:
            return
        yield from (number for (number,) in struct.iter_unpack("<Q" + "8x" * (width - 1), data))
        left -= len(data) // 8


def _runs(numbers: Iterator[int], start: int, page: int) -> Iterator[tuple[int, int, int]]:
    """Join pages that are consecutive both in memory and in the file."""
    first = last = -1
    offset = start
    for at, number in enumerate(numbers):
        if first >= 0 and number == last + 1 and number != _NO_PAGE:
            last = number
            continue
        if first >= 0:
            yield first * page, offset, (last - first + 1) * page
        first = last = -1 if number == _NO_PAGE else number
        offset = start + at * page
    if first >= 0:
        yield first * page, offset, (last - first + 1) * page
