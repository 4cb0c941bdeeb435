"""gdb's words that mean something to us and that differ by release, in one place: gdb 10.1 to 18.1."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

_GONE = re.compile(r"Remote connection closed|Remote communication error|Connection reset|Broken pipe", re.IGNORECASE)


class Refusal(enum.Enum):
    """Why gdb did not attach to a stub."""

    NO_HOST = re.compile(r"cannot resolve|unknown host|not known|name resolution", re.IGNORECASE)
    NO_LISTENER = re.compile(r"Connection refused|No such file or directory", re.IGNORECASE)
    NO_ROUTE = re.compile(r"could not connect|unreachable|Connection timed out", re.IGNORECASE)
    SILENT = re.compile(r"timeout|timed out", re.IGNORECASE)
    #: A 64-bit stub seen by a gdb that took the 32-bit ELF's architecture; group 1: the size of its registers in bytes.
    WIDER = re.compile(r"'g' packet reply is too long(?: \(expected [0-9]+ bytes, got ([0-9]{1,6}) bytes\))?")
    OTHER = re.compile("")


def is_gone(message: str) -> bool:
    """Return whether an error says that the connection to the stub has ended."""
    return _GONE.search(message) is not None


def refusal(message: str, log: str) -> Refusal:
    """Return what an error of ``-target-select`` means, from its message and what gdb logged before it.

    A host without an address is in the log up to gdb 13, where the error speaks of a missing file, and in the error
    from gdb 16 on.
    """
    if Refusal.NO_HOST.value.search(f"{log}\n{message}"):
        return Refusal.NO_HOST
    return next(kind for kind in Refusal if kind.value.search(message))


def last_words(lines: Iterable[str]) -> str:
    """Return the last line of gdb's standard error that says something, "" where none does.

    From gdb 16 on the last one is a NUL where the machine was killed.
    """
    said = ["".join(filter(str.isprintable, line)).strip() for line in lines]
    return next(filter(None, reversed(said)), "")
