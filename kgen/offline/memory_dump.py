"""The results block in a dump of a machine's memory: found by its magic, compared with the kernel's specification.

A dump is an ELF core file with the physical addresses in its program headers (QEMU's dump-guest-memory, VirtualBox's
dumpvmcore) or in its sections (Xen's dump-core), or any file that holds memory in one piece (pmemsave, VMware's .vmem).
It may be larger than this host's memory, and may hold the remains of several kernels.
"""

from __future__ import annotations

import bisect
import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from kgen.errors import LinkError, ProtocolError, SpecError
from kgen.evidence.from_memory import from_memory
from kgen.evidence.records import Record
from kgen.kernel.plan import layout_of
from kgen.kernel.protocol import SPEC_MAGIC
from kgen.kernel.results_block import BUILD_ID_BYTES, LAYOUT_VERSION, LAYOUT_WITHOUT_MEETINGS, MAGIC, KernelState
from kgen.offline import xen_core
from kgen.offline.file_kind import PACKED
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_CPUS, MIN_CPUS
from kgen.toolchain.elf_reader import LoadedElf, core_segments

#: How many bytes are read at a time.
CHUNK = 8 << 20
#: The longest results block and specification that are read, in bytes.
MAX_BLOCK = 16 << 20
MAX_SPEC = 1 << 20
#: A kernel's build id is in its read-only data, at most this many bytes before its specification.
NEAR = 1 << 20
#: A file that holds the magic in more places than this is no memory of a kernel.
MAX_PLACES = 500
#: What the results block is aligned to, in bytes (kernel_templates/data.asm). Where it is not, the file has something
#: between its pages.
ALIGNMENT = 64
#: How many bytes both magics begin with.
_COMMON = 4
_HEADER = struct.Struct(f"<{len(MAGIC)}sII{BUILD_ID_BYTES}s5I")
_BUILD_ID = len(MAGIC) + 8


@dataclass(frozen=True)
class _Segment:
    """A part of memory that the file holds."""

    #: Physical.
    address: int
    #: The offset of its beginning in the file.
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.address + self.size


class Memory:
    """A dump that is open for reading. Addresses are physical ones in a core file, otherwise offsets in the file."""

    def __init__(self, file: BinaryIO) -> None:
        """Raise ProtocolError for an empty file and for one that holds memory in another form."""
        self._file = file
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(64)
        if not size:
            raise ProtocolError("is empty", hint="has the dump been written to its end?")
        packed = next((text for start, text in PACKED.items() if head.startswith(start)), "")
        if packed:
            raise ProtocolError(packed)
        self.is_core = False
        parts: Sequence[tuple[int, int, int]] = ((0, 0, size),)
        pages = xen_core.pages(file, size)
        if pages is not None:
            parts = pages
            self.is_core = True
        elif head.startswith(b"\x7fELF"):
            try:
                parts = core_segments(file)
                self.is_core = True
            except LinkError:
                pass  # whatever the file is, it can still be searched
        self._segments = _disjoint(parts, size)
        self._starts = [segment.address for segment in self._segments]

    def read(self, address: int, size: int) -> bytes:
        """Return memory from an address on, as much as the dump holds without a hole."""
        data = bytearray()
        while len(data) < size:
            at = address + len(data)
            number = bisect.bisect_right(self._starts, at) - 1
            if number < 0 or at >= self._segments[number].end:
                break
            segment = self._segments[number]
            self._file.seek(segment.offset + at - segment.address)
            part = self._file.read(min(size - len(data), segment.end - at))
            if not part:
                break
            if len(part) == size:
                return part
            data += part
        return bytes(data)

    def before(self, address: int, size: int) -> bytes:
        """Return memory up to an address, as much as the dump holds without a hole."""
        low = high = address
        while high - low < size:
            number = bisect.bisect_left(self._starts, low) - 1
            if number < 0 or self._segments[number].end < low:
                break
            low = max(self._segments[number].address, high - size)
        return self.read(low, high - low)

    def find(self) -> Iterator[tuple[int, bytes]]:
        """Yield every place that holds one of the two magics, with the magic, in order.

        Raises ProtocolError for too many.
        """
        places = 0
        for start, end in self._stretches():
            at = start
            while at < end:
                data = self.read(at, min(CHUNK, end - at))
                found = data.find(MAGIC[:_COMMON])
                while found >= 0:
                    word = data[found : found + len(MAGIC)]
                    if word in (MAGIC, SPEC_MAGIC):
                        places += 1
                        if places > MAX_PLACES:
                            raise ProtocolError(f"holds the magic in more than {MAX_PLACES} places")
                        yield at + found, word
                    found = data.find(MAGIC[:_COMMON], found + 1)
                # a magic that lies across the edge is found in the next part
                step = len(data) - (len(MAGIC) - 1)
                if at + len(data) >= end or step <= 0:
                    break
                at += step

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of memory without a hole: the first address, and the one after the last."""
        start = end = -1
        for segment in self._segments:
            if segment.address != end:
                if end >= 0:
                    yield start, end
                start = segment.address
            end = segment.end
        if end >= 0:
            yield start, end


def _disjoint(parts: Sequence[tuple[int, int, int]], size: int) -> tuple[_Segment, ...]:
    """Return the segments in order of address, cut to the file's length, and without what an earlier segment has."""
    made: list[_Segment] = []
    for address, offset, length in sorted(parts):
        length = min(length, max(0, size - offset))
        skip = max(0, (made[-1].end if made else 0) - address)
        if length > skip:
            made.append(_Segment(address + skip, offset + skip, length - skip))
    return tuple(made)


@dataclass(frozen=True)
class Block:
    """A results block in a dump."""

    address: int
    build_id: str
    #: The request that the kernel was built for, None where there is a ``problem``.
    spec: KernelSpec | None
    #: The record in the block, None where there is a ``problem``.
    record: Record | None
    #: Why there is no record.
    problem: str = ""


def blocks(memory: Memory, named: KernelSpec | None = None, build_id: str = "") -> tuple[Block, ...]:
    """Return every results block in a dump, each once, in order of address.

    ``named`` is the specification of the kernel with ``build_id``, where another source has it. The specification of
    any other kernel must be in the dump: each kernel has it in its read-only data, after its build id. Raises
    ProtocolError where the dump has no results block.
    """
    heads: list[int] = []
    texts: list[int] = []
    for address, magic in memory.find():
        (heads if magic == MAGIC else texts).append(address)
    found: dict[int, _Header] = {}
    reasons: list[str] = []
    for address in heads:
        try:
            found[address] = _header(memory, address)
        except ProtocolError as error:
            reasons.append(error.message)
    asked = _asked(memory, texts, found)
    made: list[Block] = []
    seen: set[bytes] = set()
    for address, head in found.items():
        data = memory.read(address, head.size)
        digest = hashlib.sha256(data).digest()
        if digest not in seen:
            seen.add(digest)
            spec = named if named is not None and head.build_id == build_id else asked.get(address)
            made.append(_block(address, head, spec, data))
    if not made:
        raise ProtocolError(_nothing(reasons, texts))
    return _without_doubles(made)


@dataclass(frozen=True)
class _Header:
    size: int
    build_id: str
    cpus: int


def _header(memory: Memory, address: int) -> _Header:
    """Return the head of a results block. Raises ProtocolError where the bytes are none."""
    data = memory.read(address, _HEADER.size)
    if len(data) < _HEADER.size:
        raise ProtocolError("the results block is cut off")
    _, version, size, build_id, state, _, _, _, cpus = _HEADER.unpack(data)
    if not memory.is_core and address % ALIGNMENT:
        raise ProtocolError("the memory does not stand in one piece in this file: something lies between its pages")
    if version not in (LAYOUT_VERSION, LAYOUT_WITHOUT_MEETINGS):
        raise ProtocolError(f"the results block is of layout {version}, this kgen reads layout {LAYOUT_VERSION}")
    known = state in {int(value) for value in KernelState}
    if not known or not MIN_CPUS <= cpus <= MAX_CPUS or not _HEADER.size < size <= MAX_BLOCK:
        raise ProtocolError("what begins like a results block makes no sense")
    return _Header(size, build_id.hex(), cpus)


def _block(address: int, head: _Header, spec: KernelSpec | None, data: bytes) -> Block:
    if spec is None:
        why = "the dump does not hold what the kernel was asked for; name the kernel with --elf or --manifest"
        return Block(address, head.build_id, None, None, why)
    try:
        return Block(address, head.build_id, spec, from_memory(layout_of(spec), data))
    except ProtocolError as error:
        return Block(address, head.build_id, spec, None, error.line)


def _asked(memory: Memory, texts: Sequence[int], heads: Mapping[int, _Header]) -> dict[int, KernelSpec]:
    """Return the specifications of these results blocks' kernels: each is right after a copy of the build id."""
    best: dict[int, tuple[int, KernelSpec]] = {}
    for address in texts:
        spec = _specification(memory, address)
        if spec is None:
            continue
        size = layout_of(spec).size
        data = memory.before(address, NEAR)
        start = address - len(data)
        for block, head in heads.items():
            if (head.size, head.cpus) != (size, spec.case.cpus):
                continue
            wanted = bytes.fromhex(head.build_id)
            at = data.rfind(wanted)
            if at >= 0 and start + at == block + _BUILD_ID:
                # the block's own copy says nothing about the bytes after it
                at = data.rfind(wanted, 0, at)
            near = len(data) - at
            if at >= 0 and SPEC_MAGIC not in data[at:] and (block not in best or near < best[block][0]):
                best[block] = (near, spec)
    return {block: spec for block, (_, spec) in best.items()}


def _specification(memory: Memory, address: int) -> KernelSpec | None:
    """Return the specification after a magic, None where there is none. Its digest comes after it."""
    data = memory.read(address + len(SPEC_MAGIC), MAX_SPEC)
    text, _, rest = data.partition(b"\0\0")
    try:
        spec = KernelSpec.from_text(text.replace(b"\0", b"").decode("ascii"))
    except (UnicodeDecodeError, SpecError):
        return None
    return spec if rest.startswith(spec.digest().encode() + b"\0") else None


def _nothing(reasons: Sequence[str], texts: Sequence[int]) -> str:
    """Return why there is no results block."""
    if reasons:
        return reasons[0]
    if texts:
        return "holds a kernel that has not begun: there is no results block"
    return "holds no results block of a kgen kernel"


def _without_doubles(made: Sequence[Block]) -> tuple[Block, ...]:
    """Return the blocks. Different blocks of one kernel become a problem in place of a record."""
    by_build: dict[str, list[Block]] = {}
    for block in made:
        by_build.setdefault(block.build_id, []).append(block)
    kept = []
    for build, group in by_build.items():
        whole = [block for block in group if block.record is not None] or group
        if len(whole) > 1:
            places = " and ".join(f"{block.address:#x}" for block in whole[:2])
            why = f"holds different results blocks of one kernel (build {build[:12]}), at {places}"
            whole = [Block(whole[0].address, build, whole[0].spec, None, why)]
        kept += whole
    return tuple(sorted(kept, key=lambda block: block.address))


def altered(memory: Memory, block: Block, kernel: LoadedElf) -> tuple[str, ...]:
    """Return how the code and read-only data in the dump differ from those of the kernel as built, one sentence
    each."""
    # where a file holds more than memory, everything is shifted by the same distance
    moved = block.address - kernel.symbols["results"]
    return tuple(
        f"the guest's {section.name} is not what was built: it was changed in memory"
        for section in kernel.sections
        if section.flags in ("ax", "a") and memory.read(max(0, section.address + moved), section.size) != section.data
    )
