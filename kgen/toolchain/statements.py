"""Source text to statements: labels, directives and instructions with parsed operands. Pure, no layout, no bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kgen.errors import AsmError
from kgen.toolchain.assembly import Source
from kgen.toolchain.expressions import Expression, is_name, parse_expression, qualify, tokenize, without_comment

_WIDE = tuple("ax cx dx bx sp bp si di".split())
#: Width in bytes of every general register.
GENERAL_REGISTERS: dict[str, int] = {
    **dict.fromkeys("al cl dl bl ah ch dh bh spl bpl sil dil".split(), 1),
    **dict.fromkeys(_WIDE, 2),
    **{f"e{name}": 4 for name in _WIDE},
    **{f"r{name}": 8 for name in _WIDE},
    **{f"r{number}{end}": size for number in range(8, 16) for end, size in (("b", 1), ("w", 2), ("d", 4), ("", 8))},
}
SEGMENT_REGISTERS = frozenset("cs ds es fs gs ss".split())
#: Width in bytes of every register an operand may name.
REGISTERS: dict[str, int] = {
    **GENERAL_REGISTERS,
    **dict.fromkeys(SEGMENT_REGISTERS, 2),
    **dict.fromkeys(("eip", "rip"), 8),
    **{f"{kind}{number}": 4 for kind in ("cr", "dr") for number in range(16)},
    **{f"{kind}{number}": size for kind, size in (("xmm", 16), ("ymm", 32)) for number in range(16)},
    **{f"mm{number}": 8 for number in range(8)},
    **dict.fromkeys(["st", *(f"st({number})" for number in range(8))], 10),
}
PREFIXES = frozenset("lock rep repe repz repne repnz".split())
_SIZES = {"byte": 1, "word": 2, "dword": 4, "fword": 6, "qword": 8, "tbyte": 10, "xmmword": 16, "ymmword": 32}
_SIZE_NAMES = {size: name for name, size in _SIZES.items()}
_MNEMONIC = re.compile(r"[a-z][a-z0-9]*\Z", re.ASCII)
_OPERATORS = frozenset("+ - * / % & | ~ << >> ( , [ :".split())
_FILE_MARKER = re.compile(r"\s*;@\s*(\S+)")


@dataclass(frozen=True, slots=True)
class Register:
    """A register operand, in lower case."""

    name: str


@dataclass(frozen=True, slots=True)
class Memory:
    """``SIZE ptr SEGMENT:[base + index*scale + displacement]``."""

    #: In bytes, 0 where none is written.
    size: int
    #: "" where none is written, like ``base`` and ``index``.
    segment: str
    base: str
    index: str
    scale: int
    displacement: Expression


@dataclass(frozen=True, slots=True)
class Immediate:
    """A value: a number, or the address or constant of a symbol."""

    value: Expression


Operand = Register | Memory | Immediate


@dataclass(frozen=True, slots=True)
class Instruction:
    """One machine instruction as written; everything but symbols in lower case."""

    prefixes: tuple[str, ...]
    mnemonic: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Directive:
    """An assembler directive."""

    #: With its dot.
    name: str
    #: One sequence of tokens for each argument.
    arguments: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """One source line."""

    line: int
    #: The place as error messages name it.
    where: str
    #: The line without its margins.
    text: str
    #: The full name of a label defined before ``body``.
    label: str
    #: The global label that local names belong to.
    scope: str
    body: Instruction | Directive | None


def parse_source(source: Source) -> list[Statement]:
    """Return every line that defines or emits something. Raises AsmError with the line.

    A comment line ``;@ FILE`` says that the lines below it are those of template FILE, from its line 1;
    errors then name both places: ``kernel.s:120 (serial.asm:14)``.
    """
    statements = []
    known: dict[tuple[str, str], Instruction | Directive | None] = {}
    scope = file = ""
    first = 0
    for number, line in enumerate(source.text.split("\n"), 1):
        text = line.strip()
        if not text:
            continue
        if text[0] == ";":
            marker = _FILE_MARKER.match(text)
            if marker is not None:
                file, first = marker[1], number
            continue
        where = f"{source.name}:{number} ({file}:{number - first})" if file else f"{source.name}:{number}"
        try:
            # The same text means the same, but for local labels, which depend on the scope.
            key = (text, scope if "." in text else "")
            label = ""
            if key in known:
                body = known[key]
            else:
                tokens = tokenize(text)
                if not tokens:
                    continue
                if len(tokens) > 1 and tokens[1] == ":":
                    label = definable(tokens[0], scope)
                    scope = scope if tokens[0].startswith(".") else label
                    tokens = tokens[2:]
                body = _parse_body(tokens, scope)
                if not label:
                    known[key] = body
        except AsmError as error:
            raise located(error, where, text) from None
        statements.append(Statement(number, where, text, label, scope, body))
    return statements


def located(error: AsmError, where: str, text: str) -> AsmError:
    """Return the same error with its place and the text of the statement; one that has a place already stays as it
    is.
    """
    return (
        error
        if error.where
        else AsmError(f"{error.message} in `{without_comment(text)}`", where=where, hint=error.hint)
    )


def definable(token: str, scope: str) -> str:
    """Return the full name of a label or constant about to be defined.

    Raises AsmError for a name that cannot be one.
    """
    if not is_name(token) or token == ".":
        raise AsmError(f"bad symbol name {token!r}")
    if token.lower() in REGISTERS:
        raise AsmError(f"symbol {token!r} is the name of a register")
    return qualify(token, scope)


def _parse_body(tokens: list[str], scope: str) -> Instruction | Directive | None:
    if not tokens:
        return None
    if tokens[0].startswith("."):
        return Directive(tokens[0], tuple(map(tuple, split(tokens[1:]))))
    at = 0
    while at < len(tokens) and tokens[at].lower() in PREFIXES:
        at += 1
    if at == len(tokens):
        raise AsmError("a prefix needs an instruction")
    mnemonic = tokens[at].lower()
    if not _MNEMONIC.match(mnemonic):
        raise AsmError(f"unknown mnemonic {tokens[at]!r}")
    operands = tuple(_parse_operand(operand, scope) for operand in split(tokens[at + 1 :]))
    return Instruction(tuple(token.lower() for token in tokens[:at]), mnemonic, operands)


def split(tokens: Sequence[str]) -> list[list[str]]:
    """Tokens between commas; none at all for no tokens. Raises AsmError for an empty place."""
    if not tokens:
        return []
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    if not all(parts):
        raise AsmError("an operand is missing beside ','")
    return parts


def _parse_operand(tokens: list[str], scope: str) -> Operand:
    word = tokens[0].lower()
    if len(tokens) == 1 and word in REGISTERS:
        return Register(word)
    if word == "st" and len(tokens) > 1:
        name = "".join(tokens).lower()
        if name not in REGISTERS:
            raise AsmError(f"no register {name!r}")
        return Register(name)
    if tokens[-1] != "]":
        if "[" in tokens:
            raise AsmError("']' is missing, or something follows it")
        for token in tokens:
            if token.lower() in REGISTERS:
                raise AsmError(f"register {token!r} in an expression")
        if word in _SIZES and len(tokens) > 1:
            raise AsmError(f"bad expression: {word!r} goes before a memory operand: {word} ptr [...]")
        return Immediate(parse_expression(tokens, scope))
    size, segment = 0, ""
    if word in _SIZES:
        if len(tokens) < 2 or tokens[1].lower() != "ptr":
            raise AsmError(f"{word!r} without ptr", hint=f"write {word} ptr [...]")
        size, tokens = _SIZES[word], tokens[2:]
    if len(tokens) > 1 and tokens[1] == ":" and tokens[0].lower() in SEGMENT_REGISTERS:
        segment, tokens = tokens[0].lower(), tokens[2:]
    if tokens[0] != "[":
        raise AsmError(f"bad expression: unexpected {tokens[0]!r} before a memory operand")
    return _parse_memory(size, segment, tokens[1:-1], scope)


def _parse_memory(size: int, segment: str, tokens: list[str], scope: str) -> Memory:
    """Sort the terms between the brackets into base, index, scale and displacement."""
    if "[" in tokens or "]" in tokens:
        raise AsmError("brackets inside brackets")
    if not any(token.lower() in REGISTERS for token in tokens):
        return Memory(size, segment, "", "", 1, parse_expression(tokens, scope))
    plain: list[str] = []
    scaled: list[tuple[str, int]] = []
    rest: list[str] = []
    for sign, term in _terms(tokens):
        registers = [token.lower() for token in term if token.lower() in REGISTERS]
        if not registers:
            rest += [sign, "(", *term, ")"]
            continue
        if sign == "-" or len(registers) > 1:
            raise AsmError(f"bad expression: registers can only be added, not {sign} {' '.join(term)}")
        register = registers[0]
        if len(term) == 1:
            plain.append(register)
        else:
            scaled.append((register, _scale(term, register, scope)))
    if len(plain) + len(scaled) > 2 or len(scaled) > 1:
        raise AsmError("an address has at most one base and one scaled index")
    displacement = parse_expression(rest, scope) if rest else 0
    index, scale = scaled[0] if scaled else (plain[1] if len(plain) > 1 else "", 1)
    base = plain[0] if plain else ""
    if index in ("esp", "rsp"):
        if scale != 1 or base == index:
            raise AsmError(f"{index} cannot be an index")
        base, index = index, base
    return Memory(size, segment, base, index, scale, displacement)


def _scale(term: list[str], register: str, scope: str) -> int:
    """Return the factor of ``4*ecx`` or ``ecx*4``: a constant."""
    lowered = [token.lower() for token in term]
    factor: Expression = ""
    if lowered[:2] == [register, "*"]:
        factor = parse_expression(term[2:], scope)
    elif lowered[-2:] == ["*", register]:
        factor = parse_expression(term[:-2], scope)
    if factor not in (1, 2, 4, 8):
        raise AsmError(f"the scale in {' '.join(term)} is not 1, 2, 4 or 8")
    assert isinstance(factor, int)
    return factor


def _terms(tokens: list[str]) -> list[tuple[str, list[str]]]:
    """Split at the outermost + and - that stand between two terms."""
    terms: list[tuple[str, list[str]]] = [("+", [])]
    depth = 0
    for at, token in enumerate(tokens):
        if depth == 0 and token in ("+", "-") and at and tokens[at - 1] not in _OPERATORS:
            terms.append((token, []))
            continue
        if depth == 0 and token in ("|", "&", "<<", ">>"):
            raise AsmError(f"bad expression: put parentheses around {token!r} in an address with registers")
        depth += {"(": 1, ")": -1}.get(token, 0)
        terms[-1][1].append(token)
    if not all(term for _, term in terms):
        raise AsmError("bad expression: something is missing in an address")
    return terms


def values_of(instruction: Instruction) -> tuple[Expression, ...]:
    """Return one expression for each operand: an immediate or displacement, 0 for a register."""
    return tuple(
        operand.value if isinstance(operand, Immediate) else operand.displacement if isinstance(operand, Memory) else 0
        for operand in instruction.operands
    )


def hexadecimal(value: int) -> str:
    """Return the only notation keystone reads the same way in every mode."""
    return f"-0x{-value:x}" if value < 0 else f"0x{value:x}"


def render(instruction: Instruction, values: Sequence[int | str]) -> str:
    """Intel syntax for keystone, with each operand's value in place of its expression (a str is put in as it is)."""
    words = [*instruction.prefixes, instruction.mnemonic]
    operands = [_render_operand(operand, value) for operand, value in zip(instruction.operands, values, strict=True)]
    return f"{' '.join(words)} {', '.join(operands)}" if operands else " ".join(words)


def _render_operand(operand: Operand, value: int | str) -> str:
    if isinstance(operand, Register):
        return operand.name
    text = hexadecimal(value) if isinstance(value, int) else value
    if isinstance(operand, Immediate):
        return text
    parts = [operand.base] if operand.base else []
    if operand.index:
        parts.append(f"{operand.index}*{operand.scale}" if operand.scale > 1 or not operand.base else operand.index)
    address = " + ".join([*parts, text]) if value != 0 or not parts else " + ".join(parts)
    size = f"{_SIZE_NAMES[operand.size]} ptr " if operand.size else ""
    segment = f"{operand.segment}:" if operand.segment else ""
    return f"{size}{segment}[{address}]"
