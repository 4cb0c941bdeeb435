"""The kernel's text: the same every time, whole, and with every number from Python."""

from __future__ import annotations

import re

import pytest

from kgen.errors import SourceError
from kgen.experiments import Poll
from kgen.source import constants, crc_table, render, render_template, routine
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
    ],
)
def test_everything_asked_for_is_in_the_text(other: KernelSpec) -> None:
    assert render(other).text != render(SPEC).text
    assert other.digest() in render(other).text
    assert other.case.id in render(other).text


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


def test_labels_can_carry_a_forms_name() -> None:
    assert routine("cmpxchg.32.nolock") == "cmpxchg_32_nolock"
    assert routine("mov-mov.32") == "mov_mov_32"
