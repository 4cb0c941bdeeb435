"""Every error says what, in which statement and on which line, in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import AsmError
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source
from kgen.toolchain.decoder import Checker
from kgen.toolchain.statements import Instruction, Memory, parse_source, values_of


def error_of(text: str) -> AsmError:
    with pytest.raises(AsmError) as caught:
        assemble(Source("kernel.s", text))
    assert "\n" not in caught.value.line
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        # names
        ("nop\njmp nowhere", 2, "undefined symbol 'nowhere' in `jmp nowhere`"),
        (
            "counter: nop\nmov eax, conuter",
            2,
            "undefined symbol 'conuter' in `mov eax, conuter`; did you mean counter?",
        ),
        ("main: jmp .done", 1, "undefined symbol 'main.done'"),
        ("jmp .done", 1, "local label '.done' before any global label"),
        ("a: nop\nb: nop\na: nop", 3, "symbol 'a' is already defined at kernel.s:1"),
        (".equ a, 1\na: nop", 2, "symbol 'a' is already defined at kernel.s:1"),
        ("eax: nop", 1, "symbol 'eax' is the name of a register"),
        (".equ ecx, 1", 1, "symbol 'ecx' is the name of a register"),
        ("9lives: nop", 1, "bad symbol name '9lives'"),
        (".equ a, b\n.equ b, a + 1", 1, "'a' is defined by itself"),
        # expressions and values
        (".long 1 +", 1, "bad expression: something is missing at its end"),
        (".long 1 2", 1, "bad expression: unexpected '2'"),
        (".long (1", 1, "bad expression: ')' is missing"),
        (".long 0x1g", 1, "bad number '0x1g'"),
        (".long 10h", 1, "bad number '10h'"),
        (".long 'ab'", 1, "character constant 'ab' is not one character"),
        (".long 1 / 0", 1, "division by zero"),
        (".long 1 % (a - a)\na:", 1, "division by zero"),
        (".long 1 << a\n.equ a, 100000", 1, "shift by 100000"),
        (".long 1 ^ 2", 1, "unexpected character '^'"),
        (".byte 256", 1, "value 0x100 does not fit in 8 bits in `.byte 256`"),
        (".byte -129", 1, "value -0x81 does not fit in 8 bits"),
        (".byte 1, a\na:", 1, "does not fit in 8 bits"),
        (".word 65536", 1, "does not fit in 16 bits"),
        (".long 0x100000000", 1, "does not fit in 32 bits"),
        (".quad 1 << 64", 1, "does not fit in 64 bits"),
        ("mov al, 256", 1, "value 0x100 does not fit in 8 bits"),
        ("mov byte ptr [ebx], 0x1ff", 1, "value 0x1ff does not fit in 8 bits"),
        ("mov eax, -0x80000001", 1, "does not fit in 32 bits"),
        ("shl eax, 257", 1, "invalid operand"),
        ("out 0x1e9, al", 1, "does not fit in 8 bits"),
        (".code16\nmov eax, [0x100000]", 2, "wrong address (of 16 bits, not 0x100000)"),
        (".code16\nljmp 8, 0x10000", 2, "offset 0x10000 does not fit in 16 bits"),
        ("ljmp 0x10000, 0", 1, "selector 0x10000 does not fit in 16 bits"),
        # directives
        (".text", 1, "unknown directive '.text'"),
        (".code32 5", 1, ".code32 takes no arguments"),
        (".byte", 1, ".byte takes at least one value"),
        (".byte 1,,2", 1, "an operand is missing beside ','"),
        (".ascii", 1, ".ascii takes at least one string"),
        (".ascii abc", 1, ".ascii takes strings in double quotes, not abc"),
        ('.ascii "abc', 1, "unexpected character '\"'"),
        (r'.ascii "\q"', 1, r'bad escape in "\q"'),
        ('.ascii "\u20ac"', 1, r"a character above \xff in a string"),
        (".align 3", 1, "the alignment is not a number that is a power of two"),
        (".align 4, 256", 1, "the fill value is not a number that fits in 8 bits"),
        (".skip -1", 1, "padding of -1 bytes"),
        ("nop\nnop\n.org 1", 3, ".org goes backwards: 0x2 bytes are there already, 0x1 was asked for"),
        (".equ a", 1, ".equ takes NAME, EXPR"),
        (".section", 1, '.section takes NAME, "FLAGS"[, ALIGN]'),
        (".section .data", 1, "the first use of section '.data' must give its flags"),
        ('.section .data, "wx"', 1, 'bad section flags "wx"'),
        ('.section .data, "aw"\n.section .data, "a"', 2, "section '.data' already has flags 'aw' and alignment 16"),
        ('.section .data, "aw"\n.section .data, "aw", 32', 2, "already has flags 'aw' and alignment 16"),
        ('.section .data, "aw", 3', 1, "the alignment is not a number that is a power of two"),
        ('.section .bss, "awn"\n.byte 1', 2, "section '.bss' is zero-filled and cannot hold bytes"),
        ('.section .bss, "awn"\nnop', 2, "section '.bss' is zero-filled and cannot hold bytes"),
        ('.section .bss, "awn"\n.skip 1, 2', 2, "section '.bss' is zero-filled and takes no fill value"),
        ("nop\n.phase 0x8000\nnop", 2, ".phase without .dephase"),
        (".dephase", 1, ".dephase without .phase"),
        (".phase 1\n.phase 2", 2, ".phase inside the .phase at kernel.s:1"),
        ('.phase 1\n.section .data, "aw"', 2, ".section inside the .phase at kernel.s:1"),
        # instructions
        ("nop\nfrobnicate eax", 2, "invalid mnemonic (to 32-bit keystone it is `frobnicate eax`)"),
        ("mov eax, al", 1, "invalid operand"),
        ("mov eax, [ebx", 1, "']' is missing, or something follows it"),
        ("mov eax, [ebx + ecx + edx]", 1, "an address has at most one base and one scaled index"),
        ("mov eax, [ebx + 3*ecx]", 1, "the scale in 3 * ecx is not 1, 2, 4 or 8"),
        ("mov eax, [ebx - ecx]", 1, "registers can only be added, not - ecx"),
        ("mov eax, [ebx + esp*2]", 1, "esp cannot be an index"),
        ("mov eax, [esp + esp]", 1, "esp cannot be an index"),
        ("mov eax, [ebx + 1 | 2]", 1, "put parentheses around '|'"),
        ("mov eax, [ebx +]", 1, "something is missing in an address"),
        ("mov eax, []", 1, "bad expression: something is missing"),
        ("mov eax, ebx + 1", 1, "register 'ebx' in an expression"),
        ("mov eax, dword [ebx]", 1, "'dword' without ptr in `mov eax, dword [ebx]`; write dword ptr [...]"),
        ("mov eax, dword ptr ebx", 1, "register 'ebx' in an expression"),
        ("mov eax,", 1, "an operand is missing beside ','"),
        ("push dword ptr [ebx]\npush [ebx]", 2, "the size of the memory operand is not known"),
        ("mov eax, st(9)", 1, "no register 'st(9)'"),
        ("lock", 1, "a prefix needs an instruction"),
        ("ljmp 8", 1, "ljmp takes SELECTOR, OFFSET"),
        ("ljmp32 8, 0", 1, "ljmp32 does not exist in 32-bit code"),
        (".code64\npush 0xffffffff", 2, "value 0xffffffff does not fit in 32 signed bits"),
        ("pop cs", 1, "pop cs does not exist in 32-bit code"),
        (".code64\npush ds", 2, "push ds does not exist in 64-bit code"),
        ("jrcxz $", 1, "jrcxz does not exist in 32-bit code"),
        ("lock jmp $", 1, "jmp cannot be locked"),
        ("stosd es:[edi]", 1, "stosd takes no operands"),
        ("rep mov eax, 1", 1, "rep goes with string instructions only"),
        ("lock lock inc dword ptr [ebx]", 1, "more than one prefix"),
        (".code64\nlgdt [0x1000]", 2, "64-bit code reaches an absolute address only through a register"),
        ("loop far\n.skip 200\nfar:", 1, "branch target is 200 bytes away, out of reach"),
    ],
)
def test_errors(text: str, line: int, fragment: str) -> None:
    error = error_of(text)
    assert error.where == f"kernel.s:{line}"
    assert error.line.startswith(f"kernel.s:{line}: ")
    assert fragment in error.line
    assert f"`{text.splitlines()[line - 1].strip()}`" in error.line


@pytest.mark.parametrize(
    "statement",
    [
        "lock mov [ebx], eax",
        "lock bt dword ptr [ebx], 1",
        "lock cmp [ebx], eax",
        "lock test [ebx], eax",
        "lock shl dword ptr [ebx], 1",
        "lock imul dword ptr [ebx]",
        "lock push dword ptr [ebx]",
        "lock nop",
        "lock stosd",
        "lock lea eax, [ebx]",
    ],
)
def test_lock_is_refused_on_what_cannot_be_locked(statement: str) -> None:
    assert f"{statement.split()[1]} cannot be locked in `{statement}`" in error_of(statement).line


@pytest.mark.parametrize(
    "statement",
    ["lock add eax, [ebx]", "lock inc eax", "lock xchg eax, ecx", "lock xadd ecx, eax", "lock bts eax, 1"],
)
def test_lock_is_refused_without_a_memory_destination(statement: str) -> None:
    assert f"lock needs a memory destination in `{statement}`" in error_of(statement).line


_FORMS = {
    **dict.fromkeys("add adc and btc btr bts cmpxchg or sbb sub xor xadd xchg".split(), "dword ptr [ebx], eax"),
    **dict.fromkeys("dec inc neg not".split(), "dword ptr [ebx]"),
    "cmpxchg8b": "qword ptr [ebx]",
}


@pytest.mark.parametrize("mnemonic", _FORMS)
def test_lock_is_accepted_on_the_list_of_the_sdm(mnemonic: str) -> None:
    plain = assemble(Source("kernel.s", f"{mnemonic} {_FORMS[mnemonic]}")).section(".text").data
    locked = assemble(Source("kernel.s", f"lock {mnemonic} {_FORMS[mnemonic]}")).section(".text").data
    assert locked == b"\xf0" + plain


def test_errors_name_the_template() -> None:
    text = "nop\n;@ serial.asm\nnop\n  ; comment\nbad eax\n;@ vga.asm\nnop"
    assert error_of(text).where == "kernel.s:5 (serial.asm:3)"
    assert error_of(text.replace("bad eax", "nop") + "\njmp x").where == "kernel.s:8 (vga.asm:2)"


def test_the_comment_is_not_part_of_the_statement() -> None:
    assert error_of("x: .byte ';', 300 ; too much").line.endswith("in `x: .byte ';', 300`")


#: How a prefix that does not belong there is named; capstone 6 finds no instruction, or another one.
PREFIX = "wrong prefix|not one instruction|xacquire|xrelease"


@pytest.mark.parametrize(
    ("mode", "statement", "data", "fragment"),
    [
        # what keystone 0.9.2 makes of these
        (32, "lgdt [0x1000]", "66 0f 01 15 00 10 00 00", "wrong operand size"),
        (32, "iret", "66 cf", "wrong operand size"),
        (32, "pushfd", "66 9c", "wrong operand size"),
        (32, "push ds", "66 1e", "wrong operand size"),
        (16, "ret", "66 c3", "wrong operand size"),
        (16, "push 0x1234", "66 68 34 12 00 00", "wrong operand size"),
        (32, "push 0xffff", "6a ff", "wrong immediate value"),
        (16, "call dword ptr [4*eax + 0x1234]", "66 ff 16 34 12", "wrong address registers"),
        (32, "mov eax, [eax + esp]", "8b 04 20", "wrong address registers"),
        (32, "mov al, 0x1ff", "b0 ff", "wrong immediate value"),
        (16, "mov eax, [0x100000]", "66 a1 00 00", "wrong address"),
        (64, "mov eax, [0xffffffff80000000]", "a1 00 00 00 80 00 00 00 00", "wrong address"),
        # and what it could
        (32, "mov eax, ebx", "89 d9", "wrong register"),
        (32, "mov eax, ebx", "8b 03", "wrong register"),
        (32, "mov eax, [ebx]", "89 d8", "wrong kind of operand"),
        (32, "mov eax, 1", "89 d8", "wrong kind of operand"),
        (32, "add eax, 128", "83 c0 80", "wrong immediate value"),
        (32, "xadd [ebx], eax", "0f c0 03", "wrong"),
        (32, "lock xadd [ebx], eax", "0f c1 03", "wrong mnemonic"),
        (32, "xadd [ebx], eax", "f0 0f c1 03", "wrong mnemonic"),
        (32, "inc dword ptr [ebx]", "fe 03", "wrong operand size"),
        (32, "inc dword ptr [ebx]", "67 ff 07", "wrong address registers"),
        (32, "inc dword ptr [ebx]", "26 ff 03", "wrong segment"),
        (32, "inc dword ptr es:[ebx]", "ff 03", "wrong segment"),
        (32, "mov eax, [ebx + ebp]", "8b 44 1d 00", "wrong base register"),
        (32, "mov eax, [ebx + 4]", "8b 43 08", "wrong address"),
        (32, "mov eax, [4*ecx]", "8b 04 4d 00 00 00 00", "wrong address registers"),
        (32, "stosd", "aa", "wrong mnemonic"),
        (32, "stosd", "67 ab", PREFIX),
        (32, "stosd", "26 ab", PREFIX),
        (32, "rep stosd", "ab", "wrong mnemonic"),
        (32, "ret", "c2 04 00", "wrong number of operands"),
        (32, "cli", "fa fa", "not one instruction"),
        (32, "cli", "0f", "not one instruction"),
        (32, "cli", "", "not one instruction"),
        (32, "jz 0", "75 fe", "wrong mnemonic"),
        # what a CPU refuses, ignores, or takes for another branch, and capstone leaves out
        (32, "call dword ptr [ebx]", "ff 1b", "wrong kind of branch"),
        (32, "jmp dword ptr [ebx]", "ff 2b", "wrong"),
        (64, "call qword ptr [rbx]", "ff 1b", "wrong kind of branch"),
        (64, "call qword ptr [r8]", "41 ff 18", "wrong kind of branch"),
        (64, "jmp qword ptr [rbx]", "ff 2b", "wrong kind of branch"),
        (32, "rep stosd", "f0 f3 ab", PREFIX),
        (32, "rep stosd", "f3 f0 ab", "not one instruction"),
        (32, "rep stosd", "f3 f3 ab", PREFIX),
        (32, "rep stosd", "f2 f3 ab", PREFIX),
        (32, "pause", "f0 f3 90", PREFIX),
        (32, "pause", "f3 f3 90", PREFIX),
        (32, "xchg [ebx], eax", "f2 87 03", "wrong"),
        (32, "xchg [ebx], eax", "f3 87 03", "wrong"),
        (32, "xchg ebx, eax", "f3 87 d8", PREFIX),
        (32, "xchg ebx, eax", "f2 93", PREFIX),
        (32, "mov [ebx], eax", "f2 89 03", PREFIX),
        (32, "mov [ebx], eax", "f3 89 03", PREFIX),
        (32, "mov dword ptr [ebx], 1", "f3 c7 03 01 00 00 00", PREFIX),
        (32, "inc eax", "f2 40", PREFIX),
        (32, "lock cmpxchg [ebx], ecx", "f0 f3 0f b1 0b", "wrong"),
        (32, "cmpxchg [ebx], ecx", "f3 0f b1 0b", PREFIX),
        (32, "mov es:[ebx], eax", "2e 26 89 03", PREFIX),
        (64, "lock add [rbx], rax", "48 f0 01 03", "wrong"),
    ],
)
def test_the_checker_refuses_other_bytes(mode: int, statement: str, data: str, fragment: str) -> None:
    (parsed,) = parse_source(Source("kernel.s", statement))
    assert isinstance(parsed.body, Instruction)
    values = [value for value in values_of(parsed.body) if isinstance(value, int)]
    with pytest.raises(AsmError, match=fragment):
        Checker().check(parsed.body, values, mode, bytes.fromhex(data))


@pytest.mark.parametrize(
    ("statement", "data"),
    [
        ("pause", "f3 90"),
        ("popcnt eax, ecx", "f3 0f b8 c1"),
        ("tzcnt eax, ecx", "f3 0f bc c1"),
        ("movss xmm0, dword ptr [ebx]", "f3 0f 10 03"),
        ("movsd xmm0, qword ptr [ebx]", "f2 0f 10 03"),
        ("crc32 eax, cx", "66 f2 0f 38 f1 c1"),
        ("repne scasb", "f2 ae"),
        ("lock add es:[ebx], ax", "66 26 f0 01 03"),
        ("call dword ptr [ebx]", "ff 13"),
        ("jmp dword ptr [ebx]", "ff 23"),
    ],
)
def test_the_checker_takes_prefixes_that_are_written_or_part_of_the_opcode(statement: str, data: str) -> None:
    (parsed,) = parse_source(Source("kernel.s", statement))
    assert isinstance(parsed.body, Instruction)
    values = [value for value in values_of(parsed.body) if isinstance(value, int)]
    Checker().check(parsed.body, values, 32, bytes.fromhex(data))


def test_the_checker_follows_branches() -> None:
    checker = Checker()
    checker.check_branch("jnz", 32, b"\x75\x10", 0x1000, 0x1012)
    wrong = ((32, "75 10", 0x1013), (32, "66 0f 85 10 00", 0x1015), (32, "74 10", 0x1012), (32, "f3 75 10", 0x1013))
    for mode, data, target in wrong:
        with pytest.raises(AsmError, match="wrong"):
            checker.check_branch("jnz", mode, bytes.fromhex(data), 0x1000, target)


_WORDS = (
    "mov lock add jmp .byte .equ .section .align .org .phase .dephase .code16 .code64 rep ret push eax cx [ ] + - * / "
    "( ) , : ; ~ << | $ 'a' \" 1 0x10 9z label .local label: .loop: dword ptr es ds esp st ljmp lgdt \\ @ \t"
).split(" ")


@given(st.lists(st.lists(st.sampled_from(_WORDS), max_size=8).map(" ".join), max_size=4))
def test_nonsense_is_an_asm_error_or_assembles(lines: list[str]) -> None:
    trouble = None
    try:
        result = assemble(Source("kernel.s", "\n".join(lines)))
    except AsmError as error:
        trouble = error
    if trouble is None:
        assert all(len(section.data) in (0, section.size) for section in result.sections)
    else:
        assert trouble.where.startswith("kernel.s:")
        assert "\n" not in trouble.line


def test_memory_operands_say_their_size() -> None:
    (parsed,) = parse_source(Source("kernel.s", "cmpxchg8b qword ptr [ebx]"))
    assert isinstance(parsed.body, Instruction)
    assert parsed.body.operands == (Memory(8, "", "ebx", "", 1, 0),)
