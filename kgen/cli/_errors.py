"""How a command ends: one clear line, an exit code, no traceback."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from kgen.errors import INTERRUPTED, KgenError
from kgen.files import discard
from kgen.host.signals import Terminated, ended_by
from kgen.wording import visible

#: Exit code for ``git bisect run``: this revision cannot be tested.
CANNOT_TELL = 125


#: The environment variable that, set to anything but 0, shows where in kgen's code an error was raised.
TRACEBACK_VARIABLE = "KGEN_TRACEBACK"


NO_MEMORY = "there is not enough memory for this; raise the limit (ulimit -v), or give it a smaller file"


def say_error(line: str) -> None:
    """Print the one line about the exception that is being handled and, if requested, where it was raised."""
    if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
    click.echo(f"kgen: error: {visible(line)}", err=True)


def stdout_fails() -> bool:
    """Return whether standard output cannot be written. Python then does not try again when it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        discard(sys.stdout.fileno())
        return True
    return False


def say_os_error(error: OSError) -> None:
    """Report a failure of the system, such as a full disk or no free descriptor, without a traceback."""
    where = str(error.filename or "") or ("standard output" if stdout_fails() else "")
    say_error(KgenError(error.strerror or str(error), where=where).line)


@contextmanager
def one_line_errors(invocation: Sequence[str]) -> Iterator[None]:
    """Turn errors and signals into a line and an exit code. Only a bug in kgen shows as a traceback.

    With ``--exit-codes bisect`` every failure that prevents a verdict ends in CANNOT_TELL: wrong usage, a full disk, a
    closed pipe, a bug in kgen. ``git bisect run`` takes any other code below 128 for a bad revision. A signal keeps its
    code, which stops the bisection.
    """
    try:
        yield
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        code = _told(error)
        below_signals = code is None or code < 128
        if below_signals and _bisects(invocation) and not _is_clicks(error):
            if code is None and not isinstance(error, BrokenPipeError | SystemExit):
                import traceback

                traceback.print_exc()
            stdout_fails()  # otherwise the write would fail again when Python ends, with Python's exit code
            code = CANNOT_TELL
        if code is None:
            raise
        raise click.exceptions.Exit(code) from error


def _is_clicks(error: BaseException) -> bool:
    """Return whether an exception is no failure: click raises some where the command is done or only help was
    requested."""
    # the latter by name, because the oldest supported click lacks it
    return isinstance(error, click.exceptions.Exit) or type(error).__name__ == "NoArgsIsHelpError"


def _told(error: BaseException) -> int | None:
    """Print in one line what ended a command. Return its exit code, None where click or Python handles the exception.

    They end silently on a BrokenPipeError, as ``kgen ... | head`` should, and show the traceback of a bug.
    """
    came = ended_by(error)
    if came is not None:  # also where something else failed while kgen ended, such as a terminal that was closed
        return _ended(came)
    if _is_clicks(error) or isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, KgenError):
        say_error(error.line)
        return error.exit_code
    if isinstance(error, click.UsageError):
        say_error(_usage(error))
        return error.exit_code
    if isinstance(error, MemoryError):
        say_error(NO_MEMORY)
        return KgenError.exit_code
    if isinstance(error, OSError):
        say_os_error(error)
        return KgenError.exit_code
    if isinstance(error, KeyboardInterrupt):
        click.echo("kgen: interrupted", err=True)
        return INTERRUPTED
    return None


def _bisects(invocation: Sequence[str]) -> bool:
    """Return whether the exit code is for ``git bisect run``."""
    return "--exit-codes=bisect" in invocation or ("--exit-codes", "bisect") in itertools.pairwise(invocation)


def _ended(by: Terminated) -> int:
    """Print which signal ended kgen, where that is still possible. Return the exit code."""
    try:
        click.echo(f"kgen: ended by {by}", err=True)
        sys.stdout.flush()
    except OSError:
        # the terminal is gone
        for descriptor in (1, 2):
            discard(descriptor)
    return 128 + by.number


def _usage(error: click.UsageError) -> str:
    """Return click's message as one line in kgen's form, with the command that shows more help."""
    text = " ".join(error.format_message().split()).removesuffix(".")
    help_of = f"; see '{error.ctx.command_path} --help'" if error.ctx else ""
    return text[:1].lower() + text[1:] + help_of
