"""Two oracles that share no code with the assembler or its checker: iced-x86 and GNU as."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import iced_x86
import pytest
from draws import draws
from grouped import grouped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source

_GNU = pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="GNU as and ld are not installed")


def _names(enumeration: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


_MNEMONICS, _REGISTERS, _CODES = map(_names, (iced_x86.Mnemonic, iced_x86.Register, iced_x86.Code))


def code(text: str, origin: int = 0x100000) -> bytes:
    return assemble(Source("kernel.s", text), origin=origin).section(".text").data


def decode(mode: int, data: bytes, address: int = 0) -> iced_x86.Instruction:
    instruction = iced_x86.Decoder(mode, data, ip=address).decode()
    assert instruction.code != iced_x86.Code.INVALID
    assert instruction.len == len(data)
    return instruction


# --- random statements against iced-x86 ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """An operand as text, and as iced should see it: ("reg", name), ("imm", value, bits), ("mem", ...)."""

    text: str
    seen: tuple[Any, ...]


_GENERAL = {
    8: "al cl dl bl ah ch dh bh".split(),
    16: "ax cx dx bx sp bp si di".split(),
    32: "eax ecx edx ebx esp ebp esi edi".split(),
    64: "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(),
}
_SIZES = {8: "byte", 16: "word", 32: "dword", 64: "qword"}
_EDGES = [0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
_NUMBERS = st.sampled_from(_EDGES) | st.integers(0, (1 << 32) - 1)


def registers(bits: int) -> st.SearchStrategy[Place]:
    return st.sampled_from(_GENERAL[bits]).map(lambda name: Place(name, ("reg", name)))


def number(value: int) -> st.SearchStrategy[str]:
    return st.sampled_from([str(value), hex(value), f"({value + 3} - 3)", f"VALUE + {value - 1000}"])


@st.composite
def immediates(draw: st.DrawFn, bits: int, signed: bool = False) -> Place:
    """Of that width; ``signed`` leaves out what 64-bit code cannot extend from 32 bits."""
    limit = (1 << 31) - 1 if signed else (1 << bits) - 1
    value = min(draw(_NUMBERS), limit) * draw(st.sampled_from([1, 1, -1]))
    value = max(value, -(1 << (min(bits, 32) - 1)))
    return Place(draw(number(value)), ("imm", value % (1 << bits), bits))


@st.composite
def memories(draw: st.DrawFn, mode: int, bits: int) -> Place:
    """Every form of address: absolute, base, index, scale and displacement; 16-bit forms in 16-bit code."""
    size = f"{_SIZES[bits]} ptr "
    segment = draw(st.sampled_from(["", "", "", "es", "fs"] if mode != 64 else ["", "", "fs"]))
    if mode == 16 and draw(st.booleans()):
        address_bits = 16
        parts = draw(st.sampled_from("bx+si bx+di bp+si bp+di si di bp bx".split())).split("+")
        base, index, scale = parts[0], parts[1] if len(parts) > 1 else "", 1
    else:
        address_bits = 64 if mode == 64 else 32
        pool = _GENERAL[address_bits]
        base = draw(st.sampled_from(["", *pool] if mode == 32 else pool))
        index = draw(st.sampled_from(["", *(name for name in pool if name not in ("esp", "rsp"))]))
        scale = draw(st.sampled_from([1, 2, 4, 8])) if index else 1
    limit = (1 << (min(address_bits, 32) - 1)) - 1
    away = min(draw(_NUMBERS), limit) * draw(st.sampled_from([1, -1])) if draw(st.booleans()) or not base else 0
    scaled = (f"{index}*{scale}" if draw(st.booleans()) else f"{scale}*{index}") if scale > 1 or not base else index
    terms = [term for term in (base, scaled if index else "") if term]
    if away or not terms:
        terms.insert(draw(st.integers(0, len(terms))), f"({draw(number(away))})")
    expected: dict[str, int] = {}
    for name, factor in ((base, 1), (index, scale)):
        if name:
            expected[name] = expected.get(name, 0) + factor
    text = f"{size}{segment}{':' if segment else ''}[{' + '.join(terms)}]"
    return Place(text, ("mem", bits // 8, segment, expected, away % (1 << address_bits), address_bits))


#: Mnemonics by the shape of their operands: r register, m memory, e either, i immediate, 8 a byte constant, c CL.
_FORMS = {
    "er": "mov add or adc sbb and sub xor cmp test xchg xadd cmpxchg".split(),
    "rm": "mov add or adc sbb and sub xor cmp".split(),
    "ei": "mov add or adc sbb and sub xor cmp test".split(),
    "e": "inc dec neg not mul div imul idiv".split(),
    "ec": "shl shr sar rol ror rcl rcr".split(),
    "e8": "shl shr sar rol ror rcl rcr".split(),
    "wide er": "bt bts btr btc".split(),
    "wide e8": "bt bts btr btc".split(),
    "wide re": "imul bsf bsr cmovz cmovnae cmovnle".split(),
    "wide rei": ["imul"],
    "wide er8": "shld shrd".split(),
    "wide erc": "shld shrd".split(),
}
_CHOICES = [(shape, mnemonic) for shape, mnemonics in _FORMS.items() for mnemonic in mnemonics]
_ICED_NAMES = {"cmovz": "cmove", "cmovnae": "cmovb", "cmovnle": "cmovg"}
_LOCKABLE = set("add or adc sbb and sub xor xchg xadd cmpxchg inc dec neg not bts btr btc".split())


@st.composite
def statements(draw: st.DrawFn, mode: int) -> tuple[str, str, bool, list[Place]]:
    """A statement, the name iced has for it, whether it is locked, and its operands."""
    shape, mnemonic = draw(st.sampled_from(_CHOICES))
    wide, _, letters = shape.rpartition(" ")
    bits = draw(
        st.sampled_from([width for width in (8, 16, 32, 64) if width <= max(mode, 32) and (width > 8 or not wide)])
    )
    make = {
        "r": registers(bits),
        "m": memories(mode, bits),
        "e": registers(bits) | memories(mode, bits),
        "i": immediates(bits, signed=bits == 64),
        "8": st.integers(0, 31).map(lambda value: Place(hex(value), ("imm", value, 8))),
        "c": st.just(Place("cl", ("reg", "cl"))),
    }
    places = [draw(make[letter]) for letter in letters]
    # Not sayable: AH and its kin beside a REX prefix.
    if mode == 64:
        high = any(place.text in ("ah", "ch", "dh", "bh") for place in places)
        if high and any(re.search(r"\br\d", place.text) for place in places):
            places = [Place("dl", ("reg", "dl")) if place.seen[0] == "reg" else place for place in places]
    # XCHG EAX, EAX is NOP and is refused.
    if mnemonic == "xchg" and places[0].text == places[1].text:
        places[1] = draw(registers(bits).filter(lambda place: place.text != places[0].text))
    locked = mnemonic in _LOCKABLE and places[0].seen[0] == "mem" and draw(st.booleans())
    text = f"{'lock ' if locked else ''}{mnemonic} {', '.join(place.text for place in places)}"
    return text, _ICED_NAMES.get(mnemonic, mnemonic), locked, places


def seen_by_iced(instruction: iced_x86.Instruction, place: Place, at: int) -> tuple[Any, ...]:
    """Operand ``at`` in the notation of ``place``."""
    kind = instruction.op_kind(at)
    if kind == iced_x86.OpKind.REGISTER:
        return ("reg", _REGISTERS[instruction.op_register(at)].lower())
    if kind != iced_x86.OpKind.MEMORY:
        bits = place.seen[-1] if place.seen[0] == "imm" else 64
        return ("imm", instruction.immediate(at) % (1 << bits), bits)
    terms: dict[str, int] = {}
    for register, factor in (
        (instruction.memory_base, 1),
        (instruction.memory_index, instruction.memory_index_scale),
    ):
        if register:
            name = _REGISTERS[register].lower()
            terms[name] = terms.get(name, 0) + factor
    size = iced_x86.MemorySizeExt.size(instruction.memory_size)
    segment = _REGISTERS[instruction.segment_prefix].lower() if instruction.has_segment_prefix else ""
    bits = place.seen[-1] if place.seen[0] == "mem" else 64
    return ("mem", size, segment, terms, instruction.memory_displacement % (1 << bits), bits)


def compare(mode: int, statement: tuple[str, str, bool, list[Place]]) -> None:
    text, name, locked, places = statement
    instruction = decode(mode, code(f".code{mode}\n{text}\n.equ VALUE, 1000"))
    assert _MNEMONICS[instruction.mnemonic].lower() == name
    assert instruction.has_lock_prefix == locked
    assert instruction.op_count == len(places)
    seen = [seen_by_iced(instruction, place, at) for at, place in enumerate(places)]
    turned = [seen_by_iced(instruction, place, 1 - at) for at, place in enumerate(places)] if len(places) == 2 else seen
    expected = [place.seen for place in places]
    assert seen == expected or (name in ("xchg", "test") and turned == expected)


@settings(max_examples=draws(300), suppress_health_check=[HealthCheck.too_slow])
@given(statements(32))
def test_statements_agree_with_iced_in_32_bit_code(statement: tuple[str, str, bool, list[Place]]) -> None:
    compare(32, statement)


@settings(max_examples=draws(150), suppress_health_check=[HealthCheck.too_slow])
@given(statements(16))
def test_statements_agree_with_iced_in_16_bit_code(statement: tuple[str, str, bool, list[Place]]) -> None:
    compare(16, statement)


@settings(max_examples=draws(150), suppress_health_check=[HealthCheck.too_slow])
@given(statements(64))
def test_statements_agree_with_iced_in_64_bit_code(statement: tuple[str, str, bool, list[Place]]) -> None:
    compare(64, statement)


_BOTH = [
    ("movzx eax, byte ptr [ebx]", "MOVZX_R32_RM8", "MOVZX_R32_RM8"),
    ("movzx ecx, dx", "MOVZX_R32_RM16", "MOVZX_R32_RM16"),
    ("movsx ecx, word ptr [esi + 2]", "MOVSX_R32_RM16", "MOVSX_R32_RM16"),
    ("lea eax, [ebx + 4*ecx + 8]", "LEA_R32_M", "LEA_R32_M"),
    ("cmpxchg8b qword ptr [esi]", "CMPXCHG8B_M64", "CMPXCHG8B_M64"),
    ("push eax", "PUSH_R32", "PUSH_R32"),
    ("push ax", "PUSH_R16", "PUSH_R16"),
    ("pop dword ptr [ebx]", "POP_RM32", "POP_RM32"),
    ("in al, dx", "IN_AL_DX", "IN_AL_DX"),
    ("in ax, dx", "IN_AX_DX", "IN_AX_DX"),
    ("in eax, 0x40", "IN_EAX_IMM8", "IN_EAX_IMM8"),
    ("out dx, eax", "OUT_DX_EAX", "OUT_DX_EAX"),
    ("out 0x80, al", "OUT_IMM8_AL", "OUT_IMM8_AL"),
    ("stosb", "STOSB_M8_AL", "STOSB_M8_AL"),
    ("rep stosw", "STOSW_M16_AX", "STOSW_M16_AX"),
    ("rep stosd", "STOSD_M32_EAX", "STOSD_M32_EAX"),
    ("rep movsb", "MOVSB_M8_M8", "MOVSB_M8_M8"),
    ("movsd", "MOVSD_M32_M32", "MOVSD_M32_M32"),
    ("repne scasb", "SCASB_AL_M8", "SCASB_AL_M8"),
    ("repe cmpsb", "CMPSB_M8_M8", "CMPSB_M8_M8"),
    ("rep insw", "INSW_M16_DX", "INSW_M16_DX"),
    ("mov cr0, eax", "MOV_CR_R32", "MOV_CR_R32"),
    ("mov eax, dr6", "MOV_R32_DR", "MOV_R32_DR"),
    ("bswap ecx", "BSWAP_R32", "BSWAP_R32"),
    ("setz byte ptr [ebx]", "SETE_RM8", "SETE_RM8"),
    ("jmp eax", "JMP_RM32", "JMP_RM32"),
    ("call dword ptr [eax + 0x1234]", "CALL_RM32", "CALL_RM32"),
    ("cbw", "CBW", "CBW"),
    ("cwde", "CWDE", "CWDE"),
    ("cwd", "CWD", "CWD"),
    ("cdq", "CDQ", "CDQ"),
    ("pause", "PAUSE", "PAUSE"),
    ("rdtsc", "RDTSC", "RDTSC"),
    ("cpuid", "CPUID", "CPUID"),
    ("wrmsr", "WRMSR", "WRMSR"),
    ("mfence", "MFENCE", "MFENCE"),
    ("wbinvd", "WBINVD", "WBINVD"),
    ("hlt", "HLT", "HLT"),
    ("int 0x20", "INT_IMM8", "INT_IMM8"),
    ("ltr ax", "LTR_R32M16", None),
    ("invlpg [ebx]", "INVLPG_M", "INVLPG_M"),
    # what the mode decides
    ("iret", "IRETD", "IRETW"),
    ("iretd", "IRETD", "IRETD"),
    ("pushf", "PUSHFD", "PUSHFW"),
    ("pushfd", "PUSHFD", "PUSHFD"),
    ("popf", "POPFD", "POPFW"),
    ("popfd", "POPFD", "POPFD"),
    ("pusha", "PUSHAD", "PUSHAW"),
    ("pushad", "PUSHAD", "PUSHAD"),
    ("popad", "POPAD", "POPAD"),
    ("push ds", "PUSHD_DS", "PUSHW_DS"),
    ("push fs", "PUSHD_FS", "PUSHW_FS"),
    ("pop es", "POPD_ES", "POPW_ES"),
    ("pop gs", "POPD_GS", "POPW_GS"),
    ("push cs", "PUSHD_CS", "PUSHW_CS"),
    ("pop ss", "POPD_SS", "POPW_SS"),
    ("push 5", "PUSHD_IMM8", "PUSHW_IMM8"),
    ("push -1", "PUSHD_IMM8", "PUSHW_IMM8"),
    ("push 0xffff", "PUSHD_IMM32", "PUSHW_IMM8"),
    ("push 0x1234", "PUSHD_IMM32", "PUSH_IMM16"),
    ("ret", "RETND", "RETNW"),
    ("ret 8", "RETND_IMM16", "RETNW_IMM16"),
    ("retf", "RETFD", "RETFW"),
    ("leave", "LEAVED", "LEAVEW"),
    ("lgdt [ebx]", "LGDT_M1632", "LGDT_M1632_16"),
    ("lidt [0x1234]", "LIDT_M1632", "LIDT_M1632_16"),
    ("sgdt [ebx + 4*ecx]", "SGDT_M1632", "SGDT_M1632_16"),
    ("ljmp 8, 0x1234", "JMP_PTR1632", "JMP_PTR1616"),
    ("ljmp32 8, 0x123456", None, "JMP_PTR1632"),
    ("call 0x1234", "CALL_REL32_32", "CALL_REL16"),
    ("jmp 0x5000", "JMP_REL32_32", "JMP_REL16"),
    ("jcxz 0x1000", "JCXZ_REL8_32", "JCXZ_REL8_16"),
    ("jecxz 0x1000", "JECXZ_REL8_32", "JECXZ_REL8_16"),
    ("loop 0x1000", "LOOP_REL8_32_ECX", "LOOP_REL8_16_CX"),
]


@grouped((32, s, c32) for s, c32, _ in _BOTH if c32)
def test_iced_names_the_form_in_32_bit_code(mode: int, statement: str, expected: str) -> None:
    check_form(mode, statement, expected)


@grouped((16, s, c16) for s, _, c16 in _BOTH if c16)
def test_iced_names_the_form_in_16_bit_code(mode: int, statement: str, expected: str) -> None:
    check_form(mode, statement, expected)


def check_form(mode: int, statement: str, expected: str) -> None:
    data = code(f".code{mode}\n{statement}", origin=0x1000)
    instruction = decode(mode, data, 0x1000)
    assert _CODES[instruction.code] == expected
    assert instruction.has_rep_prefix == statement.startswith(("rep ", "repe "))
    assert instruction.has_repne_prefix == statement.startswith("repne ")
    # LGDT and its kin keep their name with an operand size prefix that changes what they load.
    assert b"\x66" not in data or expected in FORMS_WITH_66[mode]


FORMS_WITH_66 = {
    32: "PUSH_R16 IN_AX_DX STOSW_M16_AX INSW_M16_DX CBW CWD LTR_R32M16".split(),
    16: [
        c16 for s, _, c16 in _BOTH if c16 and re.search(r"32|EAX|DR$|CR_|D$|CWDE|CDQ|LEA", c16) and "M1632" not in c16
    ],
}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("iretq", "IRETQ"),
        ("pushfq", "PUSHFQ"),
        ("push fs", "PUSHQ_FS"),
        ("ret", "RETNQ"),
        ("lgdt [rbx]", "LGDT_M1664"),
        ("mov rax, 0x123456789abc", "MOV_R64_IMM64"),
        ("lock cmpxchg16b xmmword ptr [rbx]", "CMPXCHG16B_M128"),
        ("mov rax, [0x123456789abc]", "MOV_RAX_MOFFS64"),
        ("jmp rax", "JMP_RM64"),
        ("push 0xffff", "PUSHQ_IMM32"),
        ("push -128", "PUSHQ_IMM8"),
    ],
)
def test_iced_names_the_form_in_64_bit_code(statement: str, expected: str) -> None:
    assert _CODES[decode(64, code(f".code64\n{statement}")).code] == expected


# --- branches -----------------------------------------------------------------------------------------------------

_JUMP = st.sampled_from("jmp jz jc jnle jpe call".split())
_PROGRAM = st.lists(
    st.tuples(_JUMP, st.integers(0, 30)) | st.integers(0, 90) | st.sampled_from([123, 124, 125, 126, 127, 128]),
    min_size=1,
    max_size=40,
)


def program(parts: list[tuple[str, int] | int], mode: int) -> str:
    """Labels l0 ... before every part; a part is a jump to one of them or a gap."""
    lines = [f".code{mode}", '.section .text, "ax"']
    for at, part in enumerate(parts):
        body = f".skip {part}, 0x90" if isinstance(part, int) else f"{part[0]} l{part[1] % (len(parts) + 1)}"
        lines += [f"l{at}:", body]
    return "\n".join([*lines, f"l{len(parts)}:", "hlt", ""])


@given(_PROGRAM, st.sampled_from([16, 32, 64]))
def test_branches_reach_their_labels_and_are_short_where_they_can(
    parts: list[tuple[str, int] | int], mode: int
) -> None:
    result = assemble(Source("kernel.s", program(parts, mode)), origin=0x1000)
    lines = {line.line: line for line in result.lines}
    for at, part in enumerate(parts):
        if isinstance(part, int):
            continue
        line = lines[2 * at + 4]
        target = result.address(f"l{part[1] % (len(parts) + 1)}")
        instruction = decode(mode, line.data, line.run_address)
        assert instruction.near_branch_target == target
        if part[0] != "call" and len(line.data) > 2:
            shrunk = target - (len(line.data) - 2 if target > line.address else 0)
            assert not -128 <= shrunk - (line.address + 2) <= 127


def gnu(text: str, directory: Path, origin: int) -> bytes:
    """The whole unit through GNU as and ld. Constants with {offset} are addresses, ``ljmp32`` is spelled ``ljmpd``."""
    source, linked = directory / "unit.s", directory / "unit.bin"
    source.write_text(text.replace("{offset}", "offset ").replace(".align", ".balign").replace("ljmp32", "ljmpd"))
    subprocess.run(
        ["as", "--32", "-msyntax=intel", "-mnaked-reg", str(source), "-o", str(directory / "unit.o")],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [
            *f"ld -m elf_i386 -Ttext={origin:#x} --oformat=binary -e 0 -o".split(),
            str(linked),
            str(directory / "unit.o"),
        ],
        check=True,
        capture_output=True,
    )
    return linked.read_bytes()


@_GNU
@settings(max_examples=20, deadline=None)
@given(_PROGRAM, st.sampled_from([16, 32]))
def test_branches_are_those_of_gnu_as(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, int] | int], mode: int
) -> None:
    text = program(parts, mode)
    assert code(text, 0x1000) == gnu(text, tmp_path_factory.mktemp("as"), 0x1000)


@_GNU
@pytest.mark.parametrize("mode", [16, 32])
def test_every_condition_and_edge_is_that_of_gnu_as(mode: int, tmp_path: Path) -> None:
    lines = [f".code{mode}", '.section .text, "ax"']
    suffixes = "o no b c nae ae nb nc e z ne nz be na a nbe s ns p pe np po l nge ge nl le ng g nle".split()
    for at, mnemonic in enumerate(["mp", *suffixes]):
        for distance in (126, 127, 128, 129):
            label = f"l{at}_{distance}"
            lines += [
                f"j{mnemonic} {label}",
                f".skip {distance}",
                f"{label}:",
                f".skip {distance - 2}",
                f"j{mnemonic} {label}",
            ]
    for mnemonic in ("loop", "loope", "loopne", "jcxz", "jecxz"):
        lines += [f"{mnemonic} {mnemonic}_on", ".skip 127", f"{mnemonic}_on:", ".skip 125", f"{mnemonic} {mnemonic}_on"]
    text = "\n".join(lines) + "\n"
    assert code(text, 0) == gnu(text, tmp_path, 0)


_REALISTIC = """
.section .text, "ax"
.equ VGA, 0xb8000
.equ PORT, 0x3f8
.equ LIMIT, 100
.equ COUNT, LIMIT * 4
.code16
start:
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7c00
    push 0x1234
    push ds
    pop es
    pushf
    popfd
    mov si, {offset}message
    mov di, word ptr [bx + si + 4]
    call print
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp protect
print:
    lodsb
    test al, al
    jz print.done
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    jmp print
print.done:
    ret
protect:
    ljmp32 0x08, {offset}main
gdtr: .word gdtr - gdt - 1
    .long gdt
.code32
    .align 16, 0xcc
main:
    mov eax, 0x10
    mov ds, eax
    mov esp, {offset}stack_top
    mov dword ptr [results + 4*ecx + 8], COUNT
    mov ecx, {offset}results
    add ecx, LIMIT
    add eax, COUNT
    and eax, ~0x80000000
    lock xadd dword ptr [VGA], eax
    xchg dword ptr [ebx + 8*esi - 4], eax
    lock cmpxchg dword ptr [ebp], edx
    lock bts dword ptr [results + 4], 7
    movzx eax, byte ptr [esp + 7]
    lea edi, [edi + 2*ebp + 0x1000]
    mov dx, PORT + 5
main.wait:
    in al, dx
    test al, 0x20
    pause
    jz main.wait
    cld
    rep stosd
    pushfd
    pop eax
    invlpg [VGA]
    ljmp 0x08, {offset}main.far
main.far:
    jecxz main.end
    imul eax, edx, 100
    shl eax, 1
    shl edx, 5
    call main
    jmp start
    .skip 100, 0x90
    jnz main.end
main.end:
    iretd
    hlt
    jmp main.end
    .align 8, 0
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
message: .asciz "kgen\\r\\n"
    .byte 'A', -1, 255
    .align 4, 0
results: .skip 64
    .org 0x300
stack_top:
"""


@_GNU
def test_a_program_is_byte_for_byte_that_of_gnu_as(tmp_path: Path) -> None:
    assert code(_REALISTIC.replace("{offset}", ""), 0x7C00) == gnu(_REALISTIC, tmp_path, 0x7C00)
