"""The directives: statements to layout items. Nothing here reaches keystone.

=====================================  =====================================================================
``.code16`` ``.code32`` ``.code64``    mode of what follows; 32 at first
``.section NAME, "FLAGS"[, ALIGN]``    ax code, a read-only, aw data, awn zero-filled; the first use fixes both
``.byte .word .long .quad EXPR, ...``  1, 2, 4 or 8 bytes each, little endian
``.ascii .asciz "...", ...``           Latin-1 with Python's escapes; the latter with a 0 after each
``.align N[, FILL]``                   up to a multiple of N in run addresses; code is filled with NOP
``.skip EXPR[, FILL]``                 that many bytes
``.org EXPR[, FILL]``                  up to that offset in the section
``.equ NAME, EXPR``                    a constant; earlier and later symbols may be used
``.phase ADDRESS`` ... ``.dephase``    labels and ``$`` are what they would be if this ran at ADDRESS
=====================================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast, get_args

from kgen.errors import AsmError
from kgen.toolchain.assembly import SectionFlags
from kgen.toolchain.decoder import check_form
from kgen.toolchain.encodings import BRANCHES, branch_size
from kgen.toolchain.expressions import Expression, is_name, parse_expression, text_of, wrap
from kgen.toolchain.layout import Area, Item, Kind
from kgen.toolchain.statements import Directive, Immediate, Instruction, Statement, definable, located, values_of

_DATA_WIDTHS = {".byte": 1, ".word": 2, ".long": 4, ".quad": 8}
_NOP = 0x90
_DEFAULT_ALIGN = 16
_FLAGS = get_args(SectionFlags)


class Builder:
    """Collects ``items`` in source order and ``areas`` in order of first appearance. Raises AsmError."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self.items: list[Item] = []
        self.areas: list[Area] = []
        self._mode = 32
        self._area: Area | None = None
        self._phase: Statement | None = None
        self._statement: Statement
        self._directives: dict[str, Callable[[Directive], None]] = {
            **dict.fromkeys((".code16", ".code32", ".code64"), self._code),
            ".section": self._section,
            **dict.fromkeys(_DATA_WIDTHS, self._data),
            **dict.fromkeys((".ascii", ".asciz"), self._string),
            **dict.fromkeys((".align", ".skip", ".org"), self._padding),
            ".equ": self._equ,
            ".phase": self._phase_start,
            ".dephase": self._phase_end,
        }
        for statement in statements:
            self._statement = statement
            try:
                self._add(statement)
            except AsmError as error:
                raise located(error, statement.where, statement.text) from None
        if self._phase is not None:
            raise located(AsmError(".phase without .dephase"), self._phase.where, self._phase.text)

    def _add(self, statement: Statement) -> None:
        if statement.label:
            # A global label is the scope of what follows it, itself included.
            self._item("label", name=statement.label, exported=statement.label == statement.scope)
        body = statement.body
        if isinstance(body, Instruction):
            self._instruction(body)
        elif isinstance(body, Directive):
            handler = self._directives.get(body.name)
            if handler is None:
                raise AsmError(f"unknown directive {body.name!r}", hint=f"there are {' '.join(self._directives)}")
            handler(body)

    def _current(self) -> Area:
        """Return the section being filled; what comes before any .section goes to .text."""
        if self._area is None:
            self._area = Area(".text", "ax", _DEFAULT_ALIGN)
            self.areas.append(self._area)
        return self._area

    def _item(self, kind: Kind, **fields: Any) -> None:
        area = self._current()
        if kind in ("bytes", "instruction") and area.flags == "awn":
            raise AsmError(f"section {area.name!r} is zero-filled and cannot hold bytes", hint="use .skip")
        self.items.append(Item(self._statement, area, self._mode, kind, **fields))

    def _instruction(self, instruction: Instruction) -> None:
        check_form(instruction)
        operands = instruction.operands
        if instruction.mnemonic in BRANCHES and len(operands) == 1 and isinstance(operands[0], Immediate):
            if instruction.prefixes:
                raise AsmError("a branch takes no prefix")
            size = branch_size(instruction.mnemonic, self._mode, near=False)
            self._item("branch", size=size, values=(operands[0].value,), instruction=instruction)
        else:
            self._item("instruction", values=values_of(instruction), instruction=instruction)

    def _expressions(self, directive: Directive, least: int, most: int) -> list[Expression]:
        if not least <= len(directive.arguments) <= most:
            count = "no" if most == 0 else least if least == most else f"{least} or {most}"
            raise AsmError(f"{directive.name} takes {count} argument{'s' if most != 1 else ''}")
        return [parse_expression(tokens, self._statement.scope) for tokens in directive.arguments]

    def _code(self, directive: Directive) -> None:
        self._expressions(directive, 0, 0)
        self._mode = int(directive.name[5:])

    def _data(self, directive: Directive) -> None:
        if not directive.arguments:
            raise AsmError(f"{directive.name} takes at least one value")
        values = self._expressions(directive, 1, len(directive.arguments))
        width = _DATA_WIDTHS[directive.name]
        self._item("bytes", size=width * len(values), width=width, values=tuple(values))

    def _string(self, directive: Directive) -> None:
        if not directive.arguments:
            raise AsmError(f"{directive.name} takes at least one string")
        data = b""
        for argument in directive.arguments:
            if len(argument) != 1 or argument[0][0] != '"':
                raise AsmError(f"{directive.name} takes strings in double quotes, not {' '.join(argument)}")
            try:
                data += text_of(argument[0]).encode("latin-1")
            except UnicodeEncodeError:
                raise AsmError("a character above \\xff in a string") from None
            data += b"\0" if directive.name == ".asciz" else b""
        self._item("bytes", size=len(data), data=data)

    def _padding(self, directive: Directive) -> None:
        argument, *rest = self._expressions(directive, 1, 2)
        area = self._current()
        fill = _NOP if directive.name == ".align" and area.flags == "ax" else 0
        if rest:
            value = wrap(rest[0], 8, rest[0]) if isinstance(rest[0], int) else None
            if value is None:
                raise AsmError("the fill value is not a number that fits in 8 bits")
            if area.flags == "awn":
                raise AsmError(f"section {area.name!r} is zero-filled and takes no fill value")
            fill = value & 0xFF
        if directive.name == ".align":
            align = _alignment(argument)
            if self._phase is None:
                area.align = max(area.align, align)
        self._item(cast(Kind, directive.name[1:]), argument=argument, fill=fill)

    def _section(self, directive: Directive) -> None:
        """Select a section.

        The first use of a name makes it; later ones may repeat flags and alignment, or leave them out.
        """
        if self._phase is not None:
            raise AsmError(f".section inside the .phase at {self._phase.where}")
        if not directive.arguments or len(directive.arguments) > 3:
            raise AsmError('.section takes NAME, "FLAGS"[, ALIGN]')
        (name, *more), *rest = directive.arguments
        if more or not is_name(name):
            raise AsmError(f"bad section name {' '.join((name, *more))!r}")
        flags = ""
        if rest:
            flags = text_of(rest[0][0]) if len(rest[0]) == 1 and rest[0][0][0] == '"' else ""
            if flags not in _FLAGS:
                raise AsmError(f"bad section flags {' '.join(rest[0])}", hint=f"there are {' '.join(_FLAGS)}")
        align = _alignment(parse_expression(rest[1])) if len(rest) > 1 else 0
        area = next((area for area in self.areas if area.name == name), None)
        if area is None:
            if not rest:
                raise AsmError(f"the first use of section {name!r} must give its flags")
            area = Area(name, cast(SectionFlags, flags), align or _DEFAULT_ALIGN)
            self.areas.append(area)
        elif rest and (flags != area.flags or align > area.align):
            raise AsmError(f"section {name!r} already has flags {area.flags!r} and alignment {area.align}")
        self._area = area

    def _equ(self, directive: Directive) -> None:
        if len(directive.arguments) != 2 or len(directive.arguments[0]) != 1:
            raise AsmError(".equ takes NAME, EXPR")
        scope = self._statement.scope
        token = directive.arguments[0][0]
        value = parse_expression(directive.arguments[1], scope)
        self._item("equ", name=definable(token, scope), exported=not token.startswith("."), argument=value)

    def _phase_start(self, directive: Directive) -> None:
        if self._phase is not None:
            raise AsmError(f".phase inside the .phase at {self._phase.where}")
        (address,) = self._expressions(directive, 1, 1)
        self._item("phase", argument=address)
        self._phase = self._statement

    def _phase_end(self, directive: Directive) -> None:
        self._expressions(directive, 0, 0)
        if self._phase is None:
            raise AsmError(".dephase without .phase")
        self._item("dephase")
        self._phase = None


def _alignment(expression: Expression) -> int:
    if not isinstance(expression, int) or expression < 1 or expression & (expression - 1):
        raise AsmError("the alignment is not a number that is a power of two")
    return expression
