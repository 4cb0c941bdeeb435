"""Markdown that nothing in a result can break out of: a result may come from anybody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kgen.wording import one_line, plural, printable

#: Whatever Markdown or the HTML in it may take for its own; a ``|`` ends a field of a table.
#: A ``_`` inside a word (NOT_ATOMIC) means nothing to it, and a backslash would stand in a tracker's plain line.
_SPECIAL = re.compile(r"([\\`*{}\[\]<>#!|~&@]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))")
#: What trackers make links of, and mails of: people, issues, addresses. They look for it in the text that is shown, so
#: that a backslash before it does not help; a blank of no width does.
_REFERENCE = re.compile(r"([@#](?=\w)|:(?=//)|www(?=\.)|GH(?=-\d)|bug(?= \d))", re.IGNORECASE)
_NO_WIDTH = "\u200b"


def escaped(line: str) -> str:
    """Return a line that means nothing to Markdown."""
    return _SPECIAL.sub(r"\\\1", line)


def words(text: str) -> str:
    """Return a sentence of a result: shown as it is, meaning nothing to Markdown or to the tracker."""
    return escaped(_REFERENCE.sub(rf"\1{_NO_WIDTH}", one_line(text)))


def code(text: str) -> str:
    """Return a name or a number of a result, set as code. "" stays ""."""
    shown = one_line(text)
    if not shown:
        return ""
    ticks = "`" * (_longest("`", shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def field(text: str) -> str:
    """Return what stands in a table, made by ``words`` or ``code``: no ``|`` ends it early."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def fence(lines: Iterable[str], language: str = "text", limit: int = 1 << 20) -> list[str]:
    """Return lines as they are, between marks that none of them has.

    Of more than ``limit`` bytes the middle is left out.
    """
    shown = cut([printable(line) for line in lines], limit)
    marks = "`" * max(3, max((_longest("`", line) for line in shown), default=0) + 1)
    return [f"{marks}{language}", *shown, marks]


def cut(lines: Sequence[str], limit: int) -> list[str]:
    """As many of the first and of the last lines as take ``limit`` bytes in UTF-8, with a note between them."""
    if sum(_size(line) for line in lines) <= limit:
        return list(lines)
    head: list[str] = []
    tail: list[str] = []
    left = limit
    for number in range(len(lines)):
        # two lines of the beginning for one of the end
        first = number % 3 != 2
        line = lines[len(head)] if first else lines[len(lines) - 1 - len(tail)]
        if _size(line) > left:
            break
        left -= _size(line)
        (head if first else tail).append(line)
    missing = len(lines) - len(head) - len(tail)
    return [*head, f"[... {plural(missing, 'line')} left out ...]", *reversed(tail)]


def _size(line: str) -> int:
    return len(line.encode("utf-8", "replace")) + 1


def _longest(mark: str, text: str) -> int:
    return max((len(found) for found in re.findall(rf"{mark}+", text)), default=0)
