"""The debugger's look at code and cells: a routine that no longer executes its instruction is noticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from kgen.build import Kernel, build
from kgen.inspection.stopped import _cells, foreign_routines
from kgen.kernel.plan import phases
from kgen.machine.gdb import GdbSession
from kgen.spec import Case, KernelSpec


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return build(KernelSpec(Case("xchg")))


def test_the_built_kernel_has_nothing_foreign(kernel: Kernel) -> None:
    assert foreign_routines(kernel.spec, kernel.elf.symbols, kernel.elf.sections) == []


def test_plain_moves_in_place_of_the_exchange_are_named(kernel: Kernel) -> None:
    name = "exchange_xchg_32"
    sections = []
    for section in kernel.elf.sections:
        data = bytearray(section.data)
        if section.flags == "ax":
            at = data.index(bytes.fromhex("8707"), kernel.elf.symbols[name] - section.address)
            data[at : at + 2] = bytes.fromhex("8907")
        sections.append(replace(section, data=bytes(data)))
    (problem,) = foreign_routines(kernel.spec, kernel.elf.symbols, sections)
    assert problem == f"the kernel's {name} does not execute 'xchg dword ptr [edi], eax'"


class Memory:
    """A debugger on memory whose bytes tell their addresses; it knows what was read."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def read_memory(self, address: int, length: int) -> bytes:
        self.reads.append((address, length))
        return b"".join((address + at).to_bytes(4, "little") for at in range(0, length + 4, 4))[:length]


@pytest.mark.parametrize(
    ("fields", "count", "step", "reads"),
    [
        ({"target": "ram"}, 128, 4, 1),
        ({"target": "ram", "width": 8}, 128, 4, 1),
        ({"target": "ram", "offset": 4095}, None, 4096, None),
        ({"target": "ram", "offset": 64}, 128, 4, 1),
        ({"target": "0xb8000"}, 1, 4, 1),
    ],
)
def test_every_cell_is_read(fields: dict[str, Any], count: int | None, step: int, reads: int | None) -> None:
    """As wide as it is and where it lies, none left out."""
    last = phases(KernelSpec(Case("xchg", **fields)))[-1]
    memory = Memory()
    cells = _cells(cast(GdbSession, memory), last, 0x400000, known=0)
    width = last.form.width
    assert len(cells) == last.cells == (count or last.cells) > 0
    assert cells == tuple((0x400000 + step * number) % (1 << width) for number in range(last.cells))
    assert len(memory.reads) == (reads or last.cells)


def test_a_missing_routine_is_named(kernel: Kernel) -> None:
    symbols = {name: value for name, value in kernel.elf.symbols.items() if name != "exchange_xchg_32"}
    assert any("exchange_xchg_32" in problem for problem in foreign_routines(kernel.spec, symbols, kernel.elf.sections))
