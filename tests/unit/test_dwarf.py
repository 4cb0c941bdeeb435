"""The debug information, read back by pyelftools, and used by gdb."""

from __future__ import annotations

import ctypes
import enum
import os
import shutil
import subprocess
from collections.abc import Mapping
from ctypes import c_bool, c_char, c_int8, c_int32, c_long, c_longlong, c_uint8, c_uint16, c_uint32, c_uint64, c_ulong
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import LinkError
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Assembly, Line, Section, Source, Symbol
from kgen.toolchain.linker import link
from kgen.toolchain.listing import listing


class State(enum.IntEnum):
    IDLE = 0
    RUNNING = 1
    PARKED = 7
    GONE = -1


class StateField(c_int32):
    enum = State


class Cpu(ctypes.LittleEndianStructure):
    _fields_ = (("count", c_uint32), ("state", StateField), ("tsc", c_uint64))


class Results(ctypes.LittleEndianStructure):
    _fields_ = (("magic", c_char * 8), ("cpu", Cpu * 3), ("pairs", (c_uint16 * 2) * 3), ("done", c_bool))


SOURCE = """\
.section .text, "ax"
.long 0x1badb002, 0, -0x1badb002
start:
    mov eax, 1
    call helper
.halt:
    jmp .halt
.align 16
helper:
    inc dword ptr [results + 12]
    ret
trampoline:
.phase 0x8000
.code16
ap_start:
    cli
    hlt
.dephase
.code32
trampoline_end:
.section .data, "aw"
results:
    .ascii "kgen"
    .skip 4
    .long 0, 0, 0, 0
    .long 42, 7, 0x55667788, 0x11223344
    .skip 16
    .word 1, 2, 3, 4, 5, 6
    .byte 1
    .skip 3
.equ screen, 0xb8000
"""


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    return assemble(Source("kernel.s", SOURCE))


def bare(*lines: Line, symbols: tuple[Symbol, ...] = (), text: str = "") -> Assembly:
    """Code at 0x1000, by hand. Lines are where they say; the section just covers them."""
    code = Section(".text", 0x1000, 0x1000, bytes(0x1000), 16, "ax")
    data = Section(".data", 0x2000, 64, bytes(64), 16, "aw")
    start = Symbol("start", 0x1000, 1, ".text", "func")
    cell = Symbol("cell", 0x2000, 16, ".data", "object")
    return Assembly(Source("kernel.s", text), (code, data), (start, cell, *symbols), lines)


def debug_info(assembly: Assembly, variables: Mapping[str, type] | None = None) -> DWARFInfo:
    return ELFFile(BytesIO(link(assembly, entry="start", variables=variables or {}).data)).get_dwarf_info()


def covered(info: DWARFInfo) -> list[tuple[int, int]]:
    """The unit's ranges, which are relative to its DW_AT_low_pc (DWARF 4, section 2.17.3)."""
    base = number(next(info.iter_CUs()).get_top_DIE(), "DW_AT_low_pc")
    ranges = info.range_lists()
    assert ranges is not None
    return [(base + entry.begin_offset, base + entry.end_offset) for entry in ranges.get_range_list_at_offset(0)]


def entries(assembly: Assembly, tag: str, variables: Mapping[str, type] | None = None) -> dict[str, DIE]:
    unit = next(debug_info(assembly, variables).iter_CUs())
    return {text(die, "DW_AT_name"): die for die in unit.iter_DIEs() if die.tag == tag}


def text(die: DIE, attribute: str) -> str:
    value: bytes = die.attributes[attribute].value
    return value.decode()


def number(die: DIE, attribute: str) -> int:
    return int(die.attributes[attribute].value)


# --- the line table ------------------------------------------------------------------------------------------------


def rows(assembly: Assembly) -> list[tuple[int, int, bool, bool]]:
    """(address, line, is statement, is end of sequence) as a debugger decodes them."""
    info = debug_info(assembly)
    program = info.line_program_for_CU(next(info.iter_CUs()))
    assert program is not None
    states = [entry.state for entry in program.get_entries() if entry.state is not None]
    return [(state.address, state.line, bool(state.is_stmt), state.end_sequence) for state in states]


def test_rows_of_a_kernel(assembly: Assembly) -> None:
    assert rows(assembly) == [
        (0x100000, 2, False, False),
        (0x10000C, 4, True, False),
        (0x100011, 5, True, False),
        (0x100016, 7, True, False),
        (0x100018, 8, False, False),
        (0x100020, 10, True, False),
        (0x100026, 11, True, False),
        (0x100027, 11, False, True),
        (0x8000, 16, True, False),
        (0x8001, 17, True, False),
        (0x8002, 17, False, True),
    ]


line_parts = st.tuples(
    st.integers(1, 100_000), st.binary(min_size=1, max_size=30), st.sampled_from([0, 0, 0, 5, 3000]), st.booleans()
)


@given(st.lists(line_parts, max_size=30))
def test_any_lines_survive_the_encoding(parts: list[tuple[int, bytes, int, bool]]) -> None:
    address, lines, wanted = 0x1000, [], []
    for line, data, gap, is_code in parts:
        if gap and lines:
            wanted.append((address, True))
        address += gap
        lines.append(Line(line, address, address, data, ".text", is_code))
        wanted.append((address, line, is_code))
        address += len(data)
    if lines:
        wanted.append((address, True))
    decoded = [(a, True) if end else (a, line, stmt) for a, line, stmt, end in rows(bare(*lines))]
    assert decoded == wanted


def test_phase_blocks_that_run_at_one_address_stay_apart() -> None:
    first = Line(1, 0x1000, 0x8000, b"\xf4", ".text", True)
    second = Line(2, 0x1001, 0x8000, b"\xfa", ".text", True)
    table = rows(bare(first, second))
    assert [row[:2] for row in table] == [(0x8000, 1), (0x8001, 1), (0x8000, 2), (0x8001, 2)]
    info = debug_info(bare(first, second))
    assert covered(info) == [(0x8000, 0x8001)]


def test_data_sections_have_no_lines() -> None:
    assert rows(bare(Line(1, 0x2000, 0x2000, b"data", ".data", False))) == []


def test_unit_covers_the_code_and_names_no_path(assembly: Assembly) -> None:
    info = debug_info(assembly)
    unit = next(info.iter_CUs())
    die = unit.get_top_DIE()
    assert unit["version"] == 4
    assert number(die, "DW_AT_language") == 0x8001
    assert (text(die, "DW_AT_name"), text(die, "DW_AT_comp_dir")) == ("kernel.s", ".")
    aranges = info.get_aranges()
    assert aranges is not None
    expected = [(0x8000, 0x8002), (0x100000, 0x100027)]
    assert covered(info) == expected
    assert number(die, "DW_AT_low_pc") == 0x8000, "in a range: gdb from 16 on takes it for an entry"
    assert sorted((entry.begin_addr, entry.begin_addr + entry.length) for entry in aranges.entries) == expected


# --- functions and types -------------------------------------------------------------------------------------------


def test_functions(assembly: Assembly) -> None:
    functions = {
        name: (number(die, "DW_AT_low_pc"), number(die, "DW_AT_high_pc"), number(die, "DW_AT_decl_line"))
        for name, die in entries(assembly, "DW_TAG_subprogram").items()
    }
    # trampoline and trampoline_end are where code is stored, not where it runs.
    assert functions == {
        "start": (0x10000C, 0x14, 3),
        "helper": (0x100020, 7, 9),
        "ap_start": (0x8000, 2, 15),
    }


def test_function_ends_with_its_run() -> None:
    line = Line(1, 0x1000, 0x1000, b"\xf4", ".text", True)
    far = Symbol("far", 0x1000, 0x900, ".text", "func")
    assert number(entries(bare(line, symbols=(far,)), "DW_TAG_subprogram")["far"], "DW_AT_high_pc") == 1


def described(die: DIE) -> Any:
    """A type entry as nested tuples, in C's order of things."""
    if die.tag == "DW_TAG_array_type":
        counts = [number(child, "DW_AT_count") for child in die.iter_children()]
        return (described(die.get_DIE_from_attribute("DW_AT_type")), *counts)
    name, size = text(die, "DW_AT_name"), number(die, "DW_AT_byte_size")
    if die.tag == "DW_TAG_structure_type":
        members = [
            (
                text(member, "DW_AT_name"),
                number(member, "DW_AT_data_member_location"),
                described(member.get_DIE_from_attribute("DW_AT_type")),
            )
            for member in die.iter_children()
        ]
        return (name, size, members)
    if die.tag == "DW_TAG_enumeration_type":
        values = {text(value, "DW_AT_name"): number(value, "DW_AT_const_value") for value in die.iter_children()}
        return (name, size, values, described(die.get_DIE_from_attribute("DW_AT_type")))
    return (name, size, number(die, "DW_AT_encoding"))


def type_of_cell(ctype: type) -> Any:
    die = entries(bare(), "DW_TAG_variable", {"cell": ctype})["cell"]
    assert die.attributes["DW_AT_location"].value == [0x03, 0x00, 0x20, 0x00, 0x00]
    return described(die.get_DIE_from_attribute("DW_AT_type"))


@pytest.mark.parametrize(
    ("ctype", "name", "encoding"),
    [
        (c_uint8, "uint8_t", 7),
        (c_uint16, "uint16_t", 7),
        (c_uint32, "uint32_t", 7),
        (c_uint64, "uint64_t", 7),
        (c_int8, "int8_t", 5),
        (c_int32, "int32_t", 5),
        (c_longlong, "int64_t", 5),
        (c_long, f"int{8 * ctypes.sizeof(c_long)}_t", 5),
        (c_char, "char", 6),
        (c_bool, "bool", 2),
    ],
)
def test_simple_types(ctype: type[Any], name: str, encoding: int) -> None:
    assert type_of_cell(ctype) == (name, ctypes.sizeof(ctype), encoding)


U32, CHAR = ("uint32_t", 4, 7), ("char", 1, 6)


def test_arrays() -> None:
    assert type_of_cell(c_uint32 * 4) == (U32, 4)
    assert type_of_cell((c_char * 2) * 3) == ((CHAR, 2), 3)
    assert type_of_cell(c_uint32 * 0) == (U32, 0)


def test_structure_with_enum() -> None:
    states = {"IDLE": 0, "RUNNING": 1, "PARKED": 7, "GONE": -1}
    assert type_of_cell(Cpu) == (
        "Cpu",
        16,
        [("count", 0, U32), ("state", 4, ("State", 4, states, ("int32_t", 4, 5))), ("tsc", 8, ("uint64_t", 8, 7))],
    )


def test_structure_with_a_base_class_and_padding() -> None:
    class Base(ctypes.LittleEndianStructure):
        _fields_ = (("first", c_char),)

    class Derived(Base):
        _fields_ = (("second", c_uint32),)

    assert type_of_cell(Derived) == ("Derived", 8, [("first", 0, CHAR), ("second", 4, U32)])


def test_a_type_is_described_once(assembly: Assembly) -> None:
    unit = next(debug_info(assembly, {"results": Results, "screen": c_uint16 * 2000}).iter_CUs())
    names = [text(die, "DW_AT_name") for die in unit.iter_DIEs() if die.tag == "DW_TAG_base_type"]
    assert sorted(names) == ["bool", "char", "int32_t", "uint16_t", "uint32_t", "uint64_t"]


def test_order_of_the_mapping_does_not_matter(assembly: Assembly) -> None:
    one = link(assembly, entry="start", variables={"results": Results, "screen": c_uint16 * 2000})
    two = link(assembly, entry="start", variables={"screen": c_uint16 * 2000, "results": Results})
    assert one.data == two.data


def test_constant_may_have_a_type(assembly: Assembly) -> None:
    die = entries(assembly, "DW_TAG_variable", {"screen": c_uint16 * 2000})["screen"]
    assert die.attributes["DW_AT_location"].value == [0x03, 0x00, 0x80, 0x0B, 0x00]
    assert number(die, "DW_AT_decl_line") == SOURCE.split("\n").index(".equ screen, 0xb8000") + 1


class BigEndian(ctypes.BigEndianStructure):
    _fields_ = (("field", c_uint32),)


class Bits(ctypes.LittleEndianStructure):
    _fields_ = (("low", c_uint32, 4),)


class Choice(ctypes.Union):
    _fields_ = (("field", c_uint32),)


class Misnamed(c_uint32):
    enum = "IDLE"


@pytest.mark.parametrize(
    ("ctype", "message"),
    [
        (ctypes.c_double, "cell: the debugger cannot be told about the type c_double"),
        (ctypes.c_void_p, "cell: the debugger cannot be told about the type c_void_p"),
        (ctypes.POINTER(c_uint32), "cell: the debugger cannot be told about the type LP_c_u"),
        (Choice, "cell: the debugger cannot be told about the type Choice"),
        (int, "cell: the debugger cannot be told about the type int"),
        (BigEndian, "cell: BigEndian is big-endian, the kernel is not"),
        (Bits, r"cell: Bits\.low is a bit field"),
        (Misnamed, r"cell: Misnamed\.enum is not an IntEnum"),
        (c_uint32 * 5, "cell: c_u.*_Array_5 takes 20 bytes, 16 are reserved"),
    ],
)
def test_impossible_types(ctype: type, message: str) -> None:
    with pytest.raises(LinkError, match=message):
        link(bare(), entry="start", variables={"cell": ctype})


def test_type_for_no_symbol() -> None:
    with pytest.raises(LinkError, match="nothing: a type was given for a symbol that does not exist"):
        link(bare(), entry="start", variables={"nothing": c_uint32})


def test_type_beyond_the_address_space() -> None:
    end = Symbol("end", 2**32 - 2, 0, "", "abs")
    with pytest.raises(LinkError, match="end: 0xfffffffe is no 32-bit address"):
        link(bare(symbols=(end,)), entry="start", variables={"end": c_uint32})


def test_one_width_has_one_name_whatever_c_calls_it() -> None:
    same = c_ulong if ctypes.sizeof(c_ulong) == 8 else c_uint32
    other = c_uint64 if ctypes.sizeof(c_ulong) == 8 else c_ulong
    one = link(bare(), entry="start", variables={"cell": same})
    assert one.data == link(bare(), entry="start", variables={"cell": other}).data


# --- gdb -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Path:
    """kernel.elf and kernel.s, as kgen writes them next to each other."""
    path = tmp_path_factory.mktemp("gdb")
    elf = link(assembly, entry="start", variables={"results": Results, "screen": c_uint16 * 2000})
    (path / "kernel.elf").write_bytes(elf.data)
    (path / "kernel.s").write_text(listing(assembly), encoding="utf-8")
    return path


def gdb(workplace: Path, *commands: str) -> str:
    """What gdb prints. It must not complain about the debug information."""
    every = ("set complaints 100", "file kernel.elf", *commands)
    run = subprocess.run(
        ["gdb", "-nx", "-batch", *(part for command in every for part in ("-ex", command))],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"LC_ALL": "C", "HOME": str(workplace)},
    )
    assert run.stderr == ""
    return run.stdout


needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


@needs_gdb
@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("info line helper", 'Line 10 of "kernel.s" starts at address 0x100020 <helper> and ends at 0x100026'),
        ("break helper", "Breakpoint 1 at 0x100020: file kernel.s, line 10."),
        ("break start", "Breakpoint 1 at 0x10000c: file kernel.s, line 4."),
        ("break ap_start", "Breakpoint 1 at 0x8000: file kernel.s, line 16."),
        # a line without code, in a function: from one in front of a function gdb from 16 on does not go into it
        ("break kernel.s:6", "Breakpoint 1 at 0x100016: file kernel.s, line 7."),
        ("list helper", "\n10\t00100020 ff050c101000         10      inc dword ptr [results + 12]\n"),
        ("list results", "22  results:\n"),
        ("list screen", ".equ screen, 0xb8000\n"),
        ("info symbol 0x100026", "helper + 6 in section .text"),
        ("print sizeof(results)", " = 72\n"),
        ("print results.magic", ' = "kgen\\000\\000\\000"\n'),
        ("print results.cpu[1].count", " = 42\n"),
        ("print results.cpu[1].state", " = PARKED\n"),
        ("print/x results.cpu[1].tsc", " = 0x1122334455667788\n"),
        ("print results.pairs", " = {{1, 2}, {3, 4}, {5, 6}}\n"),
        ("print results.done", " = true\n"),
        ("print &results.cpu[2]", " = (struct Cpu *) 0x101028 <results+40>\n"),
        ("print &screen[80]", " = (uint16_t *) 0xb80a0\n"),
        ("whatis results", "type = struct Results\n"),
        # not "ptype enum State": in a unit of assembly language gdb from 16 on knows no such word before a name
        # gdb from 18 on prints a line for each name
        ("ptype results.cpu[1].state", "PARKED = 7,"),
    ],
)
def test_gdb(workplace: Path, command: str, answer: str) -> None:
    assert answer in gdb(workplace, command)


@needs_gdb
def test_gdb_shows_the_c_types(workplace: Path) -> None:
    assert gdb(workplace, "ptype results") == (
        "type = struct Results {\n"
        "    char magic[8];\n"
        "    struct Cpu cpu[3];\n"
        "    uint16_t pairs[3][2];\n"
        "    bool done;\n"
        "}\n"
    )


@needs_gdb
def test_gdb_lists_the_functions(workplace: Path) -> None:
    answer = gdb(workplace, "info functions")
    assert [line.split()[-1] for line in answer.splitlines() if "void" in line] == [
        "ap_start(void);",
        "helper(void);",
        "start(void);",
    ]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils is not installed")
@pytest.mark.parametrize("case", ["kernel", "no lines", "no code"])
def test_readelf_has_nothing_to_complain_about(tmp_path: Path, assembly: Assembly, case: str) -> None:
    built = {
        "kernel": link(assembly, entry="start", variables={"results": Results}),
        "no lines": link(bare(), entry="start", variables={"cell": Cpu}),
        "no code": link(replace(bare(), symbols=bare().symbols[:1]), entry="start"),
    }[case]
    path = tmp_path / "kernel.elf"
    path.write_bytes(built.data)
    command = ["readelf", "-aW", "--debug-dump=abbrev,info,rawline,decodedline,aranges,Ranges", str(path)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env=os.environ | {"LC_ALL": "C"}
    )
    assert run.stderr == ""
    assert "Warning" not in run.stdout
