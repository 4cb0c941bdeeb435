"""The kernel file: what a loader, readelf and kgen itself find in it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
from ctypes import c_uint16
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import LinkError
from kgen.toolchain.assembly import Assembly, Line, Section, Source, Symbol
from kgen.toolchain.elf_reader import read, recompute_build_id
from kgen.toolchain.linker import flat_image, link

ROOT = Path(__file__).parents[2]
TRAMPOLINE = 0x8000
WORDS = c_uint16 * 2000


def kernel() -> Assembly:
    """Every kind of section and symbol, by hand: ``jmp $`` twice, and a trampoline that runs at 0x8000."""
    text = b"\xeb\xfe\xeb\xfe\xf4\xf4"
    source = "start: jmp $\npvh_entry: jmp $\n.phase 0x8000\nap_start: hlt\nhlt\nap_end:\n.dephase\n"
    lines = (
        Line(1, 0x100000, 0x100000, text[:2], ".text", True),
        Line(2, 0x100002, 0x100002, text[2:4], ".text", True),
        Line(4, 0x100004, TRAMPOLINE, text[4:5], ".text", True),
        Line(5, 0x100005, TRAMPOLINE + 1, text[5:], ".text", True),
    )
    sections = (
        Section(".text", 0x100000, 6, text, 16, "ax"),
        Section(".rodata", 0x101000, 5, b"hello", 16, "a"),
        Section(".data", 0x102000, 40, bytes(range(40)), 16, "aw"),
        Section(".bss", 0x102030, 0x2000, b"", 16, "awn"),
    )
    symbols = (
        Symbol("start", 0x100000, 2, ".text", "func"),
        Symbol("pvh_entry", 0x100002, 2, ".text", "func"),
        Symbol("ap_start", TRAMPOLINE, 2, ".text", "func"),
        Symbol("ap_end", TRAMPOLINE + 2, 0, ".text", "func"),
        Symbol("text_end", 0x100006, 0, ".text", "func"),
        Symbol("build_id", 0x102004, 20, ".data", "object"),
        Symbol("stack", 0x102030, 0x2000, ".bss", "object"),
        Symbol("screen", 0xB8000, 0, "", "abs"),
        Symbol("minus_one", -1, 0, "", "abs"),
        Symbol("wide", 2**40, 0, "", "abs"),
    )
    return Assembly(Source("kernel.s", source), sections, symbols, lines)


def without(assembly: Assembly, name: str) -> Assembly:
    return replace(assembly, symbols=tuple(symbol for symbol in assembly.symbols if symbol.name != name))


def parsed(data: bytes) -> ELFFile:
    return ELFFile(BytesIO(data))


def loads(data: bytes) -> list[Any]:
    return [segment for segment in parsed(data).iter_segments() if segment["p_type"] == "PT_LOAD"]


# --- what a loader sees --------------------------------------------------------------------------------------------


def test_header_says_static_i386() -> None:
    header = parsed(link(kernel(), entry="start").data).header
    assert header["e_ident"]["EI_CLASS"] == "ELFCLASS32"
    assert (header["e_type"], header["e_machine"], header["e_entry"]) == ("ET_EXEC", "EM_386", 0x100000)


def test_segments_follow_permissions() -> None:
    segments = [
        (s["p_vaddr"], s["p_paddr"], s["p_filesz"], s["p_memsz"], s["p_flags"])
        for s in loads(link(kernel(), entry="start").data)
    ]
    assert segments == [
        (0x100000, 0x100000, 6, 6, 5),
        (0x101000, 0x101000, 5, 5, 4),
        (0x102000, 0x102000, 40, 0x2030, 6),
    ]


def section_lists() -> st.SearchStrategy[tuple[Section, ...]]:
    """Sections in address order, with any permissions, gaps and sizes (none at all, too)."""
    part = st.tuples(st.sampled_from(["ax", "a", "aw", "awn"]), st.integers(0, 6000), st.binary(max_size=40))

    def place(parts: list[tuple[Any, int, bytes]]) -> tuple[Section, ...]:
        address, out = 0x100000, []
        for number, (flags, gap, data) in enumerate(parts):
            address += gap
            out.append(
                Section(f".s{number}", address, len(data), b"" if flags == "awn" else data, 1, flags),
            )
            address += len(data)
        return tuple(out)

    return st.lists(part, max_size=12).map(place)


@given(section_lists())
def test_loading_the_segments_gives_the_sections(sections: tuple[Section, ...]) -> None:
    entry = Section(".entry", 0xFFFF0, 1, b"\xf4", 16, "ax")
    symbols = (Symbol("start", 0xFFFF0, 1, ".entry", "func"),)
    elf = link(Assembly(Source("k.s", ""), (entry, *sections), symbols, ()), entry="start")
    base, span = 0xFFFF0, 0x20000
    memory, permissions = bytearray(span), bytearray(span)
    for segment in loads(elf.data):
        assert segment["p_offset"] % segment["p_align"] == segment["p_vaddr"] % segment["p_align"]
        assert segment["p_flags"] & 3 != 3, "writable code"
        start, size = segment["p_vaddr"] - base, segment["p_memsz"]
        assert not any(permissions[start : start + size]), "two segments load the same byte"
        memory[start : start + size] = segment.data().ljust(size, b"\0")
        permissions[start : start + size] = bytes((segment["p_flags"],)) * size
    wanted = {"ax": 5, "a": 4, "aw": 6, "awn": 6}
    for section in (entry, *sections):
        part = slice(section.address - base, section.address - base + section.size)
        assert memory[part] == section.data.ljust(section.size, b"\0")
        assert set(permissions[part]) <= {wanted[section.flags]}
    assert read(elf.data).sections == (entry, *sections)


def test_multiboot_header_stays_near_the_start_of_the_file() -> None:
    offset = link(kernel(), entry="start").data.index(b"\xeb\xfe\xeb\xfe")
    assert offset < 4096
    assert offset % 4 == 0


def test_too_many_segments_are_refused() -> None:
    sections = tuple(
        Section(f".s{n}", 0x100000 + 4096 * n, 1, b"\xf4", 16, "ax" if n % 2 else "aw") for n in range(130)
    )
    assembly = Assembly(Source("k.s", ""), sections, (Symbol("start", 0x101000, 1, ".s1", "func"),), ())
    with pytest.raises(LinkError, match="130 segments push the first section beyond 4 KiB"):
        link(assembly, entry="start")


def pvh_entry(data: bytes) -> int | None:
    """Look for the PVH note as QEMU does: in PT_NOTE segments, from the file."""
    for segment in parsed(data).iter_segments():
        if segment["p_type"] == "PT_NOTE":
            assert segment["p_align"] == 4
            rest = segment.data()
            while rest:
                name_size, desc_size, kind = struct.unpack_from("<III", rest)
                name, desc = rest[12:16], rest[16 : 16 + desc_size]
                assert name_size == 4
                if (name, kind) == (b"Xen\0", 18):
                    return int.from_bytes(desc, "little")
                rest = rest[16 + desc_size :]
    return None


def test_pvh_note() -> None:
    assert pvh_entry(link(kernel(), entry="start").data) == 0x100002
    assert pvh_entry(link(without(kernel(), "pvh_entry"), entry="start").data) is None


# --- symbols -------------------------------------------------------------------------------------------------------


def test_symbol_table() -> None:
    elf = parsed(link(kernel(), entry="start").data)
    table = elf.get_section_by_name(".symtab")
    names = {section.name: index for index, section in enumerate(elf.iter_sections())}
    rows = {
        symbol.name: (
            symbol["st_value"],
            symbol["st_size"],
            symbol["st_info"]["bind"],
            symbol["st_info"]["type"],
            symbol["st_shndx"],
        )
        for symbol in table.iter_symbols()
    }
    assert rows == {
        "": (0, 0, "STB_LOCAL", "STT_NOTYPE", "SHN_UNDEF"),
        "kernel.s": (0, 0, "STB_LOCAL", "STT_FILE", "SHN_ABS"),
        "start": (0x100000, 2, "STB_GLOBAL", "STT_FUNC", names[".text"]),
        "pvh_entry": (0x100002, 2, "STB_GLOBAL", "STT_FUNC", names[".text"]),
        # Code that runs elsewhere keeps its section: gdb crashes at an absolute function (test_dwarf.py).
        "ap_start": (TRAMPOLINE, 2, "STB_GLOBAL", "STT_FUNC", names[".text"]),
        "ap_end": (TRAMPOLINE + 2, 0, "STB_GLOBAL", "STT_FUNC", "SHN_ABS"),
        "text_end": (0x100006, 0, "STB_GLOBAL", "STT_FUNC", names[".text"]),
        "build_id": (0x102004, 20, "STB_GLOBAL", "STT_OBJECT", names[".data"]),
        "stack": (0x102030, 0x2000, "STB_GLOBAL", "STT_OBJECT", names[".bss"]),
        "screen": (0xB8000, 0, "STB_GLOBAL", "STT_NOTYPE", "SHN_ABS"),
        "minus_one": (0xFFFFFFFF, 0, "STB_GLOBAL", "STT_NOTYPE", "SHN_ABS"),
    }
    binds = [symbol["st_info"]["bind"] for symbol in table.iter_symbols()]
    assert binds[: table["sh_info"]].count("STB_LOCAL") == len(binds) - binds.count("STB_GLOBAL")


def test_symbols_are_those_of_the_file() -> None:
    elf = link(kernel(), entry="start")
    assert elf.symbols == read(elf.data).symbols
    assert elf.symbols["minus_one"] == 0xFFFFFFFF
    assert "wide" not in elf.symbols


@pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils is not installed")
@pytest.mark.parametrize("options", ["-aW", "-wilaRL", "-w"])
def test_readelf_has_nothing_to_complain_about(tmp_path: Path, options: str) -> None:
    path = tmp_path / "kernel.elf"
    path.write_bytes(link(kernel(), entry="start", variables={"screen": WORDS}).data)
    run = subprocess.run(
        ["readelf", options, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    assert run.stderr == ""
    assert not re.search("warning|error|corrupt|<unknown", run.stdout, re.IGNORECASE)
    assert "RWE" not in run.stdout


# --- build id ------------------------------------------------------------------------------------------------------


def test_build_id_is_in_the_note_and_in_guest_memory() -> None:
    elf = link(kernel(), entry="start")
    note = next(parsed(elf.data).get_section_by_name(".note.gnu.build-id").iter_notes())
    data = next(section.data for section in elf.sections if section.name == ".data")
    assert len(elf.build_id) == 20
    assert note["n_desc"] == elf.build_id.hex()
    assert data == bytes(range(4)) + elf.build_id + bytes(range(24, 40))
    assert loads(elf.data)[2].data() == data


def test_build_id_is_the_sha1_of_the_rest() -> None:
    elf = link(kernel(), entry="start")
    assert elf.data.count(elf.build_id) == 2
    assert hashlib.sha1(elf.data.replace(elf.build_id, bytes(20))).digest() == elf.build_id
    assert recompute_build_id(elf.data) == elf.build_id


def test_no_memory_copy_unless_asked_for() -> None:
    elf = link(without(kernel(), "build_id"), entry="start")
    assert elf.data.count(elf.build_id) == 1
    assert read(elf.data).build_id == elf.build_id


def test_build_id_depends_on_everything() -> None:
    first = kernel()
    moved = replace(first.sections[3], address=0x103000)
    grown = replace(first.symbols[4], size=1)
    builds = [
        link(first, entry="start"),
        link(first, entry="pvh_entry"),
        link(first, entry="start", spec_json='{"rounds": 1}'),
        link(first, entry="start", variables={"screen": WORDS}),
        link(replace(first, source=Source("kernel.s", first.source.text + "; a comment\n")), entry="start"),
        link(replace(first, sections=(*first.sections[:3], moved)), entry="start"),
        link(replace(first, symbols=(*first.symbols[:4], grown, *first.symbols[5:])), entry="start"),
        link(replace(first, lines=first.lines[1:]), entry="start"),
    ]
    assert len({elf.build_id for elf in builds}) == len(builds)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_same_bytes_in_another_process(seed: str) -> None:
    script = "from test_elf import *; print(hashlib.sha256(link(kernel(), entry='start').data).hexdigest())"
    env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/unit")))}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, env=env
    )
    assert run.stdout.strip() == hashlib.sha256(link(kernel(), entry="start").data).hexdigest()


# --- errors of link() ----------------------------------------------------------------------------------------------


def test_unknown_entry() -> None:
    with pytest.raises(LinkError, match="nowhere: the entry point is not a label"):
        link(kernel(), entry="nowhere")


def test_constant_as_entry() -> None:
    with pytest.raises(LinkError, match="screen: the entry point is not a label"):
        link(kernel(), entry="screen")


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (1, {"address": 0x100000}, r"\.rodata: overlaps the section before it"),
        (1, {"address": 0x101008}, r"\.rodata: 0x101008 is not aligned to 16"),
        (1, {"size": 6}, r"\.rodata: has 5 bytes of data, not 6"),
        (3, {"data": b"x"}, r"\.bss: has 1 bytes of data, not 0"),
        (3, {"size": 2**32}, r"\.bss: ends at 0x100102030, beyond 4 GiB"),
    ],
)
def test_impossible_sections(index: int, change: dict[str, Any], message: str) -> None:
    sections = list(kernel().sections)
    sections[index] = replace(sections[index], **change)
    with pytest.raises(LinkError, match=message):
        link(replace(kernel(), sections=tuple(sections)), entry="start")


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        (Symbol("lost", 0x100000, 0, ".gone", "func"), r"lost: lies in a section that does not exist: '\.gone'"),
        (Symbol("high", 2**32, 0, ".text", "func"), "high: 0x100000000 is no 32-bit address"),
        (Symbol("build_id", 0x102030, 20, ".bss", "object"), "build_id: needs 20 bytes in a section that has data"),
        (Symbol("build_id", 0x102015, 19, ".data", "object"), "build_id: needs 20 bytes in a section that has data"),
    ],
)
def test_impossible_symbols(symbol: Symbol, message: str) -> None:
    assembly = without(kernel(), "build_id")
    with pytest.raises(LinkError, match=message):
        link(replace(assembly, symbols=(*assembly.symbols, symbol)), entry="start")


def test_impossible_run_address() -> None:
    line = Line(7, 0x100000, 2**32, b"\xf4", ".text", True)
    with pytest.raises(LinkError, match=r"kernel\.s:7: runs at 0x100000000"):
        link(replace(kernel(), lines=(line,)), entry="start")


# --- read() --------------------------------------------------------------------------------------------------------


def test_read_returns_what_was_linked() -> None:
    elf = link(kernel(), entry="start", spec_json='{"cases": ["xchg.32.ram.token"], "ü": 1}')
    loaded = read(elf.data)
    assert loaded.spec_json == '{"cases": ["xchg.32.ram.token"], "ü": 1}'
    assert (loaded.build_id, loaded.entry) == (elf.build_id, elf.entry)
    assert (loaded.symbols, loaded.sections) == (elf.symbols, elf.sections)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is not an ELF file"),
        (b"MZ", "it is not an ELF file"),
        (b"\x7fELF", "or is damaged: it cannot be read as ELF"),
        (link(kernel(), entry="start").data.replace(b".kgen.spec", b".kgen.none"), "it has no .kgen.spec section"),
        (link(kernel(), entry="start").data.replace(b"\2\0\3\0", b"\2\0\x28\0", 1), "it is not a 32-bit x86 file"),
    ],
    ids=["empty", "dos", "magic only", "no spec", "arm"],
)
def test_foreign_files(data: bytes, reason: str) -> None:
    with pytest.raises(LinkError) as caught:
        read(data, name="other.elf")
    assert caught.value.line.startswith("other.elf is not a kernel built by kgen")
    assert reason in caught.value.line
    assert "\n" not in caught.value.line


def test_altered_file() -> None:
    data = link(kernel(), entry="start").data
    with pytest.raises(LinkError, match=r"^kernel\.elf was altered after it was built: its build id does not match"):
        read(data.replace(b"hello", b"hallo"), name="kernel.elf")


@pytest.mark.parametrize("which", [0, 1])
def test_altered_build_id(which: int) -> None:
    elf = link(kernel(), entry="start")
    parts = elf.data.split(elf.build_id)
    ids = [elf.build_id, elf.build_id]
    ids[which] = bytes(20)
    with pytest.raises(LinkError, match="was altered"):
        read(parts[0] + ids[0] + parts[1] + ids[1] + parts[2])


GOOD = link(kernel(), entry="start").data


@given(st.integers(0, len(GOOD) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(LinkError):
        read(GOOD[:length])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_every_flip_is_noticed(position: int, mask: int) -> None:
    with pytest.raises(LinkError):
        read(GOOD[:position] + bytes((GOOD[position] ^ mask,)) + GOOD[position + 1 :])


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)), min_size=2, max_size=20))
def test_recompute_raises_only_link_errors(flips: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for position, mask in flips:
        data[position] ^= mask
    try:
        build_id = recompute_build_id(bytes(data))
    except LinkError:
        return
    assert len(build_id) == 20


@given(st.binary(max_size=200))
def test_garbage_is_no_kernel(tail: bytes) -> None:
    for data in (tail, b"\x7fELF" + tail, GOOD[:52] + tail):
        with pytest.raises(LinkError):
            read(data)


@given(st.binary(min_size=1, max_size=20))
def test_appended_bytes_are_noticed(tail: bytes) -> None:
    with pytest.raises(LinkError, match="was altered"):
        read(GOOD + tail)


# --- flat image ----------------------------------------------------------------------------------------------------


def test_flat_image() -> None:
    elf = link(kernel(), entry="start")
    image = flat_image(read(elf.data).sections)
    assert (image.load_address, image.data_end, image.bss_end) == (0x100000, 0x102028, 0x104030)
    assert len(image.data) == 0x2028
    assert image.data[:6] == b"\xeb\xfe\xeb\xfe\xf4\xf4"
    assert image.data[6:0x1000] == bytes(0xFFA)
    assert image.data[0x1000:0x1005] == b"hello"
    assert image.data[0x2004:0x2018] == elf.build_id


def test_flat_image_zeroes_bss_before_data() -> None:
    bss = Section(".bss", 0x1000, 16, b"", 16, "awn")
    data = Section(".data", 0x1020, 2, b"ab", 16, "aw")
    image = flat_image((data, bss))
    assert (image.load_address, image.data_end, image.bss_end) == (0x1000, 0x1022, 0x1022)
    assert image.data == bytes(32) + b"ab"


def test_flat_image_of_nothing() -> None:
    with pytest.raises(LinkError, match="nothing to load"):
        flat_image((Section(".bss", 0x1000, 16, b"", 16, "awn"),))
