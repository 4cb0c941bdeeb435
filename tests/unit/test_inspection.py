"""The debugger's look at the code: a routine that no longer executes its instruction is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kgen.builder import Kernel, build
from kgen.inspection import foreign_routines
from kgen.spec import Case, KernelSpec


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return build(KernelSpec(Case("xchg")))


def test_the_built_kernel_has_nothing_foreign(kernel: Kernel) -> None:
    assert foreign_routines(kernel.spec, kernel.elf.symbols, kernel.elf.sections) == []


@pytest.mark.parametrize("name", ["put_xchg_32", "consume_exchange_xchg_32", "consume_read_xchg_32"])
def test_plain_moves_in_place_of_the_exchange_are_named(kernel: Kernel, name: str) -> None:
    sections = []
    for section in kernel.elf.sections:
        data = bytearray(section.data)
        if section.flags == "ax":
            at = data.index(bytes.fromhex("8707"), kernel.elf.symbols[name] - section.address)
            data[at : at + 2] = bytes.fromhex("8907")
        sections.append(replace(section, data=bytes(data)))
    (problem,) = foreign_routines(kernel.spec, kernel.elf.symbols, sections)
    assert problem == f"the kernel's {name} does not execute 'xchg dword ptr [edi], eax'"


def test_a_missing_routine_is_named(kernel: Kernel) -> None:
    symbols = {name: value for name, value in kernel.elf.symbols.items() if name != "put_xchg_32"}
    assert any("put_xchg_32" in problem for problem in foreign_routines(kernel.spec, symbols, kernel.elf.sections))
