"""Tokens and constant expressions of the assembly dialect: pure, with no knowledge of instructions.

An expression is an int, a symbol's name, or an operation on expressions. ``$`` is an ordinary name here;
the caller of the evaluation puts the current run address under it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kgen.errors import AsmError


@dataclass(frozen=True)
class Operation:
    """``left op right``, or ``op left`` where ``right`` is None."""

    op: str
    left: Expression
    right: Expression | None = None


Expression = int | str | Operation

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<comment>;.*)
      | (?P<token>
            "(?:\\.|[^"\\])*"
          | '(?:\\.|[^'\\])+'
          | [A-Za-z_.0-9][\w.]*
          | <<|>>
          | [-+*/%&|~()\[\]:,$]
        )
      | (?P<bad>\S)
    )""",
    re.VERBOSE | re.ASCII,
)
_NAME = re.compile(r"[A-Za-z_.][\w.]*\Z", re.ASCII)

_BINARY: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "|": (1, operator.or_),
    "&": (2, operator.and_),
    "<<": (3, operator.lshift),
    ">>": (3, operator.rshift),
    "+": (4, operator.add),
    "-": (4, operator.sub),
    "*": (5, operator.mul),
    "/": (5, operator.floordiv),
    "%": (5, operator.mod),
}
#: A shift further than this is a slip of the pen, and would cost memory.
_MAX_SHIFT = 256


def tokenize(text: str) -> list[str]:
    """Return the tokens of one line, without its comment. Raises AsmError for a character the dialect does not have."""
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "token":
            tokens.append(match["token"])
        elif kind == "comment":
            break
        else:
            raise AsmError(f"unexpected character {match['bad']!r}")
    return tokens


def without_comment(text: str) -> str:
    """Return one line without its comment and margins, whatever else may be wrong with it."""
    for match in _TOKEN.finditer(text):
        if match["comment"] is not None:
            return text[: match.start("comment")].strip()
    return text.strip()


def is_name(token: str) -> bool:
    """Return whether a token can be a symbol's name."""
    return _NAME.match(token) is not None


def qualify(name: str, scope: str) -> str:
    """Return the full name of a symbol: ``.loop`` after the global label ``main`` is ``main.loop``. Raises AsmError."""
    if not name.startswith("."):
        return name
    if not scope:
        raise AsmError(f"local label {name!r} before any global label")
    return scope + name


def text_of(token: str) -> str:
    """Return the text a quoted token stands for, with Python's escapes. Raises AsmError for a bad escape."""
    if re.search(r"\\N|\\[^\n\\'\"abfnrtvxuU0-7]", token.replace("\\\\", "")):
        raise AsmError(f"bad escape in {token}")
    try:
        return str(ast.literal_eval(token))
    except (SyntaxError, ValueError):
        raise AsmError(f"bad escape in {token}") from None


def parse_expression(tokens: Sequence[str], scope: str = "") -> Expression:
    """Return the expression these tokens spell; constant parts are folded. ``/`` and ``%`` round down.

    Precedence from low to high: ``|``, ``&``, ``<< >>``, ``+ -``, ``* / %``, unary ``- + ~``.
    Raises AsmError for anything else, and for a division by zero between constants.
    """
    if len(tokens) == 1:
        return _atom(tokens[0], scope)
    expression, end = _parse(tokens, 0, 1, scope)
    if end != len(tokens):
        raise AsmError(f"bad expression: unexpected {tokens[end]!r}")
    return expression


def _parse(tokens: Sequence[str], at: int, least: int, scope: str) -> tuple[Expression, int]:
    """Parse by precedence climbing from token ``at``. Returns the expression and the index of the token after it."""
    left, at = _parse_unary(tokens, at, scope)
    while at < len(tokens):
        entry = _BINARY.get(tokens[at])
        if entry is None or entry[0] < least:
            break
        right, end = _parse(tokens, at + 1, entry[0] + 1, scope)
        left, at = _fold(Operation(tokens[at], left, right)), end
    return left, at


def _parse_unary(tokens: Sequence[str], at: int, scope: str) -> tuple[Expression, int]:
    if at >= len(tokens):
        raise AsmError("bad expression: something is missing at its end")
    token = tokens[at]
    if token in ("-", "~", "+"):
        inner, end = _parse_unary(tokens, at + 1, scope)
        if token == "+":
            return inner, end
        # A complement is never folded: the check of the range must still see it (see has_complement).
        operation = Operation(token, inner)
        return (operation if token == "~" else _fold(operation)), end
    if token == "(":
        inner, end = _parse(tokens, at + 1, 1, scope)
        if end >= len(tokens) or tokens[end] != ")":
            raise AsmError("bad expression: ')' is missing")
        return inner, end + 1
    return _atom(token, scope), at + 1


def _atom(token: str, scope: str) -> Expression:
    if token[0].isdigit():
        try:
            return int(token, 0)
        except ValueError:
            raise AsmError(f"bad number {token!r}", hint="write 10, 0x10 or 0b10") from None
    if token[0] == "'":
        character = text_of(token)
        if len(character) != 1:
            raise AsmError(f"character constant {token} is not one character")
        return ord(character)
    if token == "$":
        return token
    if is_name(token):
        return qualify(token, scope)
    raise AsmError(f"bad expression: unexpected {token!r}")


def _fold(operation: Operation) -> Expression:
    if isinstance(operation.left, int) and (operation.right is None or isinstance(operation.right, int)):
        try:
            return evaluate(operation, {})
        except ZeroDivisionError:
            raise AsmError("division by zero") from None
    return operation


def evaluate(expression: Expression, symbols: Mapping[str, int]) -> int:
    """Return the value, unbounded.

    Raises KeyError for an unknown name, ZeroDivisionError, AsmError for a wild shift.
    """
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        return symbols[expression]
    left = evaluate(expression.left, symbols)
    if expression.right is None:
        return -left if expression.op == "-" else ~left
    right = evaluate(expression.right, symbols)
    if expression.op in ("<<", ">>") and not 0 <= right <= _MAX_SHIFT:
        raise AsmError(f"shift by {right}")
    return _BINARY[expression.op][1](left, right)


def names(expression: Expression) -> Iterator[str]:
    """Yield every symbol the expression mentions, ``$`` included, left to right."""
    if isinstance(expression, str):
        yield expression
    elif isinstance(expression, Operation):
        yield from names(expression.left)
        if expression.right is not None:
            yield from names(expression.right)


def has_complement(expression: Expression) -> bool:
    """Return whether ``~`` occurs: ``~0x80000000`` is meant as 0x7fffffff in 32 bits although the integer is below
    -2^31.
    """
    if not isinstance(expression, Operation):
        return False
    if expression.op == "~" or has_complement(expression.left):
        return True
    return expression.right is not None and has_complement(expression.right)


def wrap(value: int, bits: int, expression: Expression) -> int | None:
    """Return the value as something that fits in so many bits, unsigned or two's complement, or None if it does not
    fit.

    Only a value below the signed range that comes from a complement changes: ``~0x80000000`` becomes 0x7fffffff.
    """
    if -(1 << (bits - 1)) <= value < 1 << bits:
        return value
    if -(1 << bits) <= value < 0 and has_complement(expression):
        return value + (1 << bits)
    return None
