"""The kernel's text: the same every time, whole, and with every number from Python."""

from __future__ import annotations

import re

import pytest

from kgen.errors import SourceError
from kgen.experiments import Poll, Routine
from kgen.instructions import Source, Use, instructions
from kgen.kernel.parameters import constants, crc_table
from kgen.kernel.render import experiment_routines, pointers_of, render, render_template
from kgen.spec import Case, KernelSpec

SPEC = KernelSpec(Case("xchg"))


def test_the_same_specification_gives_the_same_text() -> None:
    assert render(SPEC).text == render(KernelSpec(Case("xchg"))).text


@pytest.mark.parametrize(
    "other",
    [
        KernelSpec(Case("xchg", lock=False)),
        KernelSpec(Case("xchg", cpus=4)),
        KernelSpec(Case("xchg", target="ram")),
        KernelSpec(Case("xchg"), rounds=5),
        KernelSpec(Case("xchg"), controls=False),
        KernelSpec(Case("xchg"), poll=Poll.READ),
        KernelSpec(Case("xchg"), print_every=3),
        KernelSpec(Case("xchg"), serial_port=0x2F8),
        KernelSpec(Case("xchg"), baud=9600),
        KernelSpec(Case("xchg", width=16)),
        KernelSpec(Case("xchg", offset=1)),
        KernelSpec(Case("xchg", experiment="mutex")),
        KernelSpec(Case("xchg"), batch=4),
        KernelSpec(Case("xchg"), suite="mine", budget=5),
        KernelSpec(Case("xchg"), suite="mine", budget=6),
        KernelSpec(Case("xchg"), suite="mine", budget=5, more=(Case("add"),)),
    ],
)
def test_everything_asked_for_is_in_the_text(other: KernelSpec) -> None:
    assert render(other).text != render(SPEC).text
    assert other.digest() in render(other).text
    assert other.name in render(other).text
    assert all(case.id in render(other).text for case in other.cases)


def test_no_template_language_is_left() -> None:
    text = render(SPEC).text
    assert "{%" not in text
    assert "{{" not in text
    assert "{#" not in text
    assert "{L}" not in text


def test_every_file_says_where_it_begins() -> None:
    """Error messages name the template and its line."""
    text = render(SPEC).text
    assert ";@ experiments/token.asm" in text
    with pytest.raises(SourceError) as caught:
        render_template("no-such-template.asm")
    assert "no-such-template.asm" in caught.value.line
    with pytest.raises(SourceError, match="undefined"):
        render_template("kernel.asm")


def test_constants_are_numbers_of_32_bits() -> None:
    for name, value in constants(SPEC).items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name)
        assert 0 <= value < 1 << 32, name


def test_tokens_can_be_told_apart() -> None:
    """The step is odd, so multiples visit every value; its inverse gives a token's round back."""
    values = constants(SPEC)
    step, inverse = values["TOKEN_STEP"], values["TOKEN_INVERSE"]
    assert step % 2 == 1
    seen = {step * number % 2**32 for number in range(1, 100_000)}
    assert len(seen) == 99_999
    assert 0 not in seen
    assert all(step * number % 2**32 * inverse % 2**32 == number for number in (1, 2, 77, 2**32 - 1))


def test_the_crc_table_is_that_of_zlib() -> None:
    import zlib

    table = crc_table()
    register = 0xFFFFFFFF
    for byte in b"kgen:0 boot":
        register ^= byte
        for _ in range(2):
            register = register >> 4 ^ table[register & 15]
    assert register ^ 0xFFFFFFFF == zlib.crc32(b"kgen:0 boot")


@pytest.mark.parametrize(
    ("instruction", "width", "source", "lock", "use", "operand", "label"),
    [
        ("xchg", 32, Source.REGISTER, True, Use.EXCHANGE, 0, "exchange_xchg_32"),
        ("cmpxchg", 8, Source.REGISTER, False, Use.EXCHANGE, 0, "exchange_cmpxchg_8_nolock"),
        ("add", 32, Source.REGISTER, True, Use.STEP, 0x9E3779B1, "step_add_32"),
        ("add", 16, Source.IMMEDIATE, True, Use.STEP, 0x79B1, "step_add_16_imm_79b1"),
        ("not", 8, Source.NONE, True, Use.FLIP, 0, "flip_not_8"),
    ],
)
def test_labels_carry_use_form_and_constant(
    instruction: str, width: int, source: Source, lock: bool, use: Use, operand: int, label: str
) -> None:
    form = instructions()[instruction].form(width, source, lock)
    assert Routine(form, use, operand).label == label


def test_a_stand_ins_label_has_no_dash() -> None:
    (moves, _) = instructions()["xchg"].unlocked(32, Source.REGISTER)
    assert Routine(moves, Use.EXCHANGE).label == "exchange_mov_mov_32"


def test_a_routine_is_there_once_and_named_for_the_debugger() -> None:
    spec = KernelSpec(Case("xchg"), more=(Case("add"), Case("or", source="imm"), Case("bts")), suite="mine", budget=5)
    text = render(spec).text
    named = experiment_routines(spec)
    assert {"exchange_xchg_32", "exchange_mov_mov_32", "step_add_32", "step_add_32_nolock"} <= set(named)
    # CPUs of which each has bits of its own use constants of their own
    assert {"lane_or_32_imm_3ff", "lane_or_32_imm_1ffc00", "lane_or_32_imm_ffe00000"} <= set(named)
    for label, (statement, encoding) in named.items():
        assert text.count(f"\n{label}:\n") == 1
        body = text[text.index(f"\n{label}:\n") :].partition("\n    ret\n")[0]
        assert f"    {statement}\n" in f"{body}\n"
        assert encoding


def test_pointers_become_as_wide_as_the_firmware_has_them() -> None:
    text = "; RBP holds it, rax\n    mov rdx, qword ptr [rbp + r]\n    mov r8, rsi\n    call .rax_of\n    shr cl"
    assert pointers_of(text, wide=True) == text
    narrow = "; EBP holds it, eax\n    mov edx, dword ptr [ebp + r]\n    mov r8, esi\n    call .rax_of\n    shr cl"
    assert pointers_of(text, wide=False) == narrow
