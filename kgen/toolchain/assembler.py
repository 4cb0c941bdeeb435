"""The assembler: ``assemble(Source) -> Assembly``. The only module that imports keystone.

Keystone sees one instruction at a time, with numbers in place of symbols. Labels, directives, branches and layout are
our own, so every byte has a line and every error a place. Each emitted instruction is checked by another decoder.

The dialect: statements.py (lines, labels, operands), expressions.py (constants), directives.py, encodings.py (the
instructions that are not left to keystone).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from kgen.errors import AsmError
from kgen.toolchain.assembly import Assembly, Line, Section, Source, Symbol, SymbolKind
from kgen.toolchain.decoder import Checker, operand_width
from kgen.toolchain.directives import Builder
from kgen.toolchain.encodings import (
    DESCRIPTOR_TABLES,
    FIXED,
    REPEATS,
    branch_size,
    can_grow,
    encode_branch,
    encode_far_jump,
    encode_push,
    encode_return16,
    encode_segment,
    from_invlpg,
    reaches_short,
)
from kgen.toolchain.expressions import Expression, evaluate, wrap
from kgen.toolchain.layout import MAX_ROUNDS, Item, Layout
from kgen.toolchain.statements import (
    SEGMENT_REGISTERS,
    Immediate,
    Instruction,
    Memory,
    Register,
    hexadecimal,
    located,
    parse_source,
    render,
)

#: After so many rounds a statement may only grow, so that relaxation ends.
_FREE_ROUNDS = 8
#: The size of an encoding can change only where a value crosses one of these.
_SIZE_LIMITS = sorted(
    {0, 1, 2}
    | {sign << bits for bits in (7, 8, 15, 16, 31, 32, 63, 64) for sign in (-1, 1)}
    | {(1 << bits) - (1 << low) for bits in (16, 32, 64) for low in (7, 15, 31) if low < bits}
)


def keystone_version() -> str:
    """Return the version of the library that encodes, which may change a kernel's bytes."""
    import keystone

    return str(keystone.__version__)


def assemble(source: Source, *, origin: int = 0x100000, page_align: bool = True) -> Assembly:
    """Assemble one translation unit.

    ``origin`` is the address of the first section; with ``page_align`` a section whose flags differ from those of the
    one before it starts on a 4096-byte page. The result depends on the arguments alone.
    Raises AsmError with ``file:line`` and the statement's text for anything that cannot be exactly as written.
    """
    builder = Builder(parse_source(source))
    layout = Layout(builder.items, builder.areas, origin, page_align)
    encoder = _Encoder()
    _relax(layout, encoder)
    lines = _emit(layout, encoder)
    return Assembly(source, _sections(layout, lines), _symbols(layout), lines)


#: The bytes of instructions by mode and text, and those that were checked: the same in every unit, so that what several
#: units of a process share is encoded and decoded once.
_ENCODED: dict[tuple[int, str], bytes] = {}
_CHECKED: set[tuple[int, str]] = set()
#: So many are remembered; then all are forgotten.
_REMEMBERED = 1 << 16


class _Encoder:
    """Instructions to bytes: each text once a mode, checked when asked for."""

    def __init__(self) -> None:
        self.checker = Checker()
        self._engines: dict[int, Any] = {}
        self._encoded, self._checked = _ENCODED, _CHECKED
        if len(self._encoded) > _REMEMBERED:
            self._encoded.clear()
            self._checked.clear()

    def encode(self, instruction: Instruction, values: Sequence[int], mode: int, *, check: bool) -> bytes:
        """Return the bytes; with ``check`` they are known to mean what the instruction says. Raises AsmError."""
        key = (mode, render(instruction, values))
        data = self._encoded.get(key)
        if data is None:
            data = self._wrapped(instruction, values, mode)
            data = self._encoded[key] = self._keystone(key[1], mode) if data is None else data
        if check and key not in self._checked:
            self.checker.check(instruction, values, mode, data)
            self._checked.add(key)
        return data

    def _wrapped(self, instruction: Instruction, values: Sequence[int], mode: int) -> bytes | None:
        """Return the bytes of the forms that keystone gets wrong, or None."""
        mnemonic, operands = instruction.mnemonic, instruction.operands
        if not operands:
            data = FIXED.get((mnemonic, mode))
            return data and b"".join(REPEATS[prefix] for prefix in instruction.prefixes) + data
        only = operands[0] if len(operands) == 1 else None
        if mnemonic in ("push", "pop") and isinstance(only, Register) and only.name in SEGMENT_REGISTERS:
            return encode_segment(mnemonic, only.name, mode)
        if mnemonic in DESCRIPTOR_TABLES and isinstance(only, Memory):
            return from_invlpg(mnemonic, self.encode(Instruction((), "invlpg", operands), values, mode, check=False))
        if mnemonic in ("ljmp", "ljmp32"):
            if len(operands) != 2 or not all(isinstance(operand, Immediate) for operand in operands):
                raise AsmError(f"{mnemonic} takes SELECTOR, OFFSET")
            return encode_far_jump(mnemonic, mode, values[0], values[1])
        if mnemonic == "push" and isinstance(only, Immediate):
            return encode_push(values[0], mode)
        if mnemonic in ("ret", "retf") and isinstance(only, Immediate) and mode == 16:
            return encode_return16(mnemonic, values[0])
        return None

    def _keystone(self, text: str, mode: int) -> bytes:
        # Imported here because keystone has no wheel for some machines that only judge and report.
        try:
            import keystone
        except ImportError as error:
            raise AsmError(f"keystone cannot be imported: {error}", hint="install keystone-engine 0.9.2") from None
        if mode not in self._engines:
            self._engines[mode] = keystone.Ks(keystone.KS_ARCH_X86, getattr(keystone, f"KS_MODE_{mode}"))
        try:
            data, count = self._engines[mode].asm(text, 0, as_bytes=True)
        except keystone.KsError as error:
            reason = str(error.message).partition(" (")[0].lower()
            raise AsmError(f"{reason} (to {mode}-bit keystone it is `{text}`)") from None
        if not data or not count:
            raise AsmError(f"nothing was emitted (to {mode}-bit keystone it is `{text}`)")
        return bytes(data)


def _relax(layout: Layout, encoder: _Encoder) -> None:
    """Settle all sizes: branches start short and only grow, other statements follow the values of their symbols."""
    variable: list[Item] = []
    for item in layout.items:
        if item.kind == "branch":
            variable.append(item)
        elif item.kind == "instruction":
            if all(isinstance(value, int) for value in item.values):
                item.data = _bytes_of(item, layout, encoder)
                item.size = len(item.data)
            else:
                variable.append(item)
    sizes: dict[tuple[int, str], int] = {}
    for round_number in range(MAX_ROUNDS):
        trouble = layout.settle()
        moved = False
        for item in variable:
            size = _branch_size(item, layout) if item.kind == "branch" else _size(item, layout, encoder, sizes)
            if size > item.size or (size < item.size and round_number < _FREE_ROUNDS):
                item.size, moved = size, True
        if not moved:
            if trouble is not None:
                raise trouble
            return
    raise AsmError("sizes do not settle")


def _branch_size(item: Item, layout: Layout) -> int:
    assert item.instruction is not None
    mnemonic = item.instruction.mnemonic
    if can_grow(mnemonic) and not item.near:
        item.near = not reaches_short(item.run, _evaluate(item, item.values[0], layout))
    return branch_size(mnemonic, item.mode, item.near)


def _size(item: Item, layout: Layout, encoder: _Encoder, sizes: dict[tuple[int, str], int]) -> int:
    """Return the size with the present values; statements alike but for values of like magnitude share one answer."""
    assert item.instruction is not None
    try:
        values = _operand_values(item, layout)
        shape = (item.mode, render(item.instruction, [f"#{bisect_right(_SIZE_LIMITS, value)}" for value in values]))
        if shape not in sizes:
            sizes[shape] = len(encoder.encode(item.instruction, values, item.mode, check=False))
        return sizes[shape]
    except AsmError:
        return item.size  # values still move; if they stay wrong the emission says so


def _evaluate(item: Item, expression: Expression, layout: Layout) -> int:
    if isinstance(expression, int):
        return expression
    layout.symbols["$"] = item.run
    try:
        return evaluate(expression, layout.symbols)
    except ZeroDivisionError:
        raise AsmError("division by zero") from None


def _fitted(item: Item, expression: Expression, bits: int, layout: Layout) -> int:
    """Return the value of an expression that must fit in so many bits. Raises AsmError."""
    value = _evaluate(item, expression, layout)
    wrapped = wrap(value, bits, expression)
    if wrapped is None:
        raise AsmError(f"value {hexadecimal(value)} does not fit in {bits} bits")
    return wrapped


def _operand_values(item: Item, layout: Layout) -> list[int]:
    """Return each operand's value, see ``values_of``. Raises AsmError for an immediate that does not fit."""
    assert item.instruction is not None
    bits = operand_width(item.instruction, item.mode)
    return [
        _fitted(item, expression, bits, layout)
        if isinstance(operand, Immediate)
        else _evaluate(item, expression, layout)
        for operand, expression in zip(item.instruction.operands, item.values, strict=True)
    ]


def _emit(layout: Layout, encoder: _Encoder) -> tuple[Line, ...]:
    lines = []
    for item in layout.items:
        data = _bytes_of(item, layout, encoder)
        if len(data) != item.size and item.area.flags != "awn":
            problem = AsmError(f"the size depends on itself: {item.size} bytes laid out, {len(data)} needed")
            raise located(problem, item.statement.where, item.statement.text)
        if data:
            is_code = item.instruction is not None
            lines.append(Line(item.statement.line, item.address, item.run, data, item.area.name, is_code))
    return tuple(lines)


def _bytes_of(item: Item, layout: Layout, encoder: _Encoder) -> bytes:
    """Return the final bytes of one item. Raises AsmError with its line."""
    try:
        return _bytes(item, layout, encoder)
    except AsmError as error:
        raise located(error, item.statement.where, item.statement.text) from None


def _bytes(item: Item, layout: Layout, encoder: _Encoder) -> bytes:
    if item.data is not None:
        return item.data
    if item.kind == "bytes":
        bits = 8 * item.width
        values = [_fitted(item, expression, bits, layout) for expression in item.values]
        return b"".join((value % (1 << bits)).to_bytes(item.width, "little") for value in values)
    if item.instruction is None:
        return b"" if item.area.flags == "awn" else bytes([item.fill]) * item.size
    if item.kind == "branch":
        mnemonic = item.instruction.mnemonic
        target = _evaluate(item, item.values[0], layout)
        data = encode_branch(mnemonic, item.mode, item.near, item.run, target)
        encoder.checker.check_branch(mnemonic, item.mode, data, item.run, target)
    else:
        data = encoder.encode(item.instruction, _operand_values(item, layout), item.mode, check=True)
    return data


def _sections(layout: Layout, lines: Sequence[Line]) -> tuple[Section, ...]:
    contents: dict[str, list[bytes]] = {}
    for line in lines:
        contents.setdefault(line.section, []).append(line.data)
    return tuple(
        Section(area.name, area.base, area.size, b"".join(contents.get(area.name, [])), area.align, area.flags)
        for area in layout.areas
    )


def _symbols(layout: Layout) -> tuple[Symbol, ...]:
    """Global labels and constants by name. A label reaches to the next higher one in its section, or to the end."""
    labels = [item for item in layout.items if item.kind == "label" and item.exported]
    starts: dict[str, list[int]] = {}
    for item in labels:
        starts.setdefault(item.area.name, []).append(item.offset)
    symbols = []
    for item in labels:
        offsets = [*starts[item.area.name], item.area.size]
        end = offsets[min(bisect_right(offsets, item.offset), len(offsets) - 1)]
        kind: SymbolKind = "func" if item.area.flags == "ax" else "object"
        symbols.append(Symbol(item.name, item.run, end - item.offset, item.area.name, kind))
    for item in layout.items:
        if item.kind == "equ" and item.exported:
            symbols.append(Symbol(item.name, layout.symbols[item.name], 0, "", "abs"))
    return tuple(sorted(symbols, key=lambda symbol: symbol.name))
