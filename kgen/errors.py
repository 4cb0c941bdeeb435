"""The one error tree: each stage of the pipeline raises its own class.

The command line turns any of these into one line (what, where, what to do) and an exit code;
nothing below it prints or exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kgen.wording import visible

#: 128 + SIGINT, as a shell reports a program that Ctrl-C ended.
INTERRUPTED = 130


class KgenError(Exception):
    """Something kgen can explain in one line.

    ``message`` says what went wrong, ``where`` names the place (a file and line, an option, an address),
    ``hint`` says what to do about it.
    """

    exit_code = 9

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message = message
        self.where = where
        self.hint = hint
        super().__init__(self.line)

    @property
    def line(self) -> str:
        """The whole error as one line of text, which a terminal may show whatever its parts are."""
        text = f"{self.where}: {self.message}" if self.where else self.message
        text = f"{text}; {self.hint}" if self.hint else text
        return visible(" ".join(text.split()))


class SpecError(KgenError):
    """The request itself is wrong: an unknown name, a value out of range. Exit 2, as a usage error."""

    exit_code = 2


class SourceError(KgenError):
    """A template cannot be rendered."""


class AsmError(KgenError):
    """A statement does not assemble, or its bytes are not what the statement says."""


class LinkError(KgenError):
    """The assembly cannot be laid out as an ELF, or an ELF is not one of ours."""


class MediaError(KgenError):
    """An image cannot be made."""


class OutputError(KgenError):
    """A file cannot be written."""

    exit_code = 2


class MachineError(KgenError):
    """The machine cannot be started or controlled."""


class MachineStuck(MachineError):
    """The machine lives but makes no progress; another attempt may well succeed."""


class GuestCrash(KgenError):
    """The guest or the emulator died."""

    exit_code = 10


class PlatformUnavailable(KgenError):
    """The platform is unavailable here; the message says why."""

    exit_code = 8


class DebuggerError(KgenError):
    """gdb or the stub failed, or did not answer within its deadline."""


class ProtocolError(KgenError):
    """A serial record cannot be understood."""


def unknown(what: str, name: str, known: Iterable[str], more: str = "") -> SpecError:
    """Return the error for a name that is in no registry, with the name that it is a slip of; ``more`` says what else
    is allowed.
    """
    names = sorted(known)
    folded = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.7)
    hint = f"did you mean {folded[near[0]]}?" if near else f"known: {', '.join(names)}{more}"
    return SpecError(f"unknown {what} '{name}'", hint=hint)


def ending_with(error: KgenError, left: str) -> KgenError:
    """Return the same error, whose line ends with how the machine was left."""
    hint = "; ".join(part for part in (error.hint, left) if part)
    return type(error)(error.message, where=error.where, hint=hint)
