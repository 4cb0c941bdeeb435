"""Text of a result, made safe to show: a result may hold any characters, and none of them may change the page."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

#: The most characters of one text. No text of kgen's own is as long.
LONGEST = 4000
#: The most combining marks on one letter. More of them would cover the lines around it.
_MARKS = 2
#: U+2400 and the characters after it are pictures of the control characters.
_PICTURES = 0x2400


@dataclass(frozen=True)
class Excerpt:
    """The lines of a long text that are shown."""

    #: Those at its start.
    head: tuple[str, ...]
    #: What is between them, in words; "" where nothing is.
    left_out: str
    #: Those at its end.
    tail: tuple[str, ...]


def visible(value: object) -> str:
    """Return one line in which every character is visible. Control characters become their pictures. Characters that
    have no shape, or change the direction of text, become their numbers. A long text is cut at its end."""
    text = str(value)
    rest = len(text) - LONGEST
    if rest > 0:
        text = text[:LONGEST]
    if not text.isprintable() or not text.isascii():
        text = "".join(_shown(text, at) for at in range(len(text)))
    return f"{text} ... ({rest} characters left out)" if rest > 0 else text


def _shown(text: str, at: int) -> str:
    char = text[at]
    code = ord(char)
    if char == "\t":
        return char
    if code < 0x20 or code == 0x7F:
        return chr(_PICTURES + code) if code < 0x20 else "\u2421"
    if unicodedata.combining(char):
        before = text[max(0, at - _MARKS) : at]
        return char if not all(map(unicodedata.combining, before)) else _number(code)
    return char if char.isprintable() else _number(code)


def _number(code: int) -> str:
    return f"\\u{code:04x}"


def excerpt(lines: Sequence[str], limit: int) -> Excerpt:
    """Return as many whole lines as fit into ``limit`` characters: half of them from the start, half from the end."""
    if sum(len(line) + 1 for line in lines) <= limit:
        return Excerpt(tuple(lines), "", ())
    head, tail = _fitting(lines, limit // 2), _fitting(lines[::-1], limit // 2)
    gone = lines[head : len(lines) - tail]
    what = f"{len(gone)} lines, {sum(len(line) + 1 for line in gone)} characters, are left out here; the result has all"
    return Excerpt(tuple(lines[:head]), what, tuple(lines[len(lines) - tail :]))


def _fitting(lines: Sequence[str], limit: int) -> int:
    """Return how many lines, counted from the first, fit."""
    used = 0
    for number, line in enumerate(lines):
        used += len(line) + 1
        if used > limit:
            return number
    return len(lines)
