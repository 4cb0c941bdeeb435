"""Results blocks in dumps: found wherever they are, of the right kernel, and never read out of what is damaged."""

from __future__ import annotations

import bz2
import dataclasses
import io
import lzma
import struct
from dataclasses import dataclass

import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import load, moved, signed
from rich.console import Console

from kgen.build import Kernel, build
from kgen.cli.judge import _tell
from kgen.errors import ProtocolError
from kgen.kernel.protocol import SPEC_MAGIC
from kgen.kernel.results_block import MAGIC
from kgen.offline import file_kind, memory_dump
from kgen.offline.memory_dump import CHUNK, Memory
from kgen.offline.runs import Run, from_capture, from_dump, from_elf, results
from kgen.report.results.write import to_json
from kgen.toolchain.linker import flat_image
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

ATOMIC, NOT_ATOMIC, INCONCLUSIVE = VerdictKind.ATOMIC, VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE
ERROR = VerdictKind.ERROR
#: Where a results block holds its build id.
ID_AT = len(MAGIC) + 8


@dataclass(frozen=True)
class Machine:
    """A kernel in memory as it was left after a recorded run. ``start`` is the physical address of ``image``, which
    holds code, data and results block; ``log`` is what it printed."""

    kernel: Kernel
    start: int
    image: bytes
    block: int
    log: bytes

    @property
    def raw(self) -> bytes:
        """Memory from address 0 on, in one piece."""
        return bytes(self.start) + self.image + bytes(4096)


def machine(name: str) -> Machine:
    """The recorded block was left by an older build of the same kernel: it is given what this one would have left."""
    run = load(name)
    kernel = build(run.spec)
    flat = flat_image(kernel.elf.sections)
    address = kernel.elf.symbols["results"]
    block, lines = moved(run, kernel)
    memory = bytearray(flat.data.ljust(flat.bss_end - flat.load_address, b"\0"))
    at = address - flat.load_address
    memory[at : at + len(block)] = block
    return Machine(kernel, flat.load_address, bytes(memory), address, signed(lines))


@pytest.fixture(scope="module")
def good() -> Machine:
    return machine("tcg-atomic")


@pytest.fixture(scope="module")
def bad() -> Machine:
    return machine("kvm-lost")


def core(*segments: tuple[int, bytes], wide: bool = True, kind: int = 4) -> bytes:
    """An ELF core file with that memory at those physical addresses, each behind some bytes of something else."""
    header, entry = (64, 56) if wide else (52, 32)
    offset = header + entry * len(segments)
    table, data = b"", b""
    for address, memory in segments:
        data += b"\xee" * 13
        at = offset + len(data)
        data += memory
        size = len(memory)
        if wide:
            table += struct.pack("<IIQQQQQQ", 1, 7, at, 0, address, size, size, 0)
        else:
            table += struct.pack("<IIIIIIII", 1, at, 0, address, size, size, 7, 0)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1)) + bytes(9)
    form = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    machine_number = 62 if wide else 3
    head = struct.pack(form, kind, machine_number, 1, 0, header, 0, 0, header, entry, len(segments), 0, 0, 0)
    return ident + head + table + data


def xen_core(
    start: int, memory: bytes, *, pairs: bool = False, order: int = 1, hole: bool = False, listed: bool = True
) -> bytes:
    """A core of Xen's: pages in a section, in an order of their own, and the list of their numbers in another one."""
    pages = [
        (start // 4096 + at // 4096, memory[at : at + 4096].ljust(4096, b"\0")) for at in range(0, len(memory), 4096)
    ]
    pages = [each for first in range(order) for each in pages[first::order]]
    pages += [((1 << 64) - 1, b"\xee" * 4096)] if hole else []
    numbers = b"".join(struct.pack("<QQ", at, at + 7) if pairs else struct.pack("<Q", at) for at, _ in pages)
    parts = {".shstrtab": b"", ".note.Xen": b"\0" * 24, ".xen_p2m" if pairs else ".xen_pfn": numbers}
    parts = parts if listed else {".shstrtab": b""}
    parts[".xen_pages"] = b"".join(page for _, page in pages)
    names = b"\0" + b"".join(name.encode() + b"\0" for name in parts)
    parts[".shstrtab"] = names
    body, table = b"", bytes(64)
    for name, data in parts.items():
        entry = {".xen_pages": 4096, ".xen_pfn": 8, ".xen_p2m": 16}.get(name, 0)
        place = names.index(b"\0" + name.encode() + b"\0") + 1
        table += struct.pack("<IIQQQQIIQQ", place, 1, 0, 0, 64 + len(body), len(data), 0, 0, 8, entry)
        body += data
    head = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(parts) + 1, 1)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + head + body + table


def runs_of(data: bytes, **more: object) -> tuple[Run, ...]:
    return from_dump(io.BytesIO(data), "memory.bin", **more)  # type: ignore[arg-type]


def judged(runs: tuple[Run, ...]) -> list[Verdict]:
    """The verdicts, everything written down for people and machines as well."""
    told = [results(run) for run in runs]
    for run, found in zip(runs, told, strict=True):
        _tell(Console(file=io.StringIO()), found, run.notes)
    assert to_json(told)
    return [result.verdict for found in told for result in found.results]


def only(data: bytes, **more: object) -> Verdict:
    (verdict,) = judged(runs_of(data, **more))
    return verdict


def forms(each: Machine) -> dict[str, bytes]:
    """That memory in the files that hypervisors write."""
    half = 2 * (each.block - each.start) // 3
    inside = each.block - each.start + 5000
    copy = each.image
    return {
        "raw": each.raw,
        "behind a header": bytes(8192) + copy,
        "ELF64 core": core((0, bytes(4096)), (each.start, copy), (0xFEE00000, bytes(4096))),
        "ELF32 core": core((each.start, copy), wide=False),
        "two segments": core((each.start, copy[:half]), (each.start + half, copy[half:])),
        "a block across two segments, stored in the wrong order": core(
            (each.start + inside, copy[inside:]), (each.start, copy[:inside])
        ),
        "segments that overlap": core((each.start, copy), (each.start, copy), (each.start + 4096, copy[4096:])),
        "Xen, in order": xen_core(each.start, copy),
        "Xen, every third page": xen_core(each.start, copy, order=3, hole=True),
        "Xen, a guest of PV": xen_core(each.start, copy, pairs=True, order=2),
        "an ELF that is no core": core((each.start, b"x" * (-(64 + 56 + 13) % 64) + copy), kind=2),
    }


@pytest.mark.parametrize("form", list(forms(Machine(None, 0, b"", 0, b""))))  # type: ignore[arg-type]
def test_the_block_is_found_in_every_form(good: Machine, bad: Machine, form: str) -> None:
    verdict = only(forms(good)[form])
    assert (verdict.kind, verdict.rounds) == (INCONCLUSIVE, 1000)
    assert "there is no serial record" in verdict.reason
    verdict = only(forms(bad)[form])
    assert verdict.kind is NOT_ATOMIC
    recorded = judge(load("kvm-lost").spec, load("kvm-lost").observed())
    assert (verdict.violations, verdict.witnesses) == (recorded.violations, recorded.witnesses)
    assert verdict.witnesses


def test_what_it_was_asked_is_read_from_it(good: Machine) -> None:
    (run,) = runs_of(good.raw)
    assert run.spec == good.kernel.spec
    assert run.observation.platform == "memory-dump"
    assert run.where == f"memory.bin, results block at {good.block:#x}"


def test_with_the_log_the_two_are_held_against_each_other(good: Machine, bad: Machine) -> None:
    (log,) = from_capture(good.log)
    assert only(good.raw, log=log).kind is ATOMIC
    other = only(bad.raw, log=log)
    assert other.kind is ERROR
    assert "the two channels disagree: " in other.reason
    block = bytearray(good.raw)
    at = good.block + load("tcg-atomic").layout.results.records.offset
    block[at] ^= 1
    assert "the two channels disagree: lines: serial says " in only(bytes(block), log=log).reason
    headless = from_capture(b"\r\n".join(bad.log.splitlines()[2:]) + b"\r\n")[0]
    assert headless.spec is None
    assert only(bad.raw, log=headless).kind is NOT_ATOMIC


def test_code_that_was_changed_is_an_error(good: Machine) -> None:
    named = from_elf(good.kernel.elf.data, "kernel.elf")
    assert only(good.raw, named=named).kind is INCONCLUSIVE
    for form in ("raw", "behind a header", "ELF64 core"):
        data = forms(good)[form]
        assert only(data, named=named).kind is INCONCLUSIVE
        at = data.index(good.image[:64]) + good.kernel.elf.symbols["entry"] - good.start
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert only(changed).kind is INCONCLUSIVE  # nobody said what the code must be
        verdict = only(changed, named=named)
        assert verdict.kind is ERROR
        assert "the guest's .text is not what was built" in verdict.reason


def test_another_kernel_than_the_named_one_is_an_error(good: Machine) -> None:
    other = dataclasses.replace(good.kernel.spec, rounds=1001)
    named = from_elf(build(other).elf.data, "other.elf")
    verdict = only(good.raw, named=named)
    assert verdict.kind is ERROR
    assert "memory.bin" not in verdict.reason
    assert f"the dump is of build {good.kernel.elf.build_id.hex()[:12]}, other.elf of build " in verdict.reason


def test_a_block_whose_kernel_is_not_there_needs_its_name(bad: Machine) -> None:
    """The specification was overwritten, or is another kernel's."""
    at = bad.raw.index(SPEC_MAGIC)
    for new in (bytes(8), SPEC_MAGIC.lower()):
        data = bad.raw[:at] + new + bad.raw[at + 8 :]
        verdict = only(data)
        assert verdict.kind is INCONCLUSIVE
        assert "does not hold what the kernel was asked for; name the kernel with --elf or --manifest" in verdict.reason
        assert only(data, named=from_elf(bad.kernel.elf.data, "kernel.elf")).kind is ERROR  # its .rodata was changed
        named = dataclasses.replace(from_elf(bad.kernel.elf.data, "kernel.elf"), kernel=None)
        assert only(data, named=named).kind is NOT_ATOMIC
        assert only(data, log=from_capture(bad.log)[0]).kind is NOT_ATOMIC


def test_a_block_is_not_taken_for_that_of_a_kernel_beside_it(good: Machine, bad: Machine) -> None:
    """Of the same size, with a specification of its own, and both build ids about."""
    spec = dataclasses.replace(good.kernel.spec, poll=type(good.kernel.spec.poll).READ)
    other = flat_image(build(spec).elf.sections)
    data = bytes(4096) + other.data.ljust(1 << 17, b"\0") + bad.image
    (run,) = runs_of(data)
    assert run.spec == bad.kernel.spec
    # only the other's specification is left
    at = data.rindex(SPEC_MAGIC)
    (run,) = runs_of(data[:at] + bytes(8) + data[at + 8 :])
    assert run.spec is None


def test_a_suite_in_memory() -> None:
    suite = machine("kvm-suite")
    alone = judged(runs_of(suite.raw))
    assert [verdict.kind for verdict in alone] == [NOT_ATOMIC, INCONCLUSIVE, NOT_ATOMIC, NOT_ATOMIC]
    both = judged(runs_of(suite.raw, log=from_capture(suite.log)[0]))
    assert [verdict.kind for verdict in both] == [verdict.kind for verdict in alone]
    assert [verdict.violations for verdict in both] == [verdict.violations for verdict in alone]


def test_two_kernels_are_judged_each(good: Machine) -> None:
    other = machine("tcg-no-lock")
    runs = runs_of(good.raw + other.raw[other.start :])
    assert [run.spec for run in runs] == [good.kernel.spec, other.kernel.spec]
    assert [verdict.kind for verdict in judged(runs)] == [INCONCLUSIVE, NOT_ATOMIC]
    log = from_capture(other.log)[0]
    first, second = runs_of(good.raw + other.raw[other.start :], log=log)
    assert first.observation.serial is None
    assert second.observation.serial == log.observation.serial


def test_two_blocks_of_one_kernel_must_say_the_same(good: Machine) -> None:
    assert only(good.raw + good.image).kind is INCONCLUSIVE  # one of them is a copy
    image = bytearray(good.image)
    image[good.block - good.start + load("tcg-atomic").layout.results.records.offset] ^= 1
    verdict = only(good.raw + bytes(image))
    assert verdict.kind is ERROR
    assert "holds different results blocks of one kernel" in verdict.reason


PACKED = {
    b"": "is empty",
    bytes(100): "holds no results block of a kgen kernel",
    b"KDUMP   " + bytes(100): "is a compressed kdump file; dump it as ELF",
    b"\x1f\x8b" + bytes(100): "is compressed by gzip",
    b"\x28\xb5\x2f\xfd" + bytes(100): "is compressed by zstd",
    b"QFI\xfb" + bytes(100): "is a qcow2 disk",
    b"LibvirtQemudSave" + bytes(100): "is a saved domain",
    b"\x7fELF" + bytes(100): "holds no results block",
    b"\x7fELF": "holds no results block",
    MAGIC + bytes(20): "the results block is cut off",
    MAGIC + bytes(200): "the results block is of layout 0",
    bytes(8) + MAGIC + bytes(200): "something lies between its pages",
    (MAGIC + bytes(56)) * 501: "holds the magic in more than 500 places",
}


@pytest.mark.parametrize("data", PACKED, ids=list(PACKED.values()))
def test_a_file_that_is_no_dump_is_an_error(data: bytes) -> None:
    verdict = only(data)
    assert verdict.kind is ERROR
    assert verdict.reason.startswith("memory.bin: ")
    assert PACKED[data] in verdict.reason


def test_every_archive_is_named_by_what_it_is() -> None:
    """By what the libraries themselves write, where Python has them."""
    for data, words in (
        (bz2.compress(bytes(9999)), "is compressed by bzip2; unpack it"),
        (bz2.compress(bytes(9999), 1), "is compressed by bzip2; unpack it"),
        (lzma.compress(bytes(9999)), "is compressed by xz; unpack it"),
        (lzma.compress(bytes(9999), lzma.FORMAT_ALONE), "is compressed by lzma; unpack it"),
        (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "is a 7z archive; unpack it"),
        (b"Rar!\x1a\x07\x01\0" + bytes(99), "is a RAR archive; unpack it"),
        (b"\x04\x22\x4d\x18\x64" + bytes(99), "is compressed by lz4; unpack it"),
        (b"MDMP\x93\xa7" + bytes(99), "is a minidump, without the machine's memory; make a full dump"),
    ):
        assert only(data).reason == f"memory.bin: {words}"
        assert file_kind.not_a_log(data) == words


def test_a_core_of_xen_s_that_is_not_whole_is_named(good: Machine) -> None:
    whole = xen_core(good.start, good.image, order=3)
    assert "without the list of its pages" in only(xen_core(good.start, good.image, listed=False)).reason
    # the sections' headers stand at the end of the file
    assert only(whole[:-100]).kind is ERROR
    at = whole.index(b".xen_pages") - whole.index(b".shstrtab") + 1
    entry = whole.index(struct.pack("<II", at, 1), len(whole) - 64 * 5)
    longer = whole[: entry + 32] + struct.pack("<Q", 4096) + whole[entry + 40 :]
    assert "is a core file of Xen's that was cut off" in only(longer).reason


@settings(max_examples=draws(60), deadline=None)
@given(data=st.data(), name=st.sampled_from(["good", "bad"]))
def test_a_damaged_core_of_xen_s_is_no_other_verdict(
    good: Machine, bad: Machine, data: st.DataObject, name: str
) -> None:
    """Whatever its headers and its list of pages say."""
    each = good if name == "good" else bad
    whole = xen_core(each.start, each.image, order=3)
    pages = whole.index(each.image[:64])
    places = [*range(pages), *range(len(whole) - 64 * 5, len(whole))]
    at = data.draw(st.sampled_from(places))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    kinds = {ERROR, INCONCLUSIVE} | ({NOT_ATOMIC} if name == "bad" else {only(whole).kind})
    assert {verdict.kind for verdict in judged(runs_of(changed))} <= kinds


def test_a_kernel_that_has_not_begun(good: Machine) -> None:
    assert "holds a kernel that has not begun" in only(good.raw.replace(MAGIC, bytes(8))).reason


def test_memory_with_something_between_its_pages_is_refused(bad: Machine) -> None:
    """A migration stream puts eight bytes in front of each page: its counters would be garbage."""
    pages = [bad.raw[at : at + 4096] for at in range(0, len(bad.raw), 4096)]
    reasons = []
    for first in range(2):
        verdict = only(b"".join(at.to_bytes(8, "little") + page for at, page in enumerate(pages[first:])))
        assert verdict.kind is ERROR
        reasons.append(verdict.reason)
    # where what was put in comes to a multiple of the block's alignment by chance, the block itself makes no sense
    assert any("something lies between its pages" in reason for reason in reasons)


def test_a_magic_across_two_parts_of_the_search_is_found() -> None:
    for at in range(CHUNK - 9, CHUNK + 1):
        data = bytearray(CHUNK + 64)
        data[at : at + 8] = MAGIC
        assert list(Memory(io.BytesIO(bytes(data))).find()) == [(at, MAGIC)]


def test_reading_across_and_beside_segments() -> None:
    memory = Memory(io.BytesIO(core((100, b"abc"), (103, b"defg"), (200, b"hi"))))
    assert memory.read(100, 99) == b"abcdefg"
    assert memory.read(102, 2) == b"cd"
    assert memory.read(107, 1) == memory.read(99, 5) == b""
    assert memory.before(105, 3) == b"cde"
    assert memory.before(105, 99) == b"abcde"
    assert memory.before(202, 9) == b"hi"
    assert memory.before(200, 9) == memory.before(100, 9) == b""


def test_a_file_that_was_cut_is_searched_as_far_as_it_goes(bad: Machine) -> None:
    whole = core((bad.start, bad.image))
    end = len(whole) - len(bad.image) + bad.block - bad.start + load("kvm-lost").layout.size
    for size in (*range(0, end, 4099), end - 1):
        assert only(whole[:size]).kind is ERROR
    assert only(whole[:end]).kind is NOT_ATOMIC


def test_only_protocol_errors_come_out_of_the_search() -> None:
    with pytest.raises(ProtocolError):
        memory_dump.blocks(Memory(io.BytesIO(bytes(64))))


@settings(max_examples=draws(100), deadline=None)
@given(data=st.data(), name=st.sampled_from(["good", "bad"]))
def test_damaged_memory_is_never_atomic(good: Machine, bad: Machine, data: st.DataObject, name: str) -> None:
    """Bits turned over in the block, the read-only data, and the headers of the file; some of it cut off."""
    each = good if name == "good" else bad
    whole = bytearray(core((each.start, each.image)))
    start = len(whole) - len(each.image)
    size = load("tcg-atomic").layout.size
    block = start + each.block - each.start
    text = start + each.image.index(SPEC_MAGIC)
    places = st.integers(block, block + size - 1) | st.integers(0, 130) | st.integers(text - 2000, text + 400)
    places |= st.integers(block, block + 2000)
    for at in data.draw(st.lists(places, min_size=1, max_size=6)):
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.just(len(whole)) | st.integers(0, len(whole)))
    log = data.draw(st.sampled_from([None, from_capture(each.log)[0]]))
    found = judged(runs_of(bytes(whole[:cut]), log=log))
    if log is None:
        assert ATOMIC not in [verdict.kind for verdict in found]
    if name == "bad":
        assert ATOMIC not in [verdict.kind for verdict in found]
