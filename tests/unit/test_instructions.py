"""The catalogue against the assembler and two decoders that share nothing with it; every registry entry is valid."""

from __future__ import annotations

import pkgutil

import capstone
import iced_x86
import pytest

import kgen.experiments
import kgen.instructions
import kgen.targets
from kgen.asm import assemble
from kgen.data import data_dir
from kgen.instructions import Form, Instruction
from kgen.spec import RESERVED, experiments, instructions, targets
from kgen.units import Source

FORMS = [
    form
    for entry in instructions().values()
    for width in entry.widths
    for form in (entry.locked[width], *entry.unlocked[width])
]


def code(*statements: str) -> bytes:
    text = '.code32\n.section .text, "ax"\n' + "".join(f"{line}\n" for line in statements)
    return assemble(Source("form.s", text), origin=0x100000).section(".text").data


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_assembler_gives_the_bytes_of_the_manual(form: Form) -> None:
    statement, expected = form.encoding
    assert code(statement) == expected


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_two_decoders_agree(form: Form) -> None:
    statement, data = form.encoding
    (seen,) = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32).disasm(data, 0x100000)
    decoded = iced_x86.Decoder(32, data).decode()
    assert seen.size == decoded.len == len(data)
    words = statement.removeprefix("lock ").split()
    assert seen.mnemonic.removeprefix("lock ") == words[0]
    formatted = iced_x86.Formatter(iced_x86.FormatterSyntax.NASM)
    assert formatted.format_mnemonic(decoded).removeprefix("lock ") == words[0]
    # the operand is the cell, at the form's width
    assert decoded.memory_base == iced_x86.Register.EDI
    assert iced_x86.MemorySizeExt.size(decoded.memory_size) * 8 == form.width
    assert decoded.has_lock_prefix == statement.startswith("lock ")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_exchange_touches_the_cell_and_nothing_else(form: Form) -> None:
    """All statements together assemble; memory operands are the cell's alone; only EAX, EDX and flags change."""
    prefix = ".x"
    data = code("routine:", *(statement.replace("{L}", prefix) for statement in form.exchange))
    assert form.encoding[1] in data
    factory = iced_x86.InstructionInfoFactory()
    writes = set()
    locked = []
    for decoded in iced_x86.Decoder(32, data):
        info = factory.info(decoded)
        for access in info.used_memory():
            assert access.base == iced_x86.Register.EDI
            assert access.displacement == 0
            locked.append(decoded.has_lock_prefix or decoded.mnemonic == iced_x86.Mnemonic.XCHG)
        writes |= {
            iced_x86.RegisterExt.full_register32(register.register)
            for register in info.used_registers()
            if register.access not in (iced_x86.OpAccess.READ, iced_x86.OpAccess.COND_READ)
        }
    assert writes <= {iced_x86.Register.EAX, iced_x86.Register.EDX}
    # what calls itself atomic locks every access, what stands in for it locks none
    assert set(locked) == {form.atomic}


def test_form_names_are_unique() -> None:
    names = [form.name for form in FORMS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("entry", instructions().values(), ids=lambda entry: entry.name)
def test_every_instruction_is_whole(entry: Instruction) -> None:
    assert entry.summary
    assert "SDM" in entry.sdm
    assert set(entry.unlocked) == set(entry.locked)
    for width in entry.widths:
        assert entry.locked[width].atomic
        assert entry.unlocked[width]
        assert {form.width for form in (entry.locked[width], *entry.unlocked[width])} == {width}
        assert not any(form.atomic for form in entry.unlocked[width])


@pytest.mark.parametrize(
    ("package", "entries"),
    [(kgen.instructions, instructions()), (kgen.targets, targets()), (kgen.experiments, experiments())],
)
def test_every_module_of_a_registry_is_an_entry(package: object, entries: dict[str, object]) -> None:
    modules = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]  # type: ignore[attr-defined]
    assert len(modules) == len(entries)
    assert {name.replace("-", "_") for name in entries} == set(modules)


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.name)
def test_every_target_can_hold_a_cell(target: kgen.targets.MemoryTarget) -> None:
    assert target.summary
    assert target.size >= 4
    assert target.declared in ("io", "ram")
    if target.address is None:
        assert target.declared == "ram"
        return
    assert target.address % 4 == 0
    assert not [low for low, high, _ in RESERVED if target.address < high and target.address + target.size > low]


@pytest.mark.parametrize("experiment", experiments().values(), ids=lambda experiment: experiment.name)
def test_every_experiment_says_why_it_is_sound(experiment: kgen.experiments.Experiment) -> None:
    assert len(experiment.argument) > 100
    assert (data_dir("kernel_templates") / experiment.template).is_file()
