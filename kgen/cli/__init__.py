"""The command line: one module a command, found by looking into this directory.

A module ``kgen/cli/bug_report.py`` is the command ``kgen bug-report`` and exposes ``COMMAND: click.Command``.
A name that starts with an underscore is a helper, not a command. A command's callback returns its exit code
(``None`` is 0). ``kgen --help`` imports every command for its one line of help, so a command module imports
only click, ``kgen.errors`` and ``kgen.spec.kernel_spec`` at its top and the rest of kgen inside its callback.
"""

from __future__ import annotations

import importlib
import itertools
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kgen import __version__
from kgen.errors import KgenError
from kgen.host.signals import Terminated, ended_by, orderly_end
from kgen.offline.inputs import discard

#: Exit code for ``git bisect run``: this revision cannot be tested.
CANNOT_TELL = 125

#: 128 + SIGINT, as a shell reports a program that Ctrl-C ended.
INTERRUPTED = 130

#: Set to anything but 0 to see where in kgen's code an error was raised.
TRACEBACK_VARIABLE = "KGEN_TRACEBACK"


#: Key of click's context under which the command line stands.
INVOCATION = "kgen.invocation"


def say_error(line: str) -> None:
    """Print the one line about the exception that is being handled, and where it was raised if that is asked for."""
    if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
    click.echo(f"kgen: error: {line}", err=True)


def stdout_fails() -> bool:
    """Whether what we have said cannot be written. What is left of it will not be tried once more, at Python's end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        discard(sys.stdout.fileno())
        return True
    return False


def say_os_error(error: OSError) -> None:
    """The disk is full, no process or descriptor is to be had: the system's failure, not a bug to be traced."""
    where = str(error.filename or "") or ("standard output" if stdout_fails() else "")
    say_error(KgenError(error.strerror or str(error), where=where).line)


@contextmanager
def _one_line_errors(invocation: Sequence[str]) -> Iterator[None]:
    """Turn errors and signals into a line and an exit code; only a bug of kgen shows as a traceback.

    With ``--exit-codes bisect`` whatever keeps a command from its verdict ends in CANNOT_TELL, as ``git bisect run``
    takes every other code below 128 for a bad revision: that of a slip on the command line, of a full disk, of a reader
    who has hung up, of our own bug. A signal keeps its code, which stops the bisection.
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
            stdout_fails()  # else it would fail once more when Python ends, with a code of Python's
            code = CANNOT_TELL
        if code is None:
            raise
        raise click.exceptions.Exit(code) from error


def _is_clicks(error: BaseException) -> bool:
    """Whether it is an end in good order: click's way to say that all is done, or that help is all that was wanted."""
    # the latter by name: it is newer than the oldest click we work with
    return isinstance(error, click.exceptions.Exit) or type(error).__name__ == "NoArgsIsHelpError"


def _told(error: BaseException) -> int | None:
    """Say in one line what ended a command, and give its exit code; None where that is left to click and to Python.

    They end quietly on a BrokenPipeError, as ``kgen ... | head`` should, and show a bug's traceback.
    """
    came = ended_by(error)
    if came is not None:  # also where something else failed on the way out, as a terminal that was closed does
        return _ended(came)
    if _is_clicks(error) or isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, KgenError):
        say_error(error.line)
        return error.exit_code
    if isinstance(error, click.UsageError):
        say_error(_usage(error))
        return error.exit_code
    if isinstance(error, OSError):
        say_os_error(error)
        return KgenError.exit_code
    if isinstance(error, KeyboardInterrupt):
        click.echo("kgen: interrupted", err=True)
        return INTERRUPTED
    return None


def _bisects(invocation: Sequence[str]) -> bool:
    """Whether ``git bisect run`` is to get the exit code."""
    return "--exit-codes=bisect" in invocation or ("--exit-codes", "bisect") in itertools.pairwise(invocation)


def _ended(by: Terminated) -> int:
    """Say which signal ended us, where that can still be said; the exit code."""
    try:
        click.echo(f"kgen: ended by {by}", err=True)
        sys.stdout.flush()
    except OSError:
        # the terminal is gone
        for descriptor in (1, 2):
            discard(descriptor)
    return 128 + by.number


def _usage(error: click.UsageError) -> str:
    """click's sentences as one line in our form, with the way to more help."""
    text = " ".join(error.format_message().split()).removesuffix(".")
    help_of = f"; see '{error.ctx.command_path} --help'" if error.ctx else ""
    return text[:1].lower() + text[1:] + help_of


class CommandDirectory(click.Group):
    """A click group whose commands are the modules of one directory, imported when they are needed."""

    def __init__(self, *args: Any, package: str = __name__, path: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._package = package
        self._path = path if path is not None else str(Path(__file__).parent)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted, without importing any."""
        modules = (module.name for module in pkgutil.iter_modules([self._path]))
        return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command. Raises KgenError when its module does not keep the convention."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}")
        command = getattr(module, "COMMAND", None)
        if not isinstance(command, click.Command):
            raise KgenError("a command module must define COMMAND, a click.Command", where=module.__name__)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name is a usage error that offers the nearest ones."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, known)
            ctx.fail(f"no such command {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        invocation = parent.meta[INVOCATION] if parent else ("kgen", *args)
        with _one_line_errors(invocation):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[INVOCATION] = invocation
        return context

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; a non-zero integer that it returns becomes the exit code."""
        with _one_line_errors(ctx.meta[INVOCATION]), orderly_end():
            result = super().invoke(ctx)
        if isinstance(result, int) and result:
            ctx.exit(result)


@click.group(cls=CommandDirectory, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kgen", message="%(prog)s %(version)s")
def main() -> None:
    """Is a LOCKed read-modify-write on memory-mapped I/O atomic here?

    kgen generates a bare-metal SMP kernel that asks, boots it, inspects the frozen machine through
    the debugger and states a verdict.
    """
