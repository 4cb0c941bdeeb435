"""Words that every report needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def plural(count: int, what: str) -> str:
    """Return a number of things: ``1 lab``, ``2 labs``, ``3 accesses``, ``4 batches``."""
    return f"{count} {what if count == 1 else several(what)}"


def several(what: str) -> str:
    """Return the plural of a noun."""
    return f"{what}{'es' if what.endswith(('s', 'ch', 'sh', 'x')) else 's'}"


def mebibytes(size: int) -> str:
    """Return a number of bytes for people: ``61 MiB``."""
    return f"{size / (1 << 20):.0f} MiB"


def fact(values: Any, *names: str) -> str:
    """Return a text or number in nested objects of a result that may be damaged, "" where there is none."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return str(values) if isinstance(values, str | int | float) and not isinstance(values, bool) else ""


def one_line(text: str) -> str:
    """Return one line without control characters, and without those that turn the direction of text."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def printable(line: str, instead: Callable[[str], str] = lambda char: "\ufffd") -> str:
    """Return a line of text without what a terminal would obey and no encoding could hold; tabs stay, which the table
    of counters has. ``instead`` returns what stands for such a character.
    """
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() or char == "\t" else instead(char) for char in line)


def visible(text: str) -> str:
    """Return text from elsewhere (a file, its name, a stub, a guest) as it may go to a terminal: what that would obey
    is shown in ASCII as Python writes it, ``\\x1b``. Tabs and line ends stay.

    Everything that kgen prints for people goes through here.
    """
    return "\n".join(printable(line, _escape) for line in text.split("\n"))


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


#: How much of a value stands in a sentence.
_SHOWN = 40


def quoted(text: str, limit: int = _SHOWN) -> str:
    """Return as much of a text as stands in a sentence."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def fitting(text: str, room: int, mark: str = "\u2026") -> str:
    """Return as much of a text as fits so many characters, the mark of what is left out included."""
    return text if len(text) <= room else f"{text[: room - len(mark)]}{mark}"
