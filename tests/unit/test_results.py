"""The results block is laid out as a C compiler would lay it out, and as the debugger is told."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections import Counter
from ctypes import LittleEndianStructure
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

import kgen.kernel.results_block
from kgen.build import build
from kgen.kernel.plan import layout_of
from kgen.kernel.results_block import (
    CPU_TABLE,
    MAGIC,
    WITNESSES_PER_KIND,
    Cpu,
    Handshake,
    PlanEntry,
    ViolationKind,
    results_layout,
)
from kgen.spec import Case, KernelSpec

_ENUMS = [
    entry
    for entry in vars(kgen.kernel.results_block).values()
    if isinstance(entry, type) and issubclass(entry, IntEnum) and entry is not IntEnum
]
_C = {1: "uint8_t", 4: "uint32_t", 8: "uint64_t"}


def structures(root: type[Any]) -> list[type[LittleEndianStructure]]:
    """The structures below a type, each after those it contains."""
    if issubclass(root, ctypes.Array):
        return structures(root._type_)
    if not issubclass(root, LittleEndianStructure):
        return []
    inner = [found for _, kind in root._fields_ for found in structures(kind)]
    return [*dict.fromkeys([*inner, root])]


def declaration(name: str, kind: type[Any]) -> str:
    """A member; its name ends in an underscore, because some of ours are words of C."""
    name += "_"
    if issubclass(kind, ctypes.Array):
        element = kind._type_
        base = (
            f"struct {element.__name__}" if issubclass(element, LittleEndianStructure) else _C[ctypes.sizeof(element)]
        )
        return f"{base} {name}[{kind._length_}];"
    if issubclass(kind, LittleEndianStructure):
        return f"struct {kind.__name__} {name};"
    return f"{_C[ctypes.sizeof(kind)]} {name};"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize(("cpus", "phases"), [(3, 4), (3, 1), (255, 4)])
def test_a_c_compiler_finds_every_field_where_we_do(cpus: int, phases: int, tmp_path: Path) -> None:
    """The asserts are the compiler's: nothing is linked or run, so no 32-bit C library is needed."""
    classes = [*structures(results_layout(cpus, phases).results), PlanEntry]
    lines = ["#include <stddef.h>", "#include <stdint.h>"]
    for struct in classes:
        body = " ".join(declaration(name, kind) for name, kind in struct._fields_)
        lines.append(f"struct {struct.__name__} {{ {body} }};")
        size = ctypes.sizeof(struct)
        lines.append(f'_Static_assert(sizeof(struct {struct.__name__}) == {size}, "size of {struct.__name__}");')
        lines += [
            f"_Static_assert(offsetof(struct {struct.__name__}, {name}_) == {getattr(struct, name).offset}, "
            f'"{struct.__name__}.{name}");'
            for name, _ in struct._fields_
        ]
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    for model in ("-m32", "-m64"):
        command = ["gcc", model, "-std=c11", "-ffreestanding", "-fsyntax-only", "-Wall", "-Wextra", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        # 32-bit x86 aligns 64-bit numbers to 4 bytes inside structures, 64-bit to 8: alike only without holes
        assert done.returncode == 0, f"{model}: {done.stderr}"
    # and the assert does fail where an offset is wrong
    source.write_text(source.read_text().replace("Cpu, takes_) == 8", "Cpu, takes_) == 12"))
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0


def test_no_structure_has_holes() -> None:
    for struct in [*structures(results_layout(3, 4).results), PlanEntry]:
        at = 0
        for name, kind in struct._fields_:
            assert getattr(struct, name).offset == at, f"{struct.__name__}.{name}"
            at += ctypes.sizeof(kind)
        assert at == ctypes.sizeof(struct)


def test_what_several_cpus_write_shares_no_cache_line() -> None:
    results = results_layout(3, 4).results
    assert ctypes.sizeof(Cpu) % 128 == 0
    assert results.cpu.offset % 64 == 0
    assert results.handshake.offset % 64 == 0
    assert ctypes.sizeof(Handshake) % 64 == 0
    # every put changes it, every poll of the handshake would suffer
    assert Handshake.filled.offset // 64 != Handshake.halt.offset // 64


def test_room_for_everything() -> None:
    layout = results_layout(3, 4)
    block = layout.results()
    assert len(block.cpu) == CPU_TABLE
    assert len(block.phase) == 4
    assert len(block.phase[0].cpu) == 3
    assert len(block.witness) == 4 * len(ViolationKind) * WITNESSES_PER_KIND
    assert layout.size == len(bytes(block))
    assert ctypes.sizeof(ctypes.c_char * len(MAGIC)) == 8


def test_the_counters_stand_in_the_order_of_their_kinds() -> None:
    """The kernel computes a counter's place from the kind's number."""
    constants = results_layout(3, 1).constants()
    for kind in ViolationKind:
        assert constants[f"Phase.{kind.name.lower()}"] == constants["Phase.lost"] + 8 * kind.value


@pytest.mark.parametrize("values", _ENUMS, ids=lambda values: values.__name__)
def test_enumerations_are_unambiguous(values: type[IntEnum]) -> None:
    numbers = Counter(member.value for member in values)
    assert max(numbers.values()) == 1
    # an alias would not show in the iteration
    assert len(values.__members__) == len(values)
    for member in values:
        assert results_layout(3, 1).constants()[f"{values.__name__}.{member.name}"] == member.value


def test_there_are_enumerations() -> None:
    assert {"ViolationKind", "Role", "PhaseStatus", "KernelState", "CpuState", "Decode"} <= {e.__name__ for e in _ENUMS}


def test_constants_name_every_field_once() -> None:
    layout = results_layout(3, 4)
    constants = layout.constants()
    for struct in structures(layout.results):
        assert constants[f"{struct.__name__}.SIZE"] == ctypes.sizeof(struct)
        for name, _ in struct._fields_:
            assert constants[f"{struct.__name__}.{name}"] == getattr(struct, name).offset
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+\.[A-Za-z_0-9]+", name) for name in constants)


def test_the_debugger_is_told_the_same(tmp_path: Path) -> None:
    """DWARF, read back by pyelftools: every member of every structure is where the block has it."""
    from elftools.elf.elffile import ELFFile

    spec = KernelSpec(Case("xchg"))
    path = tmp_path / "kernel.elf"
    path.write_bytes(build(spec).elf.data)
    told: dict[str, dict[str, int]] = {}
    with path.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            for entry in unit.iter_DIEs():
                if entry.tag == "DW_TAG_structure_type":
                    told[entry.attributes["DW_AT_name"].value.decode()] = {
                        child.attributes["DW_AT_name"].value.decode(): child.attributes[
                            "DW_AT_data_member_location"
                        ].value
                        for child in entry.iter_children()
                    }
    for struct in structures(layout_of(spec).results):
        assert told[struct.__name__] == {name: getattr(struct, name).offset for name, _ in struct._fields_}
