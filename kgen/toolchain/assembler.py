"""The assembler: ``assemble(Source) -> Assembly``. The only module that imports keystone.

Keystone sees instructions alone, with numbers in place of symbols. Labels, directives, branches and layout are our
own, so every byte has a line and every error a place. Each emitted instruction is checked by another decoder.

The dialect: statements.py (lines, labels, operands), expressions.py (constants), directives.py, encodings.py (the
instructions that are not left to keystone).
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from kgen.errors import AsmError
from kgen.toolchain.assembly import Assembly, Line, Section, Source, Symbol, SymbolKind
from kgen.toolchain.decoder import Checker, operand_width, says_the_same
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


#: An instruction with the values of its operands and the mode it is for.
_Wanted = tuple[Instruction, Sequence[int], int]


class _Encoder:
    """Instructions to bytes: each text once a mode, checked when asked for."""

    def __init__(self) -> None:
        self.checker = Checker()
        self._engines: dict[int, Any] = {}
        self._encoded, self._checked = _ENCODED, _CHECKED
        if len(self._encoded) > _REMEMBERED:
            self._encoded.clear()
            self._checked.clear()

    def prepare(self, wanted: Iterable[_Wanted]) -> None:
        """Encode and check many instructions at once: keystone takes ten times as long for one at a time.

        What is not found to mean what it should is left to ``encode``, which says why.
        """
        modes: dict[int, dict[str, _Wanted]] = {}
        for entry in wanted:
            instruction, values, mode = entry
            text = render(instruction, values)
            if (mode, text) not in self._encoded:
                modes.setdefault(mode, {})[text] = entry
        for mode, entries in modes.items():
            texts = [text for text, entry in entries.items() if self._is_for_keystone(*entry)]
            try:
                parts = self.checker.split(mode, self._keystone("\n".join(texts), mode)) if texts else []
            except AsmError:
                continue
            if len(parts) == len(texts):
                for text, (data, decoded) in zip(texts, parts, strict=True):
                    self._take(text, entries[text], data, decoded)

    def _is_for_keystone(self, instruction: Instruction, values: Sequence[int], mode: int) -> bool:
        try:
            return self._wrapped(instruction, values, mode) is None
        except AsmError:
            return False

    def _take(self, text: str, entry: _Wanted, data: bytes, decoded: str) -> None:
        """Remember one instruction's bytes, which the decoder reads as ``decoded``, if that is what was wanted."""
        instruction, values, mode = entry
        if not says_the_same(instruction, text, mode, data, decoded):
            try:
                self.checker.check(instruction, values, mode, data)
            except AsmError:
                return
        self._encoded[mode, text] = data
        self._checked.add((mode, text))

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
    _encode_constant(layout, encoder)
    branches = [item for item in layout.items if item.kind == "branch"]
    others = [item for item in layout.items if item.kind == "instruction" and item.data is None]
    sizes: dict[_Shape, int] = {}
    for round_number in range(MAX_ROUNDS):
        trouble = layout.settle()
        moved = False
        found = [_branch_size(item, layout) for item in branches] + _sizes(others, layout, encoder, sizes)
        for item, size in zip([*branches, *others], found, strict=True):
            if size > item.size or (size < item.size and round_number < _FREE_ROUNDS):
                item.size, moved = size, True
        if not moved:
            if trouble is not None:
                raise trouble
            return
    raise AsmError("sizes do not settle")


def _encode_constant(layout: Layout, encoder: _Encoder) -> None:
    """Encode the instructions that no symbol's value changes. Statements of one text share their instruction."""
    items = [
        item
        for item in layout.items
        if item.kind == "instruction" and all(isinstance(value, int) for value in item.values)
    ]
    first = {(item.mode, id(item.instruction)): item for item in reversed(items)}
    for item in first.values():
        _settle_values(item, layout)
    encoder.prepare(_wanted(first.values()))
    known: dict[tuple[int, int], bytes] = {}
    for item in items:
        key = (item.mode, id(item.instruction))
        if key not in known:
            known[key] = _bytes_of(item, layout, encoder)
        item.data = known[key]
        item.size = len(item.data)


def _branch_size(item: Item, layout: Layout) -> int:
    assert item.instruction is not None
    mnemonic = item.instruction.mnemonic
    if can_grow(mnemonic) and not item.near:
        item.near = not reaches_short(item.run, _evaluate(item, item.values[0], layout))
    return branch_size(mnemonic, item.mode, item.near)


#: An instruction and its mode, and of each operand's value between which limits it lies.
_Shape = tuple[int, int, tuple[int, ...]]


def _sizes(items: Sequence[Item], layout: Layout, encoder: _Encoder, known: dict[_Shape, int]) -> list[int]:
    """Return the sizes with the present values; statements alike but for values of like magnitude share one answer."""
    shapes = [_shape(item, layout) for item in items]
    new = {shape: item for item, shape in zip(items, shapes, strict=True) if shape not in known}
    encoder.prepare(_wanted(new.values()))
    found = []
    for item, shape in zip(items, shapes, strict=True):
        if shape is not None and shape not in known:
            assert item.instruction is not None
            assert item.settled is not None
            # values still move; if they stay wrong the emission says so
            with contextlib.suppress(AsmError):
                known[shape] = len(encoder.encode(item.instruction, item.settled, item.mode, check=False))
        found.append(item.size if shape is None else known.get(shape, item.size))
    return found


def _shape(item: Item, layout: Layout) -> _Shape | None:
    """Note the present values, and return what the size depends on; None where a value does not fit."""
    _settle_values(item, layout)
    if item.settled is None:
        return None
    return item.mode, id(item.instruction), tuple([bisect_right(_SIZE_LIMITS, value) for value in item.settled])


def _settle_values(item: Item, layout: Layout) -> None:
    """Note the present values of an instruction's operands, None where one does not fit."""
    try:
        item.settled = _operand_values(item, layout)
    except AsmError:
        item.settled = None


def _wanted(items: Iterable[Item]) -> list[_Wanted]:
    """Return what the encoder is to prepare for these."""
    return [
        (item.instruction, item.settled, item.mode)
        for item in items
        if item.instruction is not None and item.settled is not None
    ]


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
    encoder.prepare(_wanted(item for item in layout.items if item.data is None))
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
        values = _operand_values(item, layout) if item.settled is None else item.settled
        data = encoder.encode(item.instruction, values, item.mode, check=True)
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
