"""The catalogue against the assembler and two decoders that share nothing with it; every routine keeps its promises."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from itertools import pairwise

import capstone
import iced_x86
import pytest
from draws import draws
from grouped import grouped
from hypothesis import given, settings
from hypothesis import strategies as st
from iced_x86 import Mnemonic, OpAccess, Register

import kgen.instructions
from kgen.instructions import CF, STATUS_FLAGS, Form, Instruction, Source, Use, encode
from kgen.registry import discover
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source as Text
from kgen.toolchain.decoder import LOCKABLE

INSTRUCTIONS = discover("kgen.instructions", "INSTRUCTION", Instruction)
#: Every form that is executed: those under test, those without LOCK, those that stand in for them.
FORMS = [
    (entry, form)
    for entry in INSTRUCTIONS.values()
    for source in entry.sources
    for width in entry.opcodes[source]
    for form in (entry.form(width, source, True), *entry.unlocked(width, source))
]
ROUTINES = [(entry, form, use) for entry, form in FORMS for use in form.code]
#: Where encodings change: at the limits of a sign-extended byte and of each width.
OPERANDS = sorted(
    {0, 1, 2, 0x1F, 0x3FF, 0x5A5A, 0x9E3779B1, 0x61C8864F, 0xFFFFFC00}
    | {(1 << bits) + more for bits in (7, 8, 15, 16, 31, 32) for more in (-1, 0, 1)}
    | {(1 << width) - (1 << bits) + more for width in (8, 16, 32) for bits in (7, 8) for more in (-1, 0, 1)}
)
#: These take a bit number; beyond the operand a register would reach into neighbouring memory.
BIT_TESTS = ("btc", "btr", "bts")
WRITES = (OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE, OpAccess.COND_WRITE)


def name(value: object) -> str:
    return value.value if isinstance(value, Use) else getattr(value, "name", str(value))


def operands(form: Form) -> list[int]:
    """Those that an immediate of the form can be; a form without one takes any for none."""
    if form.source is not Source.IMMEDIATE:
        return [0]
    limit = 32 if form.mnemonic in BIT_TESTS else 1 << form.width
    return [operand for operand in OPERANDS if 0 <= operand < limit]


def code(*statements: str) -> list[bytes]:
    """What each statement becomes."""
    text = '.code32\n.section .text, "ax"\n' + "".join(f"{line}\n" for line in statements)
    return [line.data for line in assemble(Text("form.s", text), origin=0x100000).lines]


def routine(form: Form, use: Use, operand: int = 0) -> bytes:
    return b"".join(code("routine:", *(line.replace("{L}", ".x") for line in form.routine(use, operand))))


@grouped(FORMS)
def test_the_assembler_gives_the_bytes_of_the_manual(entry: Instruction, form: Form) -> None:
    values = operands(form)
    found = code(*(form.statement.replace("{operand}", f"{value:#x}") for value in values))
    assert [data.hex() for data in found] == [form.encoding(value).hex() for value in values]


@grouped(FORMS)
def test_two_decoders_agree(entry: Instruction, form: Form) -> None:
    """One whole instruction, of that name and width, with LOCK or without, on the cell, which it reads and writes."""
    one = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    one.detail = True
    other = iced_x86.Formatter(iced_x86.FormatterSyntax.NASM)
    factory = iced_x86.InstructionInfoFactory()
    prefix = ["lock"] if form.lock and not entry.implicit_lock else []
    assert form.statement.split()[: len(prefix) + 1] == [*prefix, form.mnemonic]
    for operand in operands(form):
        data = form.encoding(operand)
        (seen,) = one.disasm(data, 0x100000)
        decoded = iced_x86.Decoder(32, data).decode()
        assert seen.size == decoded.len == len(data)
        assert seen.mnemonic.split() == other.format_mnemonic(decoded).split() == [*prefix, form.mnemonic]
        assert decoded.has_lock_prefix == bool(prefix)
        (memory,) = [part for part in seen.operands if part.type == capstone.x86.X86_OP_MEM]
        assert memory.size * 8 == iced_x86.MemorySizeExt.size(decoded.memory_size) * 8 == form.width
        assert seen.reg_name(memory.mem.base) == "edi"
        assert (memory.mem.disp, memory.mem.index, decoded.memory_displacement) == (0, 0, 0)
        (access,) = factory.info(decoded).used_memory()
        assert (access.base, access.index, access.displacement) == (Register.EDI, Register.NONE, 0)
        if form.mnemonic == "mov":
            assert access.access == OpAccess.WRITE
        else:
            assert access.access in (OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE)
        if form.source is Source.IMMEDIATE:
            read = decoded.immediate(1) % (1 << form.width)
            assert read == operand % (1 << form.width)
            assert seen.operands[1].imm % (1 << form.width) == read


def full_registers(info: iced_x86.InstructionInfo) -> Iterator[int]:
    """What an instruction may write, as 32-bit registers."""
    for used in info.used_registers():
        if used.access not in (OpAccess.READ, OpAccess.COND_READ):
            yield iced_x86.RegisterExt.full_register32(used.register)


@grouped(ROUTINES)
def test_a_routine_touches_the_cell_and_nothing_else(entry: Instruction, form: Form, use: Use) -> None:
    """Memory operands are the cell's alone; only EAX, EDX and flags change, others come back from the stack."""
    factory = iced_x86.InstructionInfoFactory()
    saved: list[int] = []
    for decoded in iced_x86.Decoder(32, routine(form, use)):
        info = factory.info(decoded)
        assert not decoded.is_invalid
        if decoded.mnemonic == Mnemonic.PUSH:
            saved.append(decoded.op0_register)
        elif decoded.mnemonic == Mnemonic.POP:
            assert decoded.op0_register == saved.pop()
        else:
            assert set(full_registers(info)) <= {Register.EAX, Register.EDX, *saved}
            for access in info.used_memory():
                assert (access.base, access.index, access.displacement) == (Register.EDI, Register.NONE, 0)
    assert not saved


@grouped(ROUTINES)
def test_what_calls_itself_locked_writes_the_cell_under_lock_only(entry: Instruction, form: Form, use: Use) -> None:
    """And what does not never locks, not even where it reads. A plain read beside locked writes is a hint."""
    factory = iced_x86.InstructionInfoFactory()
    formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.NASM)
    data = routine(form, use)
    writers = set()
    for decoded in iced_x86.Decoder(32, data):
        if decoded.memory_base != Register.EDI:
            continue
        (access,) = factory.info(decoded).used_memory()
        locked = decoded.has_lock_prefix or decoded.mnemonic == Mnemonic.XCHG
        if access.access in WRITES:
            assert locked == form.lock
            assert iced_x86.MemorySizeExt.size(access.memory_size) * 8 == form.width
            writers.add(formatter.format_mnemonic(decoded).split()[-1])
        else:
            assert not locked
    # the access is the form's own statement; of a flag that is set and cleared, one half is another instruction's
    if form.mnemonic in writers:
        assert form.encoding(0) in data
    else:
        assert (writers, use) in (({"bts"}, Use.SET), ({"btr"}, Use.CLEAR))


@grouped(ROUTINES)
def test_operands_reach_the_code(entry: Instruction, form: Form, use: Use) -> None:
    """What ``step``, ``flip`` and ``lane`` choose can be assembled, and is in the bytes of an immediate form."""
    chosen = {Use.STEP: [entry.step(form.width)], Use.FLIP: [entry.flip(form.width)], Use.LANE: []}.get(use, [0])
    if use is Use.LANE:
        assert entry.lane is not None
        chosen = [entry.lane(form.width, mask).operand for mask in lanes(form.width, form.width)]
    for operand in chosen:
        data = routine(form, use, operand)
        if form.source is Source.IMMEDIATE and use not in (Use.SET, Use.CLEAR):
            assert form.encoding(operand) in data


def test_names_tell_forms_apart() -> None:
    """Two forms of one name are the same form, which XCHG and CMPXCHG share."""
    seen: dict[str, Form] = {}
    for _, form in FORMS:
        other = seen.setdefault(form.name, form)
        assert (form.statement, form.encoding(0), form.lock) == (other.statement, other.encoding(0), other.lock)
        assert all(form.code[use] == other.code[use] for use in form.code.keys() & other.code.keys())
    assert [form.name for form in INSTRUCTIONS["xchg"].unlocked(16, Source.REGISTER)] == [
        "mov-mov.16",
        "cmpxchg.16.nolock",
    ]
    assert INSTRUCTIONS["or"].form(8, Source.IMMEDIATE, False).name == "or.8.imm.nolock"


def test_the_catalogue_is_what_the_manual_says_can_be_locked() -> None:
    """SDM volume 2A, LOCK; CMPXCHG16B exists in 64-bit code only."""
    assert {entry.name for entry in INSTRUCTIONS.values() if entry.lockable} == LOCKABLE - {"cmpxchg16b"}


@pytest.mark.parametrize("entry", INSTRUCTIONS.values(), ids=name)
def test_every_instruction_is_whole(entry: Instruction) -> None:
    assert entry.summary
    assert "SDM" in entry.sdm
    assert entry.name.upper() in entry.sdm
    assert entry.experiment
    assert entry.code
    assert entry.returns <= entry.code.keys() | {use for other in entry.stand_ins for use in other.code}
    assert (Use.LANE in entry.code) == (entry.lane is not None)
    for source in entry.sources:
        for width in entry.opcodes[source]:
            form = entry.form(width, source, True)
            controls = entry.unlocked(width, source)
            assert form.lock == entry.lockable
            assert controls
            assert not any(control.lock for control in controls)
            assert {control.width for control in controls} == {width}
            assert {control.source for control in controls} == {source}
            assert form.name not in [control.name for control in controls]
            # whatever the form can be used for, its controls can; to exchange by attempts is a stand-in's own way
            assert all(form.code.keys() <= control.code.keys() for control in controls)
            assert all(control.code.keys() - form.code.keys() <= {Use.ATTEMPT} for control in controls)


def test_who_exchanges_by_attempts() -> None:
    """What compares first; XCHG does not, but one of its controls does."""
    forms = {form.name for _, form in FORMS if Use.ATTEMPT in form.code}
    widths = [f"cmpxchg.{width}" for width in (8, 16, 32)]
    assert forms == {name + lock for name in (*widths, "cmpxchg8b.64") for lock in ("", ".nolock")}


def test_what_is_always_locked_has_no_form_without() -> None:
    with pytest.raises(KeyError, match="always locked"):
        INSTRUCTIONS["xchg"].form(32, Source.REGISTER, False)
    with pytest.raises(KeyError):
        INSTRUCTIONS["bts"].form(8, Source.REGISTER, True)


def test_every_module_is_an_entry() -> None:
    modules = [info.name for info in pkgutil.iter_modules(kgen.instructions.__path__) if not info.name.startswith("_")]
    assert [entry.name.replace("-", "_") for entry in INSTRUCTIONS.values()] == modules


@pytest.mark.parametrize(
    ("opcodes", "width", "operand", "expected"),
    [
        (("83 /0 ib", "81 /0 iz"), 32, 0x7F, "83077f"),
        (("83 /0 ib", "81 /0 iz"), 32, 0x80, "810780000000"),
        (("83 /0 ib", "81 /0 iz"), 32, 0xFFFFFF80, "830780"),
        (("83 /0 ib", "81 /0 iz"), 16, 0xFF80, "66830780"),
        (("83 /0 ib", "81 /0 iz"), 16, 0x0180, "6681078001"),
        (("80 /0 ib",), 8, 0xFF, "8007ff"),
        (("0F BA /5 ib",), 16, 0x1F, "660fba2f1f"),
        (("0F BA /5 ib",), 16, 0x80, "no opcode"),
        (("80 /0 ib",), 8, 0x100, "no opcode"),
        (("83 /0 ib", "81 /0 iz"), 32, -1, "no opcode"),
        (("83 /0 is",), 32, 0, "not an opcode"),
    ],
)
def test_encode(opcodes: tuple[str, ...], width: int, operand: int, expected: str) -> None:
    if " " in expected:
        with pytest.raises(ValueError, match=expected):
            encode(opcodes, width=width, lock=False, register="a", operand=operand)
        return
    assert encode(opcodes, width=width, lock=False, register="a", operand=operand).hex() == expected
    assert encode(opcodes, width=width, lock=True, register="a", operand=operand).hex() == "f0" + expected


# --- the operands that CPUs are given ------------------------------------------------------------------------------

LANES = [(entry, width) for entry in INSTRUCTIONS.values() if entry.lane for width in entry.widths]
FLIPS = [(entry, width) for entry in INSTRUCTIONS.values() if Use.FLIP in entry.code for width in entry.widths]
STEPS = [(entry, width) for entry in INSTRUCTIONS.values() if Use.STEP in entry.code for width in entry.widths]


def lanes(width: int, cpus: int) -> list[int]:
    """The masks of lanes: the width divided as evenly as it goes."""
    edges = [width * cpu // cpus for cpu in range(cpus + 1)]
    return [(1 << high) - (1 << low) for low, high in pairwise(edges)]


@pytest.mark.parametrize(("entry", "width"), LANES, ids=name)
@given(data=st.data())
@settings(max_examples=draws(60), deadline=None)
def test_lanes_are_independent(entry: Instruction, width: int, data: st.DataObject) -> None:
    """Every change of a lane is told by the lane alone, leaves a trace there, and never reaches the next one."""
    assert entry.lane is not None
    cpus = data.draw(st.integers(1, width), label="cpus")
    mask = data.draw(st.sampled_from(lanes(width, cpus)), label="mask")
    lane = entry.lane(width, mask)
    assert lane.initial & ~mask == 0
    assert 1 <= lane.repeats <= 15
    assert 0 <= lane.operand < 1 << width
    alone = lane.initial
    for number in range(lane.repeats):
        others = data.draw(st.integers(0, (1 << width) - 1), label="others") & ~mask
        after = entry.semantics(alone | others, lane.operand, 0, width, 0).value
        assert after & ~mask == others
        expected = entry.semantics(alone, lane.operand, 0, width, 0).value & mask
        assert after & mask == expected
        # the first change leaves a trace; doing it again may change nothing
        assert number or expected != alone
        alone = expected


@pytest.mark.parametrize(("entry", "width"), FLIPS, ids=name)
@given(data=st.data())
@settings(max_examples=draws(60), deadline=None)
def test_flips_undo_themselves(entry: Instruction, width: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, (1 << width) - 1), label="start") | 1
    flags = data.draw(st.integers(0, STATUS_FLAGS), label="flags") & STATUS_FLAGS
    once = entry.semantics(start, entry.flip(width), flags, width, 0).value
    assert once != start
    assert entry.semantics(once, entry.flip(width), flags, width, 0).value == start


@pytest.mark.parametrize(("entry", "width"), STEPS, ids=name)
def test_steps_add_an_odd_constant(entry: Instruction, width: int) -> None:
    """Multiples of an odd number are all different, modulo 2^width."""
    operand, added = entry.step(width), entry.increment(width)
    assert 0 <= operand < 1 << width
    assert added % 2 == 1
    for old in (0, 1, added, (1 << width) - 1):
        after = entry.semantics(old, operand, CF, width, 0).value
        if not entry.name.startswith("cmpxchg"):  # those add in their routine, not in the instruction
            assert after == (old + added) % (1 << width)
