"""What all commands share: their place below ``kgen``, one line for every error, and output that is only text."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Sequence

import gdb

from kgen import wording
from kgen.errors import KgenError

_VARIABLE = "KGEN_TRACEBACK"


def printable(text: str) -> str:
    """Return text whose control characters can do nothing to a terminal: guests and files may be hostile. ASCII
    stands for them, which gdb can print in any locale.
    """
    return wording.printable(text, lambda char: f"\\x{ord(char):02x}")


def say(lines: Iterable[str] | str) -> None:
    """Print lines as they are."""
    for line in [lines] if isinstance(lines, str) else lines:
        gdb.write(f"{printable(line)}\n")


class Command(gdb.Command):
    """A command below ``kgen``. The class's docstring is its help; ``words`` are what its argument number ``place``,
    counted from 0, may be."""

    name = ""
    category = gdb.COMMAND_DATA
    words: Sequence[str] = ()
    place = 0

    def __init__(self) -> None:
        super().__init__(f"kgen {self.name}", self.category)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Called by gdb. Raises gdb.GdbError, which gdb prints as one line."""
        self.dont_repeat()
        try:
            self.run(gdb.string_to_argv(argument))
        except KgenError as error:
            raise _told(error.line) from error
        except gdb.GdbError:
            raise
        except gdb.error as error:
            raise _told(f"gdb says: {error}") from error
        except KeyboardInterrupt:
            raise _told("interrupted") from None
        except Exception as error:
            raise _told(f"this is a bug of kgen: {type(error).__name__}: {error}") from error

    def run(self, arguments: list[str]) -> None:
        """Do it. Raises KgenError, gdb.GdbError, gdb.error."""
        raise NotImplementedError

    def complete(self, text: str, word: str) -> list[str]:
        """Return what the word before the cursor may become."""
        before = text[: len(text) - len(word or "")].split()
        return [each for each in self.choices() if each.startswith(word or "")] if len(before) == self.place else []

    def choices(self) -> Sequence[str]:
        """Return what an argument may be, at this moment."""
        return self.words

    def number(self, text: str, what: str, below: int) -> int:
        """Return an argument that is a number from 0 on. Raises gdb.GdbError."""
        try:
            value = int(text, 0)
        except ValueError:
            value = -1
        if not 0 <= value < below:
            raise _told(f"'{text}' is no {what}: give one from 0 to {below - 1}")
        return value

    def refuse(self, arguments: Sequence[str]) -> None:
        """Raise gdb.GdbError where something is left that the command does not take."""
        if arguments:
            raise _told(f"'kgen {self.name}' does not take '{arguments[0]}'; see 'help kgen {self.name}'")


def _told(line: str) -> gdb.GdbError:
    if os.environ.get(_VARIABLE, "0") not in ("", "0"):
        traceback.print_exc()
    return gdb.GdbError(f"kgen: {printable(' '.join(line.split()))}")
