"""The dialect: what labels, directives, sections and relaxation make of a source."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Assembly, Source, Symbol


def build(text: str, *, origin: int = 0x100000, page_align: bool = True) -> Assembly:
    return assemble(Source("kernel.s", text), origin=origin, page_align=page_align)


def code(text: str, section: str = ".text") -> str:
    return build(text).section(section).data.hex(" ")


def value(expression: str, setup: str = "") -> int:
    return int.from_bytes(build(f"{setup}\n.quad {expression}").section(".text").data, "little", signed=True)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("10", 10),
        ("0x10", 16),
        ("0b101", 5),
        ("0o17", 15),
        ("1_000", 1000),
        ("'A'", 65),
        (r"'\n'", 10),
        (r"'\''", 39),
        ("';'", 59),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 - 2 - 1", 4),
        ("-7 / 2", -4),
        ("-7 % 4", 1),
        ("1 << 4 | 3", 19),
        ("0xff & 0x0f << 2", 0x3C),
        ("1 << 2 + 1", 8),
        ("256 >> 4", 16),
        ("~0", -1),
        ("-(-3)", 3),
        ("- - 3", 3),
        ("A + 1", 6),
        ("~A", -6),
        ("A * B - 1", 34),
        ("B % A", 2),
    ],
)
def test_expressions(expression: str, expected: int) -> None:
    assert value(expression, ".equ A, 5\n.equ B, 7") == expected


_EXPRESSIONS = st.recursive(
    st.integers(0, 1000).map(str) | st.integers(0, 255).map(hex),
    lambda inner: (
        st.tuples(inner, st.sampled_from("+ - * | & << >>".split()), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2] if len(parts[1]) == 1 else len(parts[2])})"
        )
        | st.tuples(inner, st.sampled_from("+-*|&"), inner).map(" ".join)
        | inner.map("~({})".format)
        | inner.map("-{}".format)
    ),
    max_leaves=8,
)


@given(_EXPRESSIONS)
def test_expressions_have_the_precedence_of_python(expression: str) -> None:
    expected = eval(expression, {"__builtins__": {}})
    if -(1 << 63) <= expected < 1 << 63:
        assert value(expression) == expected


def test_a_symbol_is_its_address_and_brackets_are_memory() -> None:
    text = "mov eax, results\nmov eax, [results]\nmov ecx, dword ptr [results + 4*ecx + 8]\n.equ results, 0x123456"
    assert code(text) == "b8 56 34 12 00 a1 56 34 12 00 8b 0c 8d 5e 34 12 00"


@pytest.mark.parametrize(
    ("operand", "expected"),
    [
        ("[ebx]", "8b 03"),
        ("[ebx + 8 - 4]", "8b 43 04"),
        ("[4 + ebx]", "8b 43 04"),
        ("[ebx + -4]", "8b 43 fc"),
        ("[ebx - A]", "8b 43 fb"),
        ("[ebx + A * 2]", "8b 43 0a"),
        ("[ebx + (A | 2)]", "8b 43 07"),
        ("[EBX + ecx * 2]", "8b 04 4b"),
        ("[ebx + 2*2*ecx]", "8b 04 8b"),
        ("[ebx + (1 << 3) * ecx]", "8b 04 cb"),
        ("[ecx + esp]", "8b 04 0c"),
        ("es:[ebx]", "26 8b 03"),
        ("dword ptr fs:[4*ecx]", "64 8b 04 8d 00 00 00 00"),
    ],
)
def test_addresses(operand: str, expected: str) -> None:
    assert code(f"mov eax, {operand}\n.equ A, 5") == expected


def test_local_labels_belong_to_the_last_global_label() -> None:
    text = """
    first:
    .again: dec eax
        jnz .again
        jmp .end
    .end:
    second:
    .again: dec ecx
        jnz .again
        jmp first.again
    """
    result = build(text)
    assert result.section(".text").data.hex(" ") == "48 75 fd eb 00 49 75 fd eb f6"
    assert [symbol.name for symbol in result.symbols] == ["first", "second"]


def test_a_constant_may_have_a_dot_in_its_name() -> None:
    result = build("main:\n.equ Results.magic, 3\n.equ .local, 1\nmov eax, [ebx + Results.magic + .local]")
    assert [symbol.name for symbol in result.symbols] == ["Results.magic", "main"]
    assert result.section(".text").data.hex(" ") == "8b 43 04"


def test_forward_constants_choose_the_size_their_value_needs() -> None:
    text = """
        add eax, SMALL
        add eax, LARGE
        add dword ptr [ebx + SMALL], SMALL
        add dword ptr [ebx + LARGE], LARGE
    end:
        .equ SMALL, BASE - 1
        .equ LARGE, BASE * 1000
        .equ BASE, 8
    """
    assert code(text) == "83 c0 07 05 40 1f 00 00 83 43 07 07 81 83 40 1f 00 00 40 1f 00 00"


def test_a_difference_of_forward_labels_settles_on_the_short_form() -> None:
    text = "add eax, end - start\nstart: nop\nend: add eax, end - 0x100000"
    assert code(text) == "83 c0 01 90 83 c0 04"


def test_complements_fit_the_operand() -> None:
    text = "and eax, ~0x80000000\nand al, ~0x80\nand ax, ~BIT\n.long ~0x80000000\n.equ BIT, 0x8000"
    assert code(text) == "25 ff ff ff 7f 24 7f 66 25 ff 7f ff ff ff 7f"


def test_data() -> None:
    text = """
    .byte -128, 255, 'x', end - $
    .word -1, 0x1234
    .long 0x12345678
    .quad 0x123456789abcdef0, -1
    .ascii "a;b", "\\x00\\xff\\""
    .asciz "c", ""
    end:
    """
    expected = b"\x80\xffx\x25\xff\xff\x34\x12\x78\x56\x34\x12\xf0\xde\xbc\x9a\x78\x56\x34\x12" + b"\xff" * 8
    assert build(text).section(".text").data == expected + b'a;b\x00\xff"c\x00\x00'


def test_padding() -> None:
    text = '.section .text, "ax"\nhlt\n.align 4\nhlt\n.align 4, 0xcc\n.skip 2\n.skip 1, 7\n.org 16, 1\nhlt\n.org 17'
    assert code(text) == "f4 90 90 90 f4 cc cc cc 00 00 07 01 01 01 01 01 f4"


def test_padding_up_to_a_size() -> None:
    result = build("start: jmp start\n.skip 510 - ($ - start)\n.word 0xaa55", origin=0x7C00)
    assert len(result.section(".text").data) == 512
    assert result.section(".text").data.endswith(b"\x00\x55\xaa")


def test_sections_are_laid_out_in_order_of_first_appearance() -> None:
    text = """
    .section .text, "ax"
    hlt
    .section .rodata, "a", 8
    .byte 1
    .section .data, "aw"
    .byte 2
    .section .bss, "awn", 64
    buffer: .skip 100
    .align 128
    .section .text
    hlt
    .section .more, "awn"
    .skip 1
    """
    result = build(text)
    assert [(s.name, s.address, s.size, s.data, s.align, s.flags) for s in result.sections] == [
        (".text", 0x100000, 2, b"\xf4\xf4", 16, "ax"),
        (".rodata", 0x101000, 1, b"\x01", 8, "a"),
        (".data", 0x102000, 1, b"\x02", 16, "aw"),
        (".bss", 0x103000, 128, b"", 128, "awn"),
        (".more", 0x103080, 1, b"", 16, "awn"),
    ]
    assert [s.address for s in build(text, page_align=False).sections] == [
        0x100000,
        0x100008,
        0x100010,
        0x100080,
        0x100100,
    ]
    assert result.address("buffer") == 0x103000


def test_phased_code_knows_its_run_address() -> None:
    text = """
    start: hlt
    .phase 0x8000
    .code16
    ap: cli
        jmp entry
        ljmp32 0x08, entry
        .align 16
    table: .word $, table - ap
    .code32
    entry: mov eax, $
    .dephase
    end: .long $
    """
    result = build(text)
    assert result.section(".text").data.hex(" ") == (
        "f4 fa eb 11 66 ea 14 80 00 00 08 00 90 90 90 90 90 10 80 10 00 b8 14 80 00 00 1a 00 10 00"
    )
    addresses = {symbol.name: (symbol.value, symbol.section, symbol.kind) for symbol in result.symbols}
    assert addresses["ap"] == (0x8000, ".text", "func")
    assert addresses["entry"] == (0x8014, ".text", "func")
    assert addresses["end"] == (0x10001A, ".text", "func")
    first = next(line for line in result.lines if line.line == 5)
    assert (first.address, first.run_address, first.data) == (0x100001, 0x8000, b"\xfa")


def test_symbols_have_kind_and_size() -> None:
    text = """
    .equ PORT, 0x3f8
    .section .text, "ax"
    main: nop
    .inner: nop
    next:
    alias: ret
    .section .bss, "awn"
    counters: .skip 40
    flag: .skip 4
    """
    assert build(text).symbols == (
        Symbol("PORT", 0x3F8, 0, "", "abs"),
        Symbol("alias", 0x100002, 1, ".text", "func"),
        Symbol("counters", 0x101000, 40, ".bss", "object"),
        Symbol("flag", 0x101028, 4, ".bss", "object"),
        Symbol("main", 0x100000, 2, ".text", "func"),
        Symbol("next", 0x100002, 1, ".text", "func"),
    )


def test_lines_are_the_sections_bytes_in_source_order() -> None:
    text = '; nothing\n\nmain: hlt ; "stop"\n.skip 3\n.section .data, "aw"\n.long main\n.section .text\nret'
    result = build(text)
    assert [(line.line, line.address, line.section, line.is_code) for line in result.lines] == [
        (3, 0x100000, ".text", True),
        (4, 0x100001, ".text", False),
        (6, 0x101000, ".data", False),
        (8, 0x100004, ".text", True),
    ]
    for section in result.sections:
        lines = [line for line in result.lines if line.section == section.name]
        assert b"".join(line.data for line in lines) == section.data


@pytest.mark.parametrize("mnemonic", ["jmp", "jz", "jnle", "loop", "jecxz"])
@pytest.mark.parametrize("mode", [16, 32])
@pytest.mark.parametrize("distance", [126, 127, 128, -126, -127, -128, -129])
def test_branches_at_the_edge_of_the_short_form(mnemonic: str, mode: int, distance: int) -> None:
    """``distance`` counts from the end of the two-byte form."""
    prefix = b"\x67" if (mnemonic, mode) == ("jecxz", 16) else b""
    length = 2 + len(prefix)
    if distance > 0:
        text = f".code{mode}\n{mnemonic} there\n.skip {distance}\nthere: hlt"
        at = 0
    else:
        text = f".code{mode}\nthere: .skip {-distance - length}\n{mnemonic} there"
        at = -distance - length
    short = {"jmp": 0xEB, "jz": 0x74, "jnle": 0x7F, "loop": 0xE2, "jecxz": 0xE3}[mnemonic]
    if -128 <= distance <= 127:
        expected = prefix + bytes([short, distance & 0xFF])
    elif mnemonic in ("loop", "jecxz"):
        with pytest.raises(Exception, match=f"branch target is {distance} bytes away"):
            build(text)
        return
    else:
        width = 2 if mode == 16 else 4
        opcode = b"\xe9" if mnemonic == "jmp" else bytes([0x0F, short + 0x10])
        away = distance if distance > 0 else distance - (len(opcode) + width - 2)
        expected = opcode + away.to_bytes(width, "little", signed=True)
    data = build(text).section(".text").data
    assert data[at : at + len(expected)] == expected
    assert len(data) == (len(expected) + distance + 1 if distance > 0 else at + len(expected))


def test_growing_branches_push_others_out_of_reach() -> None:
    text = "a: jmp c\n" + "jmp far\n" * 40 + ".skip 5\nc: hlt\n.skip 200\nfar: hlt"
    data = build(text).section(".text").data
    assert data[:5] == b"\xe9" + (40 * 5 + 5).to_bytes(4, "little")


def test_branches_wrap_around_in_32_bit_code() -> None:
    assert code("jmp 0xfffffff0\ncall 0") == "e9 eb ff ef ff e8 f6 ff ef ff"


def test_the_result_depends_on_the_arguments_alone(tmp_path: Path) -> None:
    text = "start: mov eax, end\n.equ A, B\n.equ B, 3\nlock xadd [end], eax\njmp end\n.skip 200\nend: .byte A"
    program = (
        "import hashlib, sys\nfrom kgen.toolchain.assembler import assemble\n"
        "from kgen.toolchain.assembly import Source\n"
        f"print(hashlib.sha256(repr(assemble(Source('kernel.s', {text!r}))).encode()).hexdigest())"
    )
    expected = hashlib.sha256(repr(build(text)).encode()).hexdigest()
    root = str(Path(__file__).parents[2])
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": root, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == expected
