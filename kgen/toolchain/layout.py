"""Where everything goes: sections, addresses and symbol values for given statement sizes.

Sizes of instructions come from outside (asm.py lets them grow); sizes of paddings follow from addresses here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from kgen.errors import AsmError
from kgen.toolchain.assembly import SectionFlags
from kgen.toolchain.expressions import Expression, evaluate, names
from kgen.toolchain.statements import Instruction, Statement, located

PAGE = 4096
#: Rounds after which addresses that still move are given up.
MAX_ROUNDS = 64
#: A padding larger than this is a slip of the pen (the whole kernel is far smaller).
MAX_PADDING = 1 << 28

Kind = Literal["label", "bytes", "instruction", "branch", "align", "skip", "org", "equ", "phase", "dephase"]


@dataclass(eq=False)
class Area:
    """A section that is being filled."""

    name: str
    flags: SectionFlags
    align: int
    #: In bytes, like ``size``. Both settle while the layout runs.
    base: int = 0
    size: int = 0


@dataclass(eq=False, slots=True)
class Item:
    """The place of one statement."""

    statement: Statement
    area: Area
    mode: int
    kind: Kind
    size: int = 0
    #: The expression of a padding, an ``.equ`` or a ``.phase``.
    argument: Expression = 0
    #: The expressions of data and operands.
    values: tuple[Expression, ...] = ()
    #: The operands' values with the last addresses, None where they are not known or do not fit.
    settled: list[int] | None = None
    fill: int = 0
    width: int = 0
    #: What the statement defines.
    name: str = ""
    #: Whether that is not local.
    exported: bool = False
    instruction: Instruction | None = None
    data: bytes | None = None
    near: bool = False
    #: Counted from the section's start.
    offset: int = 0
    run: int = 0

    @property
    def address(self) -> int:
        """Where the bytes are stored."""
        return self.area.base + self.offset


class SymbolTable(dict[str, int]):
    """Values by name. A name not laid out yet is taken for the current address, a constant is worked out."""

    def __init__(self, constants: dict[str, Expression]) -> None:
        super().__init__()
        self._constants = constants

    def __missing__(self, name: str) -> int:
        if name in self._constants:
            return evaluate(self._constants[name], self)
        return self["$"]


@dataclass(eq=False)
class Layout:
    """The places of all statements."""

    #: In order of the source.
    items: list[Item]
    #: In order of first appearance.
    areas: list[Area]
    origin: int
    page_align: bool
    #: The last values.
    symbols: SymbolTable = field(init=False)

    def __post_init__(self) -> None:
        constants = {item.name: item.argument for item in self.items if item.kind == "equ"}
        self._check_names(constants)
        self.symbols = SymbolTable(constants)
        self.symbols["$"] = self.origin
        for area in self.areas:
            area.base = self.origin

    def settle(self) -> AsmError | None:
        """Give every item its address and every symbol its value, for the present sizes of the instructions.

        Gives the first error in a padding or constant, which other sizes may cure.
        Raises AsmError where addresses do not settle.
        """
        for _ in range(MAX_ROUNDS):
            self.symbols["$"] = self.origin
            before = dict(self.symbols)
            bases = [area.base for area in self.areas]
            trouble = self._walk()
            self._place()
            if self.symbols == before and bases == [area.base for area in self.areas]:
                return trouble
        raise AsmError("addresses do not settle", hint="a .skip, .org or .equ depends on its own size")

    def _walk(self) -> AsmError | None:
        """Walk once over all items. Returns the first error, which may be gone in a later walk."""
        symbols = self.symbols
        trouble: AsmError | None = None
        phase, phase_start = 0, -1
        for area in self.areas:
            area.size = 0
        for item in self.items:
            area = item.area
            item.offset = area.size
            item.run = phase + area.size - phase_start if phase_start >= 0 else area.base + area.size
            kind = item.kind
            if kind in ("bytes", "instruction", "branch"):
                area.size += item.size
                continue
            symbols["$"] = item.run
            if kind == "label":
                symbols[item.name] = item.run
            elif kind == "dephase":
                phase_start = -1
            else:
                try:
                    value = evaluate(item.argument, symbols)
                    if kind == "equ":
                        symbols[item.name] = value
                    elif kind == "phase":
                        phase, phase_start = value, area.size
                    else:
                        item.size = _padding(item, value)
                except (AsmError, ZeroDivisionError) as error:
                    problem = error if isinstance(error, AsmError) else AsmError("division by zero")
                    trouble = trouble or located(problem, item.statement.where, item.statement.text)
                area.size += item.size
        symbols["$"] = self.origin
        return trouble

    def _place(self) -> None:
        address, before = self.origin, ""
        for area in self.areas:
            align = area.align
            if self.page_align and before and area.flags != before:
                align = max(align, PAGE)
            address += -address % align
            area.base, before = address, area.flags
            address += area.size

    def _check_names(self, constants: dict[str, Expression]) -> None:
        """Raise AsmError for a name defined twice, never or by itself."""
        defined: dict[str, Item] = {}
        for item in self.items:
            if item.name:
                first = defined.setdefault(item.name, item)
                if first is not item:
                    problem = AsmError(f"symbol {item.name!r} is already defined at {first.statement.where}")
                    raise located(problem, item.statement.where, item.statement.text)
        for item in self.items:
            for expression in (item.argument, *item.values):
                if isinstance(expression, int):
                    continue
                for name in names(expression):
                    if name not in defined and name != "$":
                        raise located(undefined(name, defined), item.statement.where, item.statement.text)
        for item in self.items:
            if item.kind == "equ" and item.name in _reachable(item.argument, constants):
                problem = AsmError(f"{item.name!r} is defined by itself")
                raise located(problem, item.statement.where, item.statement.text)


def undefined(name: str, defined: Iterable[str]) -> AsmError:
    """Return the error for an unknown symbol, with the nearest known names as its hint."""
    close = difflib.get_close_matches(name, list(defined), n=3, cutoff=0.6)
    return AsmError(f"undefined symbol {name!r}", hint=f"did you mean {' or '.join(close)}?" if close else "")


def _reachable(expression: Expression, constants: dict[str, Expression]) -> set[str]:
    """Return every constant that the expression depends on, directly or not."""
    found: set[str] = set()
    waiting = [expression]
    while waiting:
        for name in names(waiting.pop()):
            if name in constants and name not in found:
                found.add(name)
                waiting.append(constants[name])
    return found


def _padding(item: Item, value: int) -> int:
    """Return the size in bytes of an .align, .skip or .org with this argument. Raises AsmError."""
    if item.kind == "align":
        return -item.run % value
    size = value - item.offset if item.kind == "org" else value
    if size < 0 and item.kind == "org":
        raise AsmError(f".org goes backwards: {item.offset:#x} bytes are there already, {value:#x} was asked for")
    if not 0 <= size <= MAX_PADDING:
        raise AsmError(f"padding of {size} bytes")
    return size
