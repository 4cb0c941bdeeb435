"""What all commands share: the prefix ``kgen``, one line for every error, and output of plain text."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Sequence

import gdb

from kgen import wording
from kgen.errors import KgenError

_VARIABLE = "KGEN_TRACEBACK"


def printable(text: str) -> str:
    """Return text with ASCII in place of control characters: guests and files may be hostile to a terminal, and gdb can
    print ASCII in any locale."""
    return wording.visible(text)


def say(lines: Iterable[str] | str) -> None:
    """Print lines unchanged."""
    for line in [lines] if isinstance(lines, str) else lines:
        gdb.write(f"{printable(line)}\n")


class Command(gdb.Command):
    """A command below ``kgen``. The class's docstring is its help. ``words`` are the possible values of its argument
    number ``place``, counted from 0."""

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
        """Carry out the command. Raises KgenError, gdb.GdbError, gdb.error."""
        raise NotImplementedError

    def complete(self, text: str, word: str) -> list[str]:
        """Return the completions of the word before the cursor."""
        before = text[: len(text) - len(word or "")].split()
        return [each for each in self.choices() if each.startswith(word or "")] if len(before) == self.place else []

    def choices(self) -> Sequence[str]:
        """Return the values that an argument may have now."""
        return self.words

    def number(self, text: str, what: str, below: int) -> int:
        """Return an argument as a number from 0 on. Raises gdb.GdbError."""
        try:
            value = int(text, 0)
        except ValueError:
            value = -1
        if not 0 <= value < below:
            raise _told(f"'{text}' is no {what}: give one from 0 to {below - 1}")
        return value

    def refuse(self, arguments: Sequence[str]) -> None:
        """Raise gdb.GdbError for an argument that the command does not accept."""
        if arguments:
            raise _told(f"'kgen {self.name}' does not take '{arguments[0]}'; see 'help kgen {self.name}'")


def _told(line: str) -> gdb.GdbError:
    if os.environ.get(_VARIABLE, "0") not in ("", "0"):
        traceback.print_exc()
    return gdb.GdbError(f"kgen: {printable(' '.join(line.split()))}")
